"""A VHDX file's metadata: the sizes of disk, block and sector, and where the parent is ([MS-VHDX] 2.6)."""

from __future__ import annotations

import struct
from typing import NamedTuple
from uuid import UUID

from adapters.hyperv.virtual_disks.files import DiskFile
from adapters.hyperv.virtual_disks.vhdx_head import MIB, Region

FILE_PARAMETERS = UUID("CAA16737-FA36-4D43-B3B6-33F0AA44E76B")
DISK_SIZE = UUID("2FA54224-CD1B-4876-B211-5DBED83BF4B8")
DISK_ID = UUID("BECA12AB-B2E6-4523-93EF-C309E000C746")
LOGICAL_SECTOR = UUID("8141BF1D-A96F-4709-BA47-F233A8FAAB5F")
PHYSICAL_SECTOR = UUID("CDA348C7-445D-4471-9CC9-E9885251C556")
PARENT_LOCATOR = UUID("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C")
KNOWN = {FILE_PARAMETERS, DISK_SIZE, DISK_ID, LOGICAL_SECTOR, PHYSICAL_SECTOR, PARENT_LOCATOR}
VHDX_LOCATOR = UUID("B04AEFB7-D19E-4A81-B789-25B8E9445913")
LEAVE_ALLOCATED, HAS_PARENT = 1, 2

TABLE_SIZE = 64 * 1024
MAX_DISK = 64 << 40
_TABLE = struct.Struct("<8sHH20x")
_ENTRY = struct.Struct("<16sIII4x")
_MOST_ENTRIES = 1023
"""[MS-VHDX] 2.6.1.1."""
_IS_USER, _IS_REQUIRED = 1, 4
_LOCATOR = struct.Struct("<16s2xH")
_LOCATOR_ENTRY = struct.Struct("<IIHH")


class Metadata(NamedTuple):
    disk_size: int
    block_size: int
    sector: int
    has_parent: bool
    leave_allocated: bool
    """Set for fixed disks."""
    locator: dict[str, str]
    """How to find the parent; empty: there is none."""


class _Items:
    def __init__(self, file: DiskFile, region: Region) -> None:
        self.file = file
        self._region = region
        self._places: dict[UUID, tuple[int, int]] = {}
        raw = file.read(region.offset, min(TABLE_SIZE, region.length))
        signature, reserved, count = _TABLE.unpack_from(raw)
        if signature != b"metadata" or reserved or count > _MOST_ENTRIES:
            raise file.damaged("this is not a VHDX metadata table", region.offset)
        for index in range(count):
            at = _TABLE.size + index * _ENTRY.size
            guid, offset, length, flags = _ENTRY.unpack_from(raw, at)
            self._add(UUID(bytes_le=guid), offset, length, flags, region.offset + at)

    def _add(self, item: UUID, offset: int, length: int, flags: int, at: int) -> None:
        if length and (offset < TABLE_SIZE or length > MIB or offset + length > self._region.length):
            raise self.file.damaged(f"metadata item {item} cannot be {length} bytes at {offset}", at)
        if flags & _IS_USER:
            return
        if item in self._places:
            raise self.file.damaged(f"metadata item {item} is listed twice", at)
        if item not in KNOWN and flags & _IS_REQUIRED:
            raise self.file.damaged(f"the file cannot be understood without metadata {item}, which is not known", at)
        self._places[item] = (self._region.offset + offset, length)

    def place(self, item: UUID, name: str) -> int:
        if item not in self._places:
            raise self.file.damaged(f"the metadata has no {name}", self._region.offset)
        return self._places[item][0]

    def get(self, item: UUID, name: str, length: int) -> bytes:
        at = self.place(item, name)
        if self._places[item][1] < length:
            raise self.file.damaged(f"the metadata's {name} is too short", at)
        return self.file.read(at, length)

    def whole(self, item: UUID, name: str) -> bytes:
        return self.file.read(self.place(item, name), self._places[item][1])


def read_metadata(file: DiskFile, region: Region) -> Metadata:
    """Raises ``Damaged``."""
    items = _Items(file, region)
    block_size, flags = struct.unpack("<II", items.get(FILE_PARAMETERS, "file parameters", 8))
    (disk_size,) = struct.unpack("<Q", items.get(DISK_SIZE, "disk size", 8))
    (sector,) = struct.unpack("<I", items.get(LOGICAL_SECTOR, "logical sector size", 4))
    if block_size not in [MIB << power for power in range(9)]:
        what = f"the block size cannot be {block_size}, only a power of two from 1 to 256 MiB"
        raise file.damaged(what, items.place(FILE_PARAMETERS, ""))
    if sector not in (512, 4096):
        place = items.place(LOGICAL_SECTOR, "")
        raise file.damaged(f"the logical sector size cannot be {sector}, only 512 or 4096", place)
    if disk_size % sector or not 0 < disk_size <= MAX_DISK:
        raise file.damaged(f"the disk's size cannot be {disk_size}", items.place(DISK_SIZE, ""))
    has_parent = bool(flags & HAS_PARENT)
    locator = _locator(items) if has_parent else {}
    return Metadata(disk_size, block_size, sector, has_parent, bool(flags & LEAVE_ALLOCATED), locator)


def _locator(items: _Items) -> dict[str, str]:
    at, raw = items.place(PARENT_LOCATOR, "parent locator"), items.whole(PARENT_LOCATOR, "parent locator")
    if len(raw) < _LOCATOR.size:
        raise items.file.damaged("the parent locator is too short", at)
    kind, count = _LOCATOR.unpack_from(raw)
    if UUID(bytes_le=kind) != VHDX_LOCATOR:
        raise items.file.damaged(f"a parent of type {UUID(bytes_le=kind)} is not known", at)
    if _LOCATOR.size + count * _LOCATOR_ENTRY.size > len(raw):
        raise items.file.damaged(f"the parent locator has no room for {count} entries", at)
    found = {}
    for index in range(count):
        entry_at = _LOCATOR.size + index * _LOCATOR_ENTRY.size
        key_at, value_at, key_length, value_length = _LOCATOR_ENTRY.unpack_from(raw, entry_at)
        if max(key_at + key_length, value_at + value_length) > len(raw):
            raise items.file.damaged("an entry of the parent locator is not inside of it", at + entry_at)
        try:
            key = raw[key_at : key_at + key_length].decode("utf-16-le")
            found[key] = raw[value_at : value_at + value_length].decode("utf-16-le")
        except UnicodeDecodeError:
            raise items.file.damaged("an entry of the parent locator is not UTF-16", at + entry_at) from None
    return found
