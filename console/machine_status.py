"""What machines and their jobs are doing now, as Temporal tells it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio.api.enums.v1 import PendingActivityState, TimeoutType
from temporalio.api.failure.v1 import Failure
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.client import WorkflowExecution, WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle

from activities.contracts import REPLICATE_DELTAS, WORKER_LEAVING, ReplicationPulse
from activities.running import HEARTBEATS_PER_TIMEOUT
from console.asking import Connection, keyword
from vault.domain import Progress, RecoveryPoint, Value
from vault.errors import NotFound
from vault.lifecycle import AT_TARGET, LIFECYCLE, JobKind, Phase
from vault.words import seconds
from workflows.attributes import MACHINE, PLAN
from workflows.calls import reason
from workflows.ids import job_id, machine_id
from workflows.model import Health, MachineState

TAKEN_WITHIN = timedelta(seconds=2)
"""A worker that is there takes a task much sooner."""
OVERDUE_SIGN = 1.5 / HEARTBEATS_PER_TIMEOUT
"""Of the time after which a worker is given up: by then one sign of it is missing."""
SIGN_TRAVELS_S = 5
NOT_KNOWN = "not known"


class PendingActivity(Value):
    """What an activity that is running, or waiting for its next try, says about itself."""

    name: str
    attempt: int
    id: str = ""
    workflow_id: str = ""
    waiting_for_worker: bool = False
    silent_s: float | None = None
    """For how long its worker has given no sign, when one is overdue; a dead one is not known for dead yet."""
    given_up_after_s: float = 0
    last_failure: str = ""
    next_try: datetime | None = None
    waits_for_its_try: bool = False
    pulse: ReplicationPulse | None = None
    progress: Progress | None = None

    @property
    def trouble(self) -> str:
        """Why it does not get on; empty: nothing is known that holds it up."""
        if self.last_failure and self.attempt > 1:
            when = f", next try at {self.next_try:%H:%M:%S}Z" if self.next_try else ""
            return f"{self.last_failure} (try {self.attempt}{when})"
        if self.silent_s is not None:
            return (
                f"no sign of the worker of {self.name} for {seconds(self.silent_s)}; when it is gone, another one goes "
                f"on, {seconds(self.given_up_after_s)} after the last sign"
            )
        return f"{self.name} waits for a worker" if self.waiting_for_worker else ""


class MachineStatus(Value):
    state: MachineState
    activities: list[PendingActivity] = []
    plan_going_on: str = ""
    """The plan that asked for its last job, when a run of it is going on; known to who looked at that."""

    @property
    def last_plan(self) -> str:
        """The plan that asked for its last job, if one did."""
        return (self.state.jobs[-1].plan if self.state.jobs else None) or ""

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
    def failed_over(self) -> bool:
        """It runs where it was recovered, and nothing replicates it."""
        return self.state.phase in AT_TARGET or self.state.failed_over_to is not None

    @property
    def rpo_s(self) -> float | None:
        """Seconds since the newest recovery point: what would be lost if the source died now. None after a failover,
        when nothing holds what is written.

        Not below 0: the point's moment is of the source's clock, now is of this one."""
        point = self.last_point if not self.failed_over else None
        return max(0.0, (datetime.now(UTC) - point.time).total_seconds()) if point else None

    @property
    def is_late(self) -> bool:
        """The newest recovery point is older than it should ever be while the machine replicates."""
        return self.rpo_s is not None and self.rpo_s > self.state.relationship.late_after_s

    @property
    def job_before_its_beginning(self) -> str:
        """Which job has to wait until replication has come to its safe end, and how long at most; empty: none."""
        turn = next((one for one in self.activities if one.name == REPLICATE_DELTAS.name), None)
        job = self.state.jobs[-1] if self.state.jobs else None
        during = LIFECYCLE[job.kind].during if job is not None and job.state == "running" else None
        if turn is None or job is None or during is None or during is self.state.phase:
            return ""
        after = turn.given_up_after_s
        at_most = f"; its worker hears of it within {seconds(after / HEARTBEATS_PER_TIMEOUT)}" if after else ""
        dead = f", a dead one is missed after {seconds(after)}" if after else ""
        return f"{job.kind} begins when the running replication has come to its end{at_most}{dead}"

    @property
    def health(self) -> Health:
        """What the machine's workflow knows; never called ok are a recovery point that is too old, replication whose
        worker may be gone, and a recovered machine that never answered."""
        known, recovered = self.state.health, self.state.recovered
        if known.level == "ok" and self.state.phase in AT_TARGET and recovered is not None and not recovered.address:
            reason = (
                f"{recovered.name} has not answered since it was recovered: where it is still off, start it at "
                f"{recovered.site}, and see that it answers"
            )
            return Health(level="warning", reason=reason)
        if known.level != "ok" or self.state.phase is not Phase.PROTECTED:
            return known
        if self.is_late:
            limit = seconds(self.state.relationship.late_after_s)
            reason = f"the newest recovery point is {seconds(self.rpo_s)} old; it should not be older than {limit}"
            return Health(level="warning", reason=reason)
        silent = [one for one in self.activities if one.name == REPLICATE_DELTAS.name and one.silent_s is not None]
        return Health(level="warning", reason=silent[0].trouble) if silent else known

    @property
    def health_level(self) -> str:
        """How it is, in a word. *ok* where it was failed over would tell of the moment at which it answered there:
        nothing asks it, or its site, before its replication is reversed."""
        level = self.health.level
        return NOT_KNOWN if level == "ok" and self.state.phase in AT_TARGET else level


class JobLine(Value):
    """A job as Temporal's visibility store knows it."""

    id: str
    kind: str
    machine: str
    plan: str
    status: str
    started: datetime
    finished: datetime | None = None
    message: str = ""
    """Why it failed; empty of all others."""


