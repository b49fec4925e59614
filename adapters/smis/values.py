"""Published values of SMI-S Replication Services (SNIA) and of the DMTF's CIM schema behind them.

Sources: the DMTF's MOF as Microsoft publishes it for the iSCSI Target's SMI-S provider (MicrosoftDocs/win32,
``desktop-src/iSCSITarg``), one page a method or class; the page is named at each table. ``docs/san.md`` lists them.
"""

from __future__ import annotations

from enum import IntEnum

NAMESPACE = "root/cimv2"
JOB_STARTED = 4096
"""Return value of a method that goes on as a CIM_ConcreteJob."""


class Operation(IntEnum):
    """``Operation`` of CIM_ReplicationService.ModifyReplicaSynchronization."""

    ABORT = 2
    ACTIVATE_CONSISTENCY = 3
    ACTIVATE = 4
    ADD_SYNC_PAIR = 5
    DEACTIVATE_CONSISTENCY = 6
    DEACTIVATE = 7
    DETACH = 8
    DISSOLVE = 9
    FAILOVER = 10
    FAILBACK = 11
    FRACTURE = 12
    REMOVE_SYNC_PAIR = 13
    RESYNC_REPLICA = 14
    RESTORE_FROM_REPLICA = 15
    RESUME = 16
    RESET_TO_SYNC = 17
    RESET_TO_ASYNC = 18
    RETURN_TO_RESOURCE_POOL = 19
    REVERSE_ROLES = 20
    SPLIT = 21
    SUSPEND = 22
    UNPREPARE = 23


class CopyState(IntEnum):
    """``CopyState`` of CIM_Synchronized 2.28 (MSFT_Synchronized has the first of them)."""

    INITIALIZED = 2
    UNSYNCHRONIZED = 3
    SYNCHRONIZED = 4
    BROKEN = 5
    FRACTURED = 6
    SPLIT = 7
    INACTIVE = 8
    SUSPENDED = 9
    FAILED_OVER = 10
    PREPARED = 11
    ABORTED = 12
    SKEWED = 13
    MIXED = 14
    NOT_APPLICABLE = 15
    PARTITIONED = 16
    INVALID = 17


class ProgressStatus(IntEnum):
    """``ProgressStatus`` of CIM_Synchronized 2.28."""

    UNKNOWN = 0
    COMPLETED = 2
    DORMANT = 3
    INITIALIZING = 4
    PREPARING = 5
    SYNCHRONIZING = 6
    RESYNCING = 7
    RESTORING = 8
    FRACTURING = 9
    SPLITTING = 10
    FAILING_OVER = 11
    FAILING_BACK = 12
    ABORTING = 13
    MIXED = 14
    NOT_APPLICABLE = 15
    SUSPENDING = 16
    REQUIRES_FRACTURE = 17
    REQUIRES_RESYNC = 18
    REQUIRES_ACTIVATE = 19
    PENDING = 20
    DETACHING = 21


class SyncType(IntEnum):
    """``SyncType`` of CreateGroupReplica, CreateElementReplica and CreateListReplica."""

    MIRROR = 6
    SNAPSHOT = 7
    CLONE = 8


class Mode(IntEnum):
    """``Mode`` of the same methods."""

    SYNCHRONOUS = 2
    ASYNCHRONOUS = 3


class Consistency(IntEnum):
    """``Consistency`` of CreateGroupReplica."""

    NONE = 2
    SEQUENTIAL = 3


class Action(IntEnum):
    """``SupportedSynchronousActions`` and ``SupportedAsynchronousActions`` of CIM_ReplicationServiceCapabilities, those
    that leeward asks for."""

    CREATE_ELEMENT_REPLICA = 2
    CREATE_GROUP_REPLICA = 3
    MODIFY_REPLICA_SYNCHRONIZATION = 5
    CREATE_LIST_REPLICA = 19


class ReplicationType(IntEnum):
    """``SupportedReplicationTypes`` of CIM_ReplicationServiceCapabilities, those that leeward asks for."""

    SYNCHRONOUS_MIRROR_REMOTE = 4
    ASYNCHRONOUS_MIRROR_REMOTE = 5
    SYNCHRONOUS_SNAPSHOT_LOCAL = 6
    SYNCHRONOUS_CLONE_LOCAL = 10


class ReturnValue(IntEnum):
    """Return values of the methods of CIM_ReplicationService."""

    COMPLETED = 0
    NOT_SUPPORTED = 1
    UNKNOWN = 2
    TIMEOUT = 3
    FAILED = 4
    INVALID_PARAMETER = 5
    IN_USE = 6
    JOB_STARTED = JOB_STARTED


class JobState(IntEnum):
    """``JobState`` of CIM_ConcreteJob."""

    NEW = 2
    STARTING = 3
    RUNNING = 4
    SUSPENDED = 5
    SHUTTING_DOWN = 6
    COMPLETED = 7
    TERMINATED = 8
    KILLED = 9
    EXCEPTION = 10
    SERVICE = 11
    QUERY_PENDING = 12


class DeviceAccess(IntEnum):
    """``DeviceAccesses`` of CIM_ControllerConfigurationService.ExposePaths."""

    READ_WRITE = 2
    READ_ONLY = 3
    NO_ACCESS = 4


def words(value: IntEnum) -> str:
    """``failed over``: how an operator reads a value."""
    return value.name.lower().replace("_", " ")
