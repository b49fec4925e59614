"""Reads segments, and believes nothing that its checksum does not confirm."""

from __future__ import annotations

import os
import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import zstandard
from pydantic import ValidationError

from replication import files
from replication.checksums import checksum, checksum64
from replication.ports import Extent
from replication.segment import (
    CHECKSUM64,
    DATA,
    EXTENT,
    FOOTER,
    FOOTER_LENGTH,
    FRAME,
    FRAME_MAGIC,
    FRAME_PLAIN_MAX,
    HEADER,
    INDEX_FRAME,
    MAGIC,
    RAW,
    SEALED_MAGIC,
    VERSION,
    ZEROS,
    ZSTD,
    Sealed,
    SegmentHeader,
)
from vault.errors import Damaged, InvalidState

NO_PAYLOAD = 0xFFFFFFFF
"""In :attr:`SegmentIndex.position`: the extent is zeros."""
FRAMES_CACHED = 8

_UNPACKED_ZEROS = bytes(1 << 20)


class SegmentIndex:
    """All extents of a segment, ascending, in compact arrays (24 bytes an extent)."""

    def __init__(self) -> None:
        self.offset = array("Q")
        self.length = array("Q")
        self.frame = array("I")
        self.position = array("I")
        """Where the extent's bytes begin in the plain data of its frame."""

    def __len__(self) -> int:
        return len(self.offset)


