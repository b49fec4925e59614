"""The two ends of a block stream: where changes come from, and where replicas live.

Both are Protocols. The docstrings are the contract (restic's habit): what is idempotent, what is durable when a
call returns, which errors are recoverable. All calls block; callers run them in threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from replication.cipher import WrappedKey
from vault.domain import ConsistencyKind, Disk, Progress, RecoveryPoint, Retention, Value

Report = Callable[[Progress], None]
"""Called often with how far the transfer is. It may raise to stop the transfer: every transfer is written so that
an exception between any two reports leaves the replica recoverable and the work resumable."""


class Extent(NamedTuple):
    """Bytes that belong at ``offset`` of a disk. ``data`` is never empty."""

    offset: int
    data: bytes | memoryview


class Cut(Value):
    """A moment over *all* disks of a machine at which changes were set aside, to be sent.

    ``number`` grows by one for each cut of one tracking period; ``epoch`` names the tracking period.
    """

    epoch: str
    number: int
    time: datetime
    kind: ConsistencyKind = ConsistencyKind.CRASH
    group: str = ""
    """The consistency group whose members were all cut at ``time``; empty: only this machine was."""


class Tracking(Value):
    """What a change source knows about its own health. Bytes are on the source's disks."""

    active: bool
    epoch: str = ""
    resync_required: bool = False
    log_bytes: int = 0


class BlockReader(Protocol):
    """Random access to one disk at one moment. Thread-safe."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes, fewer only at the end of the disk."""

    def allocated(self) -> Iterator[tuple[int, int]]:
        """``(offset, length)`` ranges, ascending, that may hold something other than zeros."""

    def close(self) -> None: ...


class Cuts(Protocol):
    """Cuts of one machine that wait to be sent: in a change source, or in a process server's cache."""

    def disks(self) -> list[Disk]: ...

    def tracking(self) -> Tracking: ...

    def pending(self) -> list[Cut]:
        """Cuts not released yet, oldest first; they survive any crash of either side."""

    def extents(self, cut: Cut, disk: str) -> Iterator[Extent]:
        """The changed bytes of one disk in one cut: ascending offsets, no overlaps, last write wins.

        Extents are at most 1 MiB. Memory is bounded by the number of extents, never by their bytes.
        Raises ``Damaged`` when a log fails its checksum."""

    def extents_size(self, cut: Cut, disk: str) -> int:
        """How many bytes ``extents`` will give, without reading them."""

    def release(self, cut: Cut) -> None:
        """The target holds this cut durably; its log may go. Idempotent."""


class ChangeSource(Cuts, Protocol):
    """Point-in-time consistent changes of one machine (log-based or bitmap-based).

    Errors: ``Unreachable`` (recoverable) when the source cannot be asked; ``ResynchronizationRequired`` when the
    changes since the last cut are no longer known.
    """

    def start_tracking(self) -> str:
        """Begin a new tracking period on all disks at one moment, forget any earlier one; return its epoch.

        Durable when it returns."""

    def stop_tracking(self) -> None:
        """Forget all changes and stop writing logs. Idempotent."""

    def take_snapshot(self) -> datetime:
        """Freeze all disks at one moment; replaces an earlier snapshot. Returns the moment (UTC)."""

    def snapshot_moment(self) -> datetime | None:
        """The moment of the snapshot that exists; None when there is none."""

    def open_snapshot(self, disk: str) -> BlockReader:
        """Read a disk as it was when the snapshot was taken.

        Raises ``NotFound`` when there is no snapshot."""

    def delete_snapshot(self) -> None:
        """Idempotent."""

    def cut(self, kind: ConsistencyKind = ConsistencyKind.CRASH) -> Cut:
        """Set aside all changes so far over all disks at one moment. Durable when it returns.

        Raises ``ResynchronizationRequired`` when the changes are no longer known."""


@runtime_checkable
class LayeredReader(BlockReader, Protocol):
    """What a :class:`BlockReader` may be whose disk is what layers of changes make of a base image."""

    def check_layers(self) -> Iterator[int]:
        """Read, the newest changes first, all that the disk has from its layers; the bytes left are told before each
        piece. It may be ended at any piece. Raises ``Damaged``."""


