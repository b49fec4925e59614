"""The state of a machine's storage that its writer and its replication share: tracking period, cuts, snapshot.

All of it is in one document, so that a cut or a snapshot is *one* moment over all disks: the moment at which the
document is replaced. Everybody who changes or relies on it holds the machine's storage lock. The lock's file has a
counter, announced *before* a change, by which a writer notices that it must look again.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
import zlib
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from adapters.lab.documents import open_lock_file, read_document, try_lock, write_document
from adapters.lab.layout import MachineFolder
from replication.blockmap import MapCut, MapState
from vault.errors import Busy, NotFound

FORMAT, VERSION = "leeward-lab-storage", 1
_LOOK_AGAIN_S = 0.0005
_COUNTER = struct.Struct("<8sIQI")
_COUNTER_MAGIC, _COUNTER_VERSION = b"LWRDGEN\0", 1


@dataclass(frozen=True)
class SealedCut:
    """A cut that is not released yet. ``lengths`` are the sealed logs' sizes in bytes, per disk."""

    number: int
    time_ns: int
    kind: str
    lengths: dict[str, int]
    group: str = ""


@dataclass(frozen=True)
class StorageState:
    """``number`` is that of the cut which the active logs will become.

    ``map`` is there while the machine is tracked by block maps, and nothing else of this is then."""

    epoch: str = ""
    active: bool = False
    number: int = 0
    resync_required: bool = False
    sealed: tuple[SealedCut, ...] = ()
    snapshot: str = ""
    snapshot_time_ns: int = 0
    map: MapState | None = None

    @property
    def logging(self) -> bool:
        return self.active and not self.resync_required

    def with_resync_required(self) -> StorageState:
        """The changes are no longer known: what was noted of them is worth nothing any more."""
        if self.map is not None:
            return replace(self, map=replace(self.map, resync_required=True, cuts=()))
        return replace(self, resync_required=True, sealed=())

    @property
    def newest_snapshot(self) -> str:
        """The one that keeps the blocks which are overwritten now; older ones lean on it. Empty: there is none."""
        if self.map is not None:
            return self.map.snapshots[-1] if self.map.snapshots else ""
        return self.snapshot


@dataclass
class StorageLock:
    """The machine's storage lock. One instance per thread: two threads need two descriptors to exclude each other.

    ``patience_s`` is how long to wait for a holder before ``Busy`` is raised; None: for ever, as the guest does."""

    folder: MachineFolder
    patience_s: float | None = None
    _descriptor: int = field(init=False)

    def __post_init__(self) -> None:
        self._descriptor = open_lock_file(self.folder.storage_lock)

    def __enter__(self) -> StorageLock:
        if self.patience_s is None:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        else:
            self._wait(time.monotonic() + self.patience_s)
        return self

    def _wait(self, deadline: float) -> None:
        while not try_lock(self._descriptor):
            if time.monotonic() > deadline:
                raise Busy(
                    f"another process has held the storage for {self.patience_s:g} s",
                    where=str(self.folder.path),
                    remedy="look whether the guest's process is stopped",
                )
            time.sleep(_LOOK_AGAIN_S)

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def seen(self) -> bytes:
        """Changes whenever the state may have changed."""
        return os.pread(self._descriptor, _COUNTER.size, 0)

    def announce(self) -> None:
        """Make every writer look at the state again before its next write. Call it before changing anything."""
        raw = self.seen()
        valid = len(raw) == _COUNTER.size and zlib.crc32(raw[:-4]) == int.from_bytes(raw[-4:], "little")
        count = _COUNTER.unpack(raw)[2] + 1 if valid else 1
        head = _COUNTER.pack(_COUNTER_MAGIC, _COUNTER_VERSION, count, 0)[:-4]
        os.pwrite(self._descriptor, head + zlib.crc32(head).to_bytes(4, "little"), 0)

    def close(self) -> None:
        os.close(self._descriptor)


def load_state(folder: MachineFolder) -> StorageState:
    """The state; that of an untracked machine without snapshot when none was ever stored. Raises ``Damaged``."""
    try:
        body: dict[str, Any] = read_document(folder.storage_state, FORMAT, VERSION)
    except NotFound:
        return StorageState()
    sealed = tuple(SealedCut(**cut) for cut in body.pop("sealed"))
    return StorageState(sealed=sealed, map=_load_map(body.pop("map", None)), **body)


def _load_map(body: dict[str, Any] | None) -> MapState | None:
    if body is None:
        return None
    cuts = tuple(MapCut(**cut) for cut in body.pop("cuts"))
    return MapState(cuts=cuts, snapshots=tuple(body.pop("snapshots")), **body)


def save_state(folder: MachineFolder, state: StorageState) -> None:
    """Replace the state atomically and durably. Only under the storage lock, after ``announce``."""
    write_document(folder.storage_state, FORMAT, VERSION, asdict(state))


def delete_unused_files(folder: MachineFolder, state: StorageState, disks: list[str]) -> None:
    """Delete logs, maps and snapshots that the state does not know: released ones, and leftovers of a crash."""
    keep = set()
    for disk in disks:
        if state.logging:
            keep.add(folder.log(disk, state.epoch, state.number))
        keep.update(folder.log(disk, state.epoch, cut.number) for cut in state.sealed)
        if state.snapshot:
            keep.add(folder.snapshot(disk, state.snapshot))
        if state.map is not None:
            if state.map.marking:
                keep.add(folder.block_map(disk, state.map.epoch))
            keep.update(folder.snapshot(disk, snapshot) for snapshot in state.map.snapshots)
    for pattern in ("*.hrl", "*.map", "*.snap"):
        for path in folder.path.glob(pattern):
            if path not in keep:
                path.unlink(missing_ok=True)


class WriterLock:
    """Held by the one process that may write to a machine's disks, for as long as it may.

    It is only taken, and only tested, under the storage lock: so who finds it free there knows that no write is
    half done by a living process."""

    def __init__(self, folder: MachineFolder) -> None:
        self._descriptor = open_lock_file(folder.writer_lock)

    def take(self) -> bool:
        return try_lock(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)
