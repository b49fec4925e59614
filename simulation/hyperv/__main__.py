"""A simulated Hyper-V fabric as a process: ``python -m simulation.hyperv --root DIR --inventory FILE``.

It serves all hosts of the inventory's Hyper-V sites and their VMM servers, makes and starts their machines, and ends
with SIGTERM or by ``--stop`` from another shell; its guests run on. What it remembers is in ``DIR/hyperv``, the
machines are those of the lab in ``DIR/lab``.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from simulation.hyperv import process
from simulation.hyperv.hosts import Hosts
from simulation.vmm.servers import VmmServers
from vault.loading import load_inventory


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m simulation.hyperv", description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--inventory", type=Path)
    what.add_argument("--stop", action="store_true")
    parser.add_argument("--time-scale", type=float, default=1.0)
    given = parser.parse_args(arguments)
    if given.stop:
        return 0 if process.stop(given.root) else 1
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    inventory = load_inventory(given.inventory)
    with Hosts(given.root, inventory, time_scale=given.time_scale) as hosts, VmmServers(hosts, inventory):
        running = hosts.fabric.start_all()
        process.tell_ready(given.root, running)
        ended.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
