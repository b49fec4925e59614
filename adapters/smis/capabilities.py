"""What an array can, as its CIM_ReplicationServiceCapabilities says."""

from __future__ import annotations

from collections.abc import Callable

import pywbem

from adapters.san.ports import Step
from adapters.smis.connection import SmisConnection
from adapters.smis.values import Action, Operation, ReplicationType

STEPS = {
    Operation.FAILOVER: Step.FAIL_OVER,
    Operation.FAILBACK: Step.FAIL_BACK,
    Operation.REVERSE_ROLES: Step.REVERSE,
    Operation.RESYNC_REPLICA: Step.RESUME,
    Operation.SPLIT: Step.SPLIT,
    Operation.DETACH: Step.DETACH,
}


class Capabilities:
    """Asked for once: an array does not learn while a worker lives. Thread-safe: who is second asks again at worst."""

    def __init__(self, cim: SmisConnection, instance: Callable[[], pywbem.CIMInstance]) -> None:
        self._cim = cim
        self._instance = instance
        self._found: pywbem.CIMInstance | None = None
        self._steps: dict[bool, frozenset[Step]] = {}

    @property
    def mirror_groups(self) -> bool:
        """Else single volumes. An array that lists no actions is taken for one that has all."""
        actions = self._actions()
        return not actions or Action.CREATE_GROUP_REPLICA in actions

    def steps(self, *, asynchronous: bool) -> frozenset[Step]:
        """Which operations there are depends on how it is mirrored."""
        if asynchronous not in self._steps:
            self._steps[asynchronous] = frozenset(self._cloning() | self._mirroring(asynchronous=asynchronous))
        return self._steps[asynchronous]

    def _cloning(self) -> set[Step]:
        actions = self._actions()
        can = not actions or Action.CREATE_LIST_REPLICA in actions
        return {Step.CLONE} if can and ReplicationType.SYNCHRONOUS_CLONE_LOCAL in self._kinds() else set()

    def _mirroring(self, *, asynchronous: bool) -> set[Step]:
        kind, step = (
            (ReplicationType.ASYNCHRONOUS_MIRROR_REMOTE, Step.MIRROR_ASYNCHRONOUSLY)
            if asynchronous
            else (ReplicationType.SYNCHRONOUS_MIRROR_REMOTE, Step.MIRROR)
        )
        if kind not in self._kinds() or not (self.mirror_groups or Action.CREATE_ELEMENT_REPLICA in self._actions()):
            return set()
        of = "Group" if self.mirror_groups else ""
        out = self._cim.invoke(
            "asking for the operations on groups" if of else "asking for the operations on volumes",
            f"GetSupported{of}Operations",
            self._capabilities().path,
            ReplicationType=pywbem.Uint16(kind),
        )
        operations = {int(one) for one in out[f"Supported{of}Operations"] or []}
        together = {Step.MIRROR_TOGETHER} if self.mirror_groups else set()
        return {step} | together | {step for operation, step in STEPS.items() if operation in operations}

    def _kinds(self) -> set[int]:
        return {int(kind) for kind in self._capabilities()["SupportedReplicationTypes"] or []}

    def _actions(self) -> set[int]:
        found = self._capabilities()
        lists = (found.get("SupportedSynchronousActions"), found.get("SupportedAsynchronousActions"))
        return {int(action) for actions in lists for action in actions or []}

    def _capabilities(self) -> pywbem.CIMInstance:
        if self._found is None:
            self._found = self._instance()
        return self._found
