"""An array by Swordfish, behind :class:`adapters.san.ports.GroupControl`: discover, status, planned failover, reverse.

Swordfish has no failover of its own: ReverseReplicationRelationship makes the target the source, and the mirror goes on
from there. So a group is never "failed over" here, and reversing it again finds it done.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from adapters.san.ports import Group, GroupState, Step, Volume, Watch
from adapters.swordfish import resources
from adapters.swordfish.client import SwordfishClient
from adapters.swordfish.resources import (
    Collection,
    ConsistencyGroup,
    Link,
    ReplicaMode,
    ReplicaRole,
    ReplicaState,
    ServiceRoot,
    Storage,
)
from vault.domain import Finding
from vault.errors import InvalidState, NotFound

ROOT = "/redfish/v1"
STATES: dict[str, GroupState] = {
    ReplicaState.INITIALIZED: GroupState.COPYING,
    ReplicaState.PREPARED: GroupState.COPYING,
    ReplicaState.UNSYNCHRONIZED: GroupState.COPYING,
    ReplicaState.SYNCHRONIZED: GroupState.SYNCHRONIZED,
    ReplicaState.BROKEN: GroupState.LINK_LOST,
    ReplicaState.SUSPENDED: GroupState.SUSPENDED,
    ReplicaState.INACTIVE: GroupState.SUSPENDED,
    ReplicaState.FRACTURED: GroupState.SPLIT,
    ReplicaState.SPLIT: GroupState.SPLIT,
    ReplicaState.FAILEDOVER: GroupState.FAILED_OVER,
}
TELLS_NOTHING = frozenset({"Completed", "Dormant"})
"""Values of ``ReplicaProgressStatus`` that say no more than the state."""


class SwordfishArray:
    """Implements :class:`adapters.san.ports.GroupControl` for the storage ``name`` of a service."""

    def __init__(self, name: str, client: SwordfishClient) -> None:
        self.name = name
        self._client = client

    def check(self, *, asynchronous: bool = False) -> list[Finding]:
        missing = sorted({Step.FAIL_OVER, Step.RESUME} - self.supports(asynchronous=asynchronous))
        if missing and self._mirrored(asynchronous=asynchronous):
            what = f"a replicated group of it cannot {', '.join(missing)}"
            remedy = "look at the groups' actions on the array"
            return [Finding.failed(f"array {self.name}", what, remedy)]
        return [Finding.passed(f"array {self.name}", "answers")]

    def supports(self, *, asynchronous: bool = False) -> frozenset[Step]:
        """What every group that is mirrored so offers as an action."""
        offered = [_steps(group) for group in self._mirrored(asynchronous=asynchronous)]
        return frozenset.intersection(*offered) if offered else frozenset()

    def _mirrored(self, *, asynchronous: bool) -> list[ConsistencyGroup]:
        replicated = [(group, group.replica) for group in self._groups() if group.replica is not None]
        return [group for group, replica in replicated if (replica.mode == ReplicaMode.ASYNCHRONOUS) == asynchronous]

    def groups(self, name: str | None = None) -> list[Group]:
        found = [group for group in self._groups() if name in (None, group.name)]
        paths = {link.path for group in found for link in group.volumes}
        volumes = {path: self._client.get(path, resources.Volume) for path in paths}
        return [_group(group, volumes) for group in found]

    def volumes(self, names: Sequence[str]) -> list[Volume]:
        there = list(self._volumes())
        found, named = {one.name: one for one in there}, Counter(one.name for one in there)
        missing = [name for name in names if name not in found]
        if missing:
            raise NotFound(
                f"there is no volume {', '.join(missing)}",
                where=f"array {self.name}",
                remedy="correct 'volumes' of the machine's 'san' in the inventory",
            )
        if several := [name for name in dict.fromkeys(names) if named[name] > 1]:
            raise InvalidState(
                f"there are several volumes {', '.join(several)}",
                where=f"array {self.name}",
                remedy="give the others another name on the array: by its name leeward finds a machine's volume",
            )
        return [_volume(found[name]) for name in dict.fromkeys(names)]

    def pools_of(self, volumes: Sequence[Volume]) -> dict[str, list[str]]:
        """As the volumes' capacity sources tell it: ``ProvidingPools`` of each."""
        found = {one.id: one for one in self._volumes()}
        return {volume.name: self._pools_of(found[volume.id]) for volume in volumes}

    def _pools_of(self, volume: resources.Volume) -> list[str]:
        paths = []
        for told in volume.sources:
            is_link = bool(told.path) and not told.id and told.pools is None
            source = self._client.get(told.path, resources.CapacitySource) if is_link else told
            if source.pools is not None:
                members = source.pools.members
                links = members if members is not None else self._members(source.pools)
                paths += [link.path for link in links]
        return [self._client.get(path, resources.StoragePool).id for path in dict.fromkeys(paths)]

    def _volumes(self) -> Iterator[resources.Volume]:
        for link in self._members(self._storage().volumes):
            yield self._client.get(link.path, resources.Volume)

    def fail_over(self, group: Group, watch: Watch, *, force: bool = False) -> None:
        if force:
            raise InvalidState(
                f"Swordfish cannot make the target of group '{group.name}' active without its source",
                where=f"array {self.name}",
                remedy="do it with the array's own tools",
            )
        found = self._find(group)
        if found.replica is not None and found.replica.role is ReplicaRole.SOURCE:
            return
        self._act(found, "failing over", found.actions.reverse, watch)

    def reverse(self, group: Group, watch: Watch) -> None:
        self.fail_over(group, watch)

    def fail_back(self, group: Group, watch: Watch) -> None:
        """The same action at the side that has become the source."""
        found = self._find(group)
        if found.replica is not None and found.replica.role is ReplicaRole.SOURCE:
            self._act(found, "failing back", found.actions.reverse, watch)

    def resume(self, group: Group, watch: Watch) -> None:
        found = self._find(group)
        if found.replica is None or found.replica.state != ReplicaState.SYNCHRONIZED:
            self._act(found, "resuming", found.actions.resume, watch)

    def _act(self, group: ConsistencyGroup, doing: str, action: resources.ActionTarget | None, watch: Watch) -> None:
        if action is None:
            raise InvalidState(
                f"{doing}: group '{group.name}' does not offer that now",
                where=f"array {self.name}",
                remedy="look at the group on the array",
            )
        body: dict[str, str] = {}
        if group.targets:
            body["TargetConsistencyGroup"] = group.targets[0].path
        self._client.act(f"{doing} group '{group.name}'", action.target, body, watch)

    def _find(self, group: Group) -> ConsistencyGroup:
        for found in self._groups():
            if found.id == group.id:
                return found
        raise NotFound(f"there is no group '{group.name}'", where=f"array {self.name}", remedy="look at the array")

    def _groups(self) -> list[ConsistencyGroup]:
        links = self._members(self._storage().consistency_groups)
        return [self._client.get(link.path, ConsistencyGroup) for link in links]

    def _members(self, collection: Link | None) -> list[Link]:
        """All of them, however many the service answers with at once; none where it has no such collection."""
        found, path = list[Link](), collection.path if collection is not None else None
        while path is not None:
            page = self._client.get(path, Collection)
            found, path = [*found, *page.members], page.next
        return found

    def _storage(self) -> Storage:
        root = self._client.get(ROOT, ServiceRoot)
        found = [self._client.get(link.path, Storage) for link in self._members(root.storage)]
        for one in found:
            if one.name == self.name:
                return one
        known = ", ".join(one.name for one in found) or "none"
        raise NotFound(
            f"there is no storage '{self.name}'",
            where=self._client.where,
            remedy=f"correct 'array' of the site's storage; the service has: {known}",
        )


