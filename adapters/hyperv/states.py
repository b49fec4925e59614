"""The words of Hyper-V for machines, replication and its health, and what each means for leeward.

Members have the names that the Hyper-V PowerShell module prints. A word this version does not know becomes ``UNKNOWN``:
one machine with a strange state must not hide its neighbours, and no decision is ever made from it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from vault.domain import PowerState, Severity


class VmState(StrEnum):
    """``Microsoft.HyperV.PowerShell.VMState``."""

    OTHER = "Other"
    RUNNING = "Running"
    OFF = "Off"
    STOPPING = "Stopping"
    SAVED = "Saved"
    PAUSED = "Paused"
    STARTING = "Starting"
    RESET = "Reset"
    SAVING = "Saving"
    PAUSING = "Pausing"
    RESUMING = "Resuming"
    FAST_SAVED = "FastSaved"
    FAST_SAVING = "FastSaving"
    FORCE_SHUTDOWN = "ForceShutdown"
    FORCE_REBOOT = "ForceReboot"
    HIBERNATED = "Hibernated"
    COMPONENT_SERVICING = "ComponentServicing"
    RUNNING_CRITICAL = "RunningCritical"
    OFF_CRITICAL = "OffCritical"
    STOPPING_CRITICAL = "StoppingCritical"
    SAVED_CRITICAL = "SavedCritical"
    PAUSED_CRITICAL = "PausedCritical"
    STARTING_CRITICAL = "StartingCritical"
    RESET_CRITICAL = "ResetCritical"
    SAVING_CRITICAL = "SavingCritical"
    PAUSING_CRITICAL = "PausingCritical"
    RESUMING_CRITICAL = "ResumingCritical"
    FAST_SAVED_CRITICAL = "FastSavedCritical"
    FAST_SAVING_CRITICAL = "FastSavingCritical"
    UNKNOWN = "unknown"

    @classmethod
    def _missing_(cls, _value: object) -> VmState:
        return cls.UNKNOWN


class ReplicationMode(StrEnum):
    """Which end of a relationship a machine is (``-ReplicationMode`` of Get-VMReplication)."""

    NONE = "None"
    PRIMARY = "Primary"
    REPLICA = "Replica"
    TEST_REPLICA = "TestReplica"
    EXTENDED_REPLICA = "ExtendedReplica"
    UNKNOWN = "unknown"

    @classmethod
    def _missing_(cls, _value: object) -> ReplicationMode:
        return cls.UNKNOWN


class ReplicationHealth(StrEnum):
    """``-ReplicationHealth`` of Get-VMReplication."""

    NOT_APPLICABLE = "NotApplicable"
    NORMAL = "Normal"
    WARNING = "Warning"
    CRITICAL = "Critical"
    UNKNOWN = "unknown"

    @classmethod
    def _missing_(cls, _value: object) -> ReplicationHealth:
        return cls.UNKNOWN


class ReplicationState(StrEnum):
    """``-ReplicationState`` of Get-VMReplication."""

    DISABLED = "Disabled"
    READY_FOR_INITIAL_REPLICATION = "ReadyForInitialReplication"
    INITIAL_REPLICATION_IN_PROGRESS = "InitialReplicationInProgress"
    WAITING_FOR_INITIAL_REPLICATION = "WaitingForInitialReplication"
    REPLICATING = "Replicating"
    PREPARED_FOR_FAILOVER = "PreparedForFailover"
    FAILED_OVER_WAITING_COMPLETION = "FailedOverWaitingCompletion"
    FAILED_OVER = "FailedOver"
    SUSPENDED = "Suspended"
    ERROR = "Error"
    WAITING_FOR_START_RESYNCHRONIZE = "WaitingForStartResynchronize"
    RESYNCHRONIZING = "Resynchronizing"
    RESYNCHRONIZE_SUSPENDED = "ResynchronizeSuspended"
    RECOVERY_IN_PROGRESS = "RecoveryInProgress"
    FAILBACK_IN_PROGRESS = "FailbackInProgress"
    FAILBACK_COMPLETE = "FailbackComplete"
    WAITING_FOR_UPDATE_COMPLETION = "WaitingForUpdateCompletion"
    UPDATE_ERROR = "UpdateError"
    WAITING_FOR_REPURPOSE_COMPLETION = "WaitingForRepurposeCompletion"
    PREPARED_FOR_SYNC_REPLICATION = "PreparedForSyncReplication"
    PREPARED_FOR_GROUP_REVERSE_REPLICATION = "PreparedForGroupReverseReplication"
    FIREDRILL_IN_PROGRESS = "FiredrillInProgress"
    UNKNOWN = "unknown"

    @classmethod
    def _missing_(cls, _value: object) -> ReplicationState:
        return cls.UNKNOWN


class RoleState(StrEnum):
    """``State`` of a cluster's resource: ``CLUSTER_RESOURCE_STATE`` (clusapi.h)."""

    INHERITED = "Inherited"
    INITIALIZING = "Initializing"
    ONLINE = "Online"
    OFFLINE = "Offline"
    FAILED = "Failed"
    PENDING = "Pending"
    ONLINE_PENDING = "OnlinePending"
    OFFLINE_PENDING = "OfflinePending"
    UNKNOWN = "Unknown"

    @classmethod
    def _missing_(cls, _value: object) -> RoleState:
        return cls.UNKNOWN


class GroupState(StrEnum):
    """``State`` of a cluster's group: ``CLUSTER_GROUP_STATE`` (clusapi.h)."""

    ONLINE = "Online"
    OFFLINE = "Offline"
    FAILED = "Failed"
    PARTIAL_ONLINE = "PartialOnline"
    PENDING = "Pending"
    UNKNOWN = "Unknown"

    @classmethod
    def _missing_(cls, _value: object) -> GroupState:
        return cls.UNKNOWN


