"""Where the lab keeps what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class MachineFolder:
    """The files of one machine at one site."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    def beside(self, what: str) -> MachineFolder:
        """Where the machine lies while it is ``making``, ``retired`` or ``removed``."""
        return MachineFolder(self.path.with_name(f".{what}-{self.name}"))

    @property
    def with_leftovers(self) -> list[Path]:
        """All that goes with the machine when it is removed."""
        return [self.path, self.beside("making").path, self.beside("removed").path]

    @property
    def definition(self) -> Path:
        return self.path / "machine.json"

    @property
    def guest(self) -> Path:
        """What the guest says about its own process."""
        return self.path / "guest.json"

    @property
    def guest_log(self) -> Path:
        return self.path / "guest.log"

    @property
    def power_lock(self) -> Path:
        """Held while a machine is being started, removed or retired."""
        return self.path.parent / f".{self.path.name}.power.lock"

    @property
    def writer_lock(self) -> Path:
        """Held by whoever writes to the disks, for as long as it may do so."""
        return self.path / "writer.lock"

    @property
    def storage_lock(self) -> Path:
        return self.path / "storage.lock"

    @property
    def storage_state(self) -> Path:
        return self.path / "storage.json"

    @property
    def private_ledger(self) -> Path:
        """Acknowledgements of a copy that runs in an isolated network."""
        return self.path / "private.ledger"

    def image(self, disk: str) -> Path:
        return self.path / f"{disk}.raw"

    def log(self, disk: str, epoch: str, number: int) -> Path:
        return self.path / f"{disk}.{epoch[:8]}.{number:06d}.hrl"

    def block_map(self, disk: str, epoch: str) -> Path:
        return self.path / f"{disk}.{epoch[:8]}.map"

    def snapshot(self, disk: str, snapshot_id: str) -> Path:
        return self.path / f"{disk}.{snapshot_id[:8]}.snap"


@dataclass(frozen=True)
class SiteFolder:
    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def machines(self) -> Path:
        return self.path / "machines"

    @property
    def replicas(self) -> Path:
        return self.path / "replicas"

    @property
    def faults(self) -> Path:
        return self.path / "faults.json"

    @property
    def test_networks(self) -> Path:
        """Isolated networks that were made for tests."""
        return self.path / "networks"

    def test_network(self, name: str) -> Path:
        return self.test_networks / f"{name}.json"

    def group(self, name: str) -> Path:
        return self.path / "groups" / f"{name}.json"

    def machine(self, name: str) -> MachineFolder:
        return MachineFolder(self.machines / name)

    def registered(self) -> list[MachineFolder]:
        """The machines that the site knows, by name. Half-made and retired ones are not among them."""
        if not self.machines.is_dir():
            return []
        folders = (MachineFolder(entry) for entry in sorted(self.machines.iterdir()) if entry.is_dir())
        return [folder for folder in folders if not folder.name.startswith(".") and folder.definition.exists()]


@dataclass(frozen=True)
class LabLayout:
    root: Path

    def site(self, name: str) -> SiteFolder:
        return SiteFolder(self.root / "sites" / name)

    def sites(self) -> list[SiteFolder]:
        folder = self.root / "sites"
        return [SiteFolder(entry) for entry in sorted(folder.iterdir())] if folder.is_dir() else []

    def ledger(self, identity: str) -> Path:
        """What clients of a protected machine got acknowledged, whichever copy answered them."""
        return self.root / "clients" / f"{identity}.ledger"

    def lease(self, identity: str) -> Path:
        return self.root / "networks" / "production" / f"{identity}.lock"

    @property
    def overlaps(self) -> Path:
        return self.root / "overlaps.jsonl"

    def link(self, one: str, other: str) -> Path:
        first, second = sorted((one, other))
        return self.root / "networks" / "links" / f"{first}--{second}.pace"
