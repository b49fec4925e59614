"""A disk at a recovery point as a local file, with several reads side by side."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from replication import files
from replication.checksums import runs
from replication.ports import BlockReader
from replication.ranges import pieces

PIECE = 4 << 20
AHEAD = 8


def copy_sparse(source: BlockReader, target: Path, pool: ThreadPoolExecutor, done: Callable[[int, int], None]) -> None:
    """As :func:`replication.view.copy_sparse`, for a source where each read takes a journey.

    Raises ``NoSpace``, ``Damaged``, ``Unreachable``."""
    with files.translated(target):
        fd = files.open_file(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    coming: deque[tuple[int, int, Future[bytes]]] = deque()

    def write_next() -> None:
        offset, length, future = coming.popleft()
        data, written = future.result(), 0
        with files.translated(target):
            for start, run, zero in runs(offset, data):
                if not zero:
                    files.write_at(fd, run, start)
                    written += len(run)
        done(length, written)

    try:
        with files.translated(target):
            files.set_size(fd, source.size)
        for offset, length in pieces(source.allocated(), source.size, 4096, PIECE):
            coming.append((offset, length, pool.submit(source.read, offset, length)))
            if len(coming) >= AHEAD:
                write_next()
        while coming:
            write_next()
        with files.translated(target):
            files.sync(fd)
    finally:
        for _, _, future in coming:
            future.cancel()
        os.close(fd)
