"""One simulated array: pools, volumes, masking, groups, and the path of every write of a host."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from adapters.smis.values import CopyState, ReturnValue
from simulation.arrays.cycles import Cycles
from simulation.arrays.jobs import Jobs
from simulation.arrays.link import Guard, LinkListener
from simulation.arrays.media import Media
from simulation.arrays.mirror import Mirror
from simulation.arrays.nbd import NbdServer
from simulation.arrays.refusal import ArrayRefusal, WriteProtected
from simulation.arrays.state import ArrayState, Group, Pool, Volume


def _connected() -> None:
    """The guard of a link that is never cut."""


class Array:
    """Works until :meth:`close`, and goes on where it was when it is made again on the same folder.

    Args:
        folder: its volumes and what it remembers.
        name: the array's name, unique among its peers.
        guard: asked at everything that crosses the replication link.
        link_port, data_port: 0 takes free ports.
        link_tolerance_s: so long a write waits for a link that fails before the group goes on without its target. An
            array that dies together with its link has then acknowledged nothing that only it had.
        cycle_s: between two cycles of an asynchronous group.
        mirrors_asynchronously: whether it can.
        has_groups: whether it mirrors groups; else each volume for itself.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        *,
        guard: Guard = _connected,
        link_port: int = 0,
        data_port: int = 0,
        link_tolerance_s: float = 1.0,
        cycle_s: float = 0.5,
        mirrors_asynchronously: bool = True,
        has_groups: bool = True,
    ) -> None:
        self.name = name
        self.folder = folder
        self.mirrors_asynchronously = mirrors_asynchronously
        self.has_groups = has_groups
        self._document = folder / "array.json"
        self.media = Media(folder)
        self.state = ArrayState.load(self._document)
        for group in self.state.groups.values():
            if group.is_source and group.state is CopyState.UNSYNCHRONIZED:
                group.state = CopyState.BROKEN  # the copy died with the process that made it
        self.jobs = Jobs()
        self.guard = guard
        self.link_tolerance_s = link_tolerance_s
        self._lock = threading.RLock()
        self._writers: defaultdict[str, threading.RLock] = defaultdict(threading.RLock)
        self.cycles = Cycles(self, cycle_s)
        self.mirror = Mirror(self)
        self.cycles.start()
        self.link = LinkListener(link_port, self.mirror.answer, guard)
        self.data = NbdServer(data_port, self)

    def connect(self, peer: str, link_port: int) -> None:
        """Replicate with the array ``peer`` from now on."""
        self.mirror.connect(peer, ("127.0.0.1", link_port))

    def close(self) -> None:
        self.data.close()
        self.cycles.close()
        self.mirror.close()
        self.link.close()
        self.media.close()

    def writer(self, group: str) -> threading.RLock:
        """Held for every write of a group, so that its volumes keep one order."""
        return self._writers[group]

    def save(self) -> None:
        with self._lock:
            self.state.save(self._document)

    # --- pools, volumes, masking ------------------------------------------------------------------------------

    def create_pool(self, name: str, size: int) -> Pool:
        with self._lock:
            if name not in self.state.pools:
                self.state.pools[name] = Pool(name=name, size=size)
                self.save()
            return self.state.pools[name]

    def create_volume(self, name: str, pool: str, size: int) -> Volume:
        with self._lock:
            if pool not in self.state.pools:
                raise ArrayRefusal(f"there is no pool '{pool}'", ReturnValue.INVALID_PARAMETER)
            if self.state.used(pool) + size > self.state.pools[pool].size:
                raise ArrayRefusal(f"pool '{pool}' has no room for {size:,} bytes")
            volume = Volume(id=f"{self.name}-{self._number():05d}", name=name, pool=pool, size=size)
            self.media.create(volume.id, size)
            self.state.volumes[volume.id] = volume
            self.save()
            return volume

    def delete_volume(self, volume: str) -> None:
        with self._lock:
            if any(volume in group.volumes for group in self.state.groups.values()):
                raise ArrayRefusal(f"volume '{volume}' is in a replication group", ReturnValue.IN_USE)
            if volume in self.state.volumes and self.state.volumes[volume].hosts:
                raise ArrayRefusal(f"hosts see volume '{volume}'", ReturnValue.IN_USE)
            if volume in self.state.volumes and self.state.volumes[volume].cloned_at is not None:
                raise ArrayRefusal(f"volume '{volume}' is attached to the one it is a clone of", ReturnValue.IN_USE)
            self.state.volumes.pop(volume, None)
            self.save()
            self.media.delete(volume)

    def expose(self, volumes: Sequence[str], host: str, *, writable: bool = True) -> None:
        self._mask(volumes, lambda hosts: {**hosts, host: writable})

    def hide(self, volumes: Sequence[str], host: str) -> None:
        self._mask(volumes, lambda hosts: {name: may for name, may in hosts.items() if name != host})

    def _mask(self, volumes: Sequence[str], change: Callable[[dict[str, bool]], dict[str, bool]]) -> None:
        with self._lock:
            for volume in volumes:
                found = self._volume(volume)
                found.hosts = change(found.hosts)
            self.save()

    def _volume(self, volume: str) -> Volume:
        if volume not in self.state.volumes:
            raise ArrayRefusal(f"there is no volume '{volume}'", ReturnValue.INVALID_PARAMETER)
        return self.state.volumes[volume]

    def _number(self) -> int:
        number, self.state.next_number = self.state.next_number, self.state.next_number + 1
        return number

    # --- groups -----------------------------------------------------------------------------------------------

    def create_group(self, name: str, volumes: Sequence[str]) -> Group:
        with self._lock:
            for volume in volumes:
                self._volume(volume)
                if (other := self.state.group_of(volume)) is not None:
                    raise ArrayRefusal(f"volume '{volume}' is in group '{other.name}' already", ReturnValue.IN_USE)
            group = Group(id=f"{self.name}-group-{self._number():05d}", name=name, volumes=list(volumes))
            self.state.groups[group.id] = group
            self.save()
            return group

    def remove_members(self, group: Group, volumes: Sequence[str]) -> None:
        with self._lock:
            if group.peer:
                raise ArrayRefusal(f"group '{group.name}' is replicated", ReturnValue.IN_USE)
            if missing := set(volumes) - set(group.volumes):
                raise ArrayRefusal(f"not in group '{group.name}': {missing}", ReturnValue.INVALID_PARAMETER)
            group.volumes = [volume for volume in group.volumes if volume not in volumes]
            self.save()

    def delete_group(self, group: str, *, with_members: bool = False) -> None:
        with self._lock:
            found = self.state.groups.get(group)
            if found is not None and found.peer:
                raise ArrayRefusal(f"group '{group}' is replicated", ReturnValue.IN_USE)
            if found is not None and found.volumes and not with_members:
                raise ArrayRefusal(f"group '{group}' is not empty")
            self.state.groups.pop(group, None)
            self.save()

    def forget(self, group: Group) -> None:
        """The relationship ends; the volumes are each side's own from here on. A group that stood for the mirror of one
        volume ends with it."""
        group.peer, group.peer_group, group.peer_volumes = "", "", []
        group.is_source, group.active = True, True
        group.state, group.in_sync_until, group.generation = CopyState.NOT_APPLICABLE, None, 0
        group.target_is_whole, group.asynchronous = False, False
        if not self.has_groups:
            self.state.groups.pop(group.id, None)
        self.save()

    def clone(self, volumes: Sequence[str], names: Sequence[str]) -> list[Volume]:
        """Copies of volumes as they are at one moment over all of them."""
        groups = {group.id: group for volume in volumes if (group := self.state.group_of(volume)) is not None}
        with ExitStack() as held:
            for name in sorted(groups):
                held.enter_context(self.writer(name))
            for group in groups.values():
                if not group.is_source and not group.active and not group.target_is_whole:
                    raise ArrayRefusal("the volumes are being synchronized: a copy of now would be of no moment")
            copies_of = [one.in_sync_until for one in groups.values() if not one.active and one.in_sync_until]
            made, moment = [], min(copies_of, default=datetime.now(UTC))
            for volume, name in zip(volumes, names, strict=True):
                source = self._volume(volume)
                copy = self.create_volume(name, source.pool, source.size)
                self.media.copy(volume, copy.id, source.size)
                copy.cloned_from, copy.cloned_at = volume, moment
                made.append(copy)
            self.save()
            return made

    def detach_clone(self, volume: Volume) -> None:
        with self._lock:
            volume.cloned_from, volume.cloned_at = "", None
            self.save()

    # --- what hosts do ----------------------------------------------------------------------------------------

    def open_for(self, host: str, name: str) -> tuple[Volume, bool]:
        """The volume of this name that ``host`` sees, and whether it may write. Raises ``ArrayRefusal``."""
        for volume in self.state.volumes.values():
            if volume.name == name and host in volume.hosts:
                self.require_active(volume.id)
                return volume, volume.hosts[host]
        raise ArrayRefusal(f"array {self.name} shows no volume '{name}' to {host}")

    def require_active(self, volume: str) -> None:
        group = self.state.group_of(volume)
        if group is not None and not group.active:
            raise WriteProtected(f"volume '{volume}' is write-protected: array {group.peer} has group '{group.name}'")

    def read(self, volume: str, offset: int, length: int) -> bytes:
        self.require_active(volume)
        return self.media.read(volume, offset, length)

    def write(self, volume: str, offset: int, data: bytes) -> None:
        """Acknowledged, by returning, when both sides have it."""
        group = self.state.group_of(volume)
        if group is None:
            self.media.write(volume, offset, data)
        else:
            self.mirror.write(group, volume, offset, data)
