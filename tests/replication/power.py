"""A machine whose power goes off at a chosen moment.

Every change the store makes to a disk goes through ``replication.files``. At the chosen effect the power goes: that
effect happens not at all, in part, or wholly, and everything after it does not happen. Then the disk forgets, at
random, what was never synced: single sectors of writes, and the latest changes of names in a folder.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from replication import files

SECTOR = 512


class PowerCut(BaseException):
    """Not an ``Exception``: nothing in the product may handle it."""


class Power:
    def __init__(self, stash: Path, rng: random.Random, cut_at: int | None) -> None:
        self.effects = 0
        self._stash = stash
        self._rng = rng
        self._cut_at = cut_at
        self._off = False
        self._stashed = 0
        self._unsynced: dict[tuple[int, int], tuple[int, list[tuple[int, bytes, int]]]] = {}
        self._names: list[tuple[Path, str, Path, Path | None]] = []
        effects = ("write_at", "write_direct", "set_size", "zero_range", "rename", "delete")
        self._real = {name: getattr(files, name) for name in effects}

    @contextmanager
    def on(self) -> Iterator[Power]:
        fakes = {name: getattr(self, f"_{name}") for name in (*self._real, "sync", "sync_folder")}
        try:
            with mock.patch.multiple(files, **fakes):
                yield self
        except PowerCut:
            self._forget()
            raise
        finally:
            for fd, _ in self._unsynced.values():
                os.close(fd)

    def _effect(self) -> bool:
        """True when the effect is to happen wholly; raises when the power is off. False: the power goes in it."""
        if self._off:
            raise PowerCut
        self.effects += 1
        self._off = self.effects == self._cut_at
        return not self._off

    def _write_at(self, fd: int, data: bytes | memoryview, offset: int) -> None:
        whole = self._effect()
        self._remember(fd, offset, len(data))
        self._real["write_at"](fd, data if whole else data[: self._rng.randrange(len(data) + 1)], offset)
        if not whole:
            raise PowerCut

    def _write_direct(self, fd: int, data: bytes | memoryview, offset: int) -> None:
        """The file is the same, only its way to the disk differs."""
        buffered = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
        try:
            self._write_at(buffered, data, offset)
        finally:
            os.close(buffered)

    def _zero_range(self, fd: int, offset: int, length: int) -> None:
        whole = self._effect()
        self._remember(fd, offset, length)
        if whole or self._rng.random() < 0.5:
            self._real["zero_range"](fd, offset, length)
        if not whole:
            raise PowerCut

    def _set_size(self, fd: int, size: int) -> None:
        self._around("set_size", fd, size)

    def _sync(self, fd: int) -> None:
        if not self._effect():
            raise PowerCut
        key = os.fstat(fd).st_dev, os.fstat(fd).st_ino
        if key in self._unsynced:
            os.close(self._unsynced.pop(key)[0])

    def _sync_folder(self, folder: Path) -> None:
        whole = self._effect()
        if whole or self._rng.random() < 0.5:
            self._names = [change for change in self._names if change[0] != folder]
        if not whole:
            raise PowerCut

    def _rename(self, source: Path, target: Path) -> None:
        stashed = self._keep(target)
        self._around("rename", source, target, then=(target.parent, "rename", source, target, stashed))

    def _delete(self, path: Path) -> None:
        stashed = self._keep(path)
        self._around("delete", path, then=(path.parent, "delete", path, path, stashed))

    def _around(self, name: str, *arguments: object, then: tuple | None = None) -> None:
        whole = self._effect()
        if whole or self._rng.random() < 0.5:
            self._real[name](*arguments)
            if then:
                self._names.append(then)
        if not whole:
            raise PowerCut

    def _remember(self, fd: int, offset: int, length: int) -> None:
        key = os.fstat(fd).st_dev, os.fstat(fd).st_ino
        if key not in self._unsynced:
            self._unsynced[key] = (os.open(f"/proc/self/fd/{fd}", os.O_RDWR), [])
        size = os.fstat(fd).st_size
        own, writes = self._unsynced[key]
        writes.append((offset, os.pread(own, length, offset), size))

    def _keep(self, path: Path) -> Path | None:
        if not path.exists():
            return None
        self._stashed += 1
        kept = self._stash / str(self._stashed)
        os.link(path, kept)
        return kept

    def _forget(self) -> None:
        if self._rng.random() < 0.3:
            return  # a crash of the process, not of the machine: the page cache survives
        for fd, writes in self._unsynced.values():
            for offset, old, _ in reversed(writes):
                for start in range(0, len(old), SECTOR):
                    if self._rng.random() < 0.5:
                        os.pwrite(fd, old[start : start + SECTOR], offset + start)
            size_before = writes[0][2]
            if os.fstat(fd).st_size > size_before and self._rng.random() < 0.5:
                os.ftruncate(fd, size_before)
        kept = self._rng.randrange(len(self._names) + 1)
        for _, what, source, target, stashed in reversed(self._names[kept:]):
            if what == "rename" and target.exists():
                target.rename(source)
            if stashed and not target.exists():
                os.link(stashed, target)
