"""Starting and stopping the process of a simulated fabric; which one it is, is a file in its folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from adapters.lab.documents import read_document, write_document
from adapters.lab.guest_state import start_ticks
from vault.errors import InvalidState, NotFound

FORMAT, VERSION = "leeward-simulated-hyperv-process", 1
STARTS_WITHIN_S = 60.0
STOPS_WITHIN_S = 20.0
LOOK_EVERY_S = 0.05


def _file(root: Path) -> Path:
    return root / "hyperv" / "process.json"


def tell_ready(root: Path, running: list[str]) -> None:
    """Say that this process serves the fabric, and which ``site/machine`` run."""
    body = {"pid": os.getpid(), "start_ticks": start_ticks(os.getpid()), "running": running}
    write_document(_file(root), FORMAT, VERSION, body)


def start(root: Path, inventory: Path, *, time_scale: float) -> list[str]:
    """Start the fabric in the background; the ``site/machine`` that run once it is ready.

    Raises ``InvalidState`` with the end of its log when it does not come up."""
    folder = _file(root).parent
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "hyperv.log"
    options = ["--root", str(root), "--inventory", str(inventory), "--time-scale", str(time_scale)]
    with log.open("ab") as stream:
        started = subprocess.Popen(
            [sys.executable, "-m", "simulation.hyperv", *options],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + STARTS_WITHIN_S
    while (told := _told(root)) is None or told["pid"] != started.pid:
        if started.poll() is not None or time.monotonic() > deadline:
            started.kill()
            started.wait()
            said = log.read_text(errors="replace").strip().splitlines()[-1:]
            raise InvalidState(
                f"the simulated hosts did not start: {' '.join(said)}", where=str(log), remedy="read that log"
            )
        time.sleep(LOOK_EVERY_S)
    return [str(machine) for machine in told["running"]]


def stop(root: Path) -> bool:
    """Stop the fabric that serves from ``root``, and wait until it is gone; False when none does."""
    told = _told(root)
    if told is None or start_ticks(told["pid"]) != told["start_ticks"]:
        return False
    os.kill(told["pid"], signal.SIGTERM)
    deadline = time.monotonic() + STOPS_WITHIN_S
    while start_ticks(told["pid"]) == told["start_ticks"]:
        if time.monotonic() > deadline:
            os.kill(told["pid"], signal.SIGKILL)
            deadline = float("inf")
        time.sleep(LOOK_EVERY_S)
    return True


def _told(root: Path) -> dict[str, Any] | None:
    try:
        return read_document(_file(root), FORMAT, VERSION)
    except NotFound:
        return None