def _steps(group: ConsistencyGroup) -> frozenset[Step]:
    found = {Step.FAIL_OVER, Step.FAIL_BACK, Step.REVERSE} if group.actions.reverse is not None else set()
    return frozenset(found | ({Step.RESUME} if group.actions.resume is not None else set()))


def _volume(found: resources.Volume) -> Volume:
    return Volume(id=found.id, name=found.name, size=found.capacity)


def _group(found: ConsistencyGroup, volumes: dict[str, resources.Volume]) -> Group:
    group = Group(
        id=found.id,
        name=found.name,
        volumes=[_volume(volumes[link.path]) for link in found.volumes],
        state=GroupState.LOCAL,
    )
    if found.replica is None:
        return group
    return group.model_copy(
        update={
            "state": STATES.get(found.replica.state, GroupState.OTHER),
            "is_source": found.replica.role is ReplicaRole.SOURCE,
            "percent": found.replica.percent,
            "doing": _words(found.replica.progress),
            "whole_at": found.replica.when_synchronized,
            "asynchronous": found.replica.mode == ReplicaMode.ASYNCHRONOUS,
        }
    )


def _words(progress: str | None) -> str:
    """``requires resync`` for ``RequiresResync``."""
    if progress is None or progress in TELLS_NOTHING:
        return ""
    return re.sub(r"(?<!^)(?=[A-Z])", " ", progress).lower()
