"""Reading CIM_Synchronized: what an association of two groups, or of two volumes, tells of its replication."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pywbem

from adapters.san.ports import GroupState
from adapters.smis.values import CopyState, Mode, Operation, ProgressStatus, SyncType, words

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
IDLE = frozenset(
    {ProgressStatus.UNKNOWN, ProgressStatus.COMPLETED, ProgressStatus.DORMANT, ProgressStatus.NOT_APPLICABLE}
)
"""Values of ``ProgressStatus`` that tell nothing beside the state."""
CHANGING = frozenset(
    {
        ProgressStatus.FAILING_OVER,
        ProgressStatus.FAILING_BACK,
        ProgressStatus.SPLITTING,
        ProgressStatus.FRACTURING,
        ProgressStatus.SUSPENDING,
        ProgressStatus.DETACHING,
        ProgressStatus.ABORTING,
        ProgressStatus.RESTORING,
    }
)
"""Values of ``ProgressStatus`` in which ``CopyState`` is what was, not what will be."""
UNDER_WAY = frozenset({ProgressStatus.SYNCHRONIZING, ProgressStatus.RESYNCING, ProgressStatus.PENDING})
"""Values of ``ProgressStatus`` of a copy that needs nobody to begin it again."""
ASKS_FOR = {
    ProgressStatus.REQUIRES_RESYNC: Operation.RESYNC_REPLICA,
    ProgressStatus.REQUIRES_ACTIVATE: Operation.ACTIVATE,
}
"""What an array waits for, with a copy that stands until then."""
ENDS = ("SystemElement", "SyncedElement")
"""The source's end, then the target's."""


def groups_of(synchronization: pywbem.CIMInstance) -> tuple[str, str]:
    """The ids of the source's group and of the target's."""
    return synchronization["SystemElement"]["InstanceID"], synchronization["SyncedElement"]["InstanceID"]


def mirrored_volumes(synchronization: pywbem.CIMInstance) -> list[tuple[str, str]]:
    """System and DeviceID of the source's volume and of the target's; none: it is no mirror, but a clone, say."""
    if synchronization.get("SyncType") != SyncType.MIRROR:
        return []
    return [(synchronization[end]["SystemName"], synchronization[end]["DeviceID"]) for end in ENDS]


def replication(one: pywbem.CIMInstance, *, is_source: bool) -> dict[str, Any]:
    synced = one.get("WhenSynced")
    try:
        state = STATES.get(CopyState(int(one["CopyState"])), GroupState.OTHER)
    except ValueError:
        state = GroupState.OTHER
    if state is GroupState.COPYING and one.get("ProgressStatus") in ASKS_FOR:
        state = GroupState.SUSPENDED
    return {
        "state": state,
        "is_source": is_source,
        "percent": int(one["PercentSynced"]) if one.get("PercentSynced") is not None else None,
        "doing": _doing(one.get("ProgressStatus")),
        "changing": one.get("ProgressStatus") in CHANGING,
        "whole_at": moment(synced) if synced is not None else None,
        "asynchronous": one.get("Mode") == Mode.ASYNCHRONOUS,
    }


def _doing(status: int | None) -> str:
    """An array's word for what it does with a group; a number that is no published one tells nothing."""
    if status is None or status in IDLE or status not in set(ProgressStatus):
        return ""
    return words(ProgressStatus(status))


def moment(value: pywbem.CIMDateTime) -> datetime:
    found: datetime = value.datetime
    return found
