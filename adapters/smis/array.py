"""An array by SMI-S: the block, masking and replication profiles behind :class:`adapters.san.ports.Array`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

import pywbem

from adapters.san.ports import Group, GroupState, Step, Volume, Watch, unwatched
from adapters.smis.capabilities import Capabilities
from adapters.smis.connection import JOB_PATIENCE_S, SmisConnection
from adapters.smis.masking import Masking
from adapters.smis.synchronized import ASKS_FOR, UNDER_WAY, groups_of, mirrored_volumes, moment, replication
from adapters.smis.values import (
    Consistency,
    CopyState,
    Mode,
    Operation,
    SyncType,
    words,
)
from vault.domain import Finding, Severity
from vault.errors import BadInput, InvalidState, NotFound
from vault.san import SmisStorage
from vault.validation import did_you_mean

RESUMED_BY = {
    CopyState.SUSPENDED: Operation.RESUME,
    CopyState.INACTIVE: Operation.ACTIVATE,
    CopyState.PREPARED: Operation.ACTIVATE,
}
"""What begins a copy again that asks for nothing, by the state that it stands in; in all others it is Resync Replica,
which undoes a fracture or split and restarts what broke or was aborted (description of ModifyReplicaSynchronization's
operations)."""
NEEDED = frozenset({Step.CLONE, Step.FAIL_OVER, Step.FAIL_BACK, Step.REVERSE, Step.RESUME, Step.SPLIT})
"""Without these an array that mirrors cannot be used; ``detach`` is only needed to end the protection."""


class SmisArray:
    """Implements :class:`adapters.san.ports.Array`."""

    def __init__(self, storage: SmisStorage, *, job_patience_s: float = JOB_PATIENCE_S) -> None:
        self.name = storage.array
        self._storage = storage
        self._cim = SmisConnection(storage, job_patience_s=job_patience_s)
        self._masking = Masking(self._cim, lambda: self._service("CIM_ControllerConfigurationService"))
        self._capabilities = Capabilities(self._cim, lambda: self._only("CIM_ReplicationServiceCapabilities"))
        self._system: str | None = None

    # --- what is there ----------------------------------------------------------------------------------------

    def check(self, *, asynchronous: bool = False) -> list[Finding]:
        self._system_name()
        subject, supported = f"array {self.name}", self.supports(asynchronous=asynchronous)
        mirrors = not supported.isdisjoint({Step.MIRROR, Step.MIRROR_ASYNCHRONOUSLY})
        missing = sorted(NEEDED - supported) if mirrors else []
        if missing:
            return [
                Finding(
                    severity=Severity.FAIL,
                    subject=subject,
                    what=f"it cannot {', '.join(missing)}",
                    remedy="replicate its machines in another way, or use an array that can",
                )
            ]
        return [Finding.passed(subject, "answers, and can all that is needed")]

    def supports(self, *, asynchronous: bool = False) -> frozenset[Step]:
        return self._capabilities.steps(asynchronous=asynchronous)

    def free_space(self, pool: str) -> int:
        found = {one["InstanceID"]: one for one in self._cim.enumerate("CIM_StoragePool") if not one.get("Primordial")}
        if pool not in found:
            raise NotFound(
                f"there is no pool '{pool}'",
                where=f"array {self.name}",
                remedy="correct 'pool' of the site's storage, or 'storage_mappings', by the InstanceID: "
                + did_you_mean(pool, found),
            )
        return int(found[pool]["RemainingManagedSpace"])

    def pools_of(self, volumes: Sequence[Volume]) -> dict[str, list[str]]:
        through = "CIM_AllocatedFromStoragePool"
        return {
            one["ElementName"]: [it["Antecedent"]["InstanceID"] for it in self._cim.references(one.path, through)]
            for one in self._found(volumes)
        }

    def volumes(self, names: Sequence[str]) -> list[Volume]:
        wanted = dict.fromkeys(names)
        there = self._own_volumes()
        paths = {one["ElementName"]: one for one in there}
        missing = [name for name in wanted if name not in paths]
        if missing:
            raise NotFound(
                f"there is no volume {', '.join(missing)}",
                where=f"array {self.name}",
                remedy="correct 'volumes' of the machine's 'san' in the inventory",
            )
        named = Counter(one["ElementName"] for one in there)
        if several := [name for name in wanted if named[name] > 1]:
            raise InvalidState(
                f"there are several volumes {', '.join(several)}",
                where=f"array {self.name}",
                remedy="give the others another name on the array: by its name leeward finds a machine's volume",
            )
        return [_volume(paths[name]) for name in wanted]

    def groups(self, name: str | None = None) -> list[Group]:
        if not self._capabilities.mirror_groups:
            return list(self._pairs())
        synchronizations = self._cim.enumerate("CIM_GroupSynchronized")
        found = []
        for one in self._cim.enumerate("CIM_ReplicationGroup"):
            if name in (None, one["ElementName"]):
                members = self._cim.associated(one.path, "CIM_OrderedMemberOfCollection")
                if all(member["SystemName"] == self._system_name() for member in members):
                    found.append(self._group(one, members, synchronizations))
        return found

    def _pairs(self) -> Iterator[Group]:
        """Of an array that mirrors each volume for itself: those that are mirrored."""
        own, system = {one["DeviceID"]: one for one in self._own_volumes()}, self._system_name()
        for one in self._cim.enumerate("CIM_StorageSynchronized"):
            for (array, device), is_source in zip(mirrored_volumes(one), (True, False), strict=False):
                if array == system and device in own:
                    group = Group(id=device, name="", volumes=[_volume(own[device])], state=GroupState.LOCAL)
                    yield group.model_copy(update=replication(one, is_source=is_source))

    @staticmethod
    def _group(
        found: pywbem.CIMInstance,
        members: Iterable[pywbem.CIMInstance],
        synchronizations: Iterable[pywbem.CIMInstance],
    ) -> Group:
        group = Group(
            id=found["InstanceID"],
            name=found["ElementName"],
            volumes=[_volume(member) for member in members],
            state=GroupState.LOCAL,
        )
        for one in synchronizations:
            if group.id in groups_of(one):
                return group.model_copy(update=replication(one, is_source=group.id == groups_of(one)[0]))
        return group

    # --- replication ------------------------------------------------------------------------------------------

    def create_group(self, name: str, volumes: Sequence[Volume]) -> Group:
        if not self._capabilities.mirror_groups:
            return self._alone(name, volumes)
        out = self._cim.invoke(
            f"creating group '{name}'",
            "CreateGroup",
            self._service("CIM_ReplicationService"),
            GroupName=name,
            Members=self._paths(volumes),
        )
        return Group(id=out["ReplicationGroup"]["InstanceID"], name=name, volumes=list(volumes), state=GroupState.LOCAL)

    def mirror(
        self, group: Group, peer: str, pool: str, *, asynchronous: bool, hold_writes: bool, watch: Watch
    ) -> None:
        doing = f"mirroring group '{group.name}' to array {peer}"
        method, of_what = (
            ("CreateGroupReplica", self._whole(group))
            if self._capabilities.mirror_groups
            else ("CreateElementReplica", self._single(group))
        )
        out = self._cim.invoke(
            doing,
            method,
            self._service("CIM_ReplicationService"),
            SyncType=pywbem.Uint16(SyncType.MIRROR),
            Mode=pywbem.Uint16(Mode.ASYNCHRONOUS if asynchronous else Mode.SYNCHRONOUS),
            TargetAccessPoint=self._access_point(peer),
            TargetPool=self._pool_path(pool),
            ReplicationSettingData=_settings(FailedCopyStopsHostIO=hold_writes),
            **of_what,
        )
        self._cim.await_job(doing, out, watch, to_its_end=False)

    def _whole(self, group: Group) -> dict[str, Any]:
        return {
            "RelationshipName": group.name,
            "SourceGroup": self._group_path(group),
            "Consistency": pywbem.Uint16(Consistency.SEQUENTIAL),
        }

    def _single(self, group: Group) -> dict[str, Any]:
        """The replica gets the name of its source: by that leeward finds it."""
        (volume,), (path,) = group.volumes, self._paths(group.volumes)
        return {"ElementName": volume.name, "SourceElement": path}

    def _alone(self, name: str, volumes: Sequence[Volume]) -> Group:
        """A volume that stands for its group. The array is told nothing."""
        if len(volumes) != 1:
            raise InvalidState(
                f"it mirrors each volume for itself, and group '{name}' has {len(volumes)}: they would be of different "
                "moments",
                where=f"array {self.name}",
                remedy="put the group's disks on one volume, or use an array that mirrors groups",
            )
        return Group(id=volumes[0].id, name=name, volumes=list(volumes), state=GroupState.LOCAL)

    def fail_over(self, group: Group, watch: Watch, *, force: bool = False) -> None:
        self._modify(group, Operation.FAILOVER, watch, force=force)

    def fail_back(self, group: Group, watch: Watch) -> None:
        self._modify(group, Operation.FAILBACK, watch)

    def reverse(self, group: Group, watch: Watch) -> None:
        self._modify(group, Operation.REVERSE_ROLES, watch, to_its_end=False)

    def resume(self, group: Group, watch: Watch) -> None:
        found = self._synchronization(group, f"resuming group '{group.name}'")
        if found["CopyState"] == CopyState.UNSYNCHRONIZED and found.get("ProgressStatus") in UNDER_WAY:
            return
        by_state = RESUMED_BY.get(found["CopyState"], Operation.RESYNC_REPLICA)
        operation = ASKS_FOR.get(found.get("ProgressStatus"), by_state)
        self._modify(group, operation, watch, to_its_end=False, found=found)

    def split(self, group: Group) -> None:
        self._modify(group, Operation.SPLIT, unwatched, force=True)

    def detach(self, group: Group) -> None:
        self._modify(group, Operation.DETACH, unwatched)

    def _modify(
        self,
        group: Group,
        operation: Operation,
        watch: Watch,
        *,
        force: bool = False,
        to_its_end: bool = True,
        found: pywbem.CIMInstance | None = None,
    ) -> None:
        """``found``: the group's synchronization, when it was looked up just now."""
        doing = f"{words(operation)} of group '{group.name}'"
        copies = sum(volume.size for volume in group.volumes) if operation is Operation.FAILBACK else 0
        path = (found or self._synchronization(group, doing)).path
        self._order(doing, operation, path, watch, force=force, to_its_end=to_its_end, copies=copies)

    def _order(
        self,
        doing: str,
        operation: Operation,
        synchronization: pywbem.CIMInstanceName,
        watch: Watch,
        *,
        force: bool = False,
        to_its_end: bool = True,
        copies: int = 0,
    ) -> None:
        out = self._cim.invoke(
            doing,
            "ModifyReplicaSynchronization",
            self._service("CIM_ReplicationService"),
            Operation=pywbem.Uint16(operation),
            Synchronization=synchronization,
            Force=force,
        )
        self._cim.await_job(doing, out, watch, to_its_end=to_its_end, copies=copies)

    def _synchronization(self, group: Group, doing: str) -> pywbem.CIMInstance:
        if not self._capabilities.mirror_groups:
            return self._synchronization_of_one(group, doing)
        for found in self._cim.enumerate("CIM_GroupSynchronized"):
            if group.id in groups_of(found):
                return found
        self._group_path(group)  # or it is not there at all
        raise self._not_replicated(doing)

    def _synchronization_of_one(self, group: Group, doing: str) -> pywbem.CIMInstance:
        mine = (self._system_name(), group.id)
        for found in self._cim.enumerate("CIM_StorageSynchronized"):
            if mine in mirrored_volumes(found):
                return found
        raise self._not_replicated(doing)

    def _not_replicated(self, doing: str) -> InvalidState:
        return InvalidState(
            f"{doing}: the group is not replicated",
            where=f"array {self.name}",
            remedy="protect its machines: leeward protect",
        )

    def clone(self, volumes: Sequence[Volume], names: Sequence[str]) -> datetime | None:
        doing = f"cloning {', '.join(volume.name for volume in volumes)}"
        out = self._cim.invoke(
            doing,
            "CreateListReplica",
            self._service("CIM_ReplicationService"),
            ElementNames=list(names),
            SyncType=pywbem.Uint16(SyncType.CLONE),
            Mode=pywbem.Uint16(Mode.SYNCHRONOUS),
            SourceElements=self._paths(volumes),
            ReplicationSettingData=_settings(ConsistentPointInTime=True),
        )
        self._cim.await_job(doing, out, unwatched, copies=sum(volume.size for volume in volumes))
        copies = {one["ElementName"]: one for one in self._own_volumes()}
        missing = [name for name in names if name not in copies]
        if missing:
            raise InvalidState(f"{doing}: the array made no {', '.join(missing)}", where=f"array {self.name}")
        made = self._cim.references(copies[names[0]].path, "CIM_StorageSynchronized")
        synced = made[0].get("WhenSynced") if made else None
        return moment(synced) if synced is not None else None

    # --- masking and clean-up ---------------------------------------------------------------------------------

    def expose(self, volumes: Sequence[Volume], hosts: Sequence[str]) -> None:
        self._masking.expose(self._found(volumes), hosts)

    def hide(self, volumes: Sequence[Volume], hosts: Sequence[str]) -> None:
        self._masking.hide(self._found(volumes), hosts)

    def empty_group(self, group: Group) -> None:
        if group.volumes:
            self._cim.invoke(
                f"taking the volumes out of group '{group.name}'",
                "RemoveMembers",
                self._service("CIM_ReplicationService"),
                Members=self._paths(group.volumes),
                DeleteOnEmptyElement=False,
                ReplicationGroup=self._group_path(group),
            )

    def delete_group(self, group: Group) -> None:
        found = self._find_group(group) if self._capabilities.mirror_groups else None
        if found is not None:
            self._cim.invoke(
                f"deleting group '{group.name}'",
                "DeleteGroup",
                self._service("CIM_ReplicationService"),
                ReplicationGroup=found,
                RemoveElements=True,  # of the group only: the volumes stay
            )

    def delete_volumes(self, names: Sequence[str]) -> None:
        leaving = [found for found in self._own_volumes() if found["ElementName"] in names]
        if not leaving:
            return
        self._masking.hide(leaving, self._storage.initiators)
        service = self._service("CIM_StorageConfigurationService")
        for found in leaving:
            self._detach_clone(found)
            doing = f"deleting volume '{found['ElementName']}'"
            out = self._cim.invoke(doing, "ReturnToStoragePool", service, TheElement=found.path)
            self._cim.await_job(doing, out, unwatched)

    def _detach_clone(self, volume: pywbem.CIMInstance) -> None:
        """From what it is a copy of, where the array still knows that."""
        for one in self._cim.references(volume.path, "CIM_StorageSynchronized"):
            if one.get("SyncType") == SyncType.CLONE and one["SyncedElement"]["DeviceID"] == volume["DeviceID"]:
                doing = f"detaching clone '{volume['ElementName']}'"
                self._order(doing, Operation.DETACH, one.path, unwatched)

    # --- names ------------------------------------------------------------------------------------------------

    def _service(self, class_name: str) -> pywbem.CIMInstanceName:
        return self._only(class_name).path

    def _only(self, class_name: str) -> pywbem.CIMInstance:
        """The array's one instance of a class: a provider may manage several arrays."""
        found = self._cim.enumerate(class_name)
        names = (self.name, self._system_name())
        mine = [one for one in found if _belongs_to(one, names)] or (found if len(found) == 1 else [])
        if not mine:
            raise NotFound(
                f"it has no {class_name}",
                where=f"array {self.name}",
                remedy="it needs SMI-S's Replication Services and Masking and Mapping profiles",
            )
        return mine[0]

    def _access_point(self, peer: str) -> pywbem.CIMInstanceName:
        found = self._cim.enumerate("CIM_RemoteServiceAccessPoint")
        for one in found:
            if peer in (one["Name"], one["ElementName"]):
                return one.path
        raise NotFound(
            f"it has no access point to array '{peer}'",
            where=f"array {self.name}",
            remedy=f"connect the arrays, or correct 'array' of the other site; it knows: "
            f"{', '.join(one['Name'] for one in found) or 'none'}",
        )

    def _paths(self, volumes: Sequence[Volume]) -> list[pywbem.CIMInstanceName]:
        return [one.path for one in self._found(volumes)]

    def _found(self, volumes: Sequence[Volume]) -> list[pywbem.CIMInstance]:
        """As the array has them: a path has the classes and names of the vendor's own."""
        found = {one["DeviceID"]: one for one in self._own_volumes()}
        missing = [volume.name for volume in volumes if volume.id not in found]
        if missing:
            raise NotFound(
                f"there is no volume {', '.join(missing)}", where=f"array {self.name}", remedy="look at the array"
            )
        return [found[volume.id] for volume in volumes]

    def _own_volumes(self) -> list[pywbem.CIMInstance]:
        """Not those of other arrays of the same provider, where a replica has its source's name."""
        system = self._system_name()
        return [one for one in self._cim.enumerate("CIM_StorageVolume") if one["SystemName"] == system]

    def _system_name(self) -> str:
        """Raises ``BadInput`` when the provider does not manage the array."""
        if self._system is None:
            found = {str(one["ElementName"]): str(one["Name"]) for one in self._cim.enumerate("CIM_ComputerSystem")}
            if self.name not in found:
                raise BadInput(
                    f"the provider does not manage the array '{self.name}'",
                    where=self._storage.url,
                    remedy=f"correct 'array' of the site's storage; it manages: {', '.join(found)}",
                )
            self._system = found[self.name]
        return self._system

    def _group_path(self, group: Group) -> pywbem.CIMInstanceName:
        found = self._find_group(group)
        if found is None:
            raise NotFound(f"there is no group '{group.name}'", where=f"array {self.name}", remedy="look at the array")
        return found

    def _find_group(self, group: Group) -> pywbem.CIMInstanceName | None:
        paths = {one["InstanceID"]: one.path for one in self._cim.enumerate("CIM_ReplicationGroup")}
        return paths.get(group.id)

    def _pool_path(self, pool: str) -> pywbem.CIMInstanceName:
        """Of a pool of the other array, which the same provider may manage, or not."""
        for one in self._cim.enumerate("CIM_StoragePool"):
            if one["InstanceID"] == pool:
                return one.path
        return pywbem.CIMInstanceName("CIM_StoragePool", {"InstanceID": pool}, namespace=self._storage.namespace)


def _belongs_to(instance: pywbem.CIMInstance, names: Sequence[str]) -> bool:
    keys = instance.path.keybindings
    return keys.get("SystemName") in names or str(keys.get("InstanceID", "")).partition(":")[0] in names


def _settings(**properties: bool) -> pywbem.CIMInstance:
    return pywbem.CIMInstance("CIM_ReplicationSettingData", properties)


def _volume(found: pywbem.CIMInstance) -> Volume:
    return Volume(
        id=found["DeviceID"],
        name=found["ElementName"],
        size=int(found["BlockSize"]) * int(found["NumberOfBlocks"]),
    )
