"""A process server and a master target as real processes, with a lab machine's disks between them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from lab_support import AWAY, HOME, Lab, lab_machine, make_inventory
from transport_wire import until_free

from adapters.lab.vdisk import VirtualDisks
from adapters.registry import Adapters
from replication.cipher import write_new_key
from replication.ports import ReplicaStore
from replication.transport.pki import Pki
from simulation.free_ports import free_address
from vault.domain import Relationship
from vault.errors import Unreachable

STARTS_WITHIN_S = 30
DISK = 24 << 20


class Sites:
    """Two sites of one lab: this process is the process server of ``primary``; ``secondary`` has a master target."""

    def __init__(self, folder: Path, *, disks: dict[str, str] | None = None) -> None:
        self.address = free_address()
        self.data = folder / "data"
        self.vault = folder / "leeward.yaml"
        pki = Pki(folder / "pki")
        pki.init(datetime.now(UTC))
        for site in (HOME, AWAY):
            pki.issue(site, datetime.now(UTC))
        write_new_key(folder / "secondary.key")
        reference = {"pki": f"file:{folder / 'pki'}"}
        self.inventory = make_inventory(
            {"db": lab_machine(disks=disks or {"system": "2MiB", "data": f"{DISK}B"})},
            primary=reference,
            secondary={
                **reference,
                "master_target": self.address,
                "replica_key": f"file:{folder / 'secondary.key'}",
            },
        )
        self.vault.write_text(self.inventory.model_dump_json())
        self.lab = Lab(self.data / "lab", self.inventory)
        self.lab.site().define("db")
        self.adapters = Adapters(self.inventory, self.data)
        self.master_target: subprocess.Popen[bytes] | None = None
        self.log = (folder / "master-target.log").open("wb")

    @property
    def relationship(self) -> Relationship:
        return self.inventory.relationship("db")

    @property
    def store(self) -> ReplicaStore:
        """As the process server reaches it."""
        return self.adapters.store_across(HOME, AWAY, "db")

    def start_master_target(self) -> subprocess.Popen[bytes]:
        self.master_target = subprocess.Popen(
            [sys.executable, "-m", "console", "master-target", "--site", AWAY],
            env={**os.environ, "LEEWARD_VAULT": str(self.vault), "LEEWARD_DATA": str(self.data)},
            cwd=Path(__file__).parents[2],
            stderr=self.log,
        )
        deadline = time.monotonic() + STARTS_WITHIN_S
        while True:
            try:
                self.store.exists()
            except Unreachable:
                assert self.master_target.poll() is None, Path(self.log.name).read_text()
                assert time.monotonic() < deadline, Path(self.log.name).read_text()
                time.sleep(0.05)
            else:
                return self.master_target

    def kill(self) -> None:
        if self.master_target is not None:
            self.master_target.kill()
            self.master_target.wait()

    def write(self, disk: str, offset: int, data: bytes) -> None:
        disks = VirtualDisks(self.lab.folder())
        try:
            disks.write(disk, offset, data)
            disks.flush()
        finally:
            disks.close()

    def image(self, disk: str) -> bytes:
        return self.lab.folder().image(disk).read_bytes()

    def replica(self, disk: str) -> bytes:
        """As a site worker beside the master target reads it."""
        view = self.lab.site(AWAY).replica_store("db").view(disk)
        try:
            return view.read(0, view.size)
        finally:
            view.close()


def until_reached(operation: Callable[[], object]) -> None:
    """Until the master target listens, and the lock of a session that was killed is free.

    A resynchronization is no way out: nothing that is done here may make one necessary."""
    deadline = time.monotonic() + STARTS_WITHIN_S
    while True:
        try:
            until_free(operation)
        except Unreachable:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        else:
            return


def until_true(question: Callable[[], bool]) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_S
    while not question():
        assert time.monotonic() < deadline
        time.sleep(0.02)
