"""A lab machine without a guest, and its replica: what the replication benches work on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from adapters.lab.hypervisor import LabHypervisor
from adapters.lab.layout import LabLayout
from adapters.lab.vdisk import VirtualDisks
from bench.measuring import BLOCK
from replication.ports import ChangeSource, ReplicaStore
from vault.domain import Progress
from vault.inventory import Inventory

MACHINE, DISK = "bench", "disk"


def silent(_: Progress) -> None:
    return


class Pair:
    """One machine of one disk at site ``primary``, replicated to ``recovery``."""

    def __init__(self, folder: Path, size: int, image: Callable[[Path, int], None] | None = None) -> None:
        inventory = Inventory.model_validate(
            {
                "version": 1,
                "sites": {
                    name: {"fabric": "lab", "networks": {"production": {}, "isolated": {"kind": "isolated"}}}
                    for name in ("primary", "recovery")
                },
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
        self._source_site = LabHypervisor(folder, "primary", inventory)
        self._target_site = LabHypervisor(folder, "recovery", inventory)
        self._source_site.define(MACHINE)
        self._folder = LabLayout(folder).site("primary").machine(MACHINE)
        self.image = self._folder.image(DISK)
        if image is not None:
            image(self.image, size)

    @property
    def source(self) -> ChangeSource:
        return self._source_site.change_source(MACHINE)

    @property
    def store(self) -> ReplicaStore:
        return self._target_site.replica_store(MACHINE)

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
