"""An array as a process: ``python -m simulation.arrays SETTINGS``, a JSON file as :class:`ArraySettings`.

Its death is real: with ``lab_root`` it dies when the lab site's host does.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from adapters.lab.faults import Fault, SiteFaults, link_guard
from simulation.arrays.array import Array
from simulation.arrays.cim_server import CimServer
from simulation.arrays.settings import ArraySettings

LOOK_AGAIN_S = 0.05


def main(arguments: list[str]) -> int:
    settings = ArraySettings.model_validate_json(Path(arguments[0]).read_text())
    faults = SiteFaults(settings.lab_root, settings.site)
    guard = link_guard(settings.lab_root, settings.site, settings.peer_site)
    array = Array(
        settings.folder,
        settings.name,
        guard=lambda: guard(0),
        link_port=settings.link_port,
        data_port=settings.data_port,
    )
    array.create_pool(settings.pool, settings.pool_size)
    array.connect(settings.peer, settings.peer_link_port)
    CimServer(array, settings.folder, user=settings.user, password=settings.password, port=settings.cim_port)
    settings.ready.touch()
    parent = os.getppid()
    while os.getppid() == parent:
        if Fault.HOST_DEAD in faults.active():
            os._exit(9)
        threading.Event().wait(LOOK_AGAIN_S)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
