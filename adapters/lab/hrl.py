"""The replication log beside each disk (Hyper-V's ``.hrl``): every write to the disk, in order.

Layout, little-endian::

    header  64 bytes   magic "LWRDHRL\\0", version u32, header size u32, disk size u64, cut number u64,
                       epoch 16 bytes, zeros, CRC-32 of all before it u32
    record  32 bytes   magic "HREC", length u32, offset u64, sequence u64 (from 0), CRC-32 of the data u32,
                       CRC-32 of the 28 bytes before it u32
            length     the data

The log is a write-ahead log: a record is complete before the image is touched.
"""

from __future__ import annotations

import heapq
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from vault.errors import Damaged

MAGIC, VERSION = b"LWRDHRL\0", 1
HEADER_SIZE = 64
LARGEST_RECORD = 2**20
LARGEST_EXTENT = 2**20

_HEADER = struct.Struct("<8sIIQQ16s12xI")
_RECORD = struct.Struct("<4sIQQII")
_RECORD_MAGIC = b"HREC"
RECORD_OVERHEAD = _RECORD.size


class Record(NamedTuple):
    """One logged write. ``position`` is where its data starts in the log."""

    offset: int
    length: int
    sequence: int
    position: int
    checksum: int

    @property
    def end(self) -> int:
        return self.offset + self.length


class Piece(NamedTuple):
    """A part of the disk whose last write is in ``record``."""

    offset: int
    length: int
    record: Record


class LogHeader(NamedTuple):
    epoch: str
    number: int
    disk_size: int


class LogWriter:
    """Appends records to a log whose end is known. One writer at a time (the machine's storage lock)."""

    def __init__(self, path: Path, position: int, sequence: int) -> None:
        self.path = path
        self.position = position
        self._sequence = sequence
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)

    @classmethod
    def at_end_of(cls, path: Path) -> LogWriter:
        """Continue a log whose tail is known not to be torn."""
        with LogReader(path) as reader:
            records = list(reader.records())
        return cls(path, end_of(records), len(records))

    def append(self, offset: int, data: bytes | memoryview) -> None:
        """Log a write of at most ``LARGEST_RECORD`` bytes. On failure the log is as it was before."""
        length = len(data)
        head = struct.pack("<4sIQQI", _RECORD_MAGIC, length, offset, self._sequence, zlib.crc32(data))
        head += zlib.crc32(head).to_bytes(4, "little")
        try:
            written = os.pwritev(self._descriptor, (head, data), self.position)
            if written < RECORD_OVERHEAD + length:
                write_fully(self._descriptor, (head + bytes(data))[written:], self.position + written)
        except OSError:
            os.ftruncate(self._descriptor, self.position)
            raise
        self.position += RECORD_OVERHEAD + length
        self._sequence += 1

    def sync(self) -> None:
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


