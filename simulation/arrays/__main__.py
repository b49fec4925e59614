"""An array as a process: ``python -m simulation.arrays FOLDER [--stop]``; the folder has its :class:`ArraySettings`.

Its death is real: it dies when the host of its lab site does.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from adapters.lab.faults import Fault, SiteFaults, link_guard
from simulation.arrays.array import Array
from simulation.arrays.cim_server import CimServer
from simulation.arrays.process import stop, tell_ready
from simulation.arrays.settings import ArraySettings

LOOK_AGAIN_S = 0.05
DIED = 9


def main(arguments: list[str]) -> None:
    folder = Path(arguments[0])
    if "--stop" in arguments:
        stop(folder)
        return
    settings = ArraySettings.load(folder)
    faults = SiteFaults(settings.lab_root, settings.site)
    guard = link_guard(settings.lab_root, settings.site, settings.peer_site)
    array = Array(
        settings.folder,
        settings.name,
        guard=lambda: guard(0),
        link_port=settings.link_port,
        data_port=settings.data_port,
    )
    for pool, size in settings.pools.items():
        array.create_pool(pool, size)
    existing = {volume.name for volume in array.state.volumes.values()}
    for wanted in settings.volumes:
        if wanted.name not in existing:
            array.expose([array.create_volume(wanted.name, wanted.pool, wanted.size).id], wanted.host)
    array.connect(settings.peer, settings.peer_link_port)
    CimServer(array, settings.folder, user=settings.user, password=settings.password, port=settings.cim_port)
    tell_ready(settings.folder)
    while Fault.HOST_DEAD not in faults.active():
        time.sleep(LOOK_AGAIN_S)
    os._exit(DIED)  # at once: whatever its threads are about to do, they do not


if __name__ == "__main__":
    main(sys.argv[1:])
