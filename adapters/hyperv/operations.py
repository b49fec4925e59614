"""Everything that leeward asks of a Hyper-V host, typed: one :class:`Operation` for each ``scripts/<name>.ps1``.

Calls over WinRM take a second or two each, so operations are few and coarse. A script does what it is told and tells
what it finds; *whether* to do it, and what to do after a crash, is decided in Python from :data:`INVENTORY`. Every
operation after that one names its machine by ``vm_id``, which survives renaming and moving.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, SecretStr

from adapters.hyperv.facts import (
    Authentication,
    ChangedRanges,
    ClusterRoles,
    GuestResult,
    GuestStatus,
    HostFacts,
    HostInventory,
    HostItem,
    Measurements,
    RecoveryCheckpoint,
    ReferencePoint,
    ReplicaPoints,
    TestMachine,
    Tracked,
)
from adapters.hyperv.operation import Operation
from vault.domain import Value


class Nothing(Value):
    """No parameters, or nothing to say but that it is done."""


class InventoryRequest(Value):
    names: list[str] | None = None
    """Only these machines, exactly by name; None: all of the host."""


class OfVm(Value):
    vm_id: str


class ClusterRolesRequest(Value):
    vm_id: str | None = None
    """A machine of the host that is asked; None: all of the cluster."""


class MeasureRequest(Value):
    vm_ids: list[str] | None = None
    """None: all replicated machines of the host at once, so that one call serves all that wait for it."""


class ChangeReplication(Value):
    """What a policy says; ``vm_id`` is the machine that is or becomes the primary."""

    vm_id: str
    frequency_s: int
    """30, 300 or 900."""
    recovery_history: int = Field(ge=0, le=24)
    """Hourly recovery points kept besides the latest."""
    vss_frequency_h: int = Field(ge=0, le=12)
    """Hours between two app-consistent points; 0: none are made."""


class ReplicationSettings(ChangeReplication):
    """What both directions of a relationship need."""

    replica_server: str
    replica_port: int = Field(ge=1, le=65535)
    authentication: Authentication
    certificate_thumbprint: str | None = None
    compression: bool = True


class EnableReplication(ReplicationSettings):
    excluded_disks: list[str] = []
    """Disks that are not replicated, by the files that are written now."""


class OnMedium(Value):
    vm_id: str
    path: str
    """A folder as the host names it."""


class StartInitialReplication(Value):
    vm_id: str
    use_backup: bool = False
    """The replica is a copy of the machine: compare, and send the differences."""


class ResumeReplication(Value):
    vm_id: str
    resynchronize: bool
    """Compare both sides and send the differences, instead of going on with the logs."""


class StartFailover(Value):
    vm_id: str
    point_id: str | None = None
    """A recovery checkpoint; None: the replica as it is."""


class DeleteReplica(Value):
    vm_id: str
    note: str
    """Written into the machine's notes first: after a crash in the middle it tells a half-deleted replica, which is in
    no relationship any more, from a machine that is somebody's."""


class StopVm(Value):
    vm_id: str
    turn_off: bool
    """Pull the plug, instead of asking the guest to shut down."""


class RenameVm(Value):
    vm_id: str
    name: str


class ConnectNetwork(Value):
    """Connects all of the machine's network adapters."""

    vm_id: str
    switch: str
    private: bool = False
    """A switch that is not there is made: a private one, which connects nothing but machines of its host."""


class RemoveSwitches(Value):
    names: list[str]


class RunInGuest(Value):
    vm_id: str
    user: str
    password: SecretStr
    command: list[str] = Field(min_length=1)
    environment: dict[str, str] = {}


class CreateReferencePoint(Value):
    vm_id: str
    application_consistent: bool


class OfReferencePoint(Value):
    reference_point_id: str


class ChangesSince(Value):
    """The changes of one virtual disk's file since ``tracking_id``."""

    path: str
    tracking_id: str
    offset: int = Field(ge=0)
    length: int = Field(gt=0)


class CreateCheckpoint(Value):
    vm_id: str
    name: str
    """A recovery checkpoint of this name that is there already is the answer."""
    application_consistent: bool


class OfCheckpoint(Value):
    vm_id: str
    name: str


class WriteTracking(Value):
    vm_id: str
    items: list[HostItem]
    replaces: list[str]
    """Names of the items that were there when the new ones were made."""


CHECK_HOST = Operation("check_host", Nothing, HostFacts)
INVENTORY = Operation("inventory", InventoryRequest, HostInventory)
GUEST_STATUS = Operation("guest_status", OfVm, GuestStatus)

