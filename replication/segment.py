"""Segments: the changes of one disk between two recovery points, in one sealed and checksummed file.

The layout is described byte by byte in ``docs/formats.md``. This module holds the layout and the writer;
:mod:`replication.segment_reader` reads.
"""

from __future__ import annotations

import os
import struct
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import zstandard

from replication import files
from replication.checksums import checksum, checksum64, runs
from replication.ports import Extent
from vault.domain import Value
from vault.errors import InvalidState

MAGIC = b"LWSEGMNT"
SEALED_MAGIC = b"LWSEALED"
FRAME_MAGIC = b"LWFR"
VERSION = 1

HEADER = struct.Struct("<8sHHI")
"""magic, version, flags, length of the JSON that follows; then a 64-bit checksum of all of it."""
CHECKSUM64 = struct.Struct("<Q")
FRAME = struct.Struct("<4sBBHIII16sQ")
"""magic, codec, flags, reserved, extents, plain length, stored length, plain checksum, stored checksum."""
EXTENT = struct.Struct("<QII")
"""offset on the disk, length, kind."""
INDEX_FRAME = struct.Struct("<QII")
"""offset in the file, length in the file, extents; the frame's extent table follows."""
FOOTER = struct.Struct("<QQQQQ16sQ")
"""index offset, index length, frames, extents, disk bytes, index checksum, header checksum;
then a 64-bit checksum of the footer and the sealed magic."""
FOOTER_LENGTH = FOOTER.size + CHECKSUM64.size + len(SEALED_MAGIC)

RAW, ZSTD = 0, 1
DATA, ZEROS = 0, 1

FRAME_PLAIN = 1 << 20
"""A frame is closed once it holds this many bytes of plain data …"""
FRAME_EXTENTS = 1 << 15
"""… or this many extents."""
FRAME_PLAIN_MAX = 8 << 20
"""No frame holds more; a reader refuses to allocate for one that says so."""
ZERO_RUN_MAX = 1 << 30
FRAMES_IN_FLIGHT = 8
"""Frames that wait for compression or writing: bounds memory to some 16 MiB a segment."""
ENCODERS = 2
COMPRESSION_LEVEL = 1
WORTH_COMPRESSING = 0.95


class SegmentHeader(Value):
    """What a segment belongs to; stored as JSON in its header."""

    machine: str
    disk: str
    disk_size: int
    sequence: int
    epoch: str
    cut: int


class Sealed(NamedTuple):
    """What a closed segment holds. ``identity`` is the checksum of its footer, which covers everything else."""

    disk_bytes: int
    stored_bytes: int
    identity: str


class _Frame(NamedTuple):
    head: bytes
    payload: bytes


_encoder = threading.local()


def _compress(plain: bytes) -> tuple[int, bytes]:
    compressor: zstandard.ZstdCompressor | None = getattr(_encoder, "compressor", None)
    if compressor is None:
        compressor = _encoder.compressor = zstandard.ZstdCompressor(
            level=COMPRESSION_LEVEL, write_checksum=False, write_content_size=True
        )
    packed = compressor.compress(plain)
    return (ZSTD, packed) if len(packed) < len(plain) * WORTH_COMPRESSING else (RAW, plain)


def encode_frame(table: bytes, plain: bytes) -> _Frame:
    """One frame as it is stored. Pure: runs in any thread, and the C libraries release the GIL."""
    codec, stored = _compress(plain) if plain else (RAW, b"")
    head = (
        FRAME.pack(
            FRAME_MAGIC,
            codec,
            0,
            0,
            len(table) // EXTENT.size,
            len(plain),
            len(stored),
            checksum(plain),
            checksum64(stored),
        )
        + table
    )
    return _Frame(head + CHECKSUM64.pack(checksum64(head)), stored)


