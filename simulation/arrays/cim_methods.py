"""The extrinsic methods of an array's services, by their published names, parameters and return values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pywbem import CIMInstanceName, Uint16

from adapters.smis.values import DeviceAccess, Mode, Operation, ReturnValue, SyncType
from simulation.arrays.array import Array
from simulation.arrays.cim_objects import CimView, mirror_types
from simulation.arrays.jobs import Job
from simulation.arrays.operations import SUPPORTED, create_mirror, modify
from simulation.arrays.refusal import ArrayRefusal
from simulation.arrays.state import Group, Volume

Given = Mapping[str, Any]
INVALID_LOGICAL_UNIT = 4097
"""Return value of ExposePaths and HidePaths."""


class Answered(NamedTuple):
    code: int
    out: dict[str, Any] = {}


class CimMethods:
    def __init__(self, array: Array) -> None:
        self._array = array
        self._view = CimView(array)

    def invoke(self, method: str, given: Given) -> Answered:
        """Raises ``KeyError`` for an unknown method."""
        try:
            return _METHODS[method](self, given)
        except ArrayRefusal as refusal:
            return Answered(int(refusal.code))

    def _started(self, job: Job | None, **out: Any) -> Answered:
        if job is None:
            return Answered(ReturnValue.COMPLETED, out)
        return Answered(ReturnValue.JOB_STARTED, {"Job": self._view.job(job.id), **out})

    # --- volumes ----------------------------------------------------------------------------------------------

    def _create_volume(self, given: Given) -> Answered:
        pool = given["InPool"].keybindings["InstanceID"].partition(":")[2]
        volume = self._array.create_volume(given["ElementName"], pool, int(given["Size"]))
        return Answered(ReturnValue.COMPLETED, {"TheElement": self._view.volume(volume.id)})

    def _delete_volume(self, given: Given) -> Answered:
        self._array.delete_volume(self._volume(given["TheElement"]).id)
        return Answered(ReturnValue.COMPLETED)

    def _expose(self, given: Given) -> Answered:
        names, accesses = given["LUNames"], given["DeviceAccesses"]
        if any(name not in self._array.state.volumes for name in names):
            return Answered(INVALID_LOGICAL_UNIT)
        for host in given["InitiatorPortIDs"]:
            for name, access in zip(names, accesses, strict=True):
                self._array.expose([name], host, writable=access == DeviceAccess.READ_WRITE)
        controllers = [self._view.controller(host) for host in given["InitiatorPortIDs"]]
        return Answered(ReturnValue.COMPLETED, {"ProtocolControllers": controllers})

    def _hide(self, given: Given) -> Answered:
        if any(name not in self._array.state.volumes for name in given["LUNames"]):
            return Answered(INVALID_LOGICAL_UNIT)
        for host in given["InitiatorPortIDs"]:
            self._array.hide(given["LUNames"], host)
        return Answered(ReturnValue.COMPLETED)

    # --- replication ------------------------------------------------------------------------------------------

    def _create_group(self, given: Given) -> Answered:
        members = [self._volume(member).id for member in given.get("Members") or []]
        group = self._array.create_group(given["GroupName"], members)
        return Answered(ReturnValue.COMPLETED, {"ReplicationGroup": self._view.group(group.id)})

    def _delete_group(self, given: Given) -> Answered:
        self._array.delete_group(self._group(given["ReplicationGroup"]).id)
        return Answered(ReturnValue.COMPLETED)

    def _create_group_replica(self, given: Given) -> Answered:
        group = self._group(given["SourceGroup"])
        if given["SyncType"] != SyncType.MIRROR:
            raise ArrayRefusal("only mirrors of groups are made", ReturnValue.NOT_SUPPORTED)
        peer = given["TargetAccessPoint"].keybindings["Name"]
        pool = given["TargetPool"].keybindings["InstanceID"].partition(":")[2]
        # FailedCopyStopsHostIO is a property of the embedded CIM_ReplicationSettingData.
        settings = given.get("ReplicationSettingData")
        blocks = bool(settings["FailedCopyStopsHostIO"]) if settings else False
        asynchronous = given["Mode"] == Mode.ASYNCHRONOUS
        job = create_mirror(self._array, group, peer, pool, blocks_on_failure=blocks, asynchronous=asynchronous)
        return self._started(job, TargetGroup=self._view.group(group.peer_group))

    def _create_list_replica(self, given: Given) -> Answered:
        if given["SyncType"] != SyncType.CLONE:
            raise ArrayRefusal("only clones of volumes are made", ReturnValue.NOT_SUPPORTED)
        sources = [self._volume(source).id for source in given["SourceElements"]]
        made = self._array.clone(sources, given["ElementNames"])
        return Answered(ReturnValue.COMPLETED, {"TargetElements": [self._view.volume(copy.id) for copy in made]})

    def _modify(self, given: Given) -> Answered:
        operation = Operation(int(given["Operation"]))
        ends = given["Synchronization"].keybindings
        ids = {ends["SystemElement"].keybindings["InstanceID"], ends["SyncedElement"].keybindings["InstanceID"]}
        group = next((group for group in self._array.state.groups.values() if group.id in ids and group.peer), None)
        if group is None:
            raise ArrayRefusal("there is no such relationship", ReturnValue.INVALID_PARAMETER)
        return self._started(modify(self._array, group, operation, force=bool(given.get("Force"))))

    def _group_operations(self, given: Given) -> Answered:
        if given["ReplicationType"] not in mirror_types(self._array):
            return Answered(ReturnValue.NOT_SUPPORTED)
        return Answered(
            ReturnValue.COMPLETED,
            {"SupportedGroupOperations": [Uint16(operation) for operation in sorted(SUPPORTED)]},
        )

    # --- references -------------------------------------------------------------------------------------------

    def _volume(self, path: CIMInstanceName) -> Volume:
        found = self._array.state.volumes.get(path.keybindings["DeviceID"])
        if found is None:
            raise ArrayRefusal(f"there is no volume {path}", ReturnValue.INVALID_PARAMETER)
        return found

    def _group(self, path: CIMInstanceName) -> Group:
        found = self._array.state.groups.get(path.keybindings["InstanceID"])
        if found is None:
            raise ArrayRefusal(f"there is no group {path}", ReturnValue.INVALID_PARAMETER)
        return found


_METHODS: dict[str, Callable[[CimMethods, Given], Answered]] = {
    "CreateOrModifyElementFromStoragePool": CimMethods._create_volume,
    "ReturnToStoragePool": CimMethods._delete_volume,
    "ExposePaths": CimMethods._expose,
    "HidePaths": CimMethods._hide,
    "CreateGroup": CimMethods._create_group,
    "DeleteGroup": CimMethods._delete_group,
    "CreateGroupReplica": CimMethods._create_group_replica,
    "CreateListReplica": CimMethods._create_list_replica,
    "ModifyReplicaSynchronization": CimMethods._modify,
    "GetSupportedGroupOperations": CimMethods._group_operations,
}