class ReplicaState(Value):
    """What a replica store says about one machine's replica."""

    disks: list[Disk]
    seeded: bool
    """True once a complete image exists; before that there is no recovery point."""
    seeded_bytes: dict[str, int]
    """Per disk: every block below this offset is durable and verified (initial replication resumes here)."""
    seed_moment: datetime | None = None
    """The snapshot that an unfinished initial replication copies."""
    epoch: str = ""
    """The tracking period of the source that the replica follows."""
    last_cut: int = 0
    """The number of the last cut of ``epoch`` that is sealed here; 0: the image the epoch began with."""
    points: list[RecoveryPoint] = []
    stored_bytes: int = 0
    key: WrappedKey | None = None
    """The machine's key, wrapped by the site's; None: segments are not encrypted."""
    failed_over_to: RecoveryPoint | None = None
    """The machine was failed over to this point: its source may change nothing here (:class:`OwnReplicaStore`)."""


class BlockChecksums(Protocol):
    """What a replica's disk holds, told by checksums: a comparison needs no blocks to cross the wire."""

    def allocated(self) -> Iterator[tuple[int, int]]:
        """As :meth:`BlockReader.allocated`. May be read while the base image is written behind it."""

    def checksums(self, offset: int, length: int, block: int) -> list[bytes]:
        """16-byte checksums (xxh3-128) of consecutive ``block``-sized blocks, the last one may be shorter.

        A damaged block is given as ``b""``: it equals nothing, so a resynchronization replaces it."""

    def close(self) -> None: ...


class SegmentWriter(Protocol):
    """Stages the changes of one disk. Not a recovery point until ``ReplicaStore.seal``."""

    @property
    def bytes_sent(self) -> int: ...

    def add(self, extent: Extent) -> None:
        """The extent's bytes must not change afterwards."""

    def close(self) -> None:
        """All extents are durable and checksummed; the segment can be sealed."""

    def abandon(self) -> None:
        """Forget what was staged. Idempotent; also what the store does with leftovers of a crash."""