class SegmentFileWriter:
    """Writes one segment into ``<path>.part``; :meth:`close` makes it durable under its name.

    Extents come in ascending order and do not overlap. Compression runs in threads beside the caller's reading;
    memory stays bounded whatever the segment's size, but for 16 bytes of index for each extent.

    Args:
        reserve: called with the bytes about to be stored; raises ``NoSpace`` to refuse.
        closed: called with what the segment holds, once it is durable.
    """

    def __init__(
        self,
        path: Path,
        header: SegmentHeader,
        *,
        reserve: Callable[[int], None] | None = None,
        closed: Callable[[Sealed], None] | None = None,
    ) -> None:
        self.bytes_sent = 0
        self._path = path
        self._part = path.with_name(path.name + ".part")
        self._header = header
        self._reserve = reserve
        self._closed = closed
        self._table: list[tuple[int, int, int]] = []
        self._payload: list[bytes | memoryview] = []
        self._payload_length = 0
        self._frontier = 0
        self._index = bytearray()
        self._frames = 0
        self._extents = 0
        self._disk_bytes = 0
        self._encoding: deque[tuple[bytes, Future[_Frame]]] = deque()
        self._pool = ThreadPoolExecutor(ENCODERS, thread_name_prefix="encode")
        with files.translated(self._part):
            self._fd: int | None = files.open_file(self._part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self._header_checksum = self._write_header()

    def add(self, extent: Extent) -> None:
        """Raises ``InvalidState`` for extents out of order or beyond the disk, ``NoSpace``."""
        length = len(extent.data)
        if extent.offset < self._frontier or extent.offset + length > self._header.disk_size:
            raise InvalidState(
                f"the change source gave {length} bytes at {extent.offset} after bytes up to {self._frontier} "
                f"of a disk of {self._header.disk_size} bytes",
                where=f"{self._header.machine}/{self._header.disk}",
                remedy="resynchronize the machine",
            )
        self._frontier = extent.offset + length
        self._disk_bytes += length
        for offset, data, zero in runs(extent.offset, extent.data):
            if zero:
                self._append(offset, len(data), ZEROS)
                continue
            for start in range(0, len(data), FRAME_PLAIN):
                piece = data[start : start + FRAME_PLAIN]
                self._append(offset + start, len(piece), DATA)
                self._payload.append(piece)
                self._payload_length += len(piece)
                if self._payload_length >= FRAME_PLAIN:
                    self._end_frame()
        if len(self._table) >= FRAME_EXTENTS:
            self._end_frame()

    def close(self) -> None:
        """Idempotent; durable when it returns."""
        if self._fd is None:
            return
        if self._table:
            self._end_frame()
        while self._encoding:
            self._write_next_frame()
        self._pool.shutdown()
        with files.translated(self._part):
            sealed = self._write_trailer()
            files.sync(self._fd)
            os.close(self._fd)
            self._fd = None
            files.rename(self._part, self._path)
        if self._closed:
            self._closed(sealed)

    def abandon(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        with files.translated(self._part):
            files.delete(self._part)

    def _append(self, offset: int, length: int, kind: int) -> None:
        if self._table:
            start, known, last_kind = self._table[-1]
            joined = known + length
            if start + known == offset and last_kind == kind and joined <= ZERO_RUN_MAX:
                self._table[-1] = (start, joined, kind)
                return
        self._table.append((offset, length, kind))

    def _end_frame(self) -> None:
        table = b"".join([EXTENT.pack(*entry) for entry in self._table])
        plain = b"".join(self._payload)
        self._table, self._payload, self._payload_length = [], [], 0
        while len(self._encoding) >= FRAMES_IN_FLIGHT:
            self._write_next_frame()
        self._encoding.append((table, self._pool.submit(encode_frame, table, plain)))

    def _write_next_frame(self) -> None:
        table, future = self._encoding.popleft()
        frame = future.result()
        extents = len(table) // EXTENT.size
        length = len(frame.head) + len(frame.payload)
        self._index += INDEX_FRAME.pack(self.bytes_sent, length, extents) + table
        self._write(frame.head)
        self._write(frame.payload)
        self._frames += 1
        self._extents += extents

    def _write(self, data: bytes) -> None:
        assert self._fd is not None
        if self._reserve:
            self._reserve(len(data))
        with files.translated(self._part):
            files.write_at(self._fd, data, self.bytes_sent)
        self.bytes_sent += len(data)

    def _write_header(self) -> int:
        meta = self._header.model_dump_json().encode()
        head = HEADER.pack(MAGIC, VERSION, 0, len(meta)) + meta
        value = checksum64(head)
        self._write(head + CHECKSUM64.pack(value))
        return value

    def _write_trailer(self) -> Sealed:
        index_offset = self.bytes_sent
        index = bytes(self._index)
        footer = FOOTER.pack(
            index_offset,
            len(index),
            self._frames,
            self._extents,
            self._disk_bytes,
            checksum(index),
            self._header_checksum,
        )
        self._write(index)
        self._write(footer + CHECKSUM64.pack(checksum64(footer)) + SEALED_MAGIC)
        return Sealed(self._disk_bytes, self.bytes_sent, checksum(footer).hex())
