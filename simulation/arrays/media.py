"""The files behind an array's volumes.

A write is kept when it returns, as in an array's non-volatile cache: it survives the death of the array's process.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import xxhash

BLOCK = 64 * 1024


class Media:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, int] = {}
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)

    def create(self, volume: str, size: int) -> None:
        with self._path(volume).open("wb") as stream:
            stream.truncate(size)

    def delete(self, volume: str) -> None:
        with self._lock:
            descriptor = self._open.pop(volume, None)
        if descriptor is not None:
            os.close(descriptor)
        self._path(volume).unlink(missing_ok=True)

    def read(self, volume: str, offset: int, length: int) -> bytes:
        return os.pread(self._descriptor(volume), length, offset)

    def write(self, volume: str, offset: int, data: bytes) -> None:
        descriptor, view = self._descriptor(volume), memoryview(data)
        while view:
            written = os.pwrite(descriptor, view, offset)
            view, offset = view[written:], offset + written

    def checksums(self, volume: str, offset: int, length: int) -> list[bytes]:
        """One for each block of the range."""
        data = memoryview(self.read(volume, offset, length))
        return [xxhash.xxh3_128_digest(data[start : start + BLOCK]) for start in range(0, len(data), BLOCK)]

    def copy(self, source: str, target: str, size: int) -> None:
        for offset in range(0, size, 16 * BLOCK):
            data = self.read(source, offset, min(16 * BLOCK, size - offset))
            if data.count(0) != len(data):
                self.write(target, offset, data)

    def close(self) -> None:
        with self._lock:
            for descriptor in self._open.values():
                os.close(descriptor)
            self._open.clear()

    def _path(self, volume: str) -> Path:
        return self._folder / f"{volume}.volume"

    def _descriptor(self, volume: str) -> int:
        with self._lock:
            if volume not in self._open:
                self._open[volume] = os.open(self._path(volume), os.O_RDWR | os.O_CLOEXEC)
            return self._open[volume]
