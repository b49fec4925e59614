"""Mirroring: of a synchronous group a host's write is acknowledged when both arrays have it; how an asynchronous one
follows is :mod:`simulation.arrays.cycles`.

Only the active side of a group calls the other one while it holds the group's lock; so two arrays never wait for each
other.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from adapters.smis.values import CopyState, ReturnValue
from simulation.arrays.jobs import Job
from simulation.arrays.link import Peer
from simulation.arrays.media import BLOCK
from simulation.arrays.refusal import ArrayRefusal, LinkDown, WriteProtected
from simulation.arrays.state import Group
from simulation.arrays.wire import Frame

if TYPE_CHECKING:
    from simulation.arrays.array import Array

MIRRORING = frozenset({CopyState.SYNCHRONIZED, CopyState.UNSYNCHRONIZED})
"""Writes cross the link in these states."""
HEARTBEAT_S = 0.3
CHUNK = 16 * BLOCK
HELD_AT_MOST_S = 30.0
"""So long a write of a host waits for the link, when the group blocks on a failure."""


class Mirror:
    """The replication of one array's groups with those of its peers."""

    def __init__(self, array: Array) -> None:
        self._array = array
        self._peers: dict[str, Peer] = {}
        self._heard: dict[str, datetime] = {}
        self._failing_since: dict[str, float] = {}
        """By group: when its link began to fail (monotonic)."""
        self._closed = threading.Event()
        threading.Thread(target=self._beat, daemon=True, name="array heartbeat").start()

    def connect(self, peer: str, address: tuple[str, int]) -> None:
        self._peers[peer] = Peer(address, self._array.guard)

    @property
    def peers(self) -> list[str]:
        return sorted(self._peers)

    def close(self) -> None:
        self._closed.set()
        for peer in self._peers.values():
            peer.close()

    def call(self, group: Group, op: str, data: bytes = b"", **head: Any) -> Frame:
        """Raises ``LinkDown`` or ``ArrayRefusal``."""
        if group.peer not in self._peers:
            raise LinkDown(f"array {self._array.name} has no link to array '{group.peer}'")
        return self._peers[group.peer].call(op, data, array=self._array.name, group=group.name, **head)

    def call_peer(self, peer: str, op: str, **head: Any) -> Frame:
        """A call about no group that exists yet; as :meth:`call`."""
        if peer not in self._peers:
            raise LinkDown(f"array {self._array.name} has no link to array '{peer}'")
        return self._peers[peer].call(op, array=self._array.name, **head)

    # --- data -------------------------------------------------------------------------------------------------

    def write(self, group: Group, volume: str, offset: int, data: bytes) -> None:
        """Raises ``WriteProtected`` when the other side is active, ``ArrayRefusal`` when the link stays away."""
        deadline = time.monotonic() + HELD_AT_MOST_S
        while True:
            with self._array.writer(group.id):
                self._array.require_active(volume)
                if self._reaches_the_target(group, volume, offset, data):
                    self._array.media.write(volume, offset, data)
                    return
            if time.monotonic() > deadline:
                raise ArrayRefusal(f"group '{group.name}' cannot be mirrored, and blocks writes until it can")
            time.sleep(0.05)

    def _reaches_the_target(self, group: Group, volume: str, offset: int, data: bytes) -> bool:
        """Whether the write may be acknowledged. False: it has to wait, because the group blocks on a failure."""
        if group.asynchronous:
            if group.is_source:
                self._array.cycles.note(group, volume, offset, len(data))
            return True
        holds_writes = group.blocks_on_failure and group.state is CopyState.BROKEN
        if not group.is_source or (group.state not in MIRRORING and not holds_writes):
            return True
        target = group.peer_volumes[group.volumes.index(volume)]
        try:
            self.call(group, "write", data, volume=target, offset=offset)
        except LinkDown:
            return self._is_lost(group) and not group.blocks_on_failure
        self._failing_since.pop(group.id, None)
        if holds_writes:
            self.enter(group, CopyState.SYNCHRONIZED)
        return True

    def resynchronize(self, group: Group, job: Job) -> None:
        """Make the other side equal: compare by checksums, send what differs. Hosts go on writing meanwhile."""
        volumes = [self._array.state.volumes[volume] for volume in group.volumes]
        total, done = sum(volume.size for volume in volumes), 0
        for volume, target in zip(volumes, group.peer_volumes, strict=True):
            for offset in range(0, volume.size, CHUNK):
                length = min(CHUNK, volume.size - offset)
                with self._array.writer(group.id):
                    self._array.require_active(volume.id)
                    self._make_equal(group, volume.id, target, offset, length)
                done += length
                job.percent = min(99, 100 * done // total)

    def _make_equal(self, group: Group, volume: str, target: str, offset: int, length: int) -> None:
        theirs = self.call(group, "checksums", volume=target, offset=offset, length=length).data
        for index, mine in enumerate(self._array.media.checksums(volume, offset, length)):
            if theirs[16 * index : 16 * index + 16] != mine:
                start = offset + index * BLOCK
                data = self._array.media.read(volume, start, min(BLOCK, offset + length - start))
                self.call(group, "write", data, volume=target, offset=start)

    # --- states -----------------------------------------------------------------------------------------------

    def enter(self, group: Group, state: CopyState, *, in_sync_until: datetime | None = None) -> None:
        if group.asynchronous and group.target_is_whole:
            in_sync_until = in_sync_until or group.in_sync_until
        elif group.asynchronous and state is CopyState.SYNCHRONIZED:
            in_sync_until = in_sync_until or datetime.now(UTC)
        group.state, group.in_sync_until = state, in_sync_until
        if state is CopyState.SYNCHRONIZED or (state is CopyState.UNSYNCHRONIZED and not group.asynchronous):
            group.target_is_whole = state is CopyState.SYNCHRONIZED
        self._array.save()

    def enter_both(self, group: Group, state: CopyState, *, in_sync_until: datetime | None = None) -> None:
        """The other side first. Raises ``LinkDown``."""
        until = in_sync_until.isoformat() if in_sync_until else None
        self.call(group, "enter", state=int(state), in_sync_until=until)
        self.enter(group, state, in_sync_until=in_sync_until)

    def _is_lost(self, group: Group) -> bool:
        """At the active side, under the group's lock: has the link failed for longer than is tolerated? Until then
        nothing is acknowledged, so the target is a copy of the moment at which that is decided."""
        since = self._failing_since.setdefault(group.id, time.monotonic())
        if time.monotonic() - since < self._array.link_tolerance_s:
            return False
        self._lose(group, datetime.now(UTC))
        return True

    def _lose(self, group: Group, moment: datetime) -> None:
        """The link is gone. The target is a copy of ``moment``, unless writes wait for it."""
        if group.state not in MIRRORING:
            return
        keeps = group.blocks_on_failure or group.asynchronous
        self.enter(group, CopyState.BROKEN, in_sync_until=None if keeps else moment)

    def _beat(self) -> None:
        while not self._closed.wait(HEARTBEAT_S):
            for group in [group for group in self._array.state.groups.values() if group.peer]:
                self._ask(group)

    def _ask(self, group: Group) -> None:
        """Does the other side live, and does it know of a failover that this one missed?"""
        try:
            seen = self.call(group, "ping", generation=group.generation).head
        except LinkDown:
            with self._array.writer(group.id):
                if group.active:
                    self._is_lost(group)
                else:
                    self._lose(group, self._heard.get(group.id, datetime.now(UTC)))
        except ArrayRefusal:
            return  # the other side is being set up or taken down
        else:
            self._heard[group.id] = datetime.now(UTC)
            self._failing_since.pop(group.id, None)
            if seen["generation"] > group.generation:
                self._yield_to_the_other(group, seen["generation"])

    def _yield_to_the_other(self, group: Group, generation: int) -> None:
        """The other side was made the active one while this one could not be asked."""
        with self._array.writer(group.id):
            group.active, group.generation = False, generation
            self.enter(group, CopyState.FAILED_OVER)

    # --- what the other array asks ----------------------------------------------------------------------------

    def answer(self, frame: Frame) -> tuple[dict[str, Any], bytes]:
        """One call of a peer. Raises ``ArrayRefusal``."""
        op, head = frame.head["op"], frame.head
        if op == "create":
            return self._create_target(head), b""
        group = self._group(head["array"], head["group"])
        self._heard[group.id] = datetime.now(UTC)
        if op == "write":
            with self._array.writer(group.id):
                if group.active:
                    raise WriteProtected(f"group '{group.name}' is active at array {self._array.name}")
                self._array.media.write(head["volume"], head["offset"], frame.data)
            return {}, b""
        if op in ("stage", "apply"):
            self._array.cycles.answer(group, frame)
            return {}, b""
        if op == "checksums":
            found = self._array.media.checksums(head["volume"], head["offset"], head["length"])
            return {}, b"".join(found)
        if op != "step down":
            return self._answer_about_state(op, head, group), b""
        with self._array.cycles.turn(group):
            return self._answer_about_state(op, head, group), b""

    def _answer_about_state(self, op: str, head: dict[str, Any], group: Group) -> dict[str, Any]:
        with self._array.writer(group.id):
            if op == "ping":
                if head["generation"] > group.generation:
                    self._yield_to_the_other(group, head["generation"])
            elif op == "enter":
                until = head["in_sync_until"]
                self.enter(
                    group, CopyState(head["state"]), in_sync_until=datetime.fromisoformat(until) if until else None
                )
            elif op == "step down":
                self._step_down(group, head["generation"], force=head["force"])
            elif op == "become target":
                group.is_source, group.active, group.target_is_whole = False, False, False
                self.enter(group, CopyState.UNSYNCHRONIZED)
            elif op in ("take over", "lead"):
                group.is_source = group.is_source or op == "lead"
                group.active, group.generation = True, head["generation"]
                self.enter(group, CopyState.SYNCHRONIZED)
            elif op == "detach":
                self._array.forget(group)
            else:
                raise ArrayRefusal(f"unknown call '{op}'", ReturnValue.NOT_SUPPORTED)
            return {"generation": group.generation, "active": group.active, "state": int(group.state)}

    def _step_down(self, group: Group, generation: int, *, force: bool) -> None:
        if group.state is not CopyState.SYNCHRONIZED and not force:
            raise ArrayRefusal(f"the target of group '{group.name}' is not a copy of now: it is {group.state.name}")
        if group.asynchronous and not force:
            self._array.cycles.ship(group)
        group.active, group.generation = False, generation
        self.enter(group, CopyState.FAILED_OVER)

    def _group(self, array: str, name: str) -> Group:
        for group in self._array.state.groups.values():
            if group.peer == array and group.name == name:
                return group
        raise ArrayRefusal(f"array {self._array.name} replicates no group '{name}' with array {array}")

    def _create_target(self, head: dict[str, Any]) -> dict[str, Any]:
        array = self._array
        if any(group.peer and group.name == head["group"] for group in array.state.groups.values()):
            raise ArrayRefusal(f"array {array.name} has a replicated group '{head['group']}'", ReturnValue.IN_USE)
        made = [array.create_volume(volume["name"], head["pool"], volume["size"]).id for volume in head["volumes"]]
        group = array.create_group(head["group"], made)
        group.peer, group.peer_group, group.peer_volumes = head["array"], head["source_group"], head["source_volumes"]
        group.is_source, group.active, group.blocks_on_failure = False, False, head["blocks_on_failure"]
        group.asynchronous = head["asynchronous"]
        self.enter(group, CopyState.INITIALIZED)
        return {"id": group.id, "volumes": made}
