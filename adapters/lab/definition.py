"""What a lab machine is made of: its disks, its network, its guest's load."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from adapters.lab.documents import read_document, write_document
from adapters.lab.layout import MachineFolder

FORMAT, VERSION = "leeward-lab-machine", 1


@dataclass(frozen=True)
class DiskDefinition:
    """``lun``: where the site's host finds the volume of an array that the disk is; empty: an image in a file."""

    name: str
    size: int
    lun: str = ""


@dataclass(frozen=True)
class MachineDefinition:
    """``identity`` is the protected machine that this is (a copy of), the same at every site.

    ``made_from`` is the recovery point a replica machine was made from; None for a machine made from scratch.
    """

    name: str
    site: str
    identity: str
    network: str
    network_kind: str
    disks: tuple[DiskDefinition, ...]
    transactions_per_second: float
    transaction_size: int
    made_from: str | None = None

    def save(self, folder: MachineFolder) -> None:
        write_document(folder.definition, FORMAT, VERSION, asdict(self))

    @classmethod
    def load(cls, folder: MachineFolder) -> MachineDefinition:
        """Raises ``NotFound`` or ``Damaged``."""
        body: dict[str, Any] = read_document(folder.definition, FORMAT, VERSION)
        disks = tuple(DiskDefinition(**disk) for disk in body.pop("disks"))
        return cls(disks=disks, **body)
