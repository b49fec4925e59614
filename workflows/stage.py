"""One stage of a plan run: a group shut down, recovered, cleaned up, committed or reversed, with its steps.

A child workflow of the run, so that one history never holds a thousand machines. A step that fails waits for the
operator (or goes on, or stops the run, as the plan says).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, FailureError

from activities import contracts
from activities.contracts import (
    CONTROL_QUEUE,
    RenderInstructions,
    RunCheck,
    RunScript,
    StartMachine,
    site_queue,
)
from plans.context import MachineInRun
from plans.model import (
    ORCHESTRATOR,
    RECOVERING,
    CheckStep,
    ManualStep,
    OnFailure,
    PlanMachine,
    ScriptStep,
    Step,
    WaitStep,
)
from plans.stages import StageKind
from vault.domain import Answering
from vault.lifecycle import JobKind
from workflows.calls import call, is_cancellation, reason
from workflows.ids import machine_id, plan_id
from workflows.jobs import GRACE
from workflows.model import (
    HeldJob,
    JobEvent,
    JobRequest,
    JobResult,
    StageInput,
    StageNews,
    StageResult,
    StageRow,
    Steer,
    StepRow,
)
from workflows.readiness import MAIN_JOB

NEWS_AT_MOST_EVERY = timedelta(milliseconds=500)
OUTPUT_KEPT = 4000
"""Characters of a script's output that its row keeps."""
JOB_OF_STAGE = {
    StageKind.CLEAN_UP: JobKind.CLEANUP_TEST,
    StageKind.COMMIT: JobKind.COMMIT,
    StageKind.REVERSE: JobKind.REVERSE,
}


class StepFailed(Exception):
    """A step did not do what it should; the sentence says why. Never leaves the workflow."""


class RunEnds(Exception):
    """The stage comes to its end early: cancelled by the operator, or stopped by ``on_failure: stop``."""


