"""A plan run: ``plan/<plan>``; the fixed id is the lock that lets a plan run only once at a time (design §4)."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Literal, NoReturn

from temporalio import workflow
from temporalio.exceptions import ApplicationError, ChildWorkflowError
from temporalio.workflow import ParentClosePolicy

from activities.contracts import Notification
from plans.context import MachineInRun
from plans.model import Plan, default_direction
from plans.stages import Stage, StageKind, stages
from vault.access import Action
from vault.domain import Finding, Relationship
from vault.notifications import Occasion
from workflows.already import COMMITTED_BY_ITSELF
from workflows.attributes import PHASE, attributes
from workflows.calls import is_cancellation, reason
from workflows.ids import stage_id
from workflows.left_out import left_out, passed_over, refusals, way_out
from workflows.model import (
    Cancel,
    Decision,
    GiveWay,
    JobEvent,
    Pause,
    PlanRequest,
    Readiness,
    ReadinessInput,
    RunFacts,
    RunState,
    RunStatus,
    StageInput,
    StageNews,
    StageResult,
    StageRow,
    Steer,
    StepRow,
)
from workflows.notifying import notify
from workflows.putting_back import HeldMachines
from workflows.reporting import QUICK_REPORT, REPORT, write_report
from workflows.run_table import RunTable
from workflows.steering import why_not, why_not_start, why_not_steer
from workflows.undisturbed import measure_replication

GIVE_WAY = frozenset({"test", "cleanup"})
"""Runs that end at once when a failover of their plan is wanted."""
TEMPORALS_CANCEL = Cancel(by="a cancellation request to Temporal")
STARTER_IS_ASKED = "starter-of-run-is-asked"
"""Patch: a run that had begun goes on, whoever had started it."""
WRITES_REPORT = "write-report"
"""Patch: runs that began before there were reports end without one."""
MEASURES_REPLICATION = "measure-replication"
"""Patch: tests did not tell what they did to replication."""


@workflow.defn(name="PlanRun")
class PlanRun:
    @workflow.init
    def __init__(self, given: PlanRequest) -> None:
        self._given = given
        self._table = RunTable(given, workflow.now())
        self._current: workflow.ChildWorkflowHandle[StageInput, StageResult] | None = None
        self._checking: workflow.ChildWorkflowHandle[ReadinessInput, Readiness] | None = None
        self._cancelled: Cancel | None = None
        self._gave_way = ""
        """The sentence that says so, when this run ends for a failover."""
        self._paused = False
        self._told: set[str] = set()
        self._telling: list[asyncio.Task[None]] = []
        self._ending = False
        self._held = HeldMachines()
        self._already: dict[str, str] = {}
        self._left_out: dict[str, str] = {}
        """By machine that the run passes over: why."""
        self._silent_sites: list[str] = []
        self._machines: dict[str, MachineInRun] = {}
        self._findings: list[Finding] = []
        self._replicating: list[Relationship] = []
        """What replicates beside a test …"""
        self._tested_since = workflow.now()
        """… and since when its copies have been there."""

    # -- what operators say --------------------------------------------------------------------------------------

    @workflow.query
    def status(self) -> RunStatus:
        return self._table.status

    @workflow.update
    async def steer(self, steer: Steer) -> Decision:
        """Approve, retry or skip the step that waits."""
        decision = Decision(action=steer.action, step=steer.step, by=steer.by, note=steer.note, at=workflow.now())
        self._table.decide(decision)
        assert self._current is not None
        await self._current.signal("steer", steer)
        return decision

    @steer.validator
    def _may_steer(self, steer: Steer) -> None:
        table = self._table
        _refuse(why_not_steer(steer, table.row(steer.step), table.waiting, self._given.plan, self._given.access))
        if self._current is None:
            _refuse("no stage of the run is at work now — try again")

    @workflow.update
    async def cancel(self, cancel: Cancel) -> Decision:
        """End the run: machines that are not recovered yet are put back, those that are stay where they are."""
        decision = Decision(action="cancel", by=cancel.by, note=cancel.note, at=workflow.now())
        self._table.decide(decision)
        self._cancelled = cancel
        if self._current is not None:
            await self._current.signal("cancel")
        return decision

    @cancel.validator
    def _may_cancel(self, cancel: Cancel) -> None:
        _refuse(why_not(self._given.access, cancel.by, Action.STEER, cancel.note))
        if self._cancelled is not None:
            _refuse(f"the run is being cancelled already, by {self._cancelled.by}")
        if self._ending:
            _refuse("the run is over, its report is being written")

    @workflow.update
    async def give_way(self, wanted: GiveWay) -> Decision:
        """A failover of the plan is wanted: a test or a clean-up ends at once, the machines remove their copies."""
        why = f"a failover of {self._given.plan.name} took over"
        decision = Decision(action="cancel", by=wanted.by, note=f"{why} ({wanted.run_type})", at=workflow.now())
        self._table.decide(decision)
        self._gave_way = f"cancelled: {why}, asked by {wanted.by}"
        self._cancelled = self._cancelled or Cancel(by=wanted.by)
        if self._checking is not None:
            self._checking.cancel()
        if self._current is not None:
            await self._current.signal("give_way")
        return decision

    @give_way.validator
    def _may_give_way(self, wanted: GiveWay) -> None:
        access, run_type = self._given.access, self._given.run_type
        _refuse(access.refusal(wanted.by, Action.RUN) if access is not None else None)
        if run_type not in GIVE_WAY:
            _refuse(f"a {run_type} run of {self._given.plan.name} is going on, it gives way to nobody")
        if self._ending:
            _refuse("the run is over, its report is being written")

    @workflow.update
    async def pause(self, pause: Pause) -> Decision:
        """Begin no further step until resumed."""
        return await self._set_paused(True, pause)

    @pause.validator
    def _may_pause(self, pause: Pause) -> None:
        _refuse(why_not(self._given.access, pause.by, Action.STEER, pause.note))
        if self._paused or self._ending:
            _refuse("the run is over" if self._ending else "the run is paused already")

    @workflow.update
    async def resume(self, pause: Pause) -> Decision:
        """Go on after a pause."""
        return await self._set_paused(False, pause)

    @resume.validator
    def _may_resume(self, pause: Pause) -> None:
        _refuse(why_not(self._given.access, pause.by, Action.STEER, pause.note))
        if not self._paused:
            _refuse("the run is not paused")

    async def _set_paused(self, paused: bool, word: Pause) -> Decision:
        action: Literal["pause", "resume"] = "pause" if paused else "resume"
        decision = Decision(action=action, by=word.by, note=word.note, at=workflow.now())
        self._paused = paused
        self._table.decide(decision)
        self._table.update(state=self._table.state(paused=self._paused))
        if self._current is not None:
            await self._current.signal(action)
        return decision

    @workflow.signal
    def stage_news(self, news: StageNews) -> None:
        if news.run_id and news.run_id != self._given.run_id:
            return
        self._put(self._table.merged(news.row))

    @workflow.signal
    def job_event(self, event: JobEvent) -> None:
        self._held.take_answer(event)

    # -- the run -------------------------------------------------------------------------------------------------

    @workflow.run
    async def run(self, given: PlanRequest) -> RunStatus:
        self._table.outline(stages(given.plan, given.run_type, without=given.without))
        try:
            await self._require_a_starter_who_may(given)
            await self._leave_out(given)
            facts = await self._check_readiness(given)
            steps = stages(given.plan, given.run_type, facts.direction, without=facts.left_out)
            for index, stage in enumerate(steps, start=1):
                await workflow.wait_condition(lambda: not self._paused or self._cancelled is not None)
                if self._cancelled is not None:
                    break
                result = await self._run_stage(index, stage, facts, given.plan)
                if result.row.state in {"failed", "cancelled"}:
                    break
        except asyncio.CancelledError:
            self._cancelled = self._cancelled or TEMPORALS_CANCEL
        except ChildWorkflowError as error:
            if not is_cancellation(error):
                return await self._conclude(reason(error))
            self._cancelled = self._cancelled or TEMPORALS_CANCEL
        return await self._conclude()

    async def _conclude(self, trouble: str | None = None) -> RunStatus:
        where = await self._held.put_back(self._given.plan.machines) + self._table.stays
        if self._gave_way:
            return await self._finish("cancelled", self._gave_way)
        if self._cancelled is not None:
            note = f" ({self._cancelled.note})" if self._cancelled.note else ""
            return await self._finish("cancelled", f"cancelled by {self._cancelled.by}{note}{where}")
        if trouble is not None:
            return await self._finish("failed", f"{trouble}{where}")
        failed = [stage.title for stage in self._table.status.stages if stage.state == "failed"]
        if failed:
            return await self._finish("failed", f"stopped at '{failed[0]}'{where}")
        passed = passed_over(self._given.without, self._left_out)
        after = _what_next(self._given, self._table.status)
        return await self._finish("completed", f"{passed}; {after}" if passed else after)

    async def _check_readiness(self, given: PlanRequest) -> RunFacts:
        facts = RunFacts(
            plan=given.plan.name,
            run_id=given.run_id,
            run_type=given.run_type,
            direction=default_direction(given.run_type),
            requested_by=given.requested_by,
            point=given.point,
            source_unreachable=given.source_unreachable,
            timings=given.timings,
            variables=given.plan.variables_in(given.run_type, default_direction(given.run_type)),
            auto_approve=given.auto_approve,
            of_run=given.of_run,
            left_out=self._left_out,
        )
        machines = [machine for machine in given.plan.machines if machine not in self._left_out]
        self._checking = await workflow.start_child_workflow(
            "PlanReadiness",
            ReadinessInput(facts=facts, machines=machines, targets=given.plan.targets_in(given.run_type)),
            result_type=Readiness,
            id=stage_id(given.plan.name, 0, "check readiness"),
            search_attributes=attributes(plan=given.plan.name, run_type=given.run_type, phase="check readiness"),
            static_summary=f"is everything ready for {given.run_type} of {given.plan.name}?",
            task_timeout=timedelta(seconds=given.timings.decision_s),
        )
        if self._gave_way:
            self._checking.cancel()
        try:
            readiness = await self._checking
        finally:
            self._checking = None
        self._findings = readiness.findings
        self._put(readiness.row)
        if readiness.problems:
            await self._end_as_refused(readiness.problems, way_out(given, readiness.findings))
        self._machines = dict(readiness.machines)
        self._replicating = readiness.replicating
        self._tested_since = readiness.tested_since or self._table.status.started
        self._already = dict(readiness.already)
        self._left_out |= readiness.not_recovered
        direction = readiness.direction or facts.direction
        self._table.update(direction=direction)
        return facts.model_copy(
            update={
                "direction": direction,
                "variables": given.plan.variables_in(given.run_type, direction),
                "point": readiness.point or facts.point,
                "checked_at": workflow.now(),
                "left_out": self._left_out,
            }
        )

    async def _leave_out(self, given: PlanRequest) -> None:
        """Before anything is asked of machines; on record even when the run is refused then."""
        problems = refusals(given)
        if problems:
            await self._end_as_refused(problems)
        self._left_out = left_out(given)
        now = workflow.now()
        for machine in self._left_out:
            word = Decision(action="leave out", machine=machine, by=given.requested_by, note=given.note, at=now)
            self._table.decide(word)

    async def _require_a_starter_who_may(self, given: PlanRequest) -> None:
        """An exercise has asked for its owner already."""
        if workflow.info().parent is not None:
            return
        may_not = why_not_start(given.access, given.requested_by, auto_approve=given.auto_approve)
        if may_not is not None and workflow.patched(STARTER_IS_ASKED):
            await self._end_as_refused([may_not])

    async def _end_as_refused(self, problems: list[str], way_out: str = "") -> NoReturn:
        self._table.update(problems=problems, way_out=way_out)
        await self._finish("refused", "\n".join(problems))
        raise ApplicationError(
            f"refused, nothing was changed: {'; '.join(problems)}", type="Refused", non_retryable=True
        )

    async def _run_stage(self, index: int, stage: Stage, facts: RunFacts, plan: Plan) -> StageResult:
        group = next((group for group in plan.groups if group.name == stage.group), None)
        workflow.upsert_search_attributes([PHASE.value_set(stage.title)])
        self._current = await workflow.start_child_workflow(
            "PlanStage",
            StageInput(
                facts=facts,
                stage=stage,
                row_id=stage.title,
                plan_on_failure=plan.on_failure,
                group_on_failure=group.on_failure if group else None,
                machines=self._machines,
                held=self._held.requests,
                already=self._already,
                silent_sites=self._silent_sites,
                paused=self._paused,
                machines_at_once=plan.limits.machines_at_once,
                sites=self._limited_sites(stage, facts),
                failovers_at_once=self._given.limits.at_once,
            ),
            result_type=StageResult,
            id=stage_id(plan.name, index, stage.title),
            parent_close_policy=ParentClosePolicy.REQUEST_CANCEL,
            search_attributes=attributes(plan=plan.name, run_type=facts.run_type, phase=stage.title),
            static_summary=f"{stage.title} ({facts.run_type} of {plan.name})",
            task_timeout=timedelta(seconds=facts.timings.decision_s),
        )
        if self._cancelled is not None:
            await self._current.signal("give_way" if self._gave_way else "cancel")
        if self._paused:
            await self._current.signal("pause")
        try:
            result = await self._result_of(self._current)
        finally:
            self._current = None
        self._put(result.row)
        self._machines |= result.machines
        self._already |= result.already
        self._silent_sites = result.silent_sites
        if stage.kind is StageKind.RECOVER:
            self._held.started(row.machine for row in result.row.steps if row.result is not None)
        self._held.requests |= result.held
        return result

    def _limited_sites(self, stage: Stage, facts: RunFacts) -> dict[str, str]:
        backwards = facts.direction == "recovery-to-primary"
        sites = {
            entry.machine: self._given.limits.limited_site(entry.machine, backwards=backwards)
            for entry in stage.machines
        }
        return {machine: site for machine, site in sites.items() if site is not None}

    async def _result_of(self, stage: workflow.ChildWorkflowHandle[StageInput, StageResult]) -> StageResult:
        """A cancellation request to Temporal is an operator's cancel: the stage ends in order, says what it holds."""
        try:
            return await asyncio.shield(stage)
        except asyncio.CancelledError:
            self._cancelled = self._cancelled or TEMPORALS_CANCEL
            await stage.signal("cancel")
            return await stage

    async def _finish(self, state: RunState, message: str) -> RunStatus:
        """The run is over once its report is written, so that whoever waited for its end finds it."""
        self._ending = True
        if self._replicating and not self._gave_way and workflow.patched(MEASURES_REPLICATION):
            measured = await measure_replication(self._replicating, self._tested_since, self._given.timings)
            self._table.update(replication=measured)
        end = {"state": state, "message": message, "finished": workflow.now()}
        if workflow.patched(WRITES_REPORT):
            end["report"] = await write_report(
                self._given,
                self._table.status.model_copy(update=end),
                self._findings,
                within=QUICK_REPORT if self._gave_way else REPORT,
            )
        self._table.update(**end)
        self._tell(Occasion.FINISHED, message, None)
        await asyncio.gather(*self._telling)
        await workflow.wait_condition(workflow.all_handlers_finished)
        return self._table.status

    # -- telling -------------------------------------------------------------------------------------------------

    def _put(self, row: StageRow) -> None:
        self._table.put(row, paused=self._paused)
        for step in self._table.waiting:
            self._tell(Occasion.WAITING if step.state == "waiting" else Occasion.FAILED_STEP, step.detail, step)

    def _tell(self, occasion: Occasion, message: str, step: StepRow | None) -> None:
        """Notify every webhook that wants to know, once for each occasion; the run does not wait for it."""
        for number, webhook in enumerate(self._given.webhooks):
            since = f"{step.id}/{step.started}" if step else ""
            key = f"{self._given.run_id}/{number}/{occasion}/{since}"
            if occasion not in webhook.on or key in self._told:
                continue
            self._told.add(key)
            notification = Notification(
                webhook=webhook,
                id=key,
                occasion=occasion,
                plan=self._given.plan.name,
                run_id=self._given.run_id,
                run_type=self._given.run_type,
                state=self._table.status.state,
                message=message,
                step=step.id if step else None,
                at=workflow.now(),
            )
            self._telling.append(asyncio.create_task(notify(notification)))


def _refuse(why_not: str | None) -> None:
    """Raises a refusal unless there is nothing against it."""
    if why_not is not None:
        raise ApplicationError(why_not, type="Refused", non_retryable=True)


def _what_next(given: PlanRequest, status: RunStatus) -> str:
    plan = given.plan.name
    if given.run_type in {"planned", "unplanned", "failback"} and given.plan.commit == "manual":
        results = [row.result for stage in status.stages for row in stage.steps if row.result is not None]
        recovered = [result.recovered for result in results if result.recovered is not None]
        if recovered and all(machine.committed for machine in recovered):
            return f"{COMMITTED_BY_ITSELF} — leeward plan reverse {plan}"
        return f"commit pending — leeward plan commit {plan}"
    if given.run_type == "test":
        return f"test copies run — leeward plan cleanup {plan}"
    if given.run_type == "commit" and given.plan.reverse_replication == "manual":
        return f"committed — leeward plan reverse {plan}"
    return "done"
