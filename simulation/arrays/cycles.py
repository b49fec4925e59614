"""Asynchronous mirroring: writes are acknowledged at once and cross the link in ordered cycles.

A cycle is what was written since the one before, as of one moment over all volumes of the group. The target keeps it
aside until it is whole and only then applies it, by way of a journal: so it is the copy of one moment at any time,
whatever dies when. The journal is a file of the link's frames (:mod:`simulation.arrays.wire`).
"""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from adapters.smis.values import CopyState
from simulation.arrays.jobs import Job
from simulation.arrays.media import BLOCK
from simulation.arrays.refusal import ArrayRefusal, WriteProtected
from simulation.arrays.state import Group
from simulation.arrays.wire import Frame, frames, pack

if TYPE_CHECKING:
    from simulation.arrays.array import Array


KNOWS_ITS_CHANGES = frozenset({CopyState.SYNCHRONIZED, CopyState.UNSYNCHRONIZED})
"""In other states a source that goes on compares both sides first."""
CLOSING_S = 10.0


class Changed(NamedTuple):
    """A block of a volume that the target does not have yet."""

    volume: str
    block: int


class Cycles:
    """Both ends of the asynchronous groups of one array."""

    def __init__(self, array: Array, every_s: float) -> None:
        self._array = array
        self._changed: defaultdict[str, set[Changed]] = defaultdict(set)
        self._staged: defaultdict[str, list[Frame]] = defaultdict(list)
        self._turns: defaultdict[str, threading.RLock] = defaultdict(threading.RLock)
        self._every_s = every_s
        self._closed = threading.Event()
        self._shipping = threading.Thread(target=self._run, daemon=True, name="array cycles")

    def start(self) -> None:
        """Go on where the array's process was when it died: a target applies what it has whole; a source does not
        know any more what its target misses."""
        for group in self._array.state.groups.values():
            if group.is_applying:
                self._apply_journal(group)
            if group.asynchronous and group.is_source and group.state in KNOWS_ITS_CHANGES:
                group.state = CopyState.BROKEN
        self._shipping.start()

    def close(self) -> None:
        """Returns when the last cycle is over, so that nothing moves any more."""
        self._closed.set()
        if self._shipping.is_alive():
            self._shipping.join(CLOSING_S)

    # --- the source -------------------------------------------------------------------------------------------

    def turn(self, group: Group) -> threading.RLock:
        """Held for a whole cycle, and taken before the group's writer: cycles of a group follow each other."""
        return self._turns[group.id]

    def note(self, group: Group, volume: str, offset: int, length: int) -> None:
        """A write, under the group's lock."""
        blocks = range(offset // BLOCK, -(-(offset + length) // BLOCK))
        self._changed[group.id].update(Changed(volume, block) for block in blocks)

    def ship(self, group: Group) -> None:
        """One cycle. What does not arrive is part of the next one. Raises ``LinkDown`` or ``ArrayRefusal``."""
        with self.turn(group):
            with self._array.writer(group.id):
                moment, cut = datetime.now(UTC), self._changed.pop(group.id, set())
                blocks = [(one, self._read(one)) for one in sorted(cut)]
            try:
                for index, (one, data) in enumerate(blocks):
                    target = group.peer_volumes[group.volumes.index(one.volume)]
                    head = {"volume": target, "offset": one.block * BLOCK, "index": index}
                    self._array.mirror.call(group, "stage", data, **head)
                self._array.mirror.call(group, "apply", count=len(blocks), moment=moment.isoformat())
            except ArrayRefusal:
                with self._array.writer(group.id):
                    self._changed[group.id] |= cut
                raise
            with self._array.writer(group.id):
                group.in_sync_until, group.target_is_whole = moment, True
                self._array.save()

    def ship_differences(self, group: Group, job: Job) -> None:
        """After anything that was not noted: compare by checksums. Hosts go on writing, and the target stays whole."""
        volumes = [self._array.state.volumes[volume] for volume in group.volumes]
        total, done = sum(volume.size for volume in volumes), 0
        for volume, target in zip(volumes, group.peer_volumes, strict=True):
            for offset in range(0, volume.size, 16 * BLOCK):
                length = min(16 * BLOCK, volume.size - offset)
                theirs = self._array.mirror.call(group, "checksums", volume=target, offset=offset, length=length).data
                with self._array.writer(group.id):
                    for index, mine in enumerate(self._array.media.checksums(volume.id, offset, length)):
                        if theirs[16 * index : 16 * index + 16] != mine:
                            self.note(group, volume.id, offset + index * BLOCK, 1)
                done += length
                job.percent = min(99, 100 * done // total)
        self.ship(group)

    def _read(self, one: Changed) -> bytes:
        offset = one.block * BLOCK
        return self._array.media.read(
            one.volume, offset, min(BLOCK, self._array.state.volumes[one.volume].size - offset)
        )

    def _run(self) -> None:
        while not self._closed.wait(self._every_s):
            for group in list(self._array.state.groups.values()):
                if group.asynchronous and group.is_source and group.active and group.state is CopyState.SYNCHRONIZED:
                    with contextlib.suppress(ArrayRefusal, OSError):  # the heartbeat sees to a link that is lost
                        self.ship(group)

    # --- the target -------------------------------------------------------------------------------------------

    def answer(self, group: Group, frame: Frame) -> None:
        """A block of a cycle, or the word that it is whole. Raises ``ArrayRefusal``."""
        head = frame.head
        if head["op"] == "apply":
            self._apply(group, head["count"], datetime.fromisoformat(head["moment"]))
            return
        if head["index"] == 0:
            self._staged[group.id].clear()
        self._staged[group.id].append(frame)

    def _apply(self, group: Group, count: int, moment: datetime) -> None:
        """Raises ``ArrayRefusal`` when the cycle is not whole or this side is the active one."""
        staged = self._staged.pop(group.id, [])
        with self._array.writer(group.id):
            if group.active:
                raise WriteProtected(f"group '{group.name}' is active at array {self._array.name}")
            if len(staged) < count:
                raise ArrayRefusal(f"a cycle of group '{group.name}' is not whole: {len(staged)} of {count} blocks")
            self._journal(group).write_bytes(b"".join(pack(frame.head, frame.data) for frame in staged[:count]))
            group.is_applying, group.in_sync_until = True, moment
            self._array.save()
            self._apply_journal(group)

    def _apply_journal(self, group: Group) -> None:
        for frame in frames(self._journal(group)):
            self._array.media.write(frame.head["volume"], frame.head["offset"], frame.data)
        group.is_applying, group.target_is_whole = False, True
        self._array.save()

    def _journal(self, group: Group) -> Path:
        return self._array.folder / f"{group.id}.cycle"
