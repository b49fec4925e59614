"""The base image: a disk at the oldest kept recovery point, as a raw file with a table of block checksums beside it.

The raw file is exactly the disk, so that any tool can read it; the table makes every read verifiable.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import compress, groupby
from pathlib import Path

from replication import files
from replication.checksums import BLOCK, CHECKSUM_LENGTH, block_checksums, checksum, checksum64, is_zero
from replication.overwritten import Overwritten
from replication.ports import Extent
from replication.ranges import union
from vault.errors import Damaged, InvalidState

SUMS_MAGIC = b"LWBLKSUM"
SUMS_VERSION = 1
SUMS_HEADER = struct.Struct("<8sHHIQ")
"""magic, version, flags, block size, disk size; then a 64-bit checksum of it. Entries follow."""
SUMS_ENTRIES = 64
"""Where the entries begin: the header is padded with zeros."""
OF_ZEROS = bytes(CHECKSUM_LENGTH)
"""The entry of a block that is all zeros: the table of a sparse image is sparse too."""
KNOWN_DAMAGED = b"\xff" * CHECKSUM_LENGTH
"""The entry of a block that was found damaged: it matches nothing until the whole block is written anew."""
PIECE = 1 << 20
ENTRIES_AT_ONCE = 4096
ENTRIES_OF_PAGE = 256
"""As many as the file system reads and writes together."""


def blocks_of(offset: int, length: int) -> range:
    return range(offset // BLOCK, (offset + length + BLOCK - 1) // BLOCK)


def whole_blocks_of(offset: int, length: int, size: int) -> range:
    """Those that a range covers from their beginning to their end."""
    end = offset + length
    return range((offset + BLOCK - 1) // BLOCK, (end + BLOCK - 1 if end == size else end) // BLOCK)


def entry_of(*parts: bytes | memoryview) -> bytes:
    """The entry of a block that consists of these parts."""
    return OF_ZEROS if all(map(is_zero, parts)) else checksum(*parts)


def rest_entry(data: memoryview, block: int, rest: Sequence[tuple[int, int]]) -> bytes:
    """As :func:`entry_of`, of those parts of a block's ``data`` that a merge leaves alone, one after another."""
    begin = block * BLOCK
    return entry_of(*(data[start - begin : end - begin] for start, end in rest))


def is_either(entry: bytes, whole: bytes, rest: bytes) -> bool:
    """Also when a crash left it half-written: each byte is of one or the other."""
    return entry in (whole, rest) or all(byte in either for byte, *either in zip(entry, whole, rest, strict=True))


def _entries(data: memoryview) -> bytes:
    return b"".join([entry_of(data[at : at + BLOCK]) for at in range(0, len(data), BLOCK)])


