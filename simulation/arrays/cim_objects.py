"""An array's state as CIM instances: classes and properties of SMI-S's block, masking and replication profiles.

As with a vendor's array volumes, pools and groups are of its own subclasses (``SIM_…``), and no name of anything is
another one's: of a system its ``ElementName`` and ``Name``, of a volume its ``DeviceID``, ``Name`` and ``ElementName``.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from pywbem import CIMDateTime, CIMInstance, CIMInstanceName, CIMProperty, Uint16, Uint64

from adapters.smis.values import (
    NAMESPACE,
    Action,
    CopyState,
    JobState,
    Mode,
    ProgressStatus,
    ReplicationType,
    SyncType,
)
from simulation.arrays.array import Array
from simulation.arrays.state import Group

BLOCK_SIZE = 512
PROGRESS = {
    CopyState.UNSYNCHRONIZED: ProgressStatus.SYNCHRONIZING,
    CopyState.SUSPENDED: ProgressStatus.DORMANT,
    CopyState.BROKEN: ProgressStatus.DORMANT,
    CopyState.SPLIT: ProgressStatus.DORMANT,
}
ALWAYS = (Action.MODIFY_REPLICA_SYNCHRONIZATION, Action.CREATE_LIST_REPLICA)
OF_GROUPS = (Action.CREATE_GROUP_REPLICA, Action.MODIFY_REPLICA_SYNCHRONIZATION)
OF_ELEMENTS = (Action.CREATE_ELEMENT_REPLICA, Action.MODIFY_REPLICA_SYNCHRONIZATION)
CHANGES = {"fail over": ProgressStatus.FAILING_OVER, "fail back": ProgressStatus.FAILING_BACK}
"""By the beginning of a running job's name."""
ASSOCIATIONS: dict[str, tuple[str, str]] = {
    "CIM_ElementCapabilities": ("ManagedElement", "Capabilities"),
    "CIM_OrderedMemberOfCollection": ("Collection", "Member"),
    "CIM_GroupSynchronized": ("SystemElement", "SyncedElement"),
    "CIM_StorageSynchronized": ("SystemElement", "SyncedElement"),
    "CIM_ProtocolControllerForUnit": ("Antecedent", "Dependent"),
    "CIM_AuthorizedSubject": ("Privilege", "PrivilegedElement"),
    "CIM_AuthorizedTarget": ("Privilege", "TargetElement"),
    "CIM_HostedAccessPoint": ("Antecedent", "Dependent"),
    "CIM_AllocatedFromStoragePool": ("Antecedent", "Dependent"),
}
"""The association classes that are served, with their two references."""


