"""The disks of a lab machine on an array: the array mirrors what is written, so nothing is logged or snapshot here."""

from __future__ import annotations

from typing import Protocol

from adapters.lab.definition import MachineDefinition
from adapters.lab.layout import MachineFolder
from adapters.lab.nbd import NbdDisk
from adapters.lab.storage import WriterLock
from adapters.lab.vdisk import VirtualDisks
from vault.errors import Busy, InvalidState


class Disks(Protocol):
    """What a guest needs of its disks."""

    definition: MachineDefinition

    def read(self, disk: str, offset: int, length: int) -> bytes: ...

    def write(self, disk: str, offset: int, data: bytes) -> None: ...

    def flush(self) -> None:
        """Everything written before is durable when it returns."""

    def close(self) -> None: ...


class LunDisks:
    """The volumes of one machine, opened for writing by its guest. Not thread-safe.

    Raises on opening: ``Busy`` when another process has them open, ``InvalidState`` when the array does not let this
    site write to one or it has not the disk's size, ``Unreachable``.
    """

    def __init__(self, folder: MachineFolder) -> None:
        self.definition = MachineDefinition.load(folder)
        self._open: dict[str, NbdDisk] = {}
        self._unflushed: set[str] = set()
        self._writer = WriterLock(folder)
        try:
            if not self._writer.take():
                raise Busy("another process has the disks open for writing", where=str(folder.path))
            for disk in self.definition.disks:
                self._open[disk.name] = NbdDisk(*split_lun(disk.lun))
                if self._open[disk.name].size != disk.size:
                    found = self._open[disk.name].size
                    raise InvalidState(f"the volume has {found} bytes, the disk {disk.size}", where=disk.lun)
        except BaseException:
            self.close()
            raise

    def read(self, disk: str, offset: int, length: int) -> bytes:
        return self._open[disk].read(offset, length)

    def write(self, disk: str, offset: int, data: bytes) -> None:
        self._open[disk].write(offset, data)
        self._unflushed.add(disk)

    def flush(self) -> None:
        for disk in self._unflushed:
            self._open[disk].flush()
        self._unflushed.clear()

    def close(self) -> None:
        for disk in self._open.values():
            disk.close()
        self._open.clear()
        self._writer.close()


def lun(portal: str, initiator: str, volume: str) -> str:
    """Where a host finds a volume: what :attr:`~adapters.lab.definition.DiskDefinition.lun` holds."""
    return f"{portal}/{initiator}/{volume}"


def split_lun(address: str) -> tuple[str, str]:
    """``(portal, export)``."""
    portal, _, export = address.partition("/")
    return portal, export


def open_disks(folder: MachineFolder) -> Disks:
    """The machine's disks, wherever they are; raises as :class:`LunDisks` and :class:`VirtualDisks`."""
    on_array = any(disk.lun for disk in MachineDefinition.load(folder).disks)
    return LunDisks(folder) if on_array else VirtualDisks(folder)
