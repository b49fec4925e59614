"""A lab machine's guest: boots from its disks, recovers, writes transactions, answers.

Run by the hypervisor as ``python -m adapters.lab.guest <lab root> <machine folder>``. It leaves the process that
started it: it is in a session of its own and a child of init, so that it lives on when a worker dies.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from adapters.lab.database import Geometry, Recovered, read_geometry, recover_database, write_transaction
from adapters.lab.guest_http import GuestServer
from adapters.lab.guest_state import BOOTING, FAILED, RUNNING, STOPPED, STOPPING, GuestState, process_mark, start_ticks
from adapters.lab.layout import LabLayout, MachineFolder
from adapters.lab.ledger import Ledger, last_acknowledged
from adapters.lab.lun import Disks, open_disks
from adapters.lab.network import PRODUCTION, ProductionLease
from vault.errors import LeewardError

LONGEST_HOLD_NS = 2_000_000_000
LARGEST_BATCH = 64
"""Transactions that are made durable, and acknowledged, together when the guest is under load."""
LARGEST_BACKLOG_S = 1.0
"""A guest that was held up catches up at most this much of its load."""


class Guest:
    """Everything but the process: boot, write, hold, stop."""

    def __init__(self, layout: LabLayout, folder: MachineFolder) -> None:
        self._layout = layout
        self._folder = folder
        self._stop = threading.Event()
        self._hold = threading.Condition()
        self._hold_wanted = False
        self._held_until_ns = 0
        self._rate = 0.0
        self.before_stopping: Callable[[], None] = lambda: None

    def boot(self) -> None:
        """Open and recover the disks, join the network.

        Raises an error of ``vault.errors`` or ``OSError`` when the machine cannot run."""
        self._disks: Disks = open_disks(self._folder)
        self._definition = self._disks.definition
        self._names = [disk.name for disk in self._definition.disks]
        self._geometry: Geometry = read_geometry(self._read, len(self._names))
        self._recovered: Recovered = recover_database(self._read, self._geometry)
        self._last = self._recovered.last
        shared = self._layout.ledger(self._definition.identity)
        self.in_production = self._definition.network_kind == PRODUCTION
        self._lease = ProductionLease(self._layout, self._definition) if self.in_production else None
        self.booted_at_ns = time.time_ns()
        self._ledger = Ledger(shared if self.in_production else self._folder.private_ledger)
        self._acknowledged_at_boot = self._ledger.boot(self._last, self.booted_at_ns)
        if not self.in_production:
            self._acknowledged_at_boot = last_acknowledged(shared)
        self.command_folder().mkdir(exist_ok=True)

    def run(self) -> None:
        """Write transactions at the machine's rate until told to stop; then everything is on the disks."""
        rate = self._definition.transactions_per_second
        origin, done = time.monotonic(), 0
        measured_at, measured = origin, 0
        while not self._stop.is_set():
            if self._hold_wanted:
                self._hold_writes()
            now = time.monotonic()
            if now - measured_at >= 1.0:
                self._rate = (done - measured) / (now - measured_at)
                measured_at, measured = now, done
                if self._lease:
                    self._lease.try_again()
            due = int((now - origin) * rate) - done
            if due > rate * LARGEST_BACKLOG_S + 1:
                origin = now - (done / rate) - LARGEST_BACKLOG_S
            if due > 0:
                done += self._write_batch(min(due, LARGEST_BATCH))
            else:
                self._pause(max(0.0, origin + (done + 1) / rate - now))
        self._disks.flush()

    def close(self) -> None:
        self._disks.close()
        self._ledger.close()

    def _write_batch(self, count: int) -> int:
        begun = []
        for number in range(self._last + 1, self._last + 1 + count):
            begin_ns = time.time_ns()
            write_transaction(self._write, self._geometry, self._definition.identity, number, begin_ns)
            begun.append((number, begin_ns))
        self._disks.flush()
        now_ns = time.time_ns()
        self._ledger.acknowledge([(number, now_ns, begin_ns) for number, begin_ns in begun])
        self._last += count
        return count

    def _pause(self, seconds: float) -> None:
        with self._hold:
            if not self._hold_wanted and not self._stop.is_set():
                self._hold.wait(min(seconds, 0.5))

    def _hold_writes(self) -> None:
        with self._hold:
            self._held_until_ns = time.monotonic_ns() + LONGEST_HOLD_NS
            self._hold.notify_all()
            self._hold.wait_for(lambda: not self._hold_wanted, LONGEST_HOLD_NS / 1e9)
            self._hold_wanted, self._held_until_ns = False, 0

    def _read(self, disk: int, offset: int, length: int) -> bytes:
        return self._disks.read(self._names[disk], offset, length)

    def _write(self, disk: int, offset: int, data: bytes) -> None:
        self._disks.write(self._names[disk], offset, data)

    # What the HTTP face calls, from its threads:

    def report(self) -> dict[str, Any]:
        """The fields of ``vault.domain.GuestTransactions``, and the present ``rate`` in transactions a second."""
        last, slots = self._last, self._geometry.slots
        first = max(min(1, last), self._recovered.first, last - slots + 2)
        return {
            "first": first,
            "last": last,
            "damaged": self._recovered.damaged,
            "held_at_boot": self._recovered.last,
            "acknowledged_at_boot": self._acknowledged_at_boot,
            "rate": round(self._rate, 1),
        }

    def quiesce(self) -> int:
        """Finish the transaction under way and begin no other; until when (monotonic ns), 0 when it did not work."""
        with self._hold:
            self._hold_wanted = True
            self._hold.notify_all()
            self._hold.wait_for(lambda: self._held_until_ns > 0, LONGEST_HOLD_NS / 1e9)
            return self._held_until_ns

    def resume(self) -> bool:
        """Whether writes were held until now."""
        with self._hold:
            was_held = self._held_until_ns > 0
            self._hold_wanted = False
            self._hold.notify_all()
            return was_held

    def shut_down(self) -> None:
        with self._hold:
            if not self._stop.is_set():
                self.before_stopping()
            self._stop.set()
            self._hold_wanted = False
            self._hold.notify_all()

    def command_folder(self) -> Path:
        return self._folder.path / "files"

    def command_environment(self) -> dict[str, str]:
        name, _, mark = process_mark(os.getpid(), start_ticks(os.getpid()) or 0).partition("=")
        return {
            name: mark,
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": os.environ.get("LANG", "C.UTF-8"),
            "HOME": str(self.command_folder()),
            "MACHINE": self._definition.name,
            "MACHINE_IDENTITY": self._definition.identity,
            "MACHINE_ADDRESS": self.address,
            "MACHINE_NETWORK": self._definition.network,
        }

    address = ""