class Standing(StrEnum):
    """Where a replication relationship is, in the words by which leeward decides what to do."""

    NOT_REPLICATED = "not replicated"
    READY = "ready for the first copy"
    COPYING = "the first copy is under way"
    REPLICATING = "replicating"
    PREPARED = "prepared for a planned failover"
    FAILED_OVER = "failed over, not committed"
    COMMITTED = "failed over and committed"
    PAUSED = "paused by somebody"
    BROKEN = "stopped by an error"
    RESYNC_REQUIRED = "resynchronization required"
    RESYNCHRONIZING = "resynchronizing"
    CHANGING = "changing by itself; wait"
    FOREIGN = "driven by another system"
    """States that only a replication provider other than Hyper-V Replica, or a group of machines, comes to."""
    UNKNOWN = "not understood"


class StateMeaning(NamedTuple):
    standing: Standing
    number: int | None
    """``ReplicationState`` of ``Msvm_ReplicationRelationship``, whose names differ; None: that class has no such value
    of its own, or leeward saw none."""


STATES: dict[ReplicationState, StateMeaning] = {
    ReplicationState.DISABLED: StateMeaning(Standing.NOT_REPLICATED, 0),
    ReplicationState.READY_FOR_INITIAL_REPLICATION: StateMeaning(Standing.READY, 1),
    ReplicationState.INITIAL_REPLICATION_IN_PROGRESS: StateMeaning(Standing.COPYING, 2),
    ReplicationState.WAITING_FOR_INITIAL_REPLICATION: StateMeaning(Standing.COPYING, 2),
    ReplicationState.REPLICATING: StateMeaning(Standing.REPLICATING, 3),
    ReplicationState.PREPARED_FOR_FAILOVER: StateMeaning(Standing.PREPARED, 4),
    ReplicationState.FAILED_OVER_WAITING_COMPLETION: StateMeaning(Standing.FAILED_OVER, 5),
    ReplicationState.FAILED_OVER: StateMeaning(Standing.COMMITTED, 6),
    ReplicationState.SUSPENDED: StateMeaning(Standing.PAUSED, 7),
    ReplicationState.ERROR: StateMeaning(Standing.BROKEN, 8),
    ReplicationState.WAITING_FOR_START_RESYNCHRONIZE: StateMeaning(Standing.RESYNC_REQUIRED, 9),
    ReplicationState.RESYNCHRONIZING: StateMeaning(Standing.RESYNCHRONIZING, 10),
    ReplicationState.RESYNCHRONIZE_SUSPENDED: StateMeaning(Standing.RESYNC_REQUIRED, 11),
    ReplicationState.RECOVERY_IN_PROGRESS: StateMeaning(Standing.CHANGING, 12),
    ReplicationState.FAILBACK_IN_PROGRESS: StateMeaning(Standing.FOREIGN, 13),
    ReplicationState.FAILBACK_COMPLETE: StateMeaning(Standing.FOREIGN, 14),
    ReplicationState.WAITING_FOR_UPDATE_COMPLETION: StateMeaning(Standing.CHANGING, 15),
    ReplicationState.UPDATE_ERROR: StateMeaning(Standing.BROKEN, 16),
    ReplicationState.WAITING_FOR_REPURPOSE_COMPLETION: StateMeaning(Standing.FOREIGN, 18),
    ReplicationState.PREPARED_FOR_SYNC_REPLICATION: StateMeaning(Standing.FOREIGN, 19),
    ReplicationState.PREPARED_FOR_GROUP_REVERSE_REPLICATION: StateMeaning(Standing.FOREIGN, 20),
    ReplicationState.FIREDRILL_IN_PROGRESS: StateMeaning(Standing.FOREIGN, 21),
    ReplicationState.UNKNOWN: StateMeaning(Standing.UNKNOWN, None),
}
"""Sources: the values of ``-ReplicationState`` in the reference of Get-VMReplication, and the value map of
``Msvm_ReplicationRelationship`` (msvm-replicationrelationship.md)."""

HEALTH: dict[ReplicationHealth, Severity] = {
    ReplicationHealth.NOT_APPLICABLE: Severity.PASS,
    ReplicationHealth.NORMAL: Severity.PASS,
    ReplicationHealth.WARNING: Severity.WARN,
    ReplicationHealth.CRITICAL: Severity.FAIL,
    ReplicationHealth.UNKNOWN: Severity.WARN,
}
"""Source: ``-ReplicationHealth`` in the reference of Get-VMReplication."""


class Role(StrEnum):
    """Which part a machine has in a relationship that leeward drives."""

    NONE = "not replicated"
    SOURCE = "source"
    TARGET = "target"
    TEST_COPY = "test copy"
    OTHER = "another system's"


ROLES: dict[ReplicationMode, Role] = {
    ReplicationMode.NONE: Role.NONE,
    ReplicationMode.PRIMARY: Role.SOURCE,
    ReplicationMode.REPLICA: Role.TARGET,
    ReplicationMode.TEST_REPLICA: Role.TEST_COPY,
    ReplicationMode.EXTENDED_REPLICA: Role.OTHER,
    ReplicationMode.UNKNOWN: Role.OTHER,
}
"""Source: ``-ReplicationMode`` in the reference of Get-VMReplication."""

_PROVEN_OFF = frozenset({VmState.OFF, VmState.OFF_CRITICAL})


def power(state: VmState) -> PowerState:
    """Only a machine that the host calls off is off: everything else (saved, paused, not understood …) may run again
    by itself, and a failover must not take it for a proof."""
    return PowerState.OFF if state in _PROVEN_OFF else PowerState.RUNNING