class MachineViews(Connection):
    """Looks, and changes nothing."""

    async def find_machine(self, machine: str) -> MachineState | None:
        """The machine's state; None when it is not protected."""
        handle = self._machine(machine)
        try:
            description = await self.asked(handle.describe(), machine)
            if description.status is not WorkflowExecutionStatus.RUNNING:
                return None
            state: MachineState = await self.asked(handle.query("describe", result_type=MachineState), machine)
        except NotFound:
            return None
        return state

    async def is_left_over(self, machine: str) -> bool:
        """It was taken out of the inventory, and is protected."""
        return machine not in self.inventory.machines and await self.find_machine(machine) is not None

    async def machine_status(self, machine: str) -> MachineStatus | None:
        """State and what its activities are doing now, those of its running job included."""
        state = await self.find_machine(machine)
        if state is None:
            return None
        ids = [machine_id(machine), *(job.id for job in state.jobs if job.is_open)]
        lists = await asyncio.gather(*(self._pending(workflow_id) for workflow_id in ids))
        return MachineStatus(state=state, activities=[activity for pending in lists for activity in pending])

    async def protected(self) -> list[str]:
        """All machines that have a workflow, also those that the inventory does not name any more; in no order."""
        query = "WorkflowType = 'Machine' AND ExecutionStatus = 'Running'"
        prefix = machine_id("")
        return [execution.id.removeprefix(prefix) async for execution in self.client.list_workflows(query)]

    async def jobs(self, machine: str | None = None, plan: str | None = None, limit: int = 50) -> list[JobLine]:
        """Jobs, newest first."""
        kinds = ", ".join(f"'{kind.value}'" for kind in JobKind)
        query = f"WorkflowType IN ({kinds})"
        query += f" AND LeewardMachine = {keyword(machine)}" if machine else ""
        query += f" AND LeewardPlan = {keyword(plan)}" if plan else ""
        found = [execution async for execution in self.client.list_workflows(query, limit=limit)]
        failures = await asyncio.gather(*map(self._why_it_failed, found))
        lines = [_job_line(execution, why) for execution, why in zip(found, failures, strict=True)]
        return sorted(lines, key=lambda line: line.started, reverse=True)

    async def why_not_protected(self, machine: str) -> str:
        """How the last try to protect a machine ended that has no workflow any more; empty: it did not fail.

        Its first job is looked at: when that fails, the machine's own workflow ends with it."""
        job = job_id(machine, 1, JobKind.ENABLE.value)
        try:
            first = await self.asked(self.client.get_workflow_handle(job).describe(), job)
        except NotFound:
            return ""
        why = await self._why_it_failed(first)
        return f"{JobKind.ENABLE.value} failed: {why}" if why else ""

    async def _why_it_failed(self, job: WorkflowExecution) -> str:
        if job.status is not WorkflowExecutionStatus.FAILED:
            return ""
        handle = self.client.get_workflow_handle(job.id, run_id=job.run_id)
        try:
            await self.asked(handle.result(), job.id)
        except WorkflowFailureError as error:
            return reason(error.cause)
        except NotFound:  # Temporal has deleted it since it was listed
            return ""
        return ""

    def _machine(self, machine: str) -> WorkflowHandle[Any, Any]:
        return self.client.get_workflow_handle(machine_id(machine))

    async def _pending(self, workflow_id: str) -> Sequence[PendingActivity]:
        try:
            description = await self.asked(self.client.get_workflow_handle(workflow_id).describe(), workflow_id)
        except NotFound:
            return []
        pending = description.raw_description.pending_activities
        return [await self._pending_activity(workflow_id, raw) for raw in pending]

    async def _pending_activity(self, workflow_id: str, raw: PendingActivityInfo) -> PendingActivity:
        name = raw.activity_type.name
        kind = ReplicationPulse if name == REPLICATE_DELTAS.name else Progress
        beats = list(raw.heartbeat_details.payloads)
        decoded = (await self.client.data_converter.decode(beats, [kind]))[0] if beats else None
        return pending_activity(workflow_id, raw, decoded, datetime.now(UTC))


