"""``engine.json``: what the running embedded engine says about itself. Import-light: the command line reads it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

FORMAT = "leeward-engine"
VERSION = 1


class Process(NamedTuple):
    """A process that can be recognised even after its number was given to another one."""

    pid: int
    started: str
    """The kernel's start time of the process, from ``/proc/<pid>/stat``."""


class Engine(NamedTuple):
    address: str
    ui: str
    namespace: str
    supervisor: Process
    ready: bool
    time_scale: float
    processes: dict[str, Process]
    """``temporal`` and each worker by name."""


def read_engine(path: Path) -> Engine | None:
    """The engine that runs, or None. A file left by a supervisor that is gone does not count."""
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    if content.get("format") != FORMAT or content.get("version") != VERSION:
        return None
    engine = Engine(
        address=content["address"],
        ui=content["ui"],
        namespace=content["namespace"],
        supervisor=Process(*content["supervisor"]),
        ready=content["ready"],
        time_scale=content["time_scale"],
        processes={name: Process(*process) for name, process in content["processes"].items()},
    )
    return engine if is_alive(engine.supervisor) else None


def write_engine(path: Path, engine: Engine) -> None:
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps({"format": FORMAT, "version": VERSION, **engine._asdict()}, indent=2))
    temporary.replace(path)


def this_process() -> Process:
    return process_of(os.getpid())


def process_of(pid: int) -> Process:
    return Process(pid, _start_time(pid) or "")


def is_alive(process: Process) -> bool:
    return bool(process.started) and _start_time(process.pid) == process.started


def _start_time(pid: int) -> str | None:
    """None: no such process, or only its zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, start_time = fields[0], fields[19]
    return None if state == "Z" else start_time