class SegmentReader:
    """One sealed segment. Thread-safe.

    Opening verifies header, index and footer; reading verifies each frame.

    Raises:
        Damaged: naming the file and the position in it.
        InvalidState: the segment was written by a newer leeward.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with files.translated(path):
            self._fd = files.open_file(path, os.O_RDONLY)
        try:
            with files.translated(path):
                self._open()
        except BaseException:
            os.close(self._fd)
            raise
        self._lock = threading.Lock()
        self._cache: OrderedDict[int, bytes] = OrderedDict()

    def close(self) -> None:
        """Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __len__(self) -> int:
        return len(self._frames)

    def plain(self, frame: int) -> bytes:
        """A frame's verified plain data; the last few are kept."""
        with self._lock:
            if frame in self._cache:
                self._cache.move_to_end(frame)
                return self._cache[frame]
        data = self._read_frame(frame)
        with self._lock:
            self._cache[frame] = data
            if len(self._cache) > FRAMES_CACHED:
                self._cache.popitem(last=False)
        return data

    def frames(self) -> Iterator[list[Extent]]:
        """Frame by frame, all extents; runs of zeros are given in pieces of at most 1 MiB."""
        first = 0
        for number, (_, _, count, _) in enumerate(self._frames):
            plain = memoryview(self._read_frame(number))
            extents: list[Extent] = []
            for i in range(first, first + count):
                offset, length, position = self.index.offset[i], self.index.length[i], self.index.position[i]
                if position != NO_PAYLOAD:
                    extents.append(Extent(offset, plain[position : position + length]))
                    continue
                for start in range(0, length, len(_UNPACKED_ZEROS)):
                    extents.append(Extent(offset + start, _UNPACKED_ZEROS[: length - start]))
            yield extents
            first += count

    def verify(self) -> None:
        """Read and check every byte."""
        for number in range(len(self)):
            self._read_frame(number)

    def _damaged(self, what: str, position: int) -> Damaged:
        return Damaged(
            f"{what} at byte {position}",
            where=str(self.path),
            remedy="choose a recovery point before it, or resynchronize the machine",
        )

    def _open(self) -> None:
        self._size = os.fstat(self._fd).st_size
        frames_begin, header_checksum = self._read_header()
        start = self._size - FOOTER_LENGTH
        if start < frames_begin:
            raise self._damaged("the segment is cut short: no footer", self._size)
        raw = files.read_at(self._fd, FOOTER_LENGTH, start)
        footer, seal = raw[: FOOTER.size], raw[FOOTER.size :]
        if seal != CHECKSUM64.pack(checksum64(footer)) + SEALED_MAGIC:
            raise self._damaged("the footer does not match its checksum", start)
        index_offset, index_length, frames, extents, disk_bytes, index_checksum, of_header = FOOTER.unpack(footer)
        if of_header != header_checksum:
            raise self._damaged("the footer belongs to another segment", start)
        if index_offset + index_length != start:
            raise self._damaged("the footer does not match the file's size", start)
        index = files.read_at(self._fd, index_length, index_offset)
        if len(index) != index_length or checksum(index) != index_checksum:
            raise self._damaged("the index does not match its checksum", index_offset)
        self.sealed = Sealed(disk_bytes, self._size, checksum(footer).hex())
        self._read_index(index, frames_begin, index_offset)
        if (len(self._frames), len(self.index)) != (frames, extents):
            raise self._damaged("the index does not match the footer's totals", index_offset)

    def _read_header(self) -> tuple[int, int]:
        fixed = files.read_at(self._fd, HEADER.size, 0)
        if len(fixed) < HEADER.size or fixed[: len(MAGIC)] != MAGIC:
            raise self._damaged("this is not a segment: wrong magic", 0)
        _, version, flags, meta_length = HEADER.unpack(fixed)
        end = HEADER.size + meta_length
        if end + CHECKSUM64.size > self._size:
            raise self._damaged("the segment is cut short: its header is not whole", self._size)
        head = fixed + files.read_at(self._fd, meta_length, HEADER.size)
        value = checksum64(head)
        if files.read_at(self._fd, CHECKSUM64.size, end) != CHECKSUM64.pack(value):
            raise self._damaged("the header does not match its checksum", 0)
        if version != VERSION or flags:
            raise InvalidState(
                f"segment version {version} with flags {flags:#x} is not known here",
                where=str(self.path),
                remedy="use the leeward release that wrote it, or a newer one",
            )
        try:
            self.header = SegmentHeader.model_validate_json(head[HEADER.size :])
        except ValidationError as error:
            raise self._damaged("the header's fields are not those of a segment", HEADER.size) from error
        return end + CHECKSUM64.size, value

    def _read_index(self, raw: bytes, position: int, end: int) -> None:
        """Frames lie side by side from ``position`` to ``end``: no byte of the file is outside a checksum."""
        self.index = SegmentIndex()
        self._frames: list[tuple[int, int, int, bytes]] = []
        at = frontier = 0
        while at < len(raw):
            if len(raw) - at < INDEX_FRAME.size:
                raise self._damaged("the index is cut short", end + at)
            offset, length, count = INDEX_FRAME.unpack_from(raw, at)
            table = raw[at + INDEX_FRAME.size : at + INDEX_FRAME.size + count * EXTENT.size]
            if len(table) != count * EXTENT.size:
                raise self._damaged("the index is cut short", end + at)
            at += INDEX_FRAME.size + len(table)
            if offset != position:
                raise self._damaged("the index leaves a gap between frames", position)
            payload = 0
            for start, size, kind in EXTENT.iter_unpack(table):
                if start < frontier or start + size > self.header.disk_size or kind not in (DATA, ZEROS):
                    raise self._damaged(f"the index lists an impossible extent at {start}", offset)
                frontier = start + size
                self.index.offset.append(start)
                self.index.length.append(size)
                self.index.frame.append(len(self._frames))
                self.index.position.append(NO_PAYLOAD if kind == ZEROS else payload)
                payload += 0 if kind == ZEROS else size
            self._frames.append((offset, length, count, table))
            position = offset + length
        if position != end:
            raise self._damaged("the index leaves a gap after the last frame", position)

    def _read_frame(self, number: int) -> bytes:
        offset, length, _, table = self._frames[number]
        with files.translated(self.path):
            raw = memoryview(files.read_at(self._fd, length, offset))
        head_length = FRAME.size + len(table)
        payload_begin = head_length + CHECKSUM64.size
        if len(raw) != length or length < payload_begin:
            raise self._damaged("a frame is cut short", offset)
        head, stored = raw[:head_length], raw[payload_begin:]
        if raw[head_length:payload_begin] != CHECKSUM64.pack(checksum64(head)):
            raise self._damaged("a frame's header does not match its checksum", offset)
        magic, codec, flags, reserved, _, plain_length, stored_length, plain_checksum, stored_checksum = (
            FRAME.unpack_from(head)
        )
        if magic != FRAME_MAGIC or flags or reserved or bytes(head[FRAME.size :]) != table:
            raise self._damaged("a frame does not match the index", offset)
        if stored_length != len(stored) or plain_length > FRAME_PLAIN_MAX:
            raise self._damaged("a frame's lengths do not add up", offset)
        if checksum64(stored) != stored_checksum:
            raise self._damaged("a frame's data does not match its checksum", offset + payload_begin)
        plain = self._decode(codec, stored, plain_length, offset)
        if len(plain) != plain_length or checksum(plain) != plain_checksum:
            raise self._damaged("a frame's plain data does not match its checksum", offset + payload_begin)
        return plain

    def _decode(self, codec: int, stored: memoryview, plain_length: int, offset: int) -> bytes:
        if codec == RAW:
            return bytes(stored)
        if codec != ZSTD:
            raise self._damaged(f"a frame has the unknown codec {codec}", offset)
        try:
            return zstandard.ZstdDecompressor().decompress(stored, max_output_size=plain_length)
        except zstandard.ZstdError as error:
            raise self._damaged(f"a frame cannot be decompressed ({error})", offset) from error
