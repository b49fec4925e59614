"""How much a lab site may still store."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Collection
from pathlib import Path

from adapters.lab.faults import Fault, SiteFaults
from adapters.lab.layout import SiteFolder
from vault.errors import NoSpace

_MEASURED_FOR_S = 1.0
MIB = 2**20


class SiteSpace:
    """The site's capacity, measured: allocated bytes of images, logs, snapshots and replicas. Thread-safe.

    A measurement holds for a second, less what was reserved since; so a reservation per extent stays cheap."""

    def __init__(self, folder: SiteFolder, capacity: int | None, faults: SiteFaults) -> None:
        self._folder = folder
        self._capacity = capacity
        self._faults = faults
        self._lock = threading.Lock()
        self._left = 0
        self._measured_at = float("-inf")

    def free(self) -> int:
        """Bytes that may still be stored; 0 while the fault ``disk full`` is on."""
        if Fault.DISK_FULL in self._faults.active():
            return 0
        with self._lock:
            return max(0, self._measure())

    def free_without(self, machines: Collection[str]) -> int:
        """Bytes that may be stored once these machines are deleted, with what is left of them half-made."""
        if Fault.DISK_FULL in self._faults.active():
            return 0
        leaving = [path for name in machines for path in self._folder.machine(name).with_leftovers]
        return max(0, self._measure(leaving))

    def reserve(self, count: int) -> None:
        """Raises ``NoSpace``, naming how much is missing, when ``count`` more bytes do not fit."""
        self._faults.require_space()
        with self._lock:
            if self._left < count or time.monotonic() - self._measured_at > _MEASURED_FOR_S:
                self._left = self._measure()
                self._measured_at = time.monotonic()
            if self._left < count:
                raise NoSpace(
                    f"{count / MIB:.1f} MiB do not fit, {(count - self._left) / MIB:.1f} MiB are missing",
                    where=f"site {self._folder.name}",
                    remedy="free space at the site, or raise its capacity in the inventory",
                )
            self._left -= count

    def _measure(self, without: Collection[Path] = ()) -> int:
        existing = next(path for path in (self._folder.path, *self._folder.path.parents) if path.exists())
        on_disk = shutil.disk_usage(existing).free + sum(map(allocated_bytes, without))
        if self._capacity is None:
            return on_disk
        return min(on_disk, self._capacity - allocated_bytes(self._folder.path, without))


def allocated_bytes(folder: Path, without: Collection[Path] = ()) -> int:
    """What the files below ``folder`` take on the medium, those below ``without`` not counted. Files that vanish
    meanwhile count as nothing."""
    total = 0
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if Path(parent, name) not in without]
        for name in names:
            try:
                total += (Path(parent) / name).lstat().st_blocks * 512
            except FileNotFoundError:
                continue
    return total
