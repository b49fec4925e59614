"""Two sides of a disk compared by block checksums: only what differs has to be sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from replication.checksums import BLOCK, block_checksums
from replication.ports import BlockChecksums, BlockReader, Extent
from replication.ranges import pieces, union


class Compared(NamedTuple):
    """A stretch of a disk at the source, with the parts of it that the replica does not have."""

    offset: int
    length: int
    differing: list[Extent]


def compare(reader: BlockReader, theirs: BlockChecksums, size: int, start: int = 0) -> Iterator[Compared]:
    """Goes through all that either side may hold; what neither holds is zero on both and needs no look."""
    for offset, length in to_compare(reader, theirs, size):
        if offset + length <= start:
            continue
        data = memoryview(reader.read(offset, length))
        known = theirs.checksums(offset, length, BLOCK)
        yield Compared(offset, length, list(_differing(offset, data, known)))


def to_compare(reader: BlockReader, theirs: BlockChecksums, size: int) -> Iterator[tuple[int, int]]:
    return pieces(union(reader.allocated(), theirs.allocated()), size, BLOCK)


def _differing(offset: int, data: memoryview, theirs: list[bytes]) -> Iterator[Extent]:
    """Runs of blocks whose checksums differ."""
    ours = block_checksums(data)
    start: int | None = None
    for at, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        if mine != other and start is None:
            start = at * BLOCK
        if mine == other and start is not None:
            yield Extent(offset + start, data[start : at * BLOCK])
            start = None
    if start is not None:
        yield Extent(offset + start, data[start:])
