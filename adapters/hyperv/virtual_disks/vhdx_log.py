"""The log of a VHDX file that was not closed cleanly: what it would write is laid over the file ([MS-VHDX] 2.3).

The log is a ring of entries, each a header, descriptors, and sectors of data. An entry counts when its checksum and its
log's identifier are right and its number follows that of the one before. The file itself is left as it is.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple
from uuid import UUID

from adapters.hyperv.virtual_disks.crc32c import matches
from adapters.hyperv.virtual_disks.files import DiskFile
from adapters.hyperv.virtual_disks.vhdx_head import MIB, Header

SECTOR = 4096
LONGEST_LOG = 16 * MIB
"""Hosts make logs of one MiB."""
_SUMMED_AT_MOST = 4
"""Times the log's length: entries do not overlap, but for what is left of some that were written over."""
_ENTRY = struct.Struct("<4sIIIQII16sQQ")
_DESCRIPTOR = struct.Struct("<4sIQQQ")
_DATA_AT, _TAIL_AT = 8, 4092


class _Entry(NamedTuple):
    at: int
    raw: bytes
    tail: int
    sequence: int
    descriptors: int
    flushed: int
    last: int
    """What the file's size was when the entry was written: what had been flushed, and what it was at the end."""


class Write(NamedTuple):
    """What an entry puts at ``offset`` of the file; ``data`` None: zeros."""

    offset: int
    length: int
    data: bytes | None


class ReplayedFile(DiskFile):
    """``file`` as it is after the replay of its log, which ``header`` says has to be. Takes the file over.

    Raises ``Damaged`` when no sequence of entries is whole, or one does not fit the file.
    """

    def __init__(self, file: DiskFile, header: Header) -> None:
        self.name, self.size = file.name, file.size
        self._below = file
        self._starts: list[int] = []
        self._writes: list[Write] = []
        entries = _active(file, header)
        for entry in entries:
            if entry.flushed > file.size:
                what = f"the file was cut off: its log knows of {entry.flushed} bytes"
                raise file.damaged(what, header.log_offset + entry.at)
            for write in _writes(file, entry, header.log_offset):
                self._put(write)
        # A file may be shorter than its log knows: what is missing had been allocated, and is zeros.
        self.size = max([file.size, *(entry.last for entry in entries[-1:])])

    def read(self, offset: int, length: int) -> bytes:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise self.damaged(f"{length} bytes at {offset} are not in a file of {self.size}", offset)
        there = max(min(length, self._below.size - offset), 0)
        raw = bytearray(self._below.read(offset, there) if there else b"").ljust(length, b"\0")
        for write in self._between(offset, offset + length):
            begin, end = max(write.offset, offset), min(write.offset + write.length, offset + length)
            data = bytes(end - begin) if write.data is None else write.data[begin - write.offset : end - write.offset]
            raw[begin - offset : end - offset] = data
        return bytes(raw)

    def close(self) -> None:
        self._below.close()

    def _between(self, begin: int, end: int) -> Iterator[Write]:
        at = max(bisect_right(self._starts, begin) - 1, 0)
        while at < len(self._writes) and self._starts[at] < end:
            if self._starts[at] + self._writes[at].length > begin:
                yield self._writes[at]
            at += 1

    def _put(self, new: Write) -> None:
        """Writes never overlap: the later one counts, and what is left of an earlier one is kept beside it."""
        begin, end = new.offset, new.offset + new.length
        over = list(self._between(begin, end))
        rest = [new]
        for old in over:
            old_end = old.offset + old.length
            if old.offset < begin:
                rest.append(Write(old.offset, begin - old.offset, old.data and old.data[: begin - old.offset]))
            if old_end > end:
                rest.append(Write(end, old_end - end, old.data and old.data[end - old.offset :]))
        if over:
            first = self._starts.index(over[0].offset)
            del self._starts[first : first + len(over)], self._writes[first : first + len(over)]
        for write in rest:
            at = bisect_right(self._starts, write.offset)
            self._starts.insert(at, write.offset)
            self._writes.insert(at, write)


