"""What the command line, the demo and tests do with leeward: typed calls over a Temporal client."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import hashlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from temporalio.client import (
    Client,
    WithStartWorkflowOperation,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowQueryFailedError,
    WorkflowUpdateFailedError,
)
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from activities.contracts import CONTROL_QUEUE, REPLICATE_DELTAS, PointList, ReplicationPulse
from plans.model import Plan, default_direction
from vault.access import Action
from vault.domain import LATEST, Finding, Progress, RunType, Severity, Value
from vault.errors import InvalidState, LeewardError, NotFound, NotRecoverable, Unreachable
from vault.inventory import Inventory
from vault.lifecycle import WITH_RECOVERY_POINTS, JobKind, Phase
from workflows.attributes import MACHINE, PLAN, attributes
from workflows.calls import reason
from workflows.ids import machine_id, machine_of, plan_id
from workflows.model import (
    Cancel,
    Decision,
    GiveWay,
    JobAccepted,
    JobRequest,
    JobResult,
    MachineSettings,
    MachineState,
    Pause,
    PlanRequest,
    Readiness,
    ReadinessInput,
    RunFacts,
    RunStatus,
    Steer,
    Timings,
)

Answer = TypeVar("Answer")
LOOK_EVERY_S = 0.4
FAILOVERS = frozenset({"planned", "unplanned", "failback"})
"""Runs that a test of the same plan gives way to."""
TESTS_END_WITHIN_S = 60.0
LARGEST_PLAN_TEXT = 64 * 1024
"""Bytes of a plan's file that travel with a run: together with the plan itself they must fit into one payload."""


class JobFailed(NotRecoverable):
    """A lifecycle job ended without success; what it says is its own reason."""


class PendingActivity(Value):
    """What an activity that is running, or waiting for its next try, says about itself."""

    name: str
    attempt: int
    waiting_for_worker: bool = False
    last_failure: str = ""
    next_try: datetime | None = None
    pulse: ReplicationPulse | None = None
    progress: Progress | None = None


class MachineStatus(Value):
    state: MachineState
    activities: list[PendingActivity] = []

    @property
    def rpo_s(self) -> float | None:
        """Seconds since the newest recovery point: what would be lost if the source died now.

        Not below 0: the point's moment is of the source's clock, now is of this one."""
        point = self.state.last_point
        for activity in self.activities:
            if activity.pulse is not None and activity.pulse.last_point is not None:
                point = activity.pulse.last_point
        return max(0.0, (datetime.now(UTC) - point.time).total_seconds()) if point else None


class JobLine(Value):
    """A job as Temporal's visibility store knows it."""

    id: str
    kind: str
    machine: str
    plan: str
    status: str
    started: datetime
    finished: datetime | None = None


