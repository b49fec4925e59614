"""An array by SMI-S: the block, masking and replication profiles behind :class:`adapters.san.ports.Array`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import pywbem

from adapters.san.ports import Group, GroupState, Step, Volume, Watch, unwatched
from adapters.smis.connection import JOB_PATIENCE_S, SmisConnection
from adapters.smis.values import (
    Consistency,
    CopyState,
    DeviceAccess,
    Mode,
    Operation,
    ReplicationType,
    SyncType,
    words,
)
from vault.domain import Finding, Severity
from vault.errors import BadInput, InvalidState, NotFound
from vault.san import SmisStorage

STATES = {
    CopyState.INITIALIZED: GroupState.COPYING,
    CopyState.PREPARED: GroupState.COPYING,
    CopyState.UNSYNCHRONIZED: GroupState.COPYING,
    CopyState.SYNCHRONIZED: GroupState.SYNCHRONIZED,
    CopyState.BROKEN: GroupState.LINK_LOST,
    CopyState.SUSPENDED: GroupState.SUSPENDED,
    CopyState.INACTIVE: GroupState.SUSPENDED,
    CopyState.FRACTURED: GroupState.SPLIT,
    CopyState.SPLIT: GroupState.SPLIT,
    CopyState.FAILED_OVER: GroupState.FAILED_OVER,
}
"""What does not occur here is :attr:`GroupState.OTHER`, with which leeward does nothing."""
STEPS = {
    Operation.FAILOVER: Step.FAIL_OVER,
    Operation.FAILBACK: Step.FAIL_BACK,
    Operation.REVERSE_ROLES: Step.REVERSE,
    Operation.RESYNC_REPLICA: Step.RESUME,
    Operation.SPLIT: Step.SPLIT,
    Operation.DETACH: Step.DETACH,
}
NEEDED = frozenset({Step.MIRROR, Step.CLONE, Step.FAIL_OVER, Step.FAIL_BACK, Step.REVERSE, Step.RESUME, Step.SPLIT})
"""Without these an array cannot be used; ``detach`` is only needed to end the protection."""


class SmisArray:
    """Implements :class:`adapters.san.ports.Array`."""

    def __init__(self, storage: SmisStorage, *, job_patience_s: float = JOB_PATIENCE_S) -> None:
        self.name = storage.array
        self._storage = storage
        self._cim = SmisConnection(storage, job_patience_s=job_patience_s)
        self._supports: frozenset[Step] | None = None

    # --- what is there ----------------------------------------------------------------------------------------

    def check(self) -> list[Finding]:
        systems = [one["ElementName"] for one in self._cim.enumerate("CIM_ComputerSystem")]
        subject = f"array {self.name}"
        if self.name not in systems:
            raise BadInput(
                f"the provider does not manage the array '{self.name}'",
                where=self._storage.url,
                remedy=f"correct 'array' of the site's storage; it manages: {', '.join(systems)}",
            )
        missing = sorted(NEEDED - self.supports())
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

    def supports(self) -> frozenset[Step]:
        if self._supports is None:
            capabilities = self._only("CIM_ReplicationServiceCapabilities")
            kinds = {int(kind) for kind in capabilities["SupportedReplicationTypes"] or []}
            mirror = ReplicationType.SYNCHRONOUS_MIRROR_REMOTE
            found = {Step.CLONE} if ReplicationType.SYNCHRONOUS_CLONE_LOCAL in kinds else set()
            if mirror in kinds:
                out = self._cim.invoke(
                    "asking for the operations on groups",
                    "GetSupportedGroupOperations",
                    capabilities.path,
                    ReplicationType=pywbem.Uint16(mirror),
                )
                operations = {int(one) for one in out["SupportedGroupOperations"] or []}
                if ReplicationType.ASYNCHRONOUS_MIRROR_REMOTE in kinds:
                    found.add(Step.MIRROR_ASYNCHRONOUSLY)
                found |= {Step.MIRROR} | {step for operation, step in STEPS.items() if operation in operations}
            self._supports = frozenset(found)
        return self._supports

    def free_space(self) -> int:
        for pool in self._cim.enumerate("CIM_StoragePool"):
            if pool["InstanceID"] == self._storage.pool:
                return int(pool["RemainingManagedSpace"])
        raise NotFound(
            f"there is no pool '{self._storage.pool}'",
            where=f"array {self.name}",
            remedy="write the InstanceID of one of its pools as 'pool' of the site's storage",
        )

    def volumes(self, names: Sequence[str]) -> list[Volume]:
        wanted = dict.fromkeys(names)
        paths = {one["ElementName"]: one for one in self._cim.enumerate("CIM_StorageVolume")}
        missing = [name for name in wanted if name not in paths]
        if missing:
            raise NotFound(
                f"there is no volume {', '.join(missing)}",
                where=f"array {self.name}",
                remedy="correct 'volumes' of the machine's 'san' in the inventory",
            )
        return [self._volume(paths[name]) for name in wanted]

    def groups(self) -> list[Group]:
        synchronizations = self._cim.enumerate("CIM_GroupSynchronized")
        return [self._group(one, synchronizations) for one in self._cim.enumerate("CIM_ReplicationGroup")]

    def _group(self, found: pywbem.CIMInstance, synchronizations: Iterable[pywbem.CIMInstance]) -> Group:
        members = self._cim.associated(found.path, "CIM_OrderedMemberOfCollection")
        group = Group(
            id=found["InstanceID"],
            name=found["ElementName"],
            volumes=[self._volume(member, with_hosts=False) for member in members],
            state=GroupState.LOCAL,
        )
        for one in synchronizations:
            source, target = one["SystemElement"]["InstanceID"], one["SyncedElement"]["InstanceID"]
            if group.id in (source, target):
                return group.model_copy(update=_replication(one, is_source=group.id == source))
        return group

    def _volume(self, found: pywbem.CIMInstance, *, with_hosts: bool = True) -> Volume:
        seen_by = self._cim.associated(found.path, "CIM_ProtocolControllerForUnit") if with_hosts else []
        return Volume(
            id=found["DeviceID"],
            name=found["ElementName"],
            size=int(found["BlockSize"]) * int(found["NumberOfBlocks"]),
            hosts=frozenset(controller["DeviceID"] for controller in seen_by),
        )

    # --- replication ------------------------------------------------------------------------------------------

    def create_group(self, name: str, volumes: Sequence[Volume]) -> Group:
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
        settings = pywbem.CIMInstance("CIM_ReplicationSettingData", {"FailedCopyStopsHostIO": hold_writes})
        out = self._cim.invoke(
            doing,
            "CreateGroupReplica",
            self._service("CIM_ReplicationService"),
            RelationshipName=group.name,
            SyncType=pywbem.Uint16(SyncType.MIRROR),
            Mode=pywbem.Uint16(Mode.ASYNCHRONOUS if asynchronous else Mode.SYNCHRONOUS),
            Consistency=pywbem.Uint16(Consistency.SEQUENTIAL),
            SourceGroup=self._group_path(group),
            TargetAccessPoint=self._access_point(peer),
            TargetPool=self._path("CIM_StoragePool", InstanceID=pool),
            ReplicationSettingData=settings,
        )
        self._cim.await_job(doing, out, watch, to_its_end=False)

    def fail_over(self, group: Group, watch: Watch, *, force: bool = False) -> None:
        self._modify(group, Operation.FAILOVER, watch, force=force)

    def fail_back(self, group: Group, watch: Watch) -> None:
        self._modify(group, Operation.FAILBACK, watch)

    def reverse(self, group: Group, watch: Watch) -> None:
        self._modify(group, Operation.REVERSE_ROLES, watch, to_its_end=False)

    def resume(self, group: Group, watch: Watch) -> None:
        self._modify(group, Operation.RESYNC_REPLICA, watch, to_its_end=False)

    def split(self, group: Group) -> None:
        self._modify(group, Operation.SPLIT, unwatched, force=True)

    def detach(self, group: Group) -> None:
        self._modify(group, Operation.DETACH, unwatched)

    def _modify(
        self, group: Group, operation: Operation, watch: Watch, *, force: bool = False, to_its_end: bool = True
    ) -> None:
        doing = f"{words(operation)} of group '{group.name}'"
        synchronizations = self._cim.references(self._group_path(group), "CIM_GroupSynchronized")
        if not synchronizations:
            raise InvalidState(
                f"{doing}: the group is not replicated",
                where=f"array {self.name}",
                remedy="protect its machines: leeward protect",
            )
        out = self._cim.invoke(
            doing,
            "ModifyReplicaSynchronization",
            self._service("CIM_ReplicationService"),
            Operation=pywbem.Uint16(operation),
            Synchronization=synchronizations[0].path,
            Force=force,
        )
        self._cim.await_job(doing, out, watch, to_its_end=to_its_end)

    def clone(self, volumes: Sequence[Volume], names: Sequence[str]) -> datetime:
        doing = f"cloning {', '.join(volume.name for volume in volumes)}"
        out = self._cim.invoke(
            doing,
            "CreateListReplica",
            self._service("CIM_ReplicationService"),
            ElementNames=list(names),
            SyncType=pywbem.Uint16(SyncType.CLONE),
            Mode=pywbem.Uint16(Mode.SYNCHRONOUS),
            SourceElements=self._paths(volumes),
        )
        self._cim.await_job(doing, out, unwatched)
        copies = [one["ElementName"] for one in self._cim.enumerate("CIM_StorageVolume")]
        missing = [name for name in names if name not in copies]
        if missing:
            raise InvalidState(f"{doing}: the array made no {', '.join(missing)}", where=f"array {self.name}")
        copy = self.volumes(names[:1])[0]
        made = self._cim.references(self._volume_path(copy), "CIM_StorageSynchronized")
        return _moment(made[0]["WhenSynced"])

    # --- masking and clean-up ---------------------------------------------------------------------------------

    def expose(self, volumes: Sequence[Volume], hosts: Sequence[str]) -> None:
        self._mask(
            "ExposePaths", volumes, hosts, DeviceAccesses=[pywbem.Uint16(DeviceAccess.READ_WRITE)] * len(volumes)
        )

    def hide(self, volumes: Sequence[Volume], hosts: Sequence[str]) -> None:
        self._mask("HidePaths", volumes, hosts)

    def _mask(self, method: str, volumes: Sequence[Volume], hosts: Sequence[str], **more: Any) -> None:
        if not volumes:
            return
        verb = "exposing" if method == "ExposePaths" else "hiding"
        doing = f"{verb} {', '.join(volume.name for volume in volumes)}"
        out = self._cim.invoke(
            doing,
            method,
            self._service("CIM_ControllerConfigurationService"),
            LUNames=[volume.id for volume in volumes],
            InitiatorPortIDs=list(hosts),
            **more,
        )
        self._cim.await_job(doing, out, unwatched)

    def delete_group(self, group: Group) -> None:
        if any(found.id == group.id for found in self.groups()):
            self._cim.invoke(
                f"deleting group '{group.name}'",
                "DeleteGroup",
                self._service("CIM_ReplicationService"),
                ReplicationGroup=self._group_path(group),
            )

    def delete_volumes(self, names: Sequence[str]) -> None:
        for found in self._cim.enumerate("CIM_StorageVolume"):
            if found["ElementName"] in names:
                doing = f"deleting volume '{found['ElementName']}'"
                out = self._cim.invoke(
                    doing,
                    "ReturnToStoragePool",
                    self._service("CIM_StorageConfigurationService"),
                    TheElement=found.path,
                )
                self._cim.await_job(doing, out, unwatched)

    # --- names ------------------------------------------------------------------------------------------------

    def _service(self, class_name: str) -> pywbem.CIMInstanceName:
        return self._only(class_name).path

    def _only(self, class_name: str) -> pywbem.CIMInstance:
        """The array's one instance of a class: a provider may manage several arrays."""
        found = self._cim.enumerate(class_name)
        mine = [one for one in found if _belongs_to(one, self.name)] or (found if len(found) == 1 else [])
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
        return [self._volume_path(volume) for volume in volumes]

    def _volume_path(self, volume: Volume) -> pywbem.CIMInstanceName:
        return self._path(
            "CIM_StorageVolume",
            SystemCreationClassName="CIM_ComputerSystem",
            SystemName=self.name,
            CreationClassName="CIM_StorageVolume",
            DeviceID=volume.id,
        )

    def _group_path(self, group: Group) -> pywbem.CIMInstanceName:
        return self._path("CIM_ReplicationGroup", InstanceID=group.id)

    def _path(self, class_name: str, **keys: str) -> pywbem.CIMInstanceName:
        return pywbem.CIMInstanceName(class_name, keys, namespace=self._storage.namespace)


def _belongs_to(instance: pywbem.CIMInstance, array: str) -> bool:
    keys = instance.path.keybindings
    return array in (keys.get("SystemName"), str(keys.get("InstanceID", "")).partition(":")[0])


def _replication(one: pywbem.CIMInstance, *, is_source: bool) -> dict[str, Any]:
    synced = one.get("WhenSynced")
    try:
        state = STATES.get(CopyState(int(one["CopyState"])), GroupState.OTHER)
    except ValueError:
        state = GroupState.OTHER
    return {
        "state": state,
        "is_source": is_source,
        "percent": int(one["PercentSynced"] or 0),
        "whole_at": _moment(synced) if synced is not None else None,
        "asynchronous": one.get("Mode") == Mode.ASYNCHRONOUS,
    }


def _moment(value: pywbem.CIMDateTime) -> datetime:
    found: datetime = value.datetime
    return found
