"""Segments: the changes of one disk between two recovery points, in one sealed and checksummed file.

The layout is described byte by byte in ``docs/formats.md``. This module holds the layout and the writer;
:mod:`replication.segment_reader` reads, :mod:`replication.frames` has the frames inside.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from replication import files
from replication.checksums import checksum, checksum64
from replication.cipher import Encryption, FrameCipher
from replication.frames import CHECKSUM64, DATA, EXTENT, FRAME_PLAIN, ZEROS, Frame, FrameEncoder
from replication.ports import Extent
from vault.domain import Value
from vault.errors import InvalidState

__all__ = ["CHECKSUM64", "EXTENT", "FRAME_PLAIN", "Sealed", "SegmentFile", "SegmentFileWriter", "SegmentHeader"]

MAGIC = b"LWSEGMNT"
SEALED_MAGIC = b"LWSEALED"
VERSION = 1
ENCRYPTED = 1
"""Flag of the header: every frame is encrypted, as the header's ``encryption`` says."""

HEADER = struct.Struct("<8sHHI")
"""magic, version, flags, length of the JSON that follows; then a 64-bit checksum of all of it."""
INDEX_FRAME = struct.Struct("<QII")
"""offset in the file, length in the file, extents; the frame's extent table follows."""
FOOTER = struct.Struct("<QQQQQ16sQ")
"""index offset, index length, frames, extents, disk bytes, index checksum, header checksum;
then a 64-bit checksum of the footer and the sealed magic."""
FOOTER_LENGTH = FOOTER.size + CHECKSUM64.size + len(SEALED_MAGIC)


class SegmentHeader(Value):
    """What a segment belongs to; stored as JSON in its header."""

    machine: str
    disk: str
    disk_size: int
    sequence: int
    epoch: str
    cut: int
    encryption: Encryption | None = None


class Sealed(NamedTuple):
    """What a closed segment holds. ``identity`` is the checksum of its footer, which covers everything else."""

    disk_bytes: int
    stored_bytes: int
    identity: str


class SegmentFile:
    """Puts encoded frames one after another into ``<path>.part``; :meth:`close` makes them durable under the name.

    Memory holds nothing but 16 bytes of index for each extent.

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
        self.stored = 0
        self.frames = 0
        self._path = path
        self._part = path.with_name(path.name + ".part")
        self._header = header
        self._reserve = reserve
        self._closed = closed
        self._frontier = 0
        self._index = bytearray()
        self._extents = 0
        self._disk_bytes = 0
        with files.translated(self._part):
            self._fd: int | None = files.open_file(self._part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self._header_checksum = self._write_header()

    def append(self, frame: Frame) -> None:
        """Raises ``InvalidState`` for extents out of order or beyond the disk, ``NoSpace``."""
        if frame.encrypted != (self._header.encryption is not None):
            raise InvalidState("a frame is not encrypted as its segment says", where=str(self._part))
        for offset, length, kind in EXTENT.iter_unpack(frame.table):
            if offset < self._frontier or offset + length > self._header.disk_size or kind not in (DATA, ZEROS):
                raise out_of_order(offset, length, self._frontier, self._header)
            self._frontier = offset + length
            self._disk_bytes += length
        extents = len(frame.table) // EXTENT.size
        self._index += INDEX_FRAME.pack(self.stored, frame.length, extents) + frame.table
        self._write(frame.head)
        self._write(frame.payload)
        self.frames += 1
        self._extents += extents

    def close(self) -> None:
        """Idempotent; durable when it returns."""
        if self._fd is None:
            return
        with files.translated(self._part):
            sealed = self._write_trailer()
            files.sync(self._fd)
            os.close(self._fd)
            self._fd = None
            files.rename(self._part, self._path)
        if self._closed:
            self._closed(sealed)

    def abandon(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        with files.translated(self._part):
            files.delete(self._part)

    def _write(self, data: bytes | memoryview) -> None:
        assert self._fd is not None
        if self._reserve:
            self._reserve(len(data))
        with files.translated(self._part):
            files.write_at(self._fd, data, self.stored)
        self.stored += len(data)

    def _write_header(self) -> int:
        meta = self._header.model_dump_json(exclude_none=True).encode()
        head = HEADER.pack(MAGIC, VERSION, ENCRYPTED if self._header.encryption else 0, len(meta)) + meta
        value = checksum64(head)
        self._write(head + CHECKSUM64.pack(value))
        return value

    def _write_trailer(self) -> Sealed:
        index_offset = self.stored
        index = bytes(self._index)
        footer = FOOTER.pack(
            index_offset,
            len(index),
            self.frames,
            self._extents,
            self._disk_bytes,
            checksum(index),
            self._header_checksum,
        )
        self._write(index)
        self._write(footer + CHECKSUM64.pack(checksum64(footer)) + SEALED_MAGIC)
        return Sealed(self._disk_bytes, self.stored, checksum(footer).hex())


class SegmentFileWriter:
    """A :class:`replication.ports.SegmentWriter` into a file: encodes what is added, beside the caller's reading.

    Extents come in ascending order and do not overlap. Args as :class:`SegmentFile`; ``cipher`` is the one that the
    header's ``encryption`` names.
    """

    def __init__(
        self,
        path: Path,
        header: SegmentHeader,
        *,
        reserve: Callable[[int], None] | None = None,
        closed: Callable[[Sealed], None] | None = None,
        cipher: FrameCipher | None = None,
    ) -> None:
        self._header = header
        self._frontier = 0
        self._file = SegmentFile(path, header, reserve=reserve, closed=closed)
        self._encoder = FrameEncoder(self._file.append, cipher)

    @property
    def bytes_sent(self) -> int:
        return self._file.stored

    def add(self, extent: Extent) -> None:
        """Raises ``InvalidState`` for extents out of order or beyond the disk, ``NoSpace``."""
        self._frontier = next_frontier(extent, self._frontier, self._header)
        self._encoder.add(extent)

    def close(self) -> None:
        """Idempotent; durable when it returns."""
        self._encoder.flush()
        self._encoder.close()
        self._file.close()

    def abandon(self) -> None:
        self._encoder.close()
        self._file.abandon()


def next_frontier(extent: Extent, frontier: int, header: SegmentHeader) -> int:
    """Where the next extent may begin. Raises ``InvalidState`` for one out of order or beyond the disk."""
    end = extent.offset + len(extent.data)
    if extent.offset < frontier or end > header.disk_size:
        raise out_of_order(extent.offset, len(extent.data), frontier, header)
    return end


def out_of_order(offset: int, length: int, frontier: int, header: SegmentHeader) -> InvalidState:
    return InvalidState(
        f"the change source gave {length} bytes at {offset} after bytes up to {frontier} "
        f"of a disk of {header.disk_size} bytes",
        where=f"{header.machine}/{header.disk}",
        remedy="resynchronize the machine",
    )