class Leeward:
    """One connection to one Temporal namespace.

    Errors of all calls: ``NotFound``, ``InvalidState`` (refused, nothing changed), ``Unreachable``.
    """

    def __init__(self, client: Client, inventory: Inventory, timings: Timings, operator: str | None = None) -> None:
        self.client = client
        self.inventory = inventory
        self.timings = timings
        self.operator = operator or getpass.getuser()

    # -- machines ------------------------------------------------------------------------------------------------

    def settings(self, machine: str) -> MachineSettings:
        """What the inventory says about a machine's replication, both ways."""
        if machine not in self.inventory.machines:
            known = ", ".join(sorted(self.inventory.machines))
            raise NotFound(f"machine '{machine}' is not in the inventory", remedy=f"known machines: {known}")
        entry = self.inventory.machines[machine]
        forward = self.inventory.relationship(machine)
        network, test_network = self.inventory.mapped_networks(entry.target, forward.target_network, entry.site)
        return MachineSettings(
            name=machine,
            forward=forward,
            backward=forward.reversed(network, test_network),
            policy=self.inventory.policies[entry.policy],
            timings=self.timings,
            access=self.inventory.access,
            webhooks=self.inventory.notifications,
        )

    async def protect(self, machine: str) -> str:
        """Start protecting a machine, or go on where an earlier try stopped; returns the first job's id."""
        settings = self.settings(machine)
        initial = MachineState(**{name: getattr(settings, name) for name in MachineSettings.model_fields})
        start: WithStartWorkflowOperation[Any, Any] = WithStartWorkflowOperation(
            "Machine",
            initial,
            id=machine_id(machine),
            task_queue=CONTROL_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            search_attributes=attributes(machine=machine, site=initial.active_site, phase=initial.phase.value),
            static_summary=f"{machine}: {settings.forward.source_site} → {settings.forward.target_site}",
            task_timeout=timedelta(seconds=self.timings.decision_s),
        )
        known = await self.find_machine(machine)
        next_job = {Phase.ENABLED: JobKind.INITIAL_REPLICATION, Phase.COPIED: JobKind.FINALIZE}
        kind = next_job.get(known.phase, JobKind.ENABLE) if known else JobKind.ENABLE
        accepted: JobAccepted = await _asked(
            self.client.execute_update_with_start_workflow(
                "request", self._job_request(kind), start_workflow_operation=start, result_type=JobAccepted
            )
        )
        return accepted.job_id

    async def request(self, machine: str, kind: JobKind, **options: Any) -> str:
        """Ask a machine for one job; returns the job's workflow id."""
        accepted: JobAccepted = await self._machine_update(
            machine, "request", JobAccepted, self._job_request(kind, **options)
        )
        return accepted.job_id

    async def resume_replication(self, machine: str) -> MachineState:
        return await self._machine_update(machine, "resume_replication", MachineState)

    async def configure(self, machine: str) -> MachineState:
        """Bring changed settings of the inventory to the machine."""
        return await self._machine_update(machine, "configure", MachineState, self.settings(machine))

    async def recovery_points(self, machine: str) -> PointList:
        return await self._machine_update(machine, "recovery_points", PointList)

    async def job_result(self, job_id: str) -> JobResult:
        """Wait for a job's end, and until its machine is what the job made of it. Raises ``JobFailed`` with its reason.

        A job that was accepted may not have begun yet, because replication comes to its safe end first.
        """
        handle = self.client.get_workflow_handle(job_id, result_type=JobResult)
        is_open = True
        while True:
            try:
                result: JobResult = await handle.result()
            except WorkflowFailureError as error:
                await self._taken_over(job_id)
                raise JobFailed(reason(error.cause), where=job_id) from error
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND or not is_open:
                    raise _translated(error, job_id) from error
                is_open = await self._is_open(job_id)  # one that began and ended meanwhile is there now
                await asyncio.sleep(LOOK_EVERY_S if is_open else 0)
            else:
                await self._taken_over(job_id)
                return result

    async def _taken_over(self, job_id: str) -> None:
        """Until the machine knows that the job has ended; it needs a moment for that."""
        while await self._is_open(job_id):  # noqa: ASYNC110 - a workflow has no event to wait for
            await asyncio.sleep(LOOK_EVERY_S)

    async def _is_open(self, job_id: str) -> bool:
        """Whether the machine still means to run, or runs, the job."""
        state = await self.find_machine(machine_of(job_id))
        return state is not None and any(job.id == job_id and job.state in {"running", "held"} for job in state.jobs)

    async def wait_until_protected(self, machine: str) -> MachineState:
        """Until the chain of jobs that ``protect`` starts has ended. Raises ``JobFailed``."""
        working = {Phase.ENABLING, Phase.REPLICATING_INITIALLY, Phase.FINALIZING}
        while True:
            state = await self.find_machine(machine)
            if state is None:
                raise JobFailed("the machine is not protected any more", where=machine)
            if state.phase is Phase.PROTECTED:
                return state
            last = state.jobs[-1] if state.jobs else None
            if state.phase not in working and last is not None and last.state == "failed":
                raise JobFailed(last.message, where=machine)
            if last is not None and last.state == "running":
                await self.job_result(last.id)
            else:
                await asyncio.sleep(LOOK_EVERY_S)

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
            raise _translated(error, machine) from error
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

    # -- plans ---------------------------------------------------------------------------------------------------

    async def start_run(
        self,
        plan: Plan,
        run_type: RunType,
        *,
        point: str = LATEST,
        source_unreachable: bool = False,
        of_run: str | None = None,
        note: str = "",
        file: bytes = b"",
    ) -> str:
        """Start a run of a plan; returns its run id. A failover ends a test of the plan that is going on.

        Raises ``InvalidState`` when the plan is running for another reason.

        ``file`` is the plan as it was reviewed, with what it includes: the run's report shows it, or its digest when it
        is large. ``of_run``: clean up only what that test run made.
        """
        access = self.inventory.access
        why_not = access.refusal(self.operator, Action.RUN) if access is not None else None
        if why_not is not None:
            raise InvalidState(f"{why_not}; nothing was started")
        run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"
        request = PlanRequest(
            plan=plan,
            run_id=run_id,
            run_type=run_type,
            requested_by=self.operator,
            point=point,
            source_unreachable=source_unreachable,
            of_run=of_run,
            note=note,
            timings=self.timings,
            access=self.inventory.access,
            webhooks=self.inventory.notifications,
            limits=self.inventory.failover_limits(plan.machines),
            **travelling(file),
        )
        while not await self._started(request):
            if run_type not in FAILOVERS or not await self._test_gives_way(plan.name, run_type):
                raise InvalidState(
                    f"plan '{plan.name}' is running already; nothing was started",
                    remedy=f"watch it with: leeward plan watch {plan.name}",
                )
        return run_id

    async def _started(self, request: PlanRequest) -> bool:
        """False: a run of the plan is going on."""
        plan, run_type = request.plan, request.run_type
        try:
            await self.client.start_workflow(
                "PlanRun",
                request,
                id=plan_id(plan.name),
                task_queue=CONTROL_QUEUE,
                search_attributes=attributes(plan=plan.name, run_type=run_type),
                static_summary=f"{run_type} of {plan.name}, asked by {self.operator}",
                task_timeout=timedelta(seconds=self.timings.decision_s),
            )
        except WorkflowAlreadyStartedError:
            return False
        except RPCError as error:
            raise _translated(error, plan.name) from error
        return True

    async def _test_gives_way(self, plan: str, run_type: RunType) -> bool:
        """End a test or a clean-up of the plan that is going on; False: what is going on is a run of another kind."""
        status = await self.run_status(plan)
        if status.run_type not in {"test", "cleanup"}:
            return False
        handle = self.client.get_workflow_handle(plan_id(plan))
        if status.finished is None:
            with contextlib.suppress(InvalidState, NotFound):  # it has ended meanwhile, or is about to
                await _asked(handle.execute_update("give_way", GiveWay(by=self.operator, run_type=run_type)))
        try:
            with contextlib.suppress(WorkflowFailureError):
                await asyncio.wait_for(handle.result(), TESTS_END_WITHIN_S)
        except TimeoutError as error:
            raise InvalidState(
                f"the {status.run_type} run of '{plan}' does not end for the failover; nothing was started",
                remedy=f"end it: leeward plan cancel {plan}, then try again",
            ) from error
        return True

    async def readiness(self, plan: Plan, run_type: RunType) -> list[Finding]:
        """Everything a run of this type would need, looked at now: machines, their RPO, sites, networks, space."""
        facts = RunFacts(
            plan=plan.name,
            run_id="readiness",
            run_type=run_type,
            direction=default_direction(run_type),
            requested_by=self.operator,
            point=LATEST,
            source_unreachable=False,
            timings=self.timings,
            variables=plan.variables_in(run_type),
        )
        given = ReadinessInput(
            facts=facts, machines=plan.machines, look_at_everything=True, targets=plan.targets_in(run_type)
        )
        try:
            found: Readiness = await self.client.execute_workflow(
                "PlanReadiness",
                given,
                id=f"readiness/{plan.name}/{secrets.token_hex(4)}",
                task_queue=CONTROL_QUEUE,
                result_type=Readiness,
                search_attributes=attributes(plan=plan.name, run_type=run_type, phase="check readiness"),
                static_summary=f"is {plan.name} ready for a {run_type} run? asked by {self.operator}",
            )
        except WorkflowFailureError as error:
            raise JobFailed(reason(error.cause), where=f"plan {plan.name}") from error
        except RPCError as error:
            raise _translated(error, plan.name) from error
        statuses = await asyncio.gather(*map(self.machine_status, plan.machines))
        replicating = [status for status in statuses if status and status.state.phase in WITH_RECOVERY_POINTS]
        return found.findings + [_rpo_finding(status) for status in replicating]

    async def run_status(self, plan: str) -> RunStatus:
        """The plan's running or last run. Raises ``NotFound`` when it never ran."""
        handle = self.client.get_workflow_handle(plan_id(plan))
        try:
            status: RunStatus = await handle.query("status", result_type=RunStatus)
        except (RPCError, WorkflowQueryFailedError) as error:
            raise _translated(error, f"plan {plan}") from error
        return status

    async def watch(self, plan: str, *, auto_approve: bool = False) -> AsyncIterator[RunStatus]:
        """The run's status again and again until it has ended; the last one is the final one.

        ``auto_approve`` approves every manual step that waits, in the operator's name.
        """
        while True:
            status = await self.run_status(plan)
            yield status
            if status.finished is not None:
                return
            if auto_approve:
                for step in [row for stage in status.stages for row in stage.steps if row.state == "waiting"]:
                    await self._approve_if_it_still_waits(plan, step.id)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _approve_if_it_still_waits(self, plan: str, step: str) -> None:
        steer = Steer(action="approve", step=step, by=self.operator, note="approved automatically")
        with contextlib.suppress(InvalidState):  # somebody else was faster
            await self.steer(plan, steer)

    async def steer(self, plan: str, steer: Steer) -> Decision:
        handle = self.client.get_workflow_handle(plan_id(plan))
        decision: Decision = await _asked(handle.execute_update("steer", steer, result_type=Decision))
        return decision

    async def cancel_run(self, plan: str, note: str = "") -> Decision:
        handle = self.client.get_workflow_handle(plan_id(plan))
        return await _asked(handle.execute_update("cancel", Cancel(by=self.operator, note=note), result_type=Decision))

    async def pause_run(self, plan: str, note: str) -> Decision:
        return await self._word("pause", plan, note)

    async def resume_run(self, plan: str, note: str) -> Decision:
        return await self._word("resume", plan, note)

    async def _word(self, update: str, plan: str, note: str) -> Decision:
        handle = self.client.get_workflow_handle(plan_id(plan))
        word = Pause(by=self.operator, note=note)
        decision: Decision = await _asked(handle.execute_update(update, word, result_type=Decision))
        return decision

    # -- helpers -------------------------------------------------------------------------------------------------

    def _machine(self, machine: str) -> WorkflowHandle[Any, Any]:
        return self.client.get_workflow_handle(machine_id(machine))

    def _job_request(self, kind: JobKind, **options: Any) -> JobRequest:
        return JobRequest(id=secrets.token_hex(6), kind=kind, requested_by=self.operator, **options)

    async def _machine_update(self, machine: str, update: str, gives: type[Answer], *given: Value) -> Answer:
        if await self.find_machine(machine) is None:
            raise InvalidState(
                f"machine '{machine}' is not protected", remedy=f"protect it first: leeward protect {machine}"
            )
        return await _asked(self._machine(machine).execute_update(update, args=list(given), result_type=gives))

    async def _pending(self, workflow_id: str) -> Sequence[PendingActivity]:
        try:
            description = await self.client.get_workflow_handle(workflow_id).describe()
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return []
            raise _translated(error, workflow_id) from error
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


