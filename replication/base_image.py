"""The base image: a disk at the oldest kept recovery point, as a raw file with a table of block checksums beside it.

The raw file is exactly the disk, so that any tool can read it; the table makes every read verifiable.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Container, Iterator
from pathlib import Path

from replication import files
from replication.checksums import BLOCK, CHECKSUM_LENGTH, block_checksums, checksum, checksum64, is_zero
from replication.ports import Extent
from vault.errors import Damaged, InvalidState

SUMS_MAGIC = b"LWBLKSUM"
SUMS_VERSION = 1
SUMS_HEADER = struct.Struct("<8sHHIQ")
"""magic, version, flags, block size, disk size; then a 64-bit checksum of it. Entries follow."""
SUMS_ENTRIES = 64
"""Where the entries begin: the header is padded with zeros."""
OF_ZEROS = bytes(CHECKSUM_LENGTH)
"""The entry of a block that is all zeros: the table of a sparse image is sparse too."""
PIECE = 1 << 20


def _blocks(offset: int, length: int) -> range:
    return range(offset // BLOCK, (offset + length + BLOCK - 1) // BLOCK)


def _entry(data: bytes | memoryview) -> bytes:
    return OF_ZEROS if is_zero(data) else checksum(data)


def _entries(data: memoryview) -> bytes:
    return b"".join([_entry(data[at : at + BLOCK]) for at in range(0, len(data), BLOCK)])


class BaseImage:
    """Reads are thread-safe; writes come from one writer that holds the store's lock.

    Raises:
        Damaged: a block or the table does not match its checksum; names file and position.
        InvalidState: the file does not have the disk's size.
    """

    def __init__(self, image: Path, sums: Path, size: int, *, writable: bool = False) -> None:
        self.size = size
        self._image, self._sums = image, sums
        flags = os.O_RDWR if writable else os.O_RDONLY
        self._fds: list[int] = []
        self._direct: int | None = None
        self._entered: set[int] = set()
        """Blocks whose table entry is right since they were filled."""
        try:
            with files.translated(image):
                self._fds.append(files.open_file(image, flags))
                self._fds.append(files.open_file(sums, flags))
                if writable:
                    self._direct = files.open_direct(image)
                self._check()
        except BaseException:
            self.close()
            raise

    @staticmethod
    def make(image: Path, sums: Path, size: int) -> None:
        """Both files exist with their sizes; blocks that are there already stay (their checksums start anew)."""
        with files.translated(image):
            fd = files.open_file(image, os.O_RDWR | os.O_CREAT)
            try:
                files.set_size(fd, size)
                files.sync(fd)
            finally:
                os.close(fd)
            head = SUMS_HEADER.pack(SUMS_MAGIC, SUMS_VERSION, 0, BLOCK, size)
            head += struct.pack("<Q", checksum64(head))
            files.replace_contents(sums, head.ljust(SUMS_ENTRIES, b"\0"))

    def close(self) -> None:
        """Idempotent."""
        if self._direct is not None:
            os.close(self._direct)
            self._direct = None
        while self._fds:
            os.close(self._fds.pop())

    def read(self, offset: int, length: int) -> bytes:
        """Unverified: for an image that is still being seeded."""
        with files.translated(self._image):
            return files.read_at(self._fds[0], min(length, max(0, self.size - offset)), offset)

    def read_verified(self, offset: int, length: int, *, unsettled: Container[int] = ()) -> bytes:
        """``length`` bytes whose blocks match the table; blocks numbered in ``unsettled`` are not checked."""
        length = min(length, max(0, self.size - offset))
        if length == 0:
            return b""
        blocks = _blocks(offset, length)
        begin = blocks.start * BLOCK
        data = self.read(begin, len(blocks) * BLOCK)
        self._verify(blocks, data, unsettled)
        return data if begin == offset and len(data) == length else data[offset - begin : offset - begin + length]

    def data_ranges(self, start: int = 0) -> Iterator[tuple[int, int]]:
        with files.translated(self._image):
            yield from files.data_ranges(self._fds[0], self.size, start)

    def is_hole(self, offset: int, length: int) -> bool:
        with files.translated(self._image):
            return files.is_hole(self._fds[0], offset, length)

    def write(self, extent: Extent) -> None:
        """Zeros become a hole. The table does not know yet: :meth:`settle` follows."""
        self._entered.difference_update(_blocks(extent.offset, len(extent.data)))
        with files.translated(self._image):
            if is_zero(extent.data):
                files.zero_range(self._fds[0], extent.offset, len(extent.data))
            else:
                files.write_at(self._fds[0], extent.data, extent.offset)

    def fill(self, extent: Extent) -> None:
        """As :meth:`write`, for an image that is being seeded: whole blocks are entered into the table as well."""
        blocks, end = _blocks(extent.offset, len(extent.data)), extent.offset + len(extent.data)
        if extent.offset % BLOCK or (end % BLOCK and end != self.size) or is_zero(extent.data):
            self.write(extent)
            return
        with files.translated(self._image):
            if self._direct is None or len(extent.data) % files.DIRECT_UNIT:
                files.write_at(self._fds[0], extent.data, extent.offset)
            else:
                files.write_direct(self._direct, extent.data, extent.offset)
        self._put_entries(blocks, _entries(memoryview(extent.data)))
        self._entered.update(blocks)

    def settle(self, offset: int, length: int) -> None:
        """Enter into the table what the image holds in this range."""
        end = min(self.size, offset + length)
        for begin in range(offset - offset % BLOCK, end, PIECE):
            blocks = _blocks(begin, min(PIECE, end - begin))
            for run in _consecutive([block for block in blocks if block not in self._entered]):
                self._enter(run)
            self._entered.difference_update(blocks)

    def sync(self) -> None:
        """Image and table are durable."""
        with files.translated(self._image):
            for fd in self._fds:
                files.sync(fd)

    def merge(self, extents: list[Extent], *, verify: bool) -> None:
        """Write extents and enter their blocks into the table.

        Blocks that are only partly overwritten are verified first, lest damage in the rest be entered as good.
        ``verify`` is False only for repeating a merge that a crash interrupted: its blocks are between two states."""
        touched: set[int] = set()
        for extent in extents:
            blocks = _blocks(extent.offset, len(extent.data))
            if verify:
                self._verify_rest(extent, blocks, touched)
            touched.update(blocks)
        for extent in extents:
            self.write(extent)
        for run in _consecutive(sorted(touched)):
            self._enter(run)

    def _verify_rest(self, extent: Extent, blocks: range, known: Container[int]) -> None:
        end = extent.offset + len(extent.data)
        for block in {blocks.start, blocks.stop - 1}:
            whole = extent.offset <= block * BLOCK and end >= min(self.size, (block + 1) * BLOCK)
            if not whole and block not in known:
                self.read_verified(block * BLOCK, BLOCK)

    def _enter(self, blocks: range) -> None:
        if self.is_hole(blocks.start * BLOCK, len(blocks) * BLOCK):
            entries = OF_ZEROS * len(blocks)
        else:
            entries = _entries(memoryview(self.read(blocks.start * BLOCK, len(blocks) * BLOCK)))
        self._put_entries(blocks, entries)

    def _put_entries(self, blocks: range, entries: bytes) -> None:
        position = SUMS_ENTRIES + blocks.start * CHECKSUM_LENGTH
        with files.translated(self._sums):
            if not is_zero(entries) or not is_zero(files.read_at(self._fds[1], len(entries), position)):
                files.write_at(self._fds[1], entries, position)

    def _verify(self, blocks: range, data: bytes, unsettled: Container[int]) -> None:
        length = len(blocks) * CHECKSUM_LENGTH
        with files.translated(self._sums):
            position = SUMS_ENTRIES + blocks.start * CHECKSUM_LENGTH
            entries = files.read_at(self._fds[1], length, position).ljust(length, b"\0")
        if b"".join(block_checksums(data)) == entries:
            return
        view = memoryview(data)
        for at, block in enumerate(blocks):
            entry = entries[at * CHECKSUM_LENGTH : (at + 1) * CHECKSUM_LENGTH]
            if entry != _entry(view[at * BLOCK : (at + 1) * BLOCK]) and block not in unsettled:
                raise Damaged(
                    f"the base image does not match its checksum in the {BLOCK} bytes at {block * BLOCK}",
                    where=str(self._image),
                    remedy="resynchronize the machine into a new replica",
                )

    def _check(self) -> None:
        found = os.fstat(self._fds[0]).st_size
        if found != self.size:
            raise InvalidState(
                f"the base image has {found} bytes, but the disk has {self.size}",
                where=str(self._image),
                remedy="disable the protection of the machine and enable it again",
            )
        head = files.read_at(self._fds[1], SUMS_ENTRIES, 0)
        expected = SUMS_HEADER.pack(SUMS_MAGIC, SUMS_VERSION, 0, BLOCK, self.size)
        expected += struct.pack("<Q", checksum64(expected))
        if head != expected.ljust(SUMS_ENTRIES, b"\0"):
            raise Damaged("the header of the block checksums is not what belongs there", where=str(self._sums))


def _consecutive(blocks: list[int]) -> Iterator[range]:
    """Runs of consecutive numbers, none longer than a piece."""
    start = 0
    for at in range(1, len(blocks) + 1):
        full = at - start == PIECE // BLOCK
        if at == len(blocks) or blocks[at] != blocks[at - 1] + 1 or full:
            yield range(blocks[start], blocks[at - 1] + 1)
            start = at
