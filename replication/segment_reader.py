"""Reads segments, and believes nothing that its checksum does not confirm."""

from __future__ import annotations

import os
import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from replication import files
from replication.checksums import checksum, checksum64
from replication.cipher import FrameCipher, MachineKey
from replication.frames import CHECKSUM64, DATA, EXTENT, ZEROS, Complain, Frame, check_frame, extents_of, plain_of
from replication.ports import Extent
from replication.segment import (
    ENCRYPTED,
    FOOTER,
    FOOTER_LENGTH,
    HEADER,
    INDEX_FRAME,
    MAGIC,
    SEALED_MAGIC,
    VERSION,
    Sealed,
    SegmentHeader,
)
from vault.errors import AuthenticationRefused, Damaged, InvalidState

NO_PAYLOAD = 0xFFFFFFFF
"""In :attr:`SegmentIndex.position`: the extent is zeros."""
FRAMES_CACHED = 8 << 20
"""Bytes of plain data that a reader keeps of the frames that it read last."""
WITHOUT_IT = "choose a recovery point before it, or resynchronize the machine"
"""What to do when a segment is damaged or gone."""


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


class FrameCache:
    """The plain data of the frames that were read last, of one segment or of several. Thread-safe.

    Args:
        limit: bytes that are kept.
    """

    def __init__(self, limit: int = FRAMES_CACHED) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, int], bytes | memoryview] = OrderedDict()
        self._bytes = 0

    def get(self, key: tuple[int, int]) -> bytes | memoryview | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: tuple[int, int], data: bytes | memoryview) -> None:
        with self._lock:
            if key not in self._kept:
                self._kept[key] = data
                self._bytes += len(data)
            while self._bytes > self._limit and len(self._kept) > 1:
                self._bytes -= len(self._kept.popitem(last=False)[1])


class SegmentReader:
    """One sealed segment. Thread-safe.

    Opening verifies header, index and footer; reading verifies each frame.

    Args:
        key: the machine's key; None when its replica is not encrypted.
        cache: shared with other readers; None: it keeps its own.

    Raises:
        Damaged: naming the file and the position in it.
        InvalidState: the segment was written by a newer leeward.
        AuthenticationRefused: the segment is encrypted, and not with ``key``.
    """

    def __init__(self, path: Path, key: MachineKey | None = None, cache: FrameCache | None = None) -> None:
        self.path = path
        self._cache = cache or FrameCache()
        with files.translated(path):
            self._fd = files.open_file(path, os.O_RDONLY)
        try:
            with files.translated(path):
                self._open()
            self._cipher = self._cipher_with(key)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Idempotent. To read on opens the file for each frame: whoever has many readers keeps few files open."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __len__(self) -> int:
        return len(self._frames)

    def plain(self, frame: int) -> bytes | memoryview:
        """A frame's verified plain data; the last few are kept."""
        data = self._cache.get((id(self), frame))
        if data is None:
            data = self.read_frame(frame)
            self._cache.put((id(self), frame), data)
        return data

    def frames(self) -> Iterator[list[Extent]]:
        """Frame by frame, all extents; runs of zeros are given in pieces of at most 1 MiB."""
        for number in range(len(self)):
            yield self.extents(number)

    def extents(self, frame: int) -> list[Extent]:
        """All extents of one frame."""
        return list(extents_of(self._frames[frame][3], self.read_frame(frame)))

    def ranges(self, frame: int) -> list[tuple[int, int]]:
        """Where on the disk the extents of a frame belong, also of one that is damaged."""
        return [(offset, length) for offset, length, _ in EXTENT.iter_unpack(self._frames[frame][3])]

    def all_ranges(self) -> Iterator[tuple[int, int]]:
        """Where on the disk its extents belong, ascending."""
        return zip(self.index.offset, self.index.length, strict=True)

    def stored_length(self, frame: int) -> int:
        return self._frames[frame][1]

    def verify(self) -> None:
        """Read and check every byte, as it is stored."""
        for number in range(len(self)):
            self.check(number)

    def check(self, frame: int) -> None:
        """Read and check the bytes of a frame as they are stored."""
        self._checked(frame, self._complaint(frame))

    def _damaged(self, what: str, position: int) -> Damaged:
        return Damaged(
            f"{what} at byte {position}",
            where=str(self.path),
            remedy=WITHOUT_IT,
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
        if version != VERSION or flags & ~ENCRYPTED:
            raise InvalidState(
                f"segment version {version} with flags {flags:#x} is not known here",
                where=str(self.path),
                remedy="use the leeward release that wrote it, or a newer one",
            )
        try:
            self.header = SegmentHeader.model_validate_json(head[HEADER.size :])
        except ValidationError as error:
            raise self._damaged("the header's fields are not those of a segment", HEADER.size) from error
        if bool(flags & ENCRYPTED) != (self.header.encryption is not None):
            raise self._damaged("the header's flags do not match its fields", 0)
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

    def _cipher_with(self, key: MachineKey | None) -> FrameCipher | None:
        if self.header.encryption is None:
            return None
        if key is None:
            raise AuthenticationRefused(
                "the segment is encrypted, and no key is known here",
                where=str(self.path),
                remedy="set the site's 'replica_key' in the inventory",
            )
        return key.cipher(self.header.encryption, self.header.disk)

    def read_frame(self, number: int) -> bytes | memoryview:
        """As :meth:`plain`, for a frame that is not read again."""
        damaged = self._complaint(number)
        return plain_of(self._checked(number, damaged), damaged, self._cipher, number)

    def _complaint(self, number: int) -> Complain:
        begin = self._frames[number][0]
        return lambda what, position: self._damaged(what, begin + position)

    def _read(self, length: int, offset: int) -> bytes:
        with files.translated(self.path):
            if self._fd >= 0:
                return files.read_at(self._fd, length, offset)
            fd = files.open_file(self.path, os.O_RDONLY)
            try:
                return files.read_at(fd, length, offset)
            finally:
                os.close(fd)

    def _checked(self, number: int, damaged: Complain) -> Frame:
        offset, length, _, table = self._frames[number]
        raw = memoryview(self._read(length, offset))
        if len(raw) != length:
            raise damaged("a frame is cut short", 0)
        frame = check_frame(raw, damaged)
        if frame.table != table:
            raise damaged("a frame does not match the index", 0)
        return frame
