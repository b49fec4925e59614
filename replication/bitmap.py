"""A change source that knows *which* blocks changed, not what was written: block maps, CBT, RCT, dirty bitmaps.

The contents of a cut come from a snapshot of its moment, so every cut that is not released has one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

from replication.blockmap import MapCut, MapState
from replication.blocks import read_exactly
from replication.ports import BlockReader, ChangeSource, Cut, Extent, Tracking
from replication.ranges import pieces
from vault.domain import ConsistencyKind, Disk
from vault.errors import InvalidState, NotFound, ResynchronizationRequired

RESYNCHRONIZE = "resynchronize the machine: source and replica are compared and only the difference is sent"

CutNow = Callable[[int, str], Cut]
"""``(moment in ns since 1970 UTC, consistency group)`` → the cut of this moment."""
Hold = Callable[[], AbstractContextManager[CutNow]]
"""Stops the machine's writes inside the context it gives, in which the machine can be cut."""


class CutsInTwoSteps(Protocol):
    """A source that can be cut together with others: first all are prepared, then all are held, then all are cut."""

    def prepared(self, kind: ConsistencyKind) -> AbstractContextManager[Hold]:
        """Inside, all that takes its time is done (buffers flushed, applications quiesced), so that holding the
        machine's writes is short."""


class BlockMapDevice(Protocol):
    """A machine's disks in a fabric that can tell which blocks changed, and freeze all disks at one moment.

    *The write hook*: while the saved state is ``marking``, every write to a disk marks its blocks with the state's
    generation before it reaches the disk; writes that find blocks of the newest snapshot keep the old ones first.
    Errors: ``Unreachable`` when the fabric cannot be asked.
    """

    def disks(self) -> list[Disk]: ...

    def load(self) -> MapState: ...

    def quiesced(self, kind: ConsistencyKind) -> AbstractContextManager[Callable[[], ConsistencyKind]]:
        """Inside the machine is prepared for a cut of ``kind``. The yielded function, called after :meth:`freeze`, says
        which one it became."""

    def quiet(self) -> AbstractContextManager[None]:
        """Inside no write is under way on any disk, and nobody else changes the state."""

    def save(self, state: MapState) -> None:
        """Inside :meth:`quiet`: atomically and durably. The next write follows it; snapshots it does not name go."""

    def begin_maps(self, epoch: str) -> None:
        """Inside :meth:`quiet`: maps for ``epoch`` with no block marked, used once a state of it is saved."""

    def freeze(self) -> str:
        """Inside :meth:`quiet`: snapshot all disks as they are; exists once a state that names it last is saved."""

    def changed(self, disk: str, since: int, snapshot: str) -> Iterator[tuple[int, int]]:
        """Ranges of blocks marked in a later generation than ``since``, ascending and apart: at least those that were
        when ``snapshot`` was taken.

        Raises ``ResynchronizationRequired`` when the marks may be incomplete."""

    def open_frozen(self, snapshot: str, disk: str) -> BlockReader:
        """Raises ``NotFound``."""

    def space(self) -> int:
        """Bytes that maps and snapshots take at the source."""


