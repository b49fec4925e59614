"""What a guest says about its process (``guest.json``), and whether that process still lives."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from adapters.lab.documents import read_document, write_document
from adapters.lab.layout import MachineFolder
from vault.errors import NotFound

FORMAT, VERSION = "leeward-lab-guest", 1

_GONE = ("Z", "X")
BOOTING, RUNNING, STOPPING, STOPPED, FAILED = "booting", "running", "stopping", "stopped", "failed"
ENDING = (STOPPING, STOPPED, FAILED)
"""A process that says so lives for moments only."""


@dataclass(frozen=True)
class GuestState:
    """``start_ticks`` is the kernel's start time of ``pid``: together they name one process for ever.

    ``reason`` is why a guest gave up. ``address`` and ``token`` are there while it is RUNNING or
    STOPPING."""

    state: str
    pid: int
    start_ticks: int
    reason: str = ""
    address: str = ""
    token: str = ""
    booted_at_ns: int = 0
    in_production: bool = False

    def save(self, folder: MachineFolder) -> None:
        write_document(folder.guest, FORMAT, VERSION, asdict(self), mode=0o600)

    @classmethod
    def load(cls, folder: MachineFolder) -> GuestState | None:
        """None: no guest ever started. Raises ``Damaged``."""
        try:
            return cls(**read_document(folder.guest, FORMAT, VERSION))
        except NotFound:
            return None

    def alive(self) -> bool:
        return start_ticks(self.pid) == self.start_ticks


def _stat_fields(pid: int) -> list[str] | None:
    """The fields of ``/proc/<pid>/stat`` after the command's name; None when there is no such process."""
    try:
        raw = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return raw.rpartition(")")[2].split()


def start_ticks(pid: int) -> int | None:
    """When the process started, in the kernel's ticks; None when it is gone or only waits to be reaped."""
    fields = _stat_fields(pid)
    if fields is None or fields[0] in _GONE:
        return None
    return int(fields[19])


def process_mark(pid: int, ticks: int) -> str:
    """The environment entry by which the commands that a guest runs are known as its own."""
    return f"LAB_GUEST={pid}.{ticks}"


def kill_guest(state: GuestState) -> bool:
    """SIGKILL the guest and every command it runs; whether there was anything left to kill.

    A command belongs to the guest when it is in the guest's session *and* carries its mark: after the guest is gone
    its number may name another session."""
    processes = [state.pid] if state.alive() else []
    mark = process_mark(state.pid, state.start_ticks).encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat_fields(int(entry.name))
            in_session = fields is not None and fields[0] not in _GONE and int(fields[3]) == state.pid
            if in_session and mark in _environment(int(entry.name)):
                processes.append(int(entry.name))
    for pid in processes:
        _kill(pid)
    return bool(processes)


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