def write_fully(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """``pwrite`` until everything is written."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def create_log(path: Path, epoch: str, number: int, disk_size: int) -> None:
    """Make an empty log, durably; a leftover of the same name is replaced."""
    head = _HEADER.pack(MAGIC, VERSION, HEADER_SIZE, disk_size, number, bytes.fromhex(epoch), 0)[:-4]
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        write_fully(descriptor, head + zlib.crc32(head).to_bytes(4, "little"), 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class LogReader:
    """Reads a log while nobody appends to it, or up to an end that is known to be complete."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.header = self._read_header()
        except BaseException:
            os.close(self._descriptor)
            raise

    def _read_header(self) -> LogHeader:
        raw = os.pread(self._descriptor, HEADER_SIZE, 0)
        if len(raw) < HEADER_SIZE or zlib.crc32(raw[:-4]) != int.from_bytes(raw[-4:], "little"):
            raise Damaged("the replication log's header does not match its checksum", where=str(self.path))
        magic, version, _, disk_size, number, epoch, _ = _HEADER.unpack(raw)
        if magic != MAGIC or version != VERSION:
            raise Damaged(f"this is not a replication log of version {VERSION}", where=str(self.path))
        return LogHeader(epoch.hex(), number, disk_size)

    def records(self) -> Iterator[Record]:
        """Every record whose header is valid and whose data is there in full, up to the first that is not.

        The data's checksum is not looked at: see :meth:`data`."""
        size = os.fstat(self._descriptor).st_size
        position, sequence = HEADER_SIZE, 0
        while True:
            raw = os.pread(self._descriptor, RECORD_OVERHEAD, position)
            if len(raw) < RECORD_OVERHEAD:
                return
            magic, length, offset, number, checksum, own = _RECORD.unpack(raw)
            data_at = position + RECORD_OVERHEAD
            if magic != _RECORD_MAGIC or number != sequence or zlib.crc32(raw[:-4]) != own or data_at + length > size:
                return
            yield Record(offset, length, sequence, data_at, checksum)
            position, sequence = data_at + length, sequence + 1

    def data(self, record: Record) -> bytes:
        """A record's data, verified.

        Raises ``Damaged``."""
        data = os.pread(self._descriptor, record.length, record.position)
        if len(data) != record.length or zlib.crc32(data) != record.checksum:
            raise Damaged(f"record {record.sequence} of the log does not match its checksum", where=str(self.path))
        return data

    def check_tail(self, end: int) -> None:
        """Is what follows the last complete record a record that its writer did not finish, or nothing?

        A killed writer leaves the beginning of a record: its header is cut short, or is valid but data is missing.
        Raises ``Damaged`` for anything else, because then later records may be lost."""
        raw = os.pread(self._descriptor, RECORD_OVERHEAD, end)
        if len(raw) == RECORD_OVERHEAD and zlib.crc32(raw[:-4]) != int.from_bytes(raw[-4:], "little"):
            raise Damaged(f"the log is damaged at byte {end}", where=str(self.path))

    def extents(self, pieces: Iterable[Piece]) -> Iterator[tuple[int, bytes]]:
        """``(offset, data)`` of resolved pieces, neighbours joined up to ``LARGEST_EXTENT``.

        Raises ``Damaged``."""
        start, end, parts = 0, 0, list[bytes]()
        for piece in pieces:
            data = self.data(piece.record)
            if piece.length != piece.record.length:
                skip = piece.offset - piece.record.offset
                data = data[skip : skip + piece.length]
            if parts and (piece.offset != end or piece.offset + piece.length - start > LARGEST_EXTENT):
                yield start, b"".join(parts)
                parts = []
            if not parts:
                start = piece.offset
            parts.append(data)
            end = piece.offset + piece.length
        if parts:
            yield start, b"".join(parts)

    def close(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> LogReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def end_of(records: list[Record]) -> int:
    """The position after the last record."""
    return records[-1].position + records[-1].length if records else HEADER_SIZE


def resolve(records: Iterable[Record]) -> list[Piece]:
    """Which record holds the last write of each byte: ascending, no overlaps.

    A sweep over the disk with the newest of the records that cover the current position on top of a heap:
    n log n in time, n in memory."""
    newest: dict[tuple[int, int], Record] = {}
    for record in records:
        newest[record.offset, record.length] = record
    ordered = sorted(newest.values())
    covering: list[tuple[int, Record]] = []
    pieces: list[Piece] = []
    position = upcoming = 0
    while upcoming < len(ordered) or covering:
        while covering and covering[0][1].end <= position:
            heapq.heappop(covering)
        if not covering:
            if upcoming == len(ordered):
                break
            position = ordered[upcoming].offset
        while upcoming < len(ordered) and ordered[upcoming].offset <= position:
            heapq.heappush(covering, (-ordered[upcoming].sequence, ordered[upcoming]))
            upcoming += 1
        top = covering[0][1]
        until = min(top.end, ordered[upcoming].offset) if upcoming < len(ordered) else top.end
        last = pieces[-1] if pieces else None
        if last and last.record is top and last.offset + last.length == position:
            pieces[-1] = Piece(last.offset, until - last.offset, top)
        else:
            pieces.append(Piece(position, until - position, top))
        position = until
    return pieces