class BitmapChangeSource(ChangeSource):
    """Changes of the machine behind ``device``.

    What a cut sends are the blocks written since the last released one, as they were at the cut's moment: so a block
    that was written again after the cut may be sent once too often, and never too late.
    """

    def __init__(self, device: BlockMapDevice) -> None:
        self._device = device
        self._resolved: tuple[tuple[str, int, str], list[tuple[int, int]]] | None = None

    def disks(self) -> list[Disk]:
        return self._device.disks()

    def start_tracking(self) -> str:
        epoch = os.urandom(16).hex()
        with self._device.quiet():
            known = self._device.load()
            self._device.begin_maps(epoch)
            fresh = MapState(epoch=epoch, active=True, seed=known.seed, seed_time_ns=known.seed_time_ns)
            self._device.save(_trimmed(replace(fresh, snapshots=known.snapshots)))
        return epoch

    def stop_tracking(self) -> None:
        with self._device.quiet():
            known = self._device.load()
            if known.active or known.cuts:
                self._device.save(_trimmed(replace(known, active=False, resync_required=False, cuts=())))

    def tracking(self) -> Tracking:
        known = self._device.load()
        return Tracking(
            active=known.marking,
            epoch=known.epoch,
            resync_required=known.resync_required,
            log_bytes=self._device.space(),
        )

    def take_snapshot(self) -> datetime:
        with self._device.quiet():
            known, time_ns = self._device.load(), time.time_ns()
            seed = self._device.freeze()
            taken = replace(known, snapshots=(*known.snapshots, seed), seed=seed, seed_time_ns=time_ns)
            self._device.save(_trimmed(taken))
        return moment_of(time_ns)

    def snapshot_moment(self) -> datetime | None:
        known = self._device.load()
        return moment_of(known.seed_time_ns) if known.seed and self._can_be_read(known.seed) else None

    def _can_be_read(self, snapshot: str) -> bool:
        """Not so when a crash came between giving it up and forgetting it."""
        try:
            for disk in self.disks():
                self._device.open_frozen(snapshot, disk.name).close()
        except NotFound:
            return False
        return True

    def open_snapshot(self, disk: str) -> BlockReader:
        known = self._device.load()
        if not known.seed:
            raise NotFound("the machine has no snapshot", remedy="take one first")
        return self._device.open_frozen(known.seed, disk)

    def delete_snapshot(self) -> None:
        with self._device.quiet():
            known = self._device.load()
            if known.seed:
                self._device.save(_trimmed(replace(known, seed="", seed_time_ns=0)))

    def cut(self, kind: ConsistencyKind = ConsistencyKind.CRASH) -> Cut:
        """As the contract says. The returned ``kind`` is what was reached."""
        with self.prepared(kind) as hold, hold() as cut_now:
            return cut_now(time.time_ns(), "")

    @contextmanager
    def prepared(self, kind: ConsistencyKind) -> Iterator[Hold]:
        """See :class:`CutsInTwoSteps`."""
        with self._device.quiesced(kind) as reached:
            yield lambda: self._holding(reached)

    @contextmanager
    def _holding(self, reached: Callable[[], ConsistencyKind]) -> Iterator[CutNow]:
        with self._device.quiet():
            yield lambda time_ns, group: self._cut_now(time_ns, reached, group)

    def _cut_now(self, time_ns: int, reached: Callable[[], ConsistencyKind], group: str) -> Cut:
        known = self._device.load()
        _require_known_changes(known)
        snapshot = self._device.freeze()
        made = MapCut(known.number + 1, known.generation, snapshot, time_ns, str(reached()), group)
        self._device.save(
            replace(
                known,
                number=made.number,
                generation=known.generation + 1,
                cuts=(*known.cuts, made),
                snapshots=(*known.snapshots, made.snapshot),
            )
        )
        return _as_cut(known.epoch, made)

    def pending(self) -> list[Cut]:
        known = self._device.load()
        return [_as_cut(known.epoch, made) for made in known.cuts]

    def extents(self, cut: Cut, disk: str) -> Iterator[Extent]:
        made, ranges = self._ranges(cut, disk)
        size = next(known.size for known in self.disks() if known.name == disk)
        with closing(self._device.open_frozen(made.snapshot, disk)) as reader:
            for offset, length in pieces(iter(ranges), size, 1):
                yield Extent(offset, read_exactly(reader, offset, length))

    def extents_size(self, cut: Cut, disk: str) -> int:
        return sum(length for _, length in self._ranges(cut, disk)[1])

    def release(self, cut: Cut) -> None:
        with self._device.quiet():
            known = self._device.load()
            rest = tuple(made for made in known.cuts if made.number != cut.number)
            if cut.epoch == known.epoch and rest != known.cuts:
                oldest_to_send = rest[0].generation if rest else known.generation
                self._device.save(_trimmed(replace(known, cuts=rest, released=oldest_to_send - 1)))

    def _ranges(self, cut: Cut, disk: str) -> tuple[MapCut, list[tuple[int, int]]]:
        """Looked up once for a cut and disk: the map goes on changing, what is announced must be what is sent."""
        known = self._device.load()
        made = next((made for made in known.cuts if made.number == cut.number), None)
        if made is None or cut.epoch != known.epoch:
            _require_known_changes(known)
            raise InvalidState(f"cut {cut.number} was released or never made")
        key = (cut.epoch, cut.number, disk)
        if self._resolved is None or self._resolved[0] != key:
            self._resolved = (key, list(self._device.changed(disk, known.released, made.snapshot)))
        return made, self._resolved[1]


def moment_of(time_ns: int) -> datetime:
    """To the microsecond below: a write acknowledged before the returned moment was acknowledged before time_ns."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=nanoseconds // 1000)


def _as_cut(epoch: str, made: MapCut) -> Cut:
    return Cut(
        epoch=epoch,
        number=made.number,
        time=moment_of(made.time_ns),
        kind=ConsistencyKind(made.kind),
        group=made.group,
    )


def _require_known_changes(known: MapState) -> None:
    if not known.marking:
        what = "its changes are no longer known" if known.resync_required else "its changes are not tracked"
        raise ResynchronizationRequired(f"the machine cannot be cut: {what}", remedy=RESYNCHRONIZE)


def _trimmed(state: MapState) -> MapState:
    """Without snapshots that nobody needs. An older one may lean on every newer one for blocks not changed between."""
    needed = {made.snapshot for made in state.cuts} | {state.seed}
    first = next((at for at, snapshot in enumerate(state.snapshots) if snapshot in needed), len(state.snapshots))
    return replace(state, snapshots=state.snapshots[first:])
