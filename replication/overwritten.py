"""Which bytes of a disk a merge overwrites, and so which it leaves alone."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator

from replication.checksums import BLOCK
from replication.ranges import union


class Overwritten:
    """Sorted, disjoint ranges of a disk, in compact arrays (16 bytes a range).

    Args:
        verifiable: a table of checksums tells what the blocks hold beside these ranges. A merge that was begun by a
            release before this was known does not have it.
    """

    def __init__(self, size: int, *ranges: Iterator[tuple[int, int]], verifiable: bool = True) -> None:
        self.verifiable = verifiable
        self._size = size
        self._start, self._end = array("Q"), array("Q")
        for offset, length in union(*ranges):
            self._start.append(offset)
            self._end.append(offset + length)

    @property
    def nothing(self) -> bool:
        return not self._start

    def blocks_in_part(self) -> Iterator[int]:
        """Numbers of the blocks of which something is left alone, ascending."""
        last = -1
        for start, end in zip(self._start, self._end, strict=True):
            if start % BLOCK and start // BLOCK != last:
                last = start // BLOCK
                yield last
            if end % BLOCK and end != self._size and end // BLOCK != last:
                last = end // BLOCK
                yield last

    def touches(self, block: int) -> bool:
        at = bisect_right(self._end, block * BLOCK)
        return at < len(self._start) and self._start[at] < (block + 1) * BLOCK

    def beside(self, block: int) -> list[tuple[int, int]]:
        """``(start, end)`` of each part of the block that is left alone."""
        begin = position = block * BLOCK
        end = min(begin + BLOCK, self._size)
        rest = []
        at = bisect_right(self._end, begin)
        while at < len(self._start) and self._start[at] < end:
            if self._start[at] > position:
                rest.append((position, self._start[at]))
            position = self._end[at]
            at += 1
        if position < end:
            rest.append((position, end))
        return rest