def travelling(file: bytes) -> dict[str, str]:
    """What goes with a run of its plan's file: the text, unless it is too large, and the digest."""
    return {
        "plan_text": file.decode(errors="replace") if len(file) <= LARGEST_PLAN_TEXT else "",
        "plan_sha256": hashlib.sha256(file).hexdigest() if file else "",
    }


def _rpo_finding(status: MachineStatus) -> Finding:
    """A recovery point that is older than two turns of replication is news."""
    machine = status.state.name
    rpo = status.rpo_s
    if rpo is None:
        return Finding(
            severity=Severity.FAIL, subject=machine, what="has no recovery point", remedy=f"leeward status {machine}"
        )
    what = f"RPO {rpo:.0f} s, replicates every {status.state.policy.frequency:g} s"
    late = rpo > status.state.relationship.late_after_s
    return Finding(
        severity=Severity.WARN if late else Severity.PASS,
        subject=machine,
        what=what,
        remedy=f"see what holds it up: leeward status {machine}" if late else "",
    )


async def _asked(update: Awaitable[Answer]) -> Answer:
    """Await an update; a refusal by its validator becomes ``InvalidState``."""
    try:
        return await update
    except WorkflowUpdateFailedError as error:
        cause = error.cause
        if isinstance(cause, ApplicationError) and cause.type == "Refused":
            raise InvalidState(cause.message) from error
        raise JobFailed(reason(cause)) from error
    except RPCError as error:
        raise _translated(error, "") from error


def _translated(error: RPCError | WorkflowQueryFailedError, where: str) -> LeewardError:
    if isinstance(error, WorkflowQueryFailedError):
        return JobFailed(str(error), where=where)
    if error.status is RPCStatusCode.NOT_FOUND:
        return NotFound("there is no such run", where=where, remedy="see what there is: leeward status, leeward jobs")
    if error.status in {RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED}:
        return Unreachable(
            f"Temporal or its control worker does not answer: {error.message}", where=where, remedy="leeward up"
        )
    return JobFailed(f"Temporal refused: {error.message}", where=where)
