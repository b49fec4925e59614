"""Writes VHDX files after [MS-VHDX]: dynamic, fixed and differencing, and merges a differencing one into its parent.

Writes go straight to their place, the log is not used: a file is not crash-safe while it is written to. It stands for a
host's disk, it does not keep anybody's data.
"""

from __future__ import annotations

import os
import struct
import uuid
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Self

from adapters.hyperv.virtual_disks import vhdx_head as head
from adapters.hyperv.virtual_disks import vhdx_metadata as metadata
from adapters.hyperv.virtual_disks.crc32c import crc32c
from adapters.hyperv.virtual_disks.files import DiskFile
from adapters.hyperv.virtual_disks.vhdx import (
    FULLY_PRESENT,
    NOT_PRESENT,
    PARTIALLY_PRESENT,
    SECTORS_IN_CHUNK,
    VhdxLayer,
)

MIB = head.MIB
METADATA_AT, BAT_AT = 2 * MIB, 3 * MIB
"""From 1 MiB on there is the log, which stays empty."""
_ITEMS_AT = metadata.TABLE_SIZE


class VhdxFile:
    """A VHDX file, opened for writing. Offsets and lengths of what is written are whole sectors."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        file = DiskFile(path, str(path))
        try:
            self._header = head.read_header(file)
            regions = head.read_regions(file)
            self.about = metadata.read_metadata(file, regions[head.METADATA])
            table = regions[head.BAT]
            self._entries = list(struct.unpack(f"<{table.length // 8}Q", file.read(table.offset, table.length)))
        finally:
            file.close()
        self.size = self.about.disk_size
        self._ratio = SECTORS_IN_CHUNK * self.about.sector // self.about.block_size
        self._announced = False

    @classmethod
    def create(
        cls, path: Path, size: int, *, block: int = MIB, sector: int = 512, fixed: bool = False, parent: str = ""
    ) -> Self:
        """An empty disk. ``parent``: the name of a file in the same folder that it leans on, as it is now."""
        locator = _locator(path.parent, parent) if parent else {}
        blocks = -(-size // block)
        ratio = SECTORS_IN_CHUNK * sector // block
        chunks = -(-blocks // ratio)
        table = -(-chunks * (ratio + 1) * 8 // MIB) * MIB
        with path.open("wb") as out:
            out.write(head.SIGNATURE + "leeward".encode("utf-16-le"))
            for at, sequence in zip(head.HEADERS_AT, (1, 0), strict=True):
                out.seek(at)
                out.write(_packed_header(sequence, uuid.uuid4(), uuid.UUID(int=0)))
            for at in head.REGION_TABLES_AT:
                out.seek(at)
                out.write(_region_table(table))
            out.seek(METADATA_AT)
            flags = (metadata.LEAVE_ALLOCATED if fixed else 0) | (metadata.HAS_PARENT if parent else 0)
            out.write(_metadata(size, block, sector, flags, locator))
            out.truncate(BAT_AT + table)
        made = cls(path)
        for number in range(blocks if fixed else 0):
            made._set_entry(number + number // ratio, made._append(block) | FULLY_PRESENT)
        return made

    def write(self, offset: int, data: bytes) -> None:
        """What a guest writes."""
        self._announce()
        block, at = self.about.block_size, 0
        while at < len(data):
            within = (offset + at) % block
            part = data[at : at + block - within]
            self._write_in_block((offset + at) // block, within, part)
            at += len(part)

    def discard(self, block: int, state: int) -> None:
        """What a guest's TRIM does to a whole block: it is in ``state`` then, and no longer in the file."""
        self._announce()
        self._set_entry(block + block // self._ratio, state)

    def merge_into_parent(self, parent: VhdxFile) -> None:
        """All that this differencing disk has, into the file that it leans on."""
        with closing(DiskFile(self.path, str(self.path))) as file:
            for stretch in VhdxLayer(file).stretches(0, self.size):
                if isinstance(stretch.place, int):
                    parent.write(stretch.offset, file.read(stretch.place, stretch.length))

    def set_parent(self, parent: str) -> None:
        """It leans on another file of its folder from now on, which has the same content."""
        raw = _metadata(
            self.size,
            self.about.block_size,
            self.about.sector,
            metadata.HAS_PARENT,
            _locator(self.path.parent, parent),
        )
        os.pwrite(self._descriptor, raw, METADATA_AT)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _announce(self) -> None:
        """[MS-VHDX] 2.2.2: before the first write after it was opened, a file gets a new DataWriteGuid."""
        if not self._announced:
            self._announced = True
            sequence = self._header.sequence + 1
            self._header = self._header._replace(sequence=sequence, data_write=uuid.uuid4())
            raw = _packed_header(sequence, self._header.data_write, uuid.UUID(int=0))
            os.pwrite(self._descriptor, raw, head.HEADERS_AT[sequence % 2])

    def _write_in_block(self, block: int, within: int, data: bytes) -> None:
        index = block + block // self._ratio
        entry = self._entries[index]
        if entry & 7 not in (FULLY_PRESENT, PARTIALLY_PRESENT):
            is_part = self.about.has_parent and entry & 7 == NOT_PRESENT and len(data) < self.about.block_size
            entry = self._append(self.about.block_size) | (PARTIALLY_PRESENT if is_part else FULLY_PRESENT)
            if is_part:
                self._mark(block, 0, self.about.block_size, present=False)
        os.pwrite(self._descriptor, data, (entry >> 20 << 20) + within)
        if entry & 7 == PARTIALLY_PRESENT:
            self._mark(block, within, len(data), present=True)
        self._set_entry(index, entry)

    def _mark(self, block: int, within: int, length: int, *, present: bool) -> None:
        chunk = block // self._ratio
        index = chunk * (self._ratio + 1) + self._ratio
        if self._entries[index] & 7 != FULLY_PRESENT:
            self._set_entry(index, self._append(MIB) | FULLY_PRESENT)
        first = (block % self._ratio * self.about.block_size + within) // self.about.sector
        last = first + length // self.about.sector
        at = (self._entries[index] >> 20 << 20) + first // 8
        raw = int.from_bytes(os.pread(self._descriptor, -(-last // 8) - first // 8, at), "little")
        mask = ((1 << last - first) - 1) << first % 8
        raw = raw | mask if present else raw & ~mask
        os.pwrite(self._descriptor, raw.to_bytes(-(-last // 8) - first // 8, "little"), at)

    def _append(self, length: int) -> int:
        end = os.lseek(self._descriptor, 0, os.SEEK_END)
        place = -(-end // MIB) * MIB
        os.ftruncate(self._descriptor, place + length)
        return place

    def _set_entry(self, index: int, entry: int) -> None:
        self._entries[index] = entry
        os.pwrite(self._descriptor, entry.to_bytes(8, "little"), BAT_AT + 8 * index)


def _packed_header(sequence: int, data_write: uuid.UUID, log: uuid.UUID) -> bytes:
    fields = struct.Struct("<4sIQ16s16s16sHHIQ").pack(
        b"head", 0, sequence, uuid.uuid4().bytes_le, data_write.bytes_le, log.bytes_le, 0, 1, MIB, MIB
    )
    return with_checksum(fields.ljust(head.HEADER_SIZE, b"\0"))


def with_checksum(structure: bytes) -> bytes:
    """``structure`` with its CRC-32C at offset 4, which has to be zeros until then."""
    return structure[:4] + crc32c(structure).to_bytes(4, "little") + structure[8:]


@cache
def _region_table(table: int) -> bytes:
    entry = struct.Struct("<16sQII")
    raw = struct.pack("<4sIII", b"regi", 0, 2, 0)
    raw += entry.pack(head.BAT.bytes_le, BAT_AT, table, 1)
    raw += entry.pack(head.METADATA.bytes_le, METADATA_AT, MIB, 1)
    return with_checksum(raw.ljust(head.REGION_TABLE_SIZE, b"\0"))


def _metadata(size: int, block: int, sector: int, flags: int, locator: dict[str, str]) -> bytes:
    is_disk, required = 2, 4
    items = [
        (metadata.FILE_PARAMETERS, struct.pack("<II", block, flags), required),
        (metadata.DISK_SIZE, struct.pack("<Q", size), required | is_disk),
        (metadata.DISK_ID, uuid.uuid4().bytes_le, required | is_disk),
        (metadata.LOGICAL_SECTOR, struct.pack("<I", sector), required | is_disk),
        (metadata.PHYSICAL_SECTOR, struct.pack("<I", 4096), required | is_disk),
    ]
    if locator:
        items.append((metadata.PARENT_LOCATOR, _packed_locator(locator), required))
    entries, data = b"", b""
    for guid, value, item_flags in items:
        entries += struct.pack("<16sIII4x", guid.bytes_le, _ITEMS_AT + len(data), len(value), item_flags)
        data += value
    table = struct.pack("<8sHH20x", b"metadata", 0, len(items)) + entries
    return table.ljust(_ITEMS_AT, b"\0") + data


def _locator(folder: Path, parent: str) -> dict[str, str]:
    file = DiskFile(folder / parent, parent)
    try:
        linkage = head.read_header(file).data_write
    finally:
        file.close()
    return {"parent_linkage": f"{{{linkage}}}", "relative_path": f".\\{parent}"}


def _packed_locator(locator: dict[str, str]) -> bytes:
    texts_at = 20 + 12 * len(locator)
    entries, texts = b"", b""
    for key, value in locator.items():
        raw_key, raw_value = key.encode("utf-16-le"), value.encode("utf-16-le")
        key_at = texts_at + len(texts)
        entries += struct.pack("<IIHH", key_at, key_at + len(raw_key), len(raw_key), len(raw_value))
        texts += raw_key + raw_value
    return struct.pack("<16s2xH", metadata.VHDX_LOCATOR.bytes_le, len(locator)) + entries + texts