def _job_line(job: WorkflowExecution, why_it_failed: str) -> JobLine:
    found = job.typed_search_attributes
    return JobLine(
        id=job.id,
        kind=job.workflow_type,
        machine=found.get(MACHINE) or "",
        plan=found.get(PLAN) or "",
        status=job.status.name.lower() if job.status else "unknown",
        started=job.start_time,
        finished=job.close_time,
        message=why_it_failed,
    )


def pending_activity(
    workflow_id: str, raw: PendingActivityInfo, beat: ReplicationPulse | Progress | None, now: datetime
) -> PendingActivity:
    """What Temporal knows of an activity, in the terms of who waits for it.

    A worker that left or died is no failure of what it did: another one does it. Nor is a failure news once the present
    try has come further.
    """
    pulse = beat if isinstance(beat, ReplicationPulse) else None
    is_scheduled = raw.state == PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED
    failed = raw.HasField("last_failure") and not _worker_was_lost(raw.last_failure)
    is_well_again = not is_scheduled and pulse is not None and raw.attempt == pulse.healthy_at_attempt > 1
    next_try = raw.next_attempt_schedule_time.ToDatetime(UTC) if raw.HasField("next_attempt_schedule_time") else None
    scheduled = raw.scheduled_time.ToDatetime(UTC) if raw.HasField("scheduled_time") else now
    given_up_after = raw.activity_options.heartbeat_timeout.ToTimedelta().total_seconds()
    return PendingActivity(
        name=raw.activity_type.name,
        attempt=raw.attempt,
        id=raw.activity_id,
        workflow_id=workflow_id,
        waiting_for_worker=is_scheduled and next_try is None and now - scheduled > TAKEN_WITHIN,
        silent_s=_overdue(raw, now, given_up_after) if given_up_after and not is_scheduled else None,
        given_up_after_s=given_up_after,
        last_failure=raw.last_failure.message if failed and not is_well_again else "",
        next_try=next_try,
        waits_for_its_try=failed and next_try is not None,
        pulse=pulse,
        progress=pulse.progress if pulse is not None else beat if isinstance(beat, Progress) else None,
    )


def _overdue(raw: PendingActivityInfo, now: datetime, given_up_after_s: float) -> float | None:
    """Seconds without a sign of the worker at work, when that is longer than one that lives is ever silent."""
    signs = [getattr(raw, name) for name in ("last_started_time", "last_heartbeat_time") if raw.HasField(name)]
    silent_s = min(((now - sign.ToDatetime(UTC)).total_seconds() for sign in signs), default=0.0)
    return silent_s if silent_s > given_up_after_s * OVERDUE_SIGN + SIGN_TRAVELS_S else None


def _worker_was_lost(failure: Failure) -> bool:
    died = failure.timeout_failure_info.timeout_type == TimeoutType.TIMEOUT_TYPE_HEARTBEAT
    return died or failure.application_failure_info.type == WORKER_LEAVING