@workflow.defn(name="PlanStage", failure_exception_types=[])
class PlanStage:
    @workflow.init
    def __init__(self, given: StageInput) -> None:
        stage = given.stage
        self._given = given
        self._rows: dict[str, StepRow] = {}
        self._machines = dict(given.machines)
        self._held: dict[str, str] = {}
        self._events: dict[str, list[JobEvent]] = {}
        self._steered: dict[str, Steer] = {}
        self._cancelled = False
        self._paused = given.paused
        self._dirty = False
        self._tries: dict[str, int] = {}
        for step in stage.before:
            self._add_row(step.kind, step.name)
        for entry in stage.machines:
            self._add_row("machine", entry.machine)
        for step in stage.after:
            self._add_row(step.kind, step.name)
        self._row = StageRow(id=given.row_id, title=stage.title, state="running", started=workflow.now())

    # -- what comes from outside ---------------------------------------------------------------------------------

    @workflow.query
    def status(self) -> StageRow:
        return self._table()

    @workflow.signal
    def job_event(self, event: JobEvent) -> None:
        self._events.setdefault(event.request_id, []).append(event)

    @workflow.signal
    def steer(self, steer: Steer) -> None:
        if steer.step in self._rows and self._rows[steer.step].waits:
            self._steered[steer.step] = steer

    @workflow.signal
    def cancel(self) -> None:
        self._cancelled = True

    @workflow.signal
    def pause(self) -> None:
        self._paused = True

    @workflow.signal
    def resume(self) -> None:
        self._paused = False

    # -- the stage -----------------------------------------------------------------------------------------------

    @workflow.run
    async def run(self, given: StageInput) -> StageResult:
        news = asyncio.create_task(self._send_news())
        self._dirty = True
        state = "done"
        try:
            for step in given.stage.before:
                await self._step(step)
            for wave in given.stage.waves:
                await self._wave(wave)
            for step in given.stage.after:
                await self._step(step)
        except RunEnds as end:
            state = "cancelled" if self._cancelled else "failed"
            workflow.logger.info("stage ends early: %s", end)
        self._row = self._row.model_copy(update={"state": state, "finished": workflow.now()})
        news.cancel()
        self._show()
        await workflow.wait_condition(workflow.all_handlers_finished)
        return StageResult(row=self._table(), machines=self._machines, held=self._held)

    async def _wave(self, wave: list[PlanMachine]) -> None:
        """All machines of a wave side by side; the first one that ends the run lets the others finish first."""
        results = await asyncio.gather(*(self._machine(entry) for entry in wave), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _machine(self, entry: PlanMachine) -> None:
        kind = self._given.stage.kind
        work: dict[StageKind, Callable[[PlanMachine], Awaitable[str]]] = {
            StageKind.SHUT_DOWN: self._shut_down,
            StageKind.RECOVER: self._recover,
        }
        await self._with_operator(
            f"{self._given.row_id}/{entry.machine}", None, lambda: work.get(kind, self._plain_job)(entry)
        )

    async def _step(self, step: Step) -> None:
        row_id = f"{self._given.row_id}/{step.name}"
        if isinstance(step, ManualStep):
            await self._with_operator(row_id, step.on_failure, lambda: self._wait_for_approval(step, row_id))
        elif isinstance(step, ScriptStep):
            await self._with_operator(row_id, step.on_failure, lambda: self._run_script(step, row_id))
        elif isinstance(step, CheckStep):
            await self._with_operator(row_id, step.on_failure, lambda: self._run_check(step))
        else:
            await self._with_operator(row_id, step.on_failure, lambda: self._let_time_pass(step, row_id))

    async def _with_operator(
        self, row_id: str, on_failure: OnFailure | None, work: Callable[[], Awaitable[str]]
    ) -> None:
        """Do one row's work; after a failure do what the plan says: wait for the operator, go on, or stop."""
        while True:
            await workflow.wait_condition(lambda: not self._paused or self._cancelled)
            self._end_if_cancelled(row_id)
            started = self._rows[row_id].started or workflow.now()
            self._set(row_id, state="running", started=started, finished=None, detail="")
            try:
                detail = await work()
            except StepFailed as failure:
                self._set(row_id, state="failed", detail=str(failure), finished=workflow.now())
                self._end_if_cancelled(row_id)
                rule = on_failure or self._given.group_on_failure or self._given.plan_on_failure
                if rule == "continue":
                    return
                if rule == "stop":
                    raise RunEnds(str(failure)) from failure
                decision = await self._decision(row_id)
                if decision.action == "skip":
                    self._set(row_id, state="skipped", detail=f"{failure} (skipped by {decision.by})")
                    return
                continue
            if self._rows[row_id].state == "running":
                self._set(row_id, state="done", detail=detail, finished=workflow.now())
            return

    async def _decision(self, row_id: str) -> Steer:
        self._set(row_id, waits=True)
        await workflow.wait_condition(lambda: row_id in self._steered or self._cancelled)
        self._set(row_id, waits=False)
        self._end_if_cancelled(row_id)
        return self._steered.pop(row_id)

    def _end_if_cancelled(self, row_id: str) -> None:
        if self._cancelled:
            if self._rows[row_id].state in {"pending", "running", "waiting"}:
                self._set(row_id, state="cancelled", finished=workflow.now())
            raise RunEnds("cancelled by the operator")

    async def _pause(self, seconds: float, row_id: str, summary: str) -> None:
        try:
            await workflow.wait_condition(lambda: self._cancelled, timeout=seconds, timeout_summary=summary)
        except TimeoutError:
            return
        self._end_if_cancelled(row_id)

    # -- machines ------------------------------------------------------------------------------------------------

    async def _shut_down(self, entry: PlanMachine) -> str:
        """First half of a planned failover: source off, last changes at the target; then the machine holds."""
        request = self._request(entry, JobKind.PLANNED_FAILOVER, hold=True)
        await self._ask(entry.machine, request)
        event = await self._event(entry.machine, request.id, {"held", "failed", "refused"}, abandon_on_cancel=True)
        if event.kind != "held":
            raise StepFailed(event.message)
        self._held[entry.machine] = request.id
        return "off, last changes sent"

    async def _recover(self, entry: PlanMachine) -> str:
        row_id = f"{self._given.row_id}/{entry.machine}"
        if entry.start_delay:
            await self._pause(entry.start_delay, row_id, f"start delay of {entry.machine}")
        earlier = self._rows[row_id].result
        if earlier is not None and earlier.recovered is not None:
            return await self._start_again(entry, row_id, earlier)
        if self._given.facts.run_type in {"planned", "failback"}:
            event = await self._proceed(entry)
        else:
            request = self._request(entry, MAIN_JOB[self._given.facts.run_type])
            await self._ask(entry.machine, request)
            event = await self._event(entry.machine, request.id, {"finished", "failed", "refused"})
        if event.result is None:
            raise StepFailed(event.message)
        return self._take_result(entry, row_id, event.result)

    async def _proceed(self, entry: PlanMachine) -> JobEvent:
        request_id = self._given.held.get(entry.machine)
        if request_id is None:
            raise StepFailed(f"'{entry.machine}' was not shut down in this run, so it is not started — skip it")
        await workflow.get_external_workflow_handle(machine_id(entry.machine)).signal(
            "proceed", HeldJob(request_id=request_id, reply_to=workflow.info().workflow_id)
        )
        return await self._event(entry.machine, request_id, {"finished", "failed"})

    async def _start_again(self, entry: PlanMachine, row_id: str, earlier: JobResult) -> str:
        """The replica exists but did not answer: retrying means starting it again."""
        recovered = earlier.recovered
        assert recovered is not None
        try:
            answering: Answering = await call(
                contracts.START_MACHINE,
                StartMachine(site=recovered.site, machine=recovered.name, timeout_s=entry.boot_timeout),
                queue=site_queue(recovered.site),
                summary=f"start {recovered.name} again",
                timings=self._given.facts.timings,
                at_most=timedelta(seconds=entry.boot_timeout) + GRACE,
            )
        except ActivityError as error:
            raise StepFailed(reason(error)) from error
        result = earlier.model_copy(update={"answering": answering, "answered_at": workflow.now(), "trouble": None})
        return self._take_result(entry, row_id, result)

    def _take_result(self, entry: PlanMachine, row_id: str, result: JobResult) -> str:
        self._set(row_id, result=result)
        if result.recovered is not None:
            made = result.recovered
            self._machines[entry.machine] = MachineInRun(
                name=made.name,
                site=made.site,
                network=made.network,
                address=result.answering.address if result.answering else None,
                recovery_point=made.point.id,
            )
        if result.trouble is not None:
            raise StepFailed(result.trouble)
        return (result.sentences or ["done"])[-1]

    async def _plain_job(self, entry: PlanMachine) -> str:
        request = self._request(entry, JOB_OF_STAGE[self._given.stage.kind])
        await self._ask(entry.machine, request)
        event = await self._event(entry.machine, request.id, {"finished", "failed", "refused"})
        if event.result is None:
            raise StepFailed(event.message)
        self._set(f"{self._given.row_id}/{entry.machine}", result=event.result)
        return (event.result.sentences or ["done"])[-1]

    def _request(self, entry: PlanMachine, kind: JobKind, *, hold: bool = False) -> JobRequest:
        facts = self._given.facts
        tries = self._tries[entry.machine] = self._tries.get(entry.machine, 0) + 1
        return JobRequest(
            id=f"{facts.run_id}/{self._given.row_id}/{entry.machine}/{tries}",
            kind=kind,
            requested_by=f"plan {facts.plan} ({facts.requested_by})",
            plan=facts.plan,
            run_type=facts.run_type,
            reply_to=workflow.info().workflow_id,
            point=facts.point,
            source_unreachable=facts.source_unreachable,
            hold_before_start=hold,
            start=entry.start,
            shut_down_timeout_s=entry.shutdown_timeout,
            boot_timeout_s=entry.boot_timeout,
        )

    async def _ask(self, machine: str, request: JobRequest) -> None:
        try:
            await workflow.get_external_workflow_handle(machine_id(machine)).signal("ask", request)
        except FailureError as error:
            if is_cancellation(error):
                raise
            raise StepFailed(f"machine '{machine}' is not protected — leeward protect {machine}") from error

    async def _event(
        self, machine: str, request_id: str, kinds: set[str], *, abandon_on_cancel: bool = False
    ) -> JobEvent:
        def arrived() -> JobEvent | None:
            return next((event for event in self._events.get(request_id, []) if event.kind in kinds), None)

        if abandon_on_cancel:
            await workflow.wait_condition(lambda: arrived() is not None or self._cancelled)
            if arrived() is None:
                held = HeldJob(request_id=request_id, reason="the plan run was cancelled")
                await workflow.get_external_workflow_handle(machine_id(machine)).signal("abandon", held)
                kinds = {"finished", "failed", "refused"}
        await workflow.wait_condition(lambda: arrived() is not None)
        event = arrived()
        assert event is not None
        return event

    # -- steps ---------------------------------------------------------------------------------------------------

    async def _wait_for_approval(self, step: ManualStep, row_id: str) -> str:
        context = self._given.facts.context(self._given.stage.group, self._machines)
        instructions = await self._activity(
            call(
                contracts.RENDER_INSTRUCTIONS,
                RenderInstructions(step=step, context=context),
                queue=CONTROL_QUEUE,
                summary=f"instructions of '{step.name}'",
                timings=self._given.facts.timings,
            )
        )
        if self._given.facts.auto_approve:
            return "approved by the schedule's policy"
        self._set(row_id, state="waiting", waits=True, detail=instructions.text or "waits for approval")
        try:
            await workflow.wait_condition(
                lambda: row_id in self._steered or self._cancelled,
                timeout=step.timeout,
                timeout_summary=f"'{step.name}' must be approved",
            )
        except TimeoutError as error:
            raise StepFailed(f"nobody approved '{step.name}' within {step.timeout:g} s") from error
        finally:
            self._set(row_id, waits=False)
        self._end_if_cancelled(row_id)
        decision = self._steered.pop(row_id)
        note = f": {decision.note}" if decision.note else ""
        if decision.action == "skip":
            self._set(row_id, state="skipped", detail=f"skipped by {decision.by}{note}", finished=workflow.now())
            return ""
        self._set(row_id, state="running")
        return f"approved by {decision.by}{note}"

    async def _run_script(self, step: ScriptStep, row_id: str) -> str:
        guest = None
        if step.on != ORCHESTRATOR:
            guest = self._recovered(step.on)
            if guest is None:
                raise StepFailed(f"'{step.on}' was not recovered in this run, so nothing can run on it — skip the step")
        context = self._given.facts.context(self._given.stage.group, self._machines)
        done = await self._activity(
            call(
                contracts.RUN_SCRIPT,
                RunScript(step=step, context=context, guest=guest),
                queue=site_queue(guest.site) if guest else CONTROL_QUEUE,
                summary=step.name,
                timings=self._given.facts.timings,
                at_most=timedelta(seconds=step.timeout) + GRACE,
            )
        )
        self._set(row_id, output=done.output[-OUTPUT_KEPT:])
        last_line = (done.output.strip().splitlines() or ["no output"])[-1]
        return f"exit code 0: {last_line[:200]}"

    def _recovered(self, machine: str) -> MachineInRun | None:
        """Where a recovered machine is; a script for a copy must never end up on the machine it was copied from."""
        known = self._machines.get(machine)
        if known is not None and known.recovery_point is None and self._given.facts.run_type in RECOVERING:
            return None
        return known

    async def _run_check(self, step: CheckStep) -> str:
        context = self._given.facts.context(self._given.stage.group, self._machines)
        done = await self._activity(
            call(
                contracts.RUN_CHECK,
                RunCheck(step=step, context=context),
                queue=CONTROL_QUEUE,
                summary=step.name,
                timings=self._given.facts.timings,
                at_most=timedelta(seconds=step.timeout) + GRACE,
            )
        )
        return done.detail

    async def _let_time_pass(self, step: WaitStep, row_id: str) -> str:
        await self._pause(step.duration, row_id, step.name)
        return f"waited {step.duration:g} s"

    async def _activity(self, running: Awaitable[contracts.Output]) -> contracts.Output:
        try:
            return await running
        except ActivityError as error:
            if is_cancellation(error):
                raise
            raise StepFailed(reason(error)) from error

    # -- the table -----------------------------------------------------------------------------------------------

    def _add_row(self, kind: str, name: str) -> None:
        row_id = f"{self._given.row_id}/{name}"
        machine = name if kind == "machine" else None
        self._rows[row_id] = StepRow.model_validate({"id": row_id, "kind": kind, "name": name, "machine": machine})

    def _set(self, row_id: str, **changes: object) -> None:
        self._rows[row_id] = self._rows[row_id].model_copy(update=changes)
        self._dirty = True

    def _table(self) -> StageRow:
        return self._row.model_copy(update={"steps": list(self._rows.values())})

    def _show(self) -> None:
        lines = ["| step | state | detail |", "|---|---|---|"]
        lines += [f"| {row.name} | {row.state} | {row.detail} |" for row in self._rows.values()]
        workflow.set_current_details("\n".join(lines))

    async def _send_news(self) -> None:
        """Tell the run about changes, many at once, so that a big group does not fill the run's history."""
        parent = workflow.get_external_workflow_handle(plan_id(self._given.facts.plan))
        while True:
            await workflow.wait_condition(lambda: self._dirty)
            self._dirty = False
            self._show()
            try:
                await parent.signal("stage_news", StageNews(row=self._table()))
            except FailureError as error:
                workflow.logger.warning("the run did not take news: %s", error)
            await workflow.sleep(NEWS_AT_MOST_EVERY)
