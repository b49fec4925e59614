"""Two sides of a disk compared by block checksums: only what differs has to be sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from replication.blocks import read_exactly
from replication.checksums import BLOCK, checksum, is_zero, zero_checksum
from replication.ports import BlockChecksums, BlockReader, Extent
from replication.ranges import pieces, union
from vault.errors import Damaged

SAME_RELEASE = "let both sites run the same release of leeward"


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
        data = memoryview(read_exactly(reader, offset, length))
        known = theirs.checksums(offset, length, BLOCK)
        blocks = -(-length // BLOCK)
        if len(known) != blocks:
            raise Damaged(f"{len(known)} checksums came for {blocks} blocks at {offset}", remedy=SAME_RELEASE)
        yield Compared(offset, length, list(_differing(offset, data, known)))


def to_compare(reader: BlockReader, theirs: BlockChecksums, size: int) -> Iterator[tuple[int, int]]:
    return pieces(union(reader.allocated(), theirs.allocated()), size, BLOCK)


def _differing(offset: int, data: memoryview, theirs: list[bytes]) -> Iterator[Extent]:
    """Runs of blocks whose checksums differ."""
    start: int | None = None
    for at, known in enumerate(theirs):
        same = _has_checksum(data[at * BLOCK : (at + 1) * BLOCK], known)
        if not same and start is None:
            start = at * BLOCK
        if same and start is not None:
            yield Extent(offset + start, data[start : at * BLOCK])
            start = None
    if start is not None:
        yield Extent(offset + start, data[start:])


def _has_checksum(block: memoryview, known: bytes) -> bool:
    """Whether a block is zero shows sooner than its checksum: a replica that is filled holds nothing but zeros yet."""
    if known == zero_checksum(len(block)):
        return is_zero(block)
    return checksum(block) == known
