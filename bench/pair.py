"""A lab machine without a guest, and its replica: what the replication benches work on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from adapters.lab.hypervisor import LabHypervisor
from adapters.lab.layout import LabLayout
from adapters.lab.vdisk import VirtualDisks
from adapters.registry import Adapters
from bench.measuring import BLOCK, peak_memory
from replication.cipher import write_new_key
from replication.ports import ChangeSource, ReplicaStore
from replication.transport.pki import Pki
from simulation.free_ports import free_address
from vault.domain import Progress
from vault.errors import Unreachable
from vault.inventory import Inventory

MACHINE, DISK = "bench", "disk"
STARTS_WITHIN_S = 30


def silent(_: Progress) -> None:
    return


class Pair:
    """One machine of one disk at site ``primary``, replicated to ``recovery``.

    With ``over_tls`` the replica is encrypted and behind a master target in a process of its own, reached over mutual
    TLS; :meth:`close` ends it.
    """

    def __init__(
        self, folder: Path, size: int, image: Callable[[Path, int], None] | None = None, *, over_tls: bool = False
    ) -> None:
        networks = {"networks": {"production": {}, "isolated": {"kind": "isolated"}}}
        sites = {name: {"fabric": "lab", **networks} for name in ("primary", "recovery")}
        if over_tls:
            folder.mkdir(parents=True, exist_ok=True)
            _behind_tls(folder, sites)
        self._master_target: subprocess.Popen[bytes] | None = None
        inventory = Inventory.model_validate(
            {
                "version": 1,
                "sites": sites,
                "policies": {"bench": {"frequency": "30s"}},
                "network_mappings": [
                    {
                        "source": "primary/production",
                        "target": "recovery/production",
                        "test": "recovery/isolated",
                        "source_test": "primary/isolated",
                    }
                ],
                "machines": {
                    MACHINE: {
                        "site": "primary",
                        "target": "recovery",
                        "network": "production",
                        "policy": "bench",
                        "lab": {"disks": [{"name": DISK, "size": f"{size}B"}]},
                    }
                },
            }
        )
        lab_root = folder / "lab"
        self._source_site = LabHypervisor(lab_root, "primary", inventory)
        self._target_site = LabHypervisor(lab_root, "recovery", inventory)
        self._adapters = Adapters(inventory, folder) if over_tls else None
        self._source_site.define(MACHINE)
        self._folder = LabLayout(lab_root).site("primary").machine(MACHINE)
        self.image = self._folder.image(DISK)
        if image is not None:
            image(self.image, size)
        if over_tls:
            self._start_master_target(folder, inventory)

    @property
    def source(self) -> ChangeSource:
        return self._source_site.change_source(MACHINE)

    @property
    def store(self) -> ReplicaStore:
        """As the source site reaches it."""
        if self._adapters is None:
            return self._target_site.replica_store(MACHINE)
        return self._adapters.store_across("primary", "recovery", MACHINE)

    def master_target_memory(self) -> int:
        """Bytes of the master target's process at its peak, so far."""
        assert self._master_target is not None
        return peak_memory(self._master_target.pid)

    def _start_master_target(self, folder: Path, inventory: Inventory) -> None:
        vault = folder / "leeward.yaml"
        vault.write_text(inventory.model_dump_json())
        with (folder / "master-target.log").open("wb") as log:
            self._master_target = subprocess.Popen(
                [sys.executable, "-m", "console", "master-target", "--site", "recovery"],
                env={**os.environ, "LEEWARD_VAULT": str(vault), "LEEWARD_DATA": str(folder)},
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + STARTS_WITHIN_S
        while True:
            try:
                self.store.exists()
            except Unreachable:
                if self._master_target.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit((folder / "master-target.log").read_text()) from None
                time.sleep(0.1)
            else:
                return

    def close(self) -> None:
        if self._master_target is not None:
            self._master_target.terminate()
            self._master_target.wait()

    def enable(self) -> None:
        store = self.store
        store.remove()
        store.create(self.source.disks(), self.source.start_tracking())

    def write_blocks(self, offsets: list[int], block: bytes) -> None:
        """Through the storage stack, as a guest would: logged, then written."""
        disks = VirtualDisks(self._folder)
        try:
            for number, offset in enumerate(offsets):
                disks.write(DISK, offset, number.to_bytes(8, "little") + block[8:BLOCK])
            disks.flush()
        finally:
            disks.close()


def _behind_tls(folder: Path, sites: dict[str, dict[str, object]]) -> None:
    """Certificates for both sites, a key for the replica, and a free port for the master target."""
    pki = Pki(folder / "pki")
    pki.init(datetime.now(UTC))
    for site in sites.values():
        site["pki"] = f"file:{folder / 'pki'}"
    for name in sites:
        pki.issue(name, datetime.now(UTC))
    write_new_key(folder / "recovery.key")
    sites["recovery"] |= {"master_target": free_address(), "replica_key": f"file:{folder / 'recovery.key'}"}