CLUSTER_ROLES = Operation("cluster_roles", ClusterRolesRequest, ClusterRoles)
"""On a node of a cluster: what the cluster does with its machines."""
START_VM = Operation("start_vm", OfVm, Nothing)
"""One that a cluster keeps is brought online by its cluster."""
STOP_VM = Operation("stop_vm", StopVm, Nothing)
"""A guest may take minutes to shut down. Of a machine that a cluster keeps the role is taken offline, too, so that
nobody starts it again; one that is off already loses nothing but that."""
RENAME_VM = Operation("rename_vm", RenameVm, Nothing)
REMOVE_VM = Operation("remove_vm", OfVm, Nothing)
"""Deletes the machine and the files of its disks; the machine must be off."""
CONNECT_NETWORK = Operation("connect_network", ConnectNetwork, Nothing)
REMOVE_SWITCHES = Operation("remove_switches", RemoveSwitches, Nothing)
"""Removes those of the private switches that are there and that no machine is connected to."""
RUN_IN_GUEST = Operation("run_in_guest", RunInGuest, GuestResult)

MEASURE_REPLICATION = Operation("measure_replication", MeasureRequest, Measurements)
RECOVERY_POINTS = Operation("recovery_points", OfVm, ReplicaPoints)
ENABLE_REPLICATION = Operation("enable_replication", EnableReplication, Nothing)
CHANGE_REPLICATION = Operation("change_replication", ChangeReplication, Nothing)
"""On the primary, while it replicates."""
ENABLE_AS_REPLICA = Operation("enable_as_replica", OfVm, Nothing)
"""On the replica server, before the primary is enabled: a copy of the machine, off, becomes its replica."""
START_INITIAL_REPLICATION = Operation("start_initial_replication", StartInitialReplication, Nothing)
"""Returns when the transfer has begun; :data:`MEASURE_REPLICATION` tells how far it is."""
EXPORT_INITIAL_REPLICATION = Operation("export_initial_replication", OnMedium, Nothing)
"""On the primary: writes the first copy into a folder instead of sending it."""
IMPORT_INITIAL_REPLICATION = Operation("import_initial_replication", OnMedium, Nothing)
"""On the replica server: reads what the primary exported."""
STOP_INITIAL_REPLICATION = Operation("stop_initial_replication", OfVm, Nothing)
RESUME_REPLICATION = Operation("resume_replication", ResumeReplication, Nothing)
PREPARE_FAILOVER = Operation("prepare_failover", OfVm, Nothing)
"""On the primary, which is off: sends the last changes. Takes as long as they take."""
START_FAILOVER = Operation("start_failover", StartFailover, Nothing)
"""On the replica server. The machine is off afterwards."""
CANCEL_FAILOVER = Operation("cancel_failover", OfVm, Nothing)
"""On the replica server undoes a failover, on the primary its preparation."""
COMPLETE_FAILOVER = Operation("complete_failover", OfVm, Nothing)
"""On the replica server: drops all recovery checkpoints."""
START_TEST_FAILOVER = Operation("start_test_failover", StartFailover, TestMachine)
STOP_TEST_FAILOVER = Operation("stop_test_failover", OfVm, Nothing)
"""On the replica, not on the copy, which is turned off and deleted. There is none: nothing happens."""
MAKE_REPLICA = Operation("make_replica", OfVm, Nothing)
"""On an old primary after an unplanned failover: its disks become what a reversed replication begins with."""
REVERSE_REPLICATION = Operation("reverse_replication", ReplicationSettings, Nothing)
"""On the host where the machine was failed over to, which becomes the primary; ``replica_server`` is the old one."""
REMOVE_REPLICATION = Operation("remove_replication", OfVm, Nothing)
"""Ends the relationship on the host that is asked; its machine stays."""
DELETE_REPLICA = Operation("delete_replica", DeleteReplica, Nothing)
"""On the replica server: ends the relationship, deletes the replica and the files of its disks."""

CREATE_REFERENCE_POINT = Operation("create_reference_point", CreateReferencePoint, ReferencePoint)
DESTROY_REFERENCE_POINT = Operation("destroy_reference_point", OfReferencePoint, Nothing)
CHANGED_RANGES = Operation("changed_ranges", ChangesSince, ChangedRanges)
READ_TRACKING = Operation("read_tracking", OfVm, Tracked)
WRITE_TRACKING = Operation("write_tracking", WriteTracking, Nothing)
"""Adds the items, then removes those they replace. Refused when there are others of leeward's by now."""
CREATE_CHECKPOINT = Operation("create_checkpoint", CreateCheckpoint, RecoveryCheckpoint)
"""A guest that is quiesced first takes up to minutes."""
REMOVE_CHECKPOINT = Operation("remove_checkpoint", OfCheckpoint, Nothing)
"""There is none of the name: nothing happens."""

OPERATIONS: dict[str, Operation[Any, Any]] = {
    operation.script: operation for operation in list(globals().values()) if isinstance(operation, Operation)
}
"""All of them by the name of their script."""
