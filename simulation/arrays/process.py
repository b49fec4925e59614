"""Starting and stopping the process of a simulated array; which one it is, is a file in its folder."""

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
from simulation.arrays.settings import ArraySettings
from vault.errors import InvalidState, NotFound

FORMAT, VERSION = "leeward-simulated-array-process", 1
STARTS_WITHIN_S = 30.0
LOOK_EVERY_S = 0.05


def tell_ready(folder: Path) -> None:
    """Say that this process is the array of ``folder``."""
    body = {"pid": os.getpid(), "start_ticks": start_ticks(os.getpid())}
    write_document(_file(folder), FORMAT, VERSION, body)


def start(settings: ArraySettings) -> None:
    """Start the array in the background and wait until it serves.

    Raises ``InvalidState`` with the end of its log when it does not come up."""
    settings.save()
    log = settings.folder / "array.log"
    with log.open("ab") as stream:
        started = subprocess.Popen(
            [sys.executable, "-m", "simulation.arrays", str(settings.folder)],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    deadline = time.monotonic() + STARTS_WITHIN_S
    while (told := _told(settings.folder)) is None or told["pid"] != started.pid:
        if started.poll() is not None or time.monotonic() > deadline:
            started.kill()
            started.wait()
            said = log.read_text(errors="replace").strip().splitlines()[-1:]
            raise InvalidState(
                f"the simulated array {settings.name} did not start: {' '.join(said)}",
                where=str(log),
                remedy="read that log",
            )
        time.sleep(LOOK_EVERY_S)


def stop(folder: Path) -> bool:
    """End the array of ``folder``, as when its power fails, and wait until it is gone; False when none runs."""
    told = _told(folder)
    if told is None or start_ticks(told["pid"]) != told["start_ticks"]:
        return False
    os.kill(told["pid"], signal.SIGKILL)
    while start_ticks(told["pid"]) == told["start_ticks"]:
        time.sleep(LOOK_EVERY_S)
    return True


def _file(folder: Path) -> Path:
    return folder / "process.json"


def _told(folder: Path) -> dict[str, Any] | None:
    try:
        return read_document(_file(folder), FORMAT, VERSION)
    except NotFound:
        return None
