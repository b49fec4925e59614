"""Overlap: the next blocks are read and checked in one thread while the caller deals with these."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

from replication.ports import Extent

T = TypeVar("T")

WINDOW = 64 << 20
"""Bytes of blocks that one transfer may hold in memory (design §6): half of them read ahead, the rest in the store."""
BATCH = 1 << 20
BATCHES_AHEAD = WINDOW // 2 // BATCH // 2
"""A batch may grow to twice its size by its last extent."""
BATCH_EXTENTS = 8192


class Batch(NamedTuple):
    extents: list[Extent]
    bytes: int


def batches(extents: Iterator[Extent]) -> Iterator[Batch]:
    """Extents in batches of about 1 MiB: handing over costs the same for each batch, however small its extents."""
    batch: list[Extent] = []
    size = 0
    for extent in extents:
        batch.append(extent)
        size += len(extent.data)
        if size >= BATCH or len(batch) >= BATCH_EXTENTS:
            yield Batch(batch, size)
            batch, size = [], 0
    if batch:
        yield Batch(batch, size)


@contextmanager
def read_ahead(items: Iterator[T], depth: int = BATCHES_AHEAD) -> Iterator[Iterator[T]]:
    """The same items, at most ``depth`` of them produced ahead in a thread; its errors arrive in their place.

    When the block is left, the thread has ended: what ``items`` reads from may be closed then."""
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool:
        ahead = deque(pool.submit(next, items, None) for _ in range(depth))

        def in_order() -> Iterator[T]:
            while (item := ahead.popleft().result()) is not None:
                ahead.append(pool.submit(next, items, None))
                yield item

        try:
            yield in_order()
        finally:
            for future in ahead:
                future.cancel()