def _active(file: DiskFile, header: Header) -> list[_Entry]:
    """The sequence with the highest number whose last entry's tail is in it, from that tail on ([MS-VHDX] 2.3.2)."""
    if header.log_offset % MIB or header.log_length % MIB or not MIB <= header.log_length <= LONGEST_LOG:
        what = f"the log cannot be {header.log_length} bytes at {header.log_offset}"
        raise file.damaged(what, header.log_offset)
    ring = file.read(header.log_offset, header.log_length)
    found = _entries(file, ring, header)
    best: list[_Entry] = []
    covered: set[int] = set()
    for start in found:
        if start in covered:
            continue
        sequence = _sequence(found, start, len(ring))
        covered.update(entry.at for entry in sequence)
        begins = [entry.at for entry in sequence]
        newest = sequence[-1]
        if newest.tail in begins and (not best or newest.sequence > best[-1].sequence):
            best = sequence[begins.index(newest.tail) :]
    if not best:
        what = "the virtual disk was not closed cleanly, and no sequence of entries in its log is whole"
        raise file.damaged(what, header.log_offset)
    return best


def _entries(file: DiskFile, ring: bytes, header: Header) -> dict[int, _Entry]:
    found, may_be_summed = {}, _SUMMED_AT_MOST * len(ring)
    for at in range(0, len(ring), SECTOR):
        entry = _entry(ring, at, header.log)
        if entry is None:
            continue
        may_be_summed -= len(entry.raw)
        if may_be_summed < 0:
            raise file.damaged("the log is full of entries that overlap", header.log_offset + at)
        if matches(entry.raw, 4):
            found[at] = entry
    return found


def _sequence(found: dict[int, _Entry], start: int, length: int) -> list[_Entry]:
    """Entries that follow each other in the ring, each with the next number."""
    sequence = [found[start]]
    while True:
        last = sequence[-1]
        following = found.get((last.at + len(last.raw)) % length)
        if following is None or following.sequence != last.sequence + 1:
            return sequence
        sequence.append(following)


def _entry(ring: bytes, at: int, log: UUID) -> _Entry | None:
    """What says it is an entry of this log; its checksum may not match."""
    if ring[at : at + 4] != b"loge":
        return None
    _, _, length, tail, sequence, count, _, guid, flushed, last = _ENTRY.unpack_from(ring, at)
    if length % SECTOR or not SECTOR <= length <= len(ring) or UUID(bytes_le=guid) != log or not sequence:
        return None
    raw = (ring[at : at + length] + ring[: max(at + length - len(ring), 0)])[:length]
    if _sectors_of_descriptors(count) * SECTOR > length:
        return None
    return _Entry(at, raw, tail, sequence, count, flushed, last)


def _sectors_of_descriptors(count: int) -> int:
    return -(-(_ENTRY.size + count * _DESCRIPTOR.size) // SECTOR)


def _writes(file: DiskFile, entry: _Entry, log_offset: int) -> Iterator[Write]:
    data_at = _sectors_of_descriptors(entry.descriptors) * SECTOR
    for index in range(entry.descriptors):
        at = _ENTRY.size + index * _DESCRIPTOR.size
        signature, trailing, leading, offset, sequence = _DESCRIPTOR.unpack_from(entry.raw, at)
        where = log_offset + entry.at + at
        if sequence != entry.sequence or offset % SECTOR:
            raise file.damaged("a descriptor in the log does not belong to its entry", where)
        if signature == b"zero":
            # The field of the leading bytes is the length here.
            if leading % SECTOR or offset + leading > entry.last:
                raise file.damaged(f"the log cannot zero {leading} bytes at {offset}", where)
            if leading:
                yield Write(offset, leading, None)
        elif signature == b"desc":
            yield Write(offset, SECTOR, _sector(file, entry, data_at, leading, trailing, where))
            data_at += SECTOR
        else:
            raise file.damaged("a descriptor in the log is of no known kind", where)


def _sector(file: DiskFile, entry: _Entry, at: int, leading: int, trailing: int, where: int) -> bytes:
    """4096 bytes: the first eight and the last four are in the descriptor, where the sector has its own marks."""
    raw = entry.raw[at : at + SECTOR]
    marked = len(raw) == SECTOR and raw[:4] == b"data"
    number = int.from_bytes(raw[4:8], "little") << 32 | int.from_bytes(raw[_TAIL_AT:], "little")
    if not marked or number != entry.sequence:
        raise file.damaged("a sector of the log does not belong to its entry", where)
    return leading.to_bytes(8, "little") + raw[_DATA_AT:_TAIL_AT] + trailing.to_bytes(4, "little")