def leave_parent(folder: MachineFolder) -> None:
    """Go on in a process that the starter need not wait for; the starter's child ends once ``guest.json`` names it."""
    told, tell = os.pipe()
    child = os.fork()
    if child:
        ticks = start_ticks(child)
        GuestState(BOOTING, child, ticks or 0).save(folder)
        os._exit(0 if ticks else 1)
    os.close(tell)
    os.setsid()
    os.read(told, 1)
    os.close(told)


def main(arguments: list[str]) -> int:
    root, folder = Path(arguments[0]), MachineFolder(Path(arguments[1]))
    leave_parent(folder)
    pid, ticks = os.getpid(), start_ticks(os.getpid()) or 0
    guest = Guest(LabLayout(root), folder)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=guest.shut_down, daemon=True).start())
    state = GuestState(BOOTING, pid, ticks)
    try:
        guest.boot()
        token = os.urandom(16).hex()
        server = GuestServer(guest, token)
        guest.address = server.address
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        state = replace(
            state,
            state=RUNNING,
            address=server.address,
            token=token,
            booted_at_ns=guest.booted_at_ns,
            in_production=guest.in_production,
        )
        state.save(folder)
        guest.before_stopping = partial(replace(state, state=STOPPING).save, folder)
        guest.run()
        server.server_close()
        guest.close()
        replace(state, state=STOPPED, address="", token="").save(folder)
    except (LeewardError, OSError) as error:
        traceback.print_exc()
        replace(state, state=FAILED, reason=str(error), address="", token="").save(folder)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
