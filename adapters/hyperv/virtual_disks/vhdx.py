"""VHDX files: fixed, dynamic and differencing ([MS-VHDX], Virtual Hard Disk v2 File Format, revision 6.0 and later).

The block table ([MS-VHDX] 2.5) has an entry for each block of the disk, and after those of each chunk one for the
chunk's sector bitmap, which says for each sector of a partially present block whether this file has it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import groupby
from uuid import UUID

from adapters.hyperv.virtual_disks.files import DiskFile
from adapters.hyperv.virtual_disks.layers import Elsewhere, Layer, Stretch, runs
from adapters.hyperv.virtual_disks.vhdx_head import BAT, METADATA, MIB, read_header, read_regions
from adapters.hyperv.virtual_disks.vhdx_log import ReplayedFile
from adapters.hyperv.virtual_disks.vhdx_metadata import read_metadata

NOT_PRESENT, UNDEFINED, ZERO, UNMAPPED, FULLY_PRESENT, PARTIALLY_PRESENT = 0, 1, 2, 3, 6, 7
"""States of a block; 6 is also that of a sector bitmap that is there."""
SECTORS_IN_CHUNK = 1 << 23
_STATE = 7
_ENTRIES_AT_ONCE = 8192


class VhdxLayer(Layer):
    """One VHDX file. Raises ``Damaged`` when it does not hold together."""

    def __init__(self, file: DiskFile) -> None:
        header = read_header(file)
        if header.log.int:
            file = ReplayedFile(file, header)
        self.file = file
        regions = read_regions(file)
        about = read_metadata(file, regions[METADATA])
        self.data_write: UUID = header.data_write
        self.size = about.disk_size
        self.has_parent, self.locator = about.has_parent, about.locator
        self._block, self._sector = about.block_size, about.sector
        self._ratio = SECTORS_IN_CHUNK * about.sector // about.block_size
        self._table = regions[BAT]
        blocks = -(-self.size // self._block)
        chunks = -(-blocks // self._ratio)
        entries = chunks * (self._ratio + 1) if self.has_parent else blocks + (blocks - 1) // self._ratio
        if entries * 8 > self._table.length:
            raise file.damaged(f"the block table has no room for {entries} entries", self._table.offset)

    def stretches(self, offset: int, length: int) -> Iterator[Stretch]:
        end = offset + length
        while offset < end:
            first = offset // self._block
            # Up to the end of the chunk, where the entry of its sector bitmap comes between.
            last = min(first - first % self._ratio + self._ratio, first + _ENTRIES_AT_ONCE, -(-end // self._block))
            block = first
            for entry, same in groupby(self._entries(first, last)):
                count = len(list(same))
                until = min((block + count) * self._block, end)
                yield from self._in_blocks(entry, offset, until - offset)
                block, offset = block + count, until

    def _entries(self, first: int, last: int) -> Iterator[int]:
        """Of blocks of one chunk."""
        raw = self.file.read(self._entry_at(first), 8 * (last - first))
        return (entry for (entry,) in struct.iter_unpack("<Q", raw))

    def _entry_at(self, block: int) -> int:
        return self._table.offset + 8 * (block + block // self._ratio)

    def _in_blocks(self, entry: int, offset: int, length: int) -> Iterator[Stretch]:
        """Blocks with equal entries: one block, or several that are nowhere in the file."""
        state = entry & _STATE
        if state in (ZERO, UNMAPPED, UNDEFINED) or (state == NOT_PRESENT and not self.has_parent):
            yield Stretch(offset, length, Elsewhere.ZEROS)
        elif state == NOT_PRESENT:
            yield Stretch(offset, length, Elsewhere.PARENT)
        elif state == FULLY_PRESENT:
            yield from self._present(entry, offset, length)
        elif state == PARTIALLY_PRESENT and self.has_parent:
            for part in self._present(entry, offset, length):
                yield from self._by_sectors(part)
        else:
            at = self._entry_at(offset // self._block)
            raise self.file.damaged(f"the state of a block of this disk cannot be {state}", at)

    def _present(self, entry: int, offset: int, length: int) -> Iterator[Stretch]:
        place = self._place(entry, self._block, offset // self._block)
        if offset // self._block != (offset + length - 1) // self._block:
            what = f"two blocks of the disk cannot be in the same place, {place}"
            raise self.file.damaged(what, self._entry_at(offset // self._block))
        yield Stretch(offset, length, place + offset % self._block)

    def _place(self, entry: int, size: int, block: int) -> int:
        place = entry >> 20 << 20
        if place < MIB or place + size > self.file.size:
            what = f"a block of {size} bytes at {place} is not in the data of a file of {self.file.size}"
            raise self.file.damaged(what, self._entry_at(block))
        return place

    def _by_sectors(self, part: Stretch) -> Iterator[Stretch]:
        assert isinstance(part.place, int)
        chunk, sector_in_chunk = divmod(part.offset // self._sector, SECTORS_IN_CHUNK)
        bitmap_entry = chunk * (self._ratio + 1) + self._ratio
        (entry,) = struct.unpack("<Q", self.file.read(self._table.offset + 8 * bitmap_entry, 8))
        if entry & _STATE != FULLY_PRESENT:
            what = "a block is partially present, but the sector bitmap that says which part is not there"
            raise self.file.damaged(what, self._table.offset + 8 * bitmap_entry)
        bitmap = self._place(entry, MIB, chunk * self._ratio)
        # Whole sectors first; a read may begin or end inside of one.
        begin = part.offset - part.offset % self._sector
        count = -(-(part.offset + part.length) // self._sector) - begin // self._sector
        first_byte = sector_in_chunk // 8
        raw = self.file.read(bitmap + first_byte, (sector_in_chunk + count + 7) // 8 - first_byte)
        for at, length, here in runs(raw, sector_in_chunk % 8, count):
            start = max(begin + at * self._sector, part.offset)
            end = min(begin + (at + length) * self._sector, part.offset + part.length)
            place = part.place + start - part.offset if here else Elsewhere.PARENT
            yield Stretch(start, end - start, place)