class CimView:
    """Made anew from the array's state at each request."""

    def __init__(self, array: Array) -> None:
        self._array = array
        self._state = array.state

    def instances(self, class_name: str) -> list[CIMInstance]:
        """Raises ``KeyError`` for a class that the array does not serve."""
        return list(_CLASSES[class_name.replace("SIM_", "CIM_")](self))

    def everything(self) -> Iterator[CIMInstance]:
        for class_name in _CLASSES:
            yield from self.instances(class_name)

    # --- names ------------------------------------------------------------------------------------------------

    def system(self, name: str = "") -> CIMInstanceName:
        own = serial(name or self._array.name)
        return _name("CIM_ComputerSystem", CreationClassName="CIM_ComputerSystem", Name=own)

    def service(self, class_name: str) -> CIMInstanceName:
        return _name(
            class_name,
            SystemCreationClassName="CIM_ComputerSystem",
            SystemName=serial(self._array.name),
            CreationClassName=class_name,
            Name=class_name.removeprefix("CIM_"),
        )

    def peer(self, name: str) -> CIMInstanceName:
        return _name(
            "CIM_RemoteServiceAccessPoint",
            SystemCreationClassName="CIM_ComputerSystem",
            SystemName=serial(self._array.name),
            CreationClassName="CIM_RemoteServiceAccessPoint",
            Name=name,
        )

    def volume(self, volume: str, array: str = "") -> CIMInstanceName:
        return _name(
            "SIM_StorageVolume",
            SystemCreationClassName="CIM_ComputerSystem",
            SystemName=serial(array or self._array.name),
            CreationClassName="SIM_StorageVolume",
            DeviceID=volume,
        )

    @staticmethod
    def pool(name: str, array: str) -> CIMInstanceName:
        return _name("SIM_StoragePool", InstanceID=f"{array}:{name}")

    @staticmethod
    def group(group: str) -> CIMInstanceName:
        return _name("SIM_ReplicationGroup", InstanceID=group)

    @staticmethod
    def job(job: str) -> CIMInstanceName:
        return _name("CIM_ConcreteJob", InstanceID=job)

    def controller(self, host: str) -> CIMInstanceName:
        return _name(
            "CIM_SCSIProtocolController",
            SystemCreationClassName="CIM_ComputerSystem",
            SystemName=serial(self._array.name),
            CreationClassName="CIM_SCSIProtocolController",
            DeviceID=f"view of {host}",
        )

    @staticmethod
    def hardware_id(host: str) -> CIMInstanceName:
        return _name("CIM_StorageHardwareID", InstanceID=f"initiator {host}")

    @staticmethod
    def privilege(host: str) -> CIMInstanceName:
        return _name("CIM_AuthorizedPrivilege", InstanceID=f"privilege of {host}")

    def capabilities(self) -> CIMInstanceName:
        return _name("CIM_ReplicationServiceCapabilities", InstanceID=f"{self._array.name}:replication")

    # --- instances --------------------------------------------------------------------------------------------

    def _systems(self) -> Iterator[CIMInstance]:
        yield _instance(
            self.system(), ElementName=self._array.name, Dedicated=[Uint16(15)], OperationalStatus=[Uint16(2)]
        )

    def _pools(self) -> Iterator[CIMInstance]:
        for pool in self._state.pools.values():
            yield _instance(
                self.pool(pool.name, self._array.name),
                ElementName=pool.name,
                PoolID=pool.name,
                Primordial=False,
                TotalManagedSpace=Uint64(pool.size),
                RemainingManagedSpace=Uint64(pool.size - self._state.used(pool.name)),
            )

    def _volumes(self) -> Iterator[CIMInstance]:
        for volume in list(self._state.volumes.values()):
            yield _instance(
                self.volume(volume.id),
                ElementName=volume.name,
                Name=unit_name(volume.id),
                BlockSize=Uint64(BLOCK_SIZE),
                NumberOfBlocks=Uint64(volume.size // BLOCK_SIZE),
            )

    def _allocations(self) -> Iterator[CIMInstance]:
        for volume in list(self._state.volumes.values()):
            pool = self.pool(volume.pool, self._array.name)
            yield _association("CIM_AllocatedFromStoragePool", pool, self.volume(volume.id))

    def _told_groups(self) -> list[Group]:
        """None where a group only stands for the mirror of one volume."""
        return list(self._state.groups.values()) if self._array.has_groups else []

    def _groups(self) -> Iterator[CIMInstance]:
        for group in self._told_groups():
            yield _instance(self.group(group.id), ElementName=group.name, Persistent=True)

    def _members(self) -> Iterator[CIMInstance]:
        for group in self._told_groups():
            for number, volume in enumerate(group.volumes):
                yield _association(
                    "CIM_OrderedMemberOfCollection",
                    self.group(group.id),
                    self.volume(volume),
                    AssignedSequence=Uint64(number),
                )

    def _replicated(self) -> list[Group]:
        return [group for group in list(self._state.groups.values()) if group.peer]

    def _group_synchronizations(self) -> Iterator[CIMInstance]:
        for group in self._replicated() if self._array.has_groups else ():
            mine, theirs = self.group(group.id), self.group(group.peer_group)
            ends = (mine, theirs) if group.is_source else (theirs, mine)
            yield _association("CIM_GroupSynchronized", *ends, **self._synchronization(group))

    def _volume_synchronizations(self) -> Iterator[CIMInstance]:
        for group in self._replicated():
            for mine, theirs in zip(group.volumes, group.peer_volumes, strict=True):
                ends = (self.volume(mine), self.volume(theirs, group.peer))
                yield _association(
                    "CIM_StorageSynchronized",
                    *(ends if group.is_source else ends[::-1]),
                    **self._synchronization(group),
                )

        for copy in list(self._state.volumes.values()):
            if copy.cloned_at is not None:
                yield _association(
                    "CIM_StorageSynchronized",
                    self.volume(copy.cloned_from),
                    self.volume(copy.id),
                    CopyState=Uint16(CopyState.SYNCHRONIZED),
                    SyncType=Uint16(SyncType.CLONE),
                    WhenSynced=CIMDateTime(copy.cloned_at),
                )

    def _synchronization(self, group: Group) -> dict[str, Any]:
        return {
            "RelationshipName": group.name,
            "CopyState": Uint16(group.state),
            "ProgressStatus": Uint16(self._progress(group)),
            "PercentSynced": Uint16(self._percent(group)),
            "SyncType": Uint16(SyncType.MIRROR),
            "Mode": Uint16(Mode.ASYNCHRONOUS if group.asynchronous else Mode.SYNCHRONOUS),
            "FailedCopyStopsHostIO": group.blocks_on_failure,
            "SyncMaintained": group.state is CopyState.SYNCHRONIZED,
            "WhenSynced": CIMDateTime(group.in_sync_until or datetime.now(UTC)) if group.target_is_whole else None,
        }

    def _progress(self, group: Group) -> ProgressStatus:
        for work, status in CHANGES.items():
            if self._array.jobs.is_running(f"{work} group {group.name}"):
                return status
        return PROGRESS.get(group.state, ProgressStatus.COMPLETED)

    def _percent(self, group: Group) -> int:
        if group.state is CopyState.SYNCHRONIZED:
            return 100
        copies = [
            job.percent for job in list(self._array.jobs.all.values()) if f"group {group.name} " in f"{job.name} "
        ]
        return copies[-1] if copies else 0

    def _services(self) -> Iterator[CIMInstance]:
        yield _instance(self.service("CIM_ReplicationService"), ElementName="replication")

    def _masking_services(self) -> Iterator[CIMInstance]:
        yield _instance(self.service("CIM_ControllerConfigurationService"), ElementName="masking")

    def _configuration_services(self) -> Iterator[CIMInstance]:
        yield _instance(self.service("CIM_StorageConfigurationService"), ElementName="volumes")

    def _peers(self) -> Iterator[CIMInstance]:
        for name in self._array.mirror.peers:
            yield _instance(self.peer(name), ElementName=name)

    def _access_points(self) -> Iterator[CIMInstance]:
        for name in self._array.mirror.peers:
            yield _association("CIM_HostedAccessPoint", self.system(), self.peer(name))

    def _capabilities(self) -> Iterator[CIMInstance]:
        kinds = [*mirror_types(self._array), ReplicationType.SYNCHRONOUS_CLONE_LOCAL]
        yield _instance(
            self.capabilities(),
            ElementName="replication",
            SupportedReplicationTypes=[Uint16(kind) for kind in kinds],
            SupportedSynchronousActions=[Uint16(action) for action in ALWAYS],
            SupportedAsynchronousActions=[
                Uint16(action) for action in (OF_GROUPS if self._array.has_groups else OF_ELEMENTS)
            ],
        )

    def _element_capabilities(self) -> Iterator[CIMInstance]:
        yield _association("CIM_ElementCapabilities", self.service("CIM_ReplicationService"), self.capabilities())

    def _jobs(self) -> Iterator[CIMInstance]:
        for job in list(self._array.jobs.all.values()):
            yield _instance(
                self.job(job.id),
                ElementName=job.name,
                Name=job.name,
                JobState=Uint16(job.state),
                PercentComplete=Uint16(job.percent),
                ErrorCode=Uint16(job.error_code),
                ErrorDescription=job.error or None,
                StartTime=CIMDateTime(job.began),
                DeleteOnCompletion=False,
                OperationalStatus=[Uint16(2 if job.state is not JobState.EXCEPTION else 6)],
            )

    def _controllers(self) -> Iterator[CIMInstance]:
        for host in hosts_of(self._array):
            yield _instance(self.controller(host), ElementName=host)

    def _hardware_ids(self) -> Iterator[CIMInstance]:
        for host in hosts_of(self._array):
            yield _instance(self.hardware_id(host), StorageID=host, IDType=Uint16(5))

    def _privileges(self) -> Iterator[CIMInstance]:
        for host in hosts_of(self._array):
            yield _instance(self.privilege(host), ElementName=host)

    def _subjects(self) -> Iterator[CIMInstance]:
        for host in hosts_of(self._array):
            yield _association("CIM_AuthorizedSubject", self.privilege(host), self.hardware_id(host))

    def _targets(self) -> Iterator[CIMInstance]:
        for host in hosts_of(self._array):
            yield _association("CIM_AuthorizedTarget", self.privilege(host), self.controller(host))

    def _units(self) -> Iterator[CIMInstance]:
        for volume in list(self._state.volumes.values()):
            for host, writable in volume.hosts.items():
                yield _association(
                    "CIM_ProtocolControllerForUnit",
                    self.controller(host),
                    self.volume(volume.id),
                    DeviceAccess=Uint16(2 if writable else 3),
                )


def is_same(one: CIMInstanceName, other: CIMInstanceName) -> bool:
    """Whether two paths name one object, wherever each came from."""
    return bool(one.classname == other.classname and one.keybindings == other.keybindings)


def serial(array: str) -> str:
    """The array's own name of itself, which is not the one that people gave it."""
    return f"SIM{zlib.crc32(array.encode()):08X}"


def unit_name(volume: str) -> str:
    """What hosts identify the volume by."""
    return f"naa.6{zlib.crc32(volume.encode()):08x}"


def hosts_of(array: Array) -> list[str]:
    """Those that have a view. It ends with the last volume in it (SPCAllowsNoLUs is false)."""
    return sorted({host for volume in list(array.state.volumes.values()) for host in volume.hosts})


def mirror_types(array: Array) -> list[ReplicationType]:
    """How the array mirrors to others, in the values of ``SupportedReplicationTypes``."""
    kinds = [ReplicationType.SYNCHRONOUS_MIRROR_REMOTE]
    return [*kinds, ReplicationType.ASYNCHRONOUS_MIRROR_REMOTE] if array.mirrors_asynchronously else kinds


def _name(class_name: str, **keys: str) -> CIMInstanceName:
    return CIMInstanceName(class_name, keybindings=keys, namespace=NAMESPACE)


def _instance(path: CIMInstanceName, **properties: Any) -> CIMInstance:
    typed = {
        name: value if value is not None else CIMProperty(name, None, type=_TYPES_OF_NULLS[name])
        for name, value in {**path.keybindings, **properties}.items()
    }
    return CIMInstance(path.classname, properties=typed, path=path)


_TYPES_OF_NULLS = {"ErrorDescription": "string", "WhenSynced": "datetime"}


def _association(class_name: str, one: CIMInstanceName, other: CIMInstanceName, **properties: Any) -> CIMInstance:
    first, second = ASSOCIATIONS[class_name]
    keys = {first: one, second: other}
    path = CIMInstanceName(class_name, keybindings=keys, namespace=NAMESPACE)
    return _instance(path, **properties)


_CLASSES = {
    "CIM_ComputerSystem": CimView._systems,
    "CIM_StoragePool": CimView._pools,
    "CIM_StorageVolume": CimView._volumes,
    "CIM_AllocatedFromStoragePool": CimView._allocations,
    "CIM_ReplicationGroup": CimView._groups,
    "CIM_OrderedMemberOfCollection": CimView._members,
    "CIM_GroupSynchronized": CimView._group_synchronizations,
    "CIM_StorageSynchronized": CimView._volume_synchronizations,
    "CIM_ReplicationService": CimView._services,
    "CIM_ControllerConfigurationService": CimView._masking_services,
    "CIM_StorageConfigurationService": CimView._configuration_services,
    "CIM_RemoteServiceAccessPoint": CimView._peers,
    "CIM_HostedAccessPoint": CimView._access_points,
    "CIM_ReplicationServiceCapabilities": CimView._capabilities,
    "CIM_ElementCapabilities": CimView._element_capabilities,
    "CIM_ConcreteJob": CimView._jobs,
    "CIM_SCSIProtocolController": CimView._controllers,
    "CIM_ProtocolControllerForUnit": CimView._units,
    "CIM_StorageHardwareID": CimView._hardware_ids,
    "CIM_AuthorizedPrivilege": CimView._privileges,
    "CIM_AuthorizedSubject": CimView._subjects,
    "CIM_AuthorizedTarget": CimView._targets,
}