class BaseImage:
    """Reads are thread-safe; writes come from one writer that holds the store's lock.

    Args:
        unsettled: what an interrupted merge was about. Who reads has those bytes from the layers; of their blocks only
            the rest is verified.

    Raises:
        Damaged: a block or the table does not match its checksum; names file and position.
        InvalidState: the file does not have the disk's size.
    """

    def __init__(
        self, image: Path, sums: Path, size: int, *, writable: bool = False, unsettled: Overwritten | None = None
    ) -> None:
        self.size = size
        self._unsettled = unsettled
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

    def read_verified(self, offset: int, length: int) -> bytes:
        """``length`` bytes whose blocks match the table."""
        length = min(length, max(0, self.size - offset))
        if length == 0:
            return b""
        blocks = blocks_of(offset, length)
        begin = blocks.start * BLOCK
        data = self.read(begin, len(blocks) * BLOCK)
        self._verify(blocks, data)
        return data if begin == offset and len(data) == length else data[offset - begin : offset - begin + length]

    def data_ranges(self) -> Iterator[tuple[int, int]]:
        """What the file holds, and the blocks that the table says it ought to: what is lost is no zeros."""
        return union(self.written_ranges(), self._lost_ranges())

    def is_hole(self, offset: int, length: int) -> bool:
        """Nothing was written there, and the table agrees."""
        return self.is_unwritten(offset, length) and is_zero(self._entries_of(blocks_of(offset, length)))

    def written_ranges(self) -> Iterator[tuple[int, int]]:
        """As :meth:`data_ranges`, for an image that is still being seeded: its table means nothing yet."""
        with files.translated(self._image):
            yield from files.data_ranges(self._fds[0], self.size)

    def is_unwritten(self, offset: int, length: int) -> bool:
        """As :meth:`is_hole`, for an image that is still being seeded."""
        with files.translated(self._image):
            return files.is_hole(self._fds[0], offset, length)

    def write(self, extent: Extent) -> None:
        """Zeros become a hole. The table does not know yet: :meth:`settle` follows."""
        self._entered.difference_update(blocks_of(extent.offset, len(extent.data)))
        with files.translated(self._image):
            if is_zero(extent.data):
                files.zero_range(self._fds[0], extent.offset, len(extent.data))
            else:
                files.write_at(self._fds[0], extent.data, extent.offset)

    def fill(self, extent: Extent) -> None:
        """As :meth:`write`, for an image that is being seeded: whole blocks are entered into the table as well."""
        blocks, end = blocks_of(extent.offset, len(extent.data)), extent.offset + len(extent.data)
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
            blocks = blocks_of(begin, min(PIECE, end - begin))
            for run in consecutive([block for block in blocks if block not in self._entered]):
                self.enter(run)
            self._entered.difference_update(blocks)

    def sync(self) -> None:
        """Image and table are durable."""
        self.sync_image()
        self.sync_table()

    def sync_image(self) -> None:
        with files.translated(self._image):
            files.sync(self._fds[0])

    def sync_table(self) -> None:
        with files.translated(self._sums):
            files.sync(self._fds[1])

    def enter(self, blocks: range) -> None:
        """Into the table what the image holds in these blocks."""
        if self.is_unwritten(blocks.start * BLOCK, len(blocks) * BLOCK):
            entries = OF_ZEROS * len(blocks)
        else:
            entries = _entries(memoryview(self.read(blocks.start * BLOCK, len(blocks) * BLOCK)))
        self._put_entries(blocks, entries)

    def change_entries(self, blocks: Iterable[int], entry_to_be: Callable[[int, memoryview, bytes], bytes]) -> None:
        """Of each of these blocks, ascending; ``entry_to_be`` is given its number, what it holds, and its entry now."""
        for page, in_page in groupby(blocks, lambda block: block // ENTRIES_OF_PAGE):
            first = page * ENTRIES_OF_PAGE
            of_page = range(first, min(first + ENTRIES_OF_PAGE, blocks_of(0, self.size).stop))
            entries = bytearray(self._entries_of(of_page))
            for run in consecutive(in_page):
                data = memoryview(self.read(run.start * BLOCK, len(run) * BLOCK))
                for at, block in enumerate(run):
                    entry = slice((block - first) * CHECKSUM_LENGTH, (block - first + 1) * CHECKSUM_LENGTH)
                    held = data[at * BLOCK : (at + 1) * BLOCK]
                    entries[entry] = entry_to_be(block, held, bytes(entries[entry]))
            self._put_entries(of_page, bytes(entries))

    def give_up(self, blocks: Iterable[int]) -> None:
        """They are known as damaged until they are written anew."""
        for run in consecutive(sorted(blocks)):
            self._put_entries(run, KNOWN_DAMAGED * len(run))

    def damage_in(self, block: int) -> Damaged:
        return Damaged(
            f"the base image does not match its checksum in the {BLOCK} bytes at {block * BLOCK}",
            where=str(self._image),
            remedy="resynchronize the machine into a new replica",
        )

    def _entries_of(self, blocks: range) -> bytes:
        length = len(blocks) * CHECKSUM_LENGTH
        with files.translated(self._sums):
            found = files.read_at(self._fds[1], length, SUMS_ENTRIES + blocks.start * CHECKSUM_LENGTH)
        return found.ljust(length, b"\0")

    def _lost_ranges(self) -> Iterator[tuple[int, int]]:
        """Blocks with an entry of which the file holds nothing."""
        for run in self._with_entries():
            frontier, end = run.start, min(run.stop * BLOCK, self.size)
            with files.translated(self._image):
                for offset, length in files.data_ranges(self._fds[0], end, run.start * BLOCK):
                    held = blocks_of(offset, length)
                    if held.start > frontier:
                        yield frontier * BLOCK, (held.start - frontier) * BLOCK
                    frontier = held.stop
            if frontier < run.stop:
                yield frontier * BLOCK, end - frontier * BLOCK

    def _with_entries(self) -> Iterator[range]:
        end = SUMS_ENTRIES + len(blocks_of(0, self.size)) * CHECKSUM_LENGTH
        with files.translated(self._sums):
            for offset, length in files.data_ranges(self._fds[1], end, SUMS_ENTRIES):
                first = (offset - SUMS_ENTRIES) // CHECKSUM_LENGTH
                stop = (offset + length - SUMS_ENTRIES) // CHECKSUM_LENGTH
                for start in range(first, stop, ENTRIES_AT_ONCE):
                    yield from self._runs_with_entries(range(start, min(start + ENTRIES_AT_ONCE, stop)))

    def _runs_with_entries(self, blocks: range) -> Iterator[range]:
        entries = self._entries_of(blocks)
        if OF_ZEROS not in entries:
            return iter((blocks,))
        present = (entries[at : at + CHECKSUM_LENGTH] != OF_ZEROS for at in range(0, len(entries), CHECKSUM_LENGTH))
        return consecutive(list(compress(blocks, present)))

    def _put_entries(self, blocks: range, entries: bytes) -> None:
        position = SUMS_ENTRIES + blocks.start * CHECKSUM_LENGTH
        with files.translated(self._sums):
            if not is_zero(entries) or not is_zero(files.read_at(self._fds[1], len(entries), position)):
                files.write_at(self._fds[1], entries, position)

    def _verify(self, blocks: range, data: bytes) -> None:
        entries = self._entries_of(blocks)
        if b"".join(block_checksums(data)) == entries:
            return
        view = memoryview(data)
        for at, block in enumerate(blocks):
            entry = entries[at * CHECKSUM_LENGTH : (at + 1) * CHECKSUM_LENGTH]
            if not self._matches(entry, view[at * BLOCK : (at + 1) * BLOCK], block):
                raise self.damage_in(block)

    def _matches(self, entry: bytes, data: memoryview, block: int) -> bool:
        whole = entry_of(data)
        if entry == whole:
            return True
        if entry == KNOWN_DAMAGED or self._unsettled is None or not self._unsettled.touches(block):
            return False
        rest = self._unsettled.beside(block)
        return not rest or not self._unsettled.verifiable or is_either(entry, whole, rest_entry(data, block, rest))

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


def consecutive(blocks: Iterable[int]) -> Iterator[range]:
    """Runs of consecutive numbers, none longer than a piece."""
    start = stop = -1
    for block in blocks:
        if block != stop or stop - start == PIECE // BLOCK:
            if stop > start:
                yield range(start, stop)
            start = block
        stop = block + 1
    if stop > start:
        yield range(start, stop)
