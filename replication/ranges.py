"""Arithmetic on ascending ``(offset, length)`` ranges."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

PIECE = 1 << 20


def union(*sorted_ranges: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Ascending, joined ``(offset, length)`` ranges that cover all the given ascending ones."""
    begin = end = 0
    for offset, length in heapq.merge(*sorted_ranges):
        if offset > end > begin:
            yield begin, end - begin
        if offset > end or end == begin:
            begin = offset
        end = max(end, offset + length)
    if end > begin:
        yield begin, end - begin


def pieces(ranges: Iterator[tuple[int, int]], size: int, unit: int, piece: int = PIECE) -> Iterator[tuple[int, int]]:
    """Ranges widened to multiples of ``unit`` and cut into ``(offset, length)`` of at most ``piece`` bytes.

    ``piece`` is a multiple of ``unit``."""
    widened = (
        (offset - offset % unit, length + offset % unit + -(offset + length) % unit) for offset, length in ranges
    )
    for offset, length in union(widened):
        end = min(offset + length, size)
        for start in range(offset, end, piece):
            yield start, min(piece, end - start)
