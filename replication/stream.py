"""The transfers of stream replication, over any change source and any replica store.

Each reads like the phase of requirements §C it performs. All of them may be stopped at any byte, by a crash or by an
exception out of ``report``, and called again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime

from replication import rules
from replication.base_copy import CHECKPOINT_BYTES, CHECKPOINT_S, copy_base
from replication.compare import Compared, compare
from replication.layout import check_same_disks
from replication.pipeline import batches, read_ahead
from replication.ports import (
    ChangeSource,
    Cut,
    Cuts,
    Extent,
    ReplicaState,
    ReplicaStore,
    Report,
    SegmentWriter,
)
from replication.progress import Meter
from vault.domain import ConsistencyKind, Disk, RecoveryPoint
from vault.errors import InvalidState, ResynchronizationRequired

LAST_CUTS = 10
"""How often the last changes are cut before the machine counts as still writing."""
KEPT_AT_LEAST = 256 << 20
"""A resynchronization that is stopped sends at most so many bytes of differences again, on large machines more: each
time they are kept costs a file for each disk, which every reader opens until it is merged."""
KEPT_IN_ALL = 128
"""So often, at most, they are kept when all of a machine differs."""


def copy_initial(
    source: ChangeSource,
    store: ReplicaStore,
    report: Report,
    *,
    checkpoint_bytes: int = CHECKPOINT_BYTES,
    checkpoint_s: float = CHECKPOINT_S,
) -> RecoveryPoint:
    """Initial replication (§C.2): the snapshot of all disks, one after another, then the changes logged meanwhile.

    The replica was made by ``store.create`` or ``store.adopt`` with the source's tracking epoch. A repeated call
    resumes at the last checkpoint while the snapshot exists, else starts again with a new one. Blocks that the
    replica has already (an adopted image) are not sent. Returns the first point from which deltas can go on.

    Raises:
        ResynchronizationRequired: the replica belongs to another tracking period; create it anew with this one.
        InvalidState: the disks changed.
    """
    with store.lock("initial replication"):
        state = store.state()
        _require_same_period(source, state)
        if not state.seeded:
            moment = _snapshot_to_seed(source, store)
            copy_base(
                lambda disk: source.open_snapshot(disk.name),
                store,
                report,
                checkpoint_bytes=checkpoint_bytes,
                checkpoint_s=checkpoint_s,
            )
            store.complete_seed(moment, ConsistencyKind.CRASH)
        source.delete_snapshot()
        return replicate_cut(source, store, ConsistencyKind.CRASH, report)


def replicate_cut(source: ChangeSource, store: ReplicaStore, kind: ConsistencyKind, report: Report) -> RecoveryPoint:
    """One delta (§C.4): what a crash left unsent, then all changes up to now. Returns the new point.

    Raises:
        ResynchronizationRequired: the source's changes do not follow what the replica holds.
        InvalidState: the disks changed, or the machine was failed over.
    """
    with store.lock("delta replication"):
        _send_pending(source, store, report)
        return _send_new_cut(source, store, kind, report)


def send_pending(source: Cuts, store: ReplicaStore, report: Report) -> RecoveryPoint:
    """The cuts that wait: of a group, in the cache, or left by a crash. Returns the newest point, old or new.

    Raises:
        ResynchronizationRequired, InvalidState: as :func:`replicate_cut`.
    """
    with store.lock("delta replication"):
        _send_pending(source, store, report)
        return store.state().points[-1]


def send_last_changes(source: ChangeSource, store: ReplicaStore, report: Report) -> RecoveryPoint:
    """Planned failover (§C.5), after the source was shut down: cuts until one is empty, the proof that nothing is left.

    Raises:
        InvalidState: the machine goes on writing.
        ResynchronizationRequired: as :func:`replicate_cut`.
    """
    with store.lock("sending the last changes"):
        _send_pending(source, store, report)
        for _ in range(LAST_CUTS):
            point = _send_new_cut(source, store, ConsistencyKind.CRASH, report)
            if point.bytes == 0:
                return point
    raise InvalidState(
        f"the machine still wrote {point.bytes} bytes to its disks after {LAST_CUTS} last cuts",
        remedy="shut the machine down before its last changes are sent",
    )


def resynchronize(source: ChangeSource, store: ReplicaStore, report: Report) -> RecoveryPoint:
    """Compare source and replica by checksums and send only what differs (§C.4); existing recovery points stay.

    A new tracking period begins; the differences become its cut 0. Stopped in the middle, the recovery points are as
    they were, and what was kept of the differences by then is not sent again.
    A replica that is not complete yet is seeded again: that too sends only what differs.

    Raises:
        InvalidState: the disks changed.
    """
    with store.lock("resynchronization"):
        state = store.state()
        _refuse_failed_over(state)
        check_same_disks(state.disks, source.disks(), "resynchronization")
        if not state.seeded:
            store.create(state.disks, source.start_tracking())
            return copy_initial(source, store, report)
        epoch, moment = begin_period(source)
        meter = Meter(report, "resynchronization", sum(disk.size for disk in state.disks))
        differences = _Differences(source, store, state.disks, epoch, meter)
        for disk in state.disks:
            meter.now_doing(f"resynchronization of {disk.name}")
            differences.stage(disk)
        differences.complete()
        meter.tell()
        store.seal(0, moment, ConsistencyKind.CRASH, epoch=epoch)
        source.delete_snapshot()
        return replicate_cut(source, store, ConsistencyKind.CRASH, report)


# --- seeding ----------------------------------------------------------------------------------------------------


def _snapshot_to_seed(source: ChangeSource, store: ReplicaStore) -> datetime:
    """The moment of the snapshot to copy: the one the progress belongs to, or a new one with no progress.

    The store forgets the old moment *before* the new snapshot is taken: a crash between the two can never make blocks
    of two moments into one recovery point."""
    state = store.state()
    if state.seed_moment and source.snapshot_moment() == state.seed_moment:
        return state.seed_moment
    store.begin_seed(None)
    moment = source.take_snapshot()
    if source.pending():
        epoch, moment = begin_period(source)
        store.create(state.disks, epoch)
    store.begin_seed(moment)
    return moment


def begin_period(source: ChangeSource) -> tuple[str, datetime]:
    """A new tracking period and the snapshot it begins with: ``(epoch, moment)``.

    No cut lies between the two. It would be sent after the snapshot though it is older, and for one recovery point
    blocks of two moments would be mixed."""
    while True:
        epoch = source.start_tracking()
        moment = source.take_snapshot()
        if not source.pending():
            return epoch, moment


# --- resynchronization ------------------------------------------------------------------------------------------


class _Differences:
    """Stages what differs, disk by disk; from time to time the store keeps what is staged."""

    def __init__(self, source: ChangeSource, store: ReplicaStore, disks: list[Disk], epoch: str, meter: Meter) -> None:
        self._source, self._store, self._meter = source, store, meter
        self._disks, self._epoch = disks, epoch
        self._unstaged = {disk.name for disk in disks}
        self._keep_after = max(KEPT_AT_LEAST, sum(disk.size for disk in disks) // KEPT_IN_ALL)

    def stage(self, disk: Disk) -> None:
        with (
            closing(self._source.open_snapshot(disk.name)) as reader,
            closing(self._store.open_checksums(disk.name)) as theirs,
            read_ahead(compare(reader, theirs, disk.size)) as stretches,
        ):
            done = self._stage_some(disk, stretches, 0)
            while done < disk.size:
                self.complete()
                self._store.keep_differences(self._epoch)
                self._unstaged = {one.name for one in self._disks}
                done = self._stage_some(disk, stretches, done)

    def complete(self) -> None:
        """A segment of each disk, as the store wants it."""
        for disk in sorted(self._unstaged):
            self._store.open_segment(disk, 0, epoch=self._epoch).close()
        self._unstaged.clear()

    def _stage_some(self, disk: Disk, stretches: Iterator[Compared], done: int) -> int:
        """Up to the end of the disk, or until there is enough to be kept; returns how far it came."""
        staged = 0
        with _staged(self._store.open_segment(disk.name, 0, epoch=self._epoch), self._meter) as add:
            for compared in stretches:
                end = compared.offset + compared.length
                add(compared.differing, end - done)
                done, staged = end, staged + sum(len(extent.data) for extent in compared.differing)
                if staged >= self._keep_after:
                    break
            else:
                add([], disk.size - done)
                done = disk.size
        self._unstaged.discard(disk.name)
        return done


# --- deltas -----------------------------------------------------------------------------------------------------


def _refuse_failed_over(state: ReplicaState) -> None:
    """Before the source changes anything: the replica would take nothing of it."""
    rules.refuse_failed_over(state.failed_over_to, "the replica at the target")


def _require_same_period(source: Cuts, state: ReplicaState) -> None:
    _refuse_failed_over(state)
    check_same_disks(state.disks, source.disks(), "replication")
    tracking = source.tracking()
    if tracking.resync_required:
        raise ResynchronizationRequired(
            "the source gave up tracking its changes: their logs grew too large", remedy="resynchronize the machine"
        )
    if not tracking.active or tracking.epoch != state.epoch:
        now = f"tracking period '{tracking.epoch}'" if tracking.active else "no tracking period"
        raise ResynchronizationRequired(
            f"the replica follows tracking period '{state.epoch}', but the source is in {now}",
            remedy="resynchronize the machine",
        )


def _send_pending(source: Cuts, store: ReplicaStore, report: Report) -> None:
    """Cuts that a crash left: those the replica holds are released, the others sent."""
    state = store.state()
    _require_same_period(source, state)
    for cut in source.pending():
        if cut.epoch == state.epoch and cut.number <= state.last_cut:
            source.release(cut)
        else:
            _send(source, store, cut, report)


def _send_new_cut(source: ChangeSource, store: ReplicaStore, kind: ConsistencyKind, report: Report) -> RecoveryPoint:
    return _send(source, store, source.cut(kind), report)


def _send(source: Cuts, store: ReplicaStore, cut: Cut, report: Report) -> RecoveryPoint:
    state = store.state()
    if (cut.epoch, cut.number) != (state.epoch, state.last_cut + 1):
        raise ResynchronizationRequired(
            f"cut {cut.number} of tracking period '{cut.epoch}' does not follow "
            f"cut {state.last_cut} of '{state.epoch}' that the replica holds",
            remedy="resynchronize the machine",
        )
    sizes = {disk.name: source.extents_size(cut, disk.name) for disk in state.disks}
    meter = Meter(report, f"changes of cut {cut.number}", sum(sizes.values()))
    for disk in state.disks:
        with (
            read_ahead(batches(source.extents(cut, disk.name))) as ahead,
            _staged(store.open_segment(disk.name, cut.number), meter) as add,
        ):
            for batch in ahead:
                add(batch.extents, batch.bytes)
    meter.tell()
    point = store.seal(cut.number, cut.time, cut.kind, group=cut.group)
    source.release(cut)
    return point


@contextmanager
def _staged(segment: SegmentWriter, meter: Meter) -> Iterator[Callable[[list[Extent], int], None]]:
    """``add(extents, bytes of disk dealt with)`` inside; the segment is closed then, or abandoned on any error."""
    counted = 0

    def add(extents: list[Extent], done: int) -> None:
        nonlocal counted
        for extent in extents:
            segment.add(extent)
        meter.add(done, segment.bytes_sent - counted)
        counted = segment.bytes_sent

    try:
        yield add
        segment.close()
        add([], 0)
    except BaseException:
        segment.abandon()
        raise
