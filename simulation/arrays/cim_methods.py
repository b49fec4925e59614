"""The extrinsic methods of an array's services, by their published names, parameters and return values."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pywbem import CIMInstanceName, Uint16

from adapters.smis.values import DeviceAccess, Mode, Operation, ReturnValue, SyncType
from simulation.arrays.array import Array
from simulation.arrays.cim_objects import CimView, hosts_of, is_same, mirror_types, unit_name
from simulation.arrays.jobs import Job
from simulation.arrays.operations import SUPPORTED, create_mirror, modify
from simulation.arrays.refusal import ArrayRefusal
from simulation.arrays.state import Group, Volume

Given = Mapping[str, Any]
INVALID_LOGICAL_UNIT = 4097
ALREADY_EXPOSED = 4101
"""Return values of ExposePaths and HidePaths."""


class Answered(NamedTuple):
    code: int
    out: dict[str, Any] = {}


class CimMethods:
    def __init__(self, array: Array) -> None:
        self._array = array
        self._view = CimView(array)
        self._masking = threading.Lock()

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
        """A new view, for initiators that have none, or more volumes in the one that is given."""
        with self._masking:
            return self._expose_in_turn(given)

    def _expose_in_turn(self, given: Given) -> Answered:
        volumes, accesses = self._units(given), given["DeviceAccesses"]
        if given.get("ProtocolControllers"):
            hosts = [self._host_of_view(given)]
        else:
            hosts = given["InitiatorPortIDs"]
            if not set(hosts).isdisjoint(hosts_of(self._array)):
                return Answered(ALREADY_EXPOSED)
        if volumes is None:
            return Answered(INVALID_LOGICAL_UNIT)
        for host in hosts:
            for volume, access in zip(volumes, accesses, strict=True):
                self._array.expose([volume.id], host, writable=access == DeviceAccess.READ_WRITE)
        return Answered(ReturnValue.COMPLETED, {"ProtocolControllers": [self._view.controller(one) for one in hosts]})

    def _hide(self, given: Given) -> Answered:
        with self._masking:
            volumes, host = self._units(given), self._host_of_view(given)
            if volumes is None:
                return Answered(INVALID_LOGICAL_UNIT)
            self._array.hide([volume.id for volume in volumes], host)
        return Answered(ReturnValue.COMPLETED)

    def _units(self, given: Given) -> list[Volume] | None:
        """By the Name of each; None: one is none of the array's."""
        found = {unit_name(volume.id): volume for volume in list(self._array.state.volumes.values())}
        names = given["LUNames"]
        return [found[name] for name in names] if found.keys() >= set(names) else None

    def _host_of_view(self, given: Given) -> str:
        """Of the one view that is to be changed. Then initiators are not given."""
        views = given.get("ProtocolControllers") or []
        for host in hosts_of(self._array) if len(views) == 1 and not given.get("InitiatorPortIDs") else ():
            if is_same(views[0], self._view.controller(host)):
                return host
        raise ArrayRefusal("exactly one view, and nothing but its volumes", ReturnValue.INVALID_PARAMETER)

    # --- replication ------------------------------------------------------------------------------------------

    def _require_groups(self, needed: bool = True) -> None:
        if self._array.has_groups is not needed:
            raise ArrayRefusal("not what this array mirrors", ReturnValue.NOT_SUPPORTED)

    def _create_group(self, given: Given) -> Answered:
        self._require_groups()
        members = [self._volume(member).id for member in given.get("Members") or []]
        group = self._array.create_group(given["GroupName"], members)
        return Answered(ReturnValue.COMPLETED, {"ReplicationGroup": self._view.group(group.id)})

    def _remove_members(self, given: Given) -> Answered:
        members = [self._volume(member).id for member in given["Members"]]
        group = self._group(given["ReplicationGroup"])
        self._array.remove_members(group, members)
        if given.get("DeleteOnEmptyElement") and not group.volumes:
            self._array.delete_group(group.id)
        return Answered(ReturnValue.COMPLETED)

    def _delete_group(self, given: Given) -> Answered:
        with_members = bool(given.get("RemoveElements"))
        self._array.delete_group(self._group(given["ReplicationGroup"]).id, with_members=with_members)
        return Answered(ReturnValue.COMPLETED)

    def _create_group_replica(self, given: Given) -> Answered:
        self._require_groups()
        group = self._group(given["SourceGroup"])
        job = self._mirror(group, given)
        return self._started(job, TargetGroup=self._view.group(group.peer_group))

    def _create_element_replica(self, given: Given) -> Answered:
        """The replica has the name that is asked for."""
        self._require_groups(False)
        volume = self._volume(given["SourceElement"])
        if self._array.state.group_of(volume.id) is not None:
            raise ArrayRefusal(f"volume '{volume.id}' is mirrored already", ReturnValue.IN_USE)
        group = self._array.create_group(f"pair of {volume.id}", [volume.id])
        try:
            job = self._mirror(group, given)
        except ArrayRefusal:
            if not group.peer:
                self._array.delete_group(group.id, with_members=True)
            raise
        return self._started(job, TargetElement=self._view.volume(group.peer_volumes[0], group.peer))

    def _mirror(self, group: Group, given: Given) -> Job:
        if given["SyncType"] != SyncType.MIRROR:
            raise ArrayRefusal("only mirrors are made so", ReturnValue.NOT_SUPPORTED)
        names = [given["ElementName"]] if given.get("ElementName") else None
        peer = given["TargetAccessPoint"].keybindings["Name"]
        array, _, pool = given["TargetPool"].keybindings["InstanceID"].partition(":")
        if array != peer:
            raise ArrayRefusal(f"array {peer} has no pool of array {array}", ReturnValue.INVALID_PARAMETER)
        # FailedCopyStopsHostIO is a property of the embedded CIM_ReplicationSettingData.
        settings = given.get("ReplicationSettingData")
        blocks = bool(settings["FailedCopyStopsHostIO"]) if settings else False
        asynchronous = given["Mode"] == Mode.ASYNCHRONOUS
        return create_mirror(
            self._array, group, peer, pool, blocks_on_failure=blocks, asynchronous=asynchronous, names=names
        )

    def _create_list_replica(self, given: Given) -> Answered:
        if given["SyncType"] != SyncType.CLONE:
            raise ArrayRefusal("only clones of volumes are made", ReturnValue.NOT_SUPPORTED)
        sources = [self._volume(source).id for source in given["SourceElements"]]
        settings = given.get("ReplicationSettingData")
        if len(sources) > 1 and not (settings and settings["ConsistentPointInTime"]):
            raise ArrayRefusal("clones of several moments are not made here", ReturnValue.INVALID_PARAMETER)
        made = self._array.clone(sources, given["ElementNames"])
        return Answered(ReturnValue.COMPLETED, {"TargetElements": [self._view.volume(copy.id) for copy in made]})

    def _modify(self, given: Given) -> Answered:
        operation = Operation(int(given["Operation"]))
        ends = given["Synchronization"].keybindings
        clone = self._array.state.volumes.get(ends["SyncedElement"].keybindings.get("DeviceID", ""))
        if clone is not None and clone.cloned_at is not None and operation is Operation.DETACH:
            self._array.detach_clone(clone)
            return Answered(ReturnValue.COMPLETED)
        key = "InstanceID" if self._array.has_groups else "DeviceID"
        ids = {ends[end].keybindings.get(key) for end in ("SystemElement", "SyncedElement")}
        replicated = [group for group in self._array.state.groups.values() if group.peer]
        mine = {group.id if self._array.has_groups else group.volumes[0]: group for group in replicated}
        group = next((mine[one] for one in ids if one in mine), None)
        if group is None:
            raise ArrayRefusal("there is no such relationship", ReturnValue.INVALID_PARAMETER)
        return self._started(modify(self._array, group, operation, force=bool(given.get("Force"))))

    def _group_operations(self, given: Given) -> Answered:
        self._require_groups()
        return self._operations(given, "SupportedGroupOperations")

    def _element_operations(self, given: Given) -> Answered:
        self._require_groups(False)
        return self._operations(given, "SupportedOperations")

    def _operations(self, given: Given, told_as: str) -> Answered:
        if given["ReplicationType"] not in mirror_types(self._array):
            return Answered(ReturnValue.NOT_SUPPORTED)
        return Answered(
            ReturnValue.COMPLETED,
            {told_as: [Uint16(operation) for operation in sorted(SUPPORTED)]},
        )

    # --- references -------------------------------------------------------------------------------------------

    def _volume(self, path: CIMInstanceName) -> Volume:
        found = self._array.state.volumes.get(path.keybindings["DeviceID"])
        if found is None or not is_same(path, self._view.volume(found.id)):
            raise ArrayRefusal(f"there is no volume {path}", ReturnValue.INVALID_PARAMETER)
        return found

    def _group(self, path: CIMInstanceName) -> Group:
        found = self._array.state.groups.get(path.keybindings["InstanceID"])
        if found is None or not is_same(path, self._view.group(found.id)):
            raise ArrayRefusal(f"there is no group {path}", ReturnValue.INVALID_PARAMETER)
        return found


_METHODS: dict[str, Callable[[CimMethods, Given], Answered]] = {
    "CreateOrModifyElementFromStoragePool": CimMethods._create_volume,
    "ReturnToStoragePool": CimMethods._delete_volume,
    "ExposePaths": CimMethods._expose,
    "HidePaths": CimMethods._hide,
    "CreateGroup": CimMethods._create_group,
    "RemoveMembers": CimMethods._remove_members,
    "DeleteGroup": CimMethods._delete_group,
    "CreateGroupReplica": CimMethods._create_group_replica,
    "CreateElementReplica": CimMethods._create_element_replica,
    "CreateListReplica": CimMethods._create_list_replica,
    "ModifyReplicaSynchronization": CimMethods._modify,
    "GetSupportedGroupOperations": CimMethods._group_operations,
    "GetSupportedOperations": CimMethods._element_operations,
}