class ReplicaStore(Protocol):
    """One machine's replica at the target.

    A second writer is kept out by ``lock``. Every other call is safe to repeat after a crash at any byte.
    Errors: ``Unreachable``, ``NoSpace``, ``Busy`` are recoverable; ``Damaged``, ``InvalidState``, ``NotFound`` are
    not. No failed call ever loses a recovery point that existed before it.
    """

    def exists(self) -> bool: ...

    def lock(self, purpose: str = "replication") -> AbstractContextManager[None]:
        """Be the only writer inside the ``with`` block; clears the leftovers of a crash. Re-entrant in one thread.

        Calls that change the replica take it by themselves when it is not held; a segment is opened and sealed
        under one hold. Raises ``Busy`` naming the holder and its purpose when there is another."""

    def state(self) -> ReplicaState:
        """Raises ``NotFound`` when there is no replica."""

    def create(self, disks: list[Disk], epoch: str) -> None:
        """Make an unseeded replica. An existing *unseeded* one of the same disks and epoch is kept (resume).

        A new epoch on an unseeded replica restarts its progress but keeps its blocks, so that equal blocks need
        not be sent again. Raises ``InvalidState`` when a seeded replica exists or disks changed size."""

    def begin_seed(self, moment: datetime | None) -> None:
        """The unseeded base is a copy of the snapshot of ``moment`` from here on. Another moment than the known one
        restarts the progress: a base never mixes two moments."""

    def open_checksums(self, disk: str) -> BlockChecksums:
        """The base image of an unseeded replica, else the newest recovery point, with the differences that were kept
        since (verified)."""

    def write_base(self, disk: str, extent: Extent) -> None:
        """Write into the base image of an *unseeded* replica. Durable after ``checkpoint_base``."""

    def checkpoint_base(self, disk: str, offset: int) -> None:
        """Make every block below ``offset`` durable and remember it as progress.

        A store on another host may go on while that happens: the next ``state``, ``complete_seed``, or the end of the
        lock waits for it, and raises what went wrong with it. When the lock ends by an error, the last checkpoint may
        be missing: its blocks are sent again."""

    def complete_seed(self, time: datetime, kind: ConsistencyKind) -> RecoveryPoint:
        """The base image is whole: it becomes the first recovery point. Idempotent."""

    def open_segment(self, disk: str, cut: int, *, epoch: str | None = None) -> SegmentWriter:
        """Stage the changes of one disk in the next cut, or, with a new ``epoch``, in that epoch's cut 0."""

    def seal(
        self, cut: int, time: datetime, kind: ConsistencyKind, *, epoch: str | None = None, group: str = ""
    ) -> RecoveryPoint:
        """Turn the closed segments of ``cut`` (one per disk) into a recovery point, atomically and durably.

        ``group`` is remembered with the point (:attr:`vault.domain.RecoveryPoint.group`).

        ``epoch``, when given, moves the replica to a new tracking period (after resynchronization), whose cut 0 it is.
        Sealing a cut that is sealed already returns its point. Raises ``InvalidState`` when a disk's segment is
        missing or ``cut`` does not follow ``last_cut``."""

    def keep_differences(self, epoch: str) -> None:
        """Make the closed segments of cut 0 of a new ``epoch`` (one per disk) durable without a recovery point: a
        comparison finds what they hold, so a resynchronization that is stopped goes on after them. No reader sees them.

        No delta may follow until that epoch, or a later one, is sealed. Raises as :meth:`seal`."""

    def view(self, disk: str, point: RecoveryPoint | None = None) -> BlockReader:
        """Read a disk as it was at a recovery point (default: the newest), verified. Until the reader is closed,
        whichever process has it, the point is in use. Raises ``NotFound`` when the point does not exist any more."""

    def resolve(self, choice: str) -> RecoveryPoint:
        """``latest``, ``latest-processed``, ``latest-app-consistent``, an ISO time (the newest point at or before
        it) or a point's id. Raises ``NotFound`` naming what there is."""

    def materialise(self, point: RecoveryPoint, folder: Path, report: Report) -> list[Path]:
        """Write raw images ``<disk>.raw`` of a point into ``folder`` (verified, sparse, durable), without
        disturbing replication. Unfinished files end in ``.part``; repeating starts over."""

    def prune(self, retention: Retention, now: datetime, *, in_use: frozenset[str] = frozenset()) -> list[str]:
        """Drop points beyond the retention, never the newest, never one in use; return the dropped ids.

        In use are those that are being read anywhere, and those of ``in_use``."""

    def keep_only(self, point: RecoveryPoint) -> None:
        """Commit: drop all other recovery points. Deltas can only go on when it is the newest one."""

    def adopt(self, images: dict[str, Path], disks: list[Disk], epoch: str) -> None:
        """Make an unseeded replica out of existing raw images by *moving* them (reverse replication: the old
        source's disks). Blocks that are equal need not be sent again. Safe to repeat after a crash."""

    def readmit(self) -> None:
        """Take changes from the source again after :meth:`OwnReplicaStore.fail_over_to`: the failover was cancelled, or
        the protection begins anew. Not failed over, or no replica at all: nothing happens."""

    def remove(self) -> None:
        """Delete the replica and all its recovery points. Idempotent."""


class OwnReplicaStore(ReplicaStore, Protocol):
    """A replica store as its own site has it, which alone fails machines over to it."""

    def fail_over_to(self, point: RecoveryPoint) -> None:
        """The machine is failed over to this point. From when it returns, and durably, the source changes nothing here:
        what would make or drop a recovery point (``seal``, ``keep_differences``, ``prune``) raises ``InvalidState``,
        whoever calls it, also in a session that holds the lock since before; ``open_segment`` does in later ones. What
        was sealed until then stays, and the point does until the replica is removed: ``keep_only`` takes no other.

        It waits for no writer, and may be repeated. Raises ``NotFound`` for a point that does not exist any more,
        ``InvalidState`` when the machine is failed over to another one."""
