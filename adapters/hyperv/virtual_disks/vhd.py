"""VHD files: fixed, dynamic and differencing ("Virtual Hard Disk Image Format Specification", 1.0, 11 October 2006).

Integers are big-endian, sectors have 512 bytes. In front of each block of a dynamic or differencing disk there is a
bitmap, highest bit first: whether this file has the sector.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple
from uuid import UUID

from adapters.hyperv.virtual_disks.files import DiskFile
from adapters.hyperv.virtual_disks.layers import Elsewhere, Layer, Stretch, runs

SECTOR = 512
FIXED, DYNAMIC, DIFFERENCING = 2, 3, 4
COOKIE, DYNAMIC_COOKIE = b"conectix", b"cxsparse"
NOT_THERE = 0xFFFFFFFF
MAX_DISK = 2040 << 30
_FOOTER = struct.Struct(">8sIIQ4x4s4x4sQQ4xII16s")
_FOOTER_CHECKSUM_AT = 64
_HEADER = struct.Struct(">8sQQIIII16s")
_HEADER_SIZE, _HEADER_CHECKSUM_AT = 1024, 36
_LOCATORS_AT, _LOCATORS = 576, 8
_LOCATOR = struct.Struct(">4sIIIQ")
_LONGEST_PATH = 1 << 16
_VERSION = 0x0001_0000
_ENTRIES_AT_ONCE = 8192
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class _Footer(NamedTuple):
    kind: int
    size: int
    header_at: int
    identity: UUID
    at: int


class VhdLayer(Layer):
    """One VHD file. Raises ``Damaged`` when it does not hold together."""

    def __init__(self, file: DiskFile) -> None:
        self.file = file
        footer = _read_footer(file)
        self.size, self.kind, self.identity = footer.size, footer.kind, footer.identity
        self.has_parent = footer.kind == DIFFERENCING
        self.parent_identity = UUID(int=0)
        self.parent_paths: list[str] = []
        if footer.kind == FIXED:
            if footer.at < self.size:
                raise file.damaged(f"a fixed disk of {self.size} bytes does not fit before its footer", footer.at)
        else:
            self._read_dynamic_header(footer.header_at)

    def _read_dynamic_header(self, at: int) -> None:
        raw = self.file.read(at, _HEADER_SIZE)
        cookie, _, self._table, version, self._entries_there, self._block, _, parent = _HEADER.unpack_from(raw)
        if cookie != DYNAMIC_COOKIE or version != _VERSION or not _sum_matches(raw, _HEADER_CHECKSUM_AT):
            raise self.file.damaged("the dynamic disk header does not match its checksum", at)
        if self._block < SECTOR or self._block & self._block - 1:
            raise self.file.damaged(f"the block size cannot be {self._block}", at)
        needed = -(-self.size // self._block)
        if self._entries_there < needed:
            raise self.file.damaged(f"the block table has {self._entries_there} entries, not {needed}", at)
        if self._table + 4 * self._entries_there > self.file.size:
            raise self.file.damaged("the block table is not inside the file", at)
        self._bitmap = -(-self._block // SECTOR // 8 // SECTOR) * SECTOR or SECTOR
        if self.has_parent:
            self.parent_identity = UUID(bytes=parent)
            self.parent_paths = self._locators(raw, at)

    def _locators(self, raw: bytes, at: int) -> list[str]:
        """Paths of the parent on Windows: relative ones, which survive a move, first."""
        found = {}
        for index in range(_LOCATORS):
            place = _LOCATORS_AT + index * _LOCATOR.size
            code, _, length, _, offset = _LOCATOR.unpack_from(raw, place)
            if code in (b"W2ru", b"W2ku"):
                if length > _LONGEST_PATH:
                    raise self.file.damaged(f"the parent's path cannot have {length} bytes", at + place)
                try:
                    found[code] = self.file.read(offset, length).decode("utf-16-le").rstrip("\0")
                except UnicodeDecodeError:
                    raise self.file.damaged("the parent's path is not UTF-16", offset) from None
        return [found[code] for code in (b"W2ru", b"W2ku") if code in found]

    def stretches(self, offset: int, length: int) -> Iterator[Stretch]:
        if self.kind == FIXED:
            yield Stretch(offset, length, offset)
            return
        end = offset + length
        while offset < end:
            first = offset // self._block
            last = min(first + _ENTRIES_AT_ONCE, -(-end // self._block))
            raw = self.file.read(self._table + 4 * first, 4 * (last - first))
            block = first
            for entry, same in groupby(entry for (entry,) in struct.iter_unpack(">I", raw)):
                count = len(list(same))
                until = min((block + count) * self._block, end)
                if entry == NOT_THERE:
                    yield Stretch(offset, until - offset, self._below)
                else:
                    yield from self._in_block(entry, offset, until - offset)
                block, offset = block + count, until

    @property
    def _below(self) -> Elsewhere:
        return Elsewhere.PARENT if self.has_parent else Elsewhere.ZEROS

    def _in_block(self, entry: int, offset: int, length: int) -> Iterator[Stretch]:
        within, table_at = offset % self._block, self._table + 4 * (offset // self._block)
        if within + length > self._block:
            raise self.file.damaged(f"two blocks of the disk cannot be in the same place, sector {entry}", table_at)
        bitmap_at = entry * SECTOR
        data_at = bitmap_at + self._bitmap
        if data_at + within + length > self.file.size:
            raise self.file.damaged(f"the block at sector {entry} is not inside the file", table_at)
        sector, last = within // SECTOR, -(-(within + length) // SECTOR)
        first_byte = sector // 8
        bits = self.file.read(bitmap_at + first_byte, (last + 7) // 8 - first_byte).translate(_REVERSED)
        for at, count, here in runs(bits, sector % 8, last - sector):
            start = max((sector + at) * SECTOR, within)
            end = min((sector + at + count) * SECTOR, within + length)
            yield Stretch(offset - within + start, end - start, data_at + start if here else self._below)


def _read_footer(file: DiskFile) -> _Footer:
    """From the end of the file; a dynamic disk has a copy at the beginning, for when it was not closed cleanly.

    Versions of Virtual PC before 2004 wrote 511 bytes; such files are not from Hyper-V, and are refused."""
    if file.size < SECTOR:
        raise file.damaged("the file is too short to be a VHD", 0)
    for at in (file.size - SECTOR, 0):
        raw = file.read(at, SECTOR)
        if raw.startswith(COOKIE) and _sum_matches(raw, _FOOTER_CHECKSUM_AT):
            break
    else:
        raise file.damaged("the VHD's footer does not match its checksum", file.size - SECTOR)
    _, _, version, header_at, _, _, _, size, kind, _, identity = _FOOTER.unpack_from(raw)
    if version != _VERSION:
        raise file.damaged(f"VHD version {version:#x} is not known", at)
    if kind not in (FIXED, DYNAMIC, DIFFERENCING):
        raise file.damaged(f"a VHD of type {kind} is not known", at)
    if size % SECTOR or not 0 < size <= MAX_DISK:
        raise file.damaged(f"the disk's size cannot be {size}", at)
    return _Footer(kind, size, header_at, UUID(bytes=identity), at)


def _sum_matches(raw: bytes, checksum_at: int) -> bool:
    expected = int.from_bytes(raw[checksum_at : checksum_at + 4], "big")
    return ~(sum(raw) - sum(raw[checksum_at : checksum_at + 4])) & 0xFFFFFFFF == expected
