"""What machines and their jobs are doing now, as Temporal tells it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from temporalio.client import WorkflowExecutionStatus, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from activities.contracts import REPLICATE_DELTAS, ReplicationPulse
from console.asking import Connection, translated
from reports.words import seconds
from vault.domain import Progress, RecoveryPoint, Value
from vault.lifecycle import JobKind, Phase
from workflows.attributes import MACHINE, PLAN
from workflows.ids import machine_id
from workflows.model import Health, MachineState


class PendingActivity(Value):
    """What an activity that is running, or waiting for its next try, says about itself."""

    name: str
    attempt: int
    waiting_for_worker: bool = False
    last_failure: str = ""
    next_try: datetime | None = None
    pulse: ReplicationPulse | None = None
    progress: Progress | None = None

    @property
    def trouble(self) -> str:
        """Why it does not get on; empty: nothing is known that holds it up."""
        if self.last_failure and self.attempt > 1:
            when = f", next try at {self.next_try:%H:%M:%S}Z" if self.next_try else ""
            return f"{self.last_failure} (try {self.attempt}{when})"
        return f"{self.name} waits for a worker" if self.waiting_for_worker else ""


class MachineStatus(Value):
    state: MachineState
    activities: list[PendingActivity] = []

    @property
    def last_point(self) -> RecoveryPoint | None:
        """The newest recovery point. None while a failover runs: which one was the newest when replication ended is
        known again when it is over."""
        point = self.state.last_point if self.state.phase is not Phase.FAILING_OVER else None
        for activity in self.activities:
            if activity.pulse is not None and activity.pulse.last_point is not None:
                point = activity.pulse.last_point
        return point

    @property
    def rpo_s(self) -> float | None:
        """Seconds since the newest recovery point: what would be lost if the source died now.

        Not below 0: the point's moment is of the source's clock, now is of this one."""
        point = self.last_point
        return max(0.0, (datetime.now(UTC) - point.time).total_seconds()) if point else None

    @property
    def is_late(self) -> bool:
        """The newest recovery point is older than it should ever be while the machine replicates."""
        return self.rpo_s is not None and self.rpo_s > self.state.relationship.late_after_s

    @property
    def health(self) -> Health:
        """What the machine's workflow knows; and a recovery point that is too old is never called ok."""
        known = self.state.health
        if known.level != "ok" or self.state.phase is not Phase.PROTECTED or not self.is_late:
            return known
        limit = seconds(self.state.relationship.late_after_s)
        reason = f"the newest recovery point is {seconds(self.rpo_s)} old; it should not be older than {limit}"
        return Health(level="warning", reason=reason)


class JobLine(Value):
    """A job as Temporal's visibility store knows it."""

    id: str
    kind: str
    machine: str
    plan: str
    status: str
    started: datetime
    finished: datetime | None = None


class MachineViews(Connection):
    """Looks, and changes nothing."""

    async def find_machine(self, machine: str) -> MachineState | None:
        """The machine's state; None when it is not protected."""
        handle = self._machine(machine)
        try:
            description = await handle.describe()
            if description.status is not WorkflowExecutionStatus.RUNNING:
                return None
            state: MachineState = await handle.query("describe", result_type=MachineState)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return None
            raise translated(error, machine) from error
        return state

    async def machine_status(self, machine: str) -> MachineStatus | None:
        """State and what its activities are doing now, those of its running job included."""
        state = await self.find_machine(machine)
        if state is None:
            return None
        ids = [machine_id(machine), *(job.id for job in state.jobs if job.state in {"running", "held"})]
        lists = await asyncio.gather(*(self._pending(workflow_id) for workflow_id in ids))
        return MachineStatus(state=state, activities=[activity for pending in lists for activity in pending])

    async def jobs(self, machine: str | None = None, plan: str | None = None, limit: int = 50) -> list[JobLine]:
        """Jobs, newest first."""
        kinds = ", ".join(f"'{kind.value}'" for kind in JobKind)
        query = f"WorkflowType IN ({kinds})"
        query += f" AND LeewardMachine = '{machine}'" if machine else ""
        query += f" AND LeewardPlan = '{plan}'" if plan else ""
        lines = []
        async for execution in self.client.list_workflows(query, limit=limit):
            found = execution.typed_search_attributes
            lines.append(
                JobLine(
                    id=execution.id,
                    kind=execution.workflow_type,
                    machine=found.get(MACHINE) or "",
                    plan=found.get(PLAN) or "",
                    status=execution.status.name.lower() if execution.status else "unknown",
                    started=execution.start_time,
                    finished=execution.close_time,
                )
            )
        return sorted(lines, key=lambda line: line.started, reverse=True)

    def _machine(self, machine: str) -> WorkflowHandle[Any, Any]:
        return self.client.get_workflow_handle(machine_id(machine))

    async def _pending(self, workflow_id: str) -> Sequence[PendingActivity]:
        try:
            description = await self.client.get_workflow_handle(workflow_id).describe()
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return []
            raise translated(error, workflow_id) from error
        return [await self._pending_activity(raw) for raw in description.raw_description.pending_activities]

    async def _pending_activity(self, raw: Any) -> PendingActivity:
        name = raw.activity_type.name
        kind = ReplicationPulse if name == REPLICATE_DELTAS.name else Progress
        beats = list(raw.heartbeat_details.payloads)
        decoded = (await self.client.data_converter.decode(beats, [kind]))[0] if beats else None
        waits = (
            raw.HasField("last_failure") and raw.HasField("scheduled_time") and not raw.HasField("last_started_time")
        )
        next_try = (
            raw.next_attempt_schedule_time.ToDatetime(UTC) if raw.HasField("next_attempt_schedule_time") else None
        )
        return PendingActivity(
            name=name,
            attempt=raw.attempt,
            waiting_for_worker=not raw.HasField("last_started_time") and not waits,
            last_failure=raw.last_failure.message if raw.HasField("last_failure") else "",
            next_try=next_try,
            pulse=decoded if isinstance(decoded, ReplicationPulse) else None,
            progress=decoded if isinstance(decoded, Progress) else decoded.progress if decoded else None,
        )
