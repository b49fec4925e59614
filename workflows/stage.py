"""One stage of a plan run: a group shut down, recovered, cleaned up, committed or reversed, with its steps.

A child workflow of the run, so that one history never holds a thousand machines. A step that fails waits for the
operator (or goes on, or stops the run, as the plan says).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import FailureError

from plans.leaving_out import machine_of
from plans.model import PlanMachine
from plans.steps import OnFailure, Step
from workflows.beside import begin_beside
from workflows.cancelling import cancel_and_wait
from workflows.ids import plan_id
from workflows.model import JobEvent, StageInput, StageResult, StageRow, Steer
from workflows.progress import RunEnds, StageProgress, StepFailed
from workflows.slot_model import SlotAnswer
from workflows.slots import Slots
from workflows.stage_machines import MachineWork
from workflows.steps import StepWork

NEWS_AT_MOST_EVERY = timedelta(milliseconds=500)
SAFE_END = timedelta(seconds=5)
"""A stage that gives way waits so long for steps to come to their safe end."""
ROWS_TOLD_AT_ONCE = 25
"""A stage with more rows tells its news less often: all of a large plan's news together stay a short history."""


@workflow.defn(name="PlanStage", failure_exception_types=[])
class PlanStage:
    @workflow.init
    def __init__(self, given: StageInput) -> None:
        self._given = given
        self._progress = StageProgress(given)
        self._steps = StepWork(self._progress)
        self._slots = Slots(self._progress)
        self._machines = MachineWork(self._progress, self._slots)
        for step in given.stage.before:
            self._progress.add(step.kind, step.name)
        for entry in given.stage.machines:
            for step in entry.before:
                self._progress.add(step.kind, step.name)
            self._progress.add("machine", entry.machine)
            for step in entry.after:
                self._progress.add(step.kind, step.name)
        for machine in given.stage.left_out:
            self._progress.add("machine", machine)
            self._progress.set(self._progress.row_id(machine), state="skipped", detail=given.facts.left_out[machine])
        for step in given.stage.after:
            self._progress.add(step.kind, step.name)

    # -- what comes from outside ---------------------------------------------------------------------------------

    @workflow.query
    def status(self) -> StageRow:
        return self._progress.table

    @workflow.signal
    def job_event(self, event: JobEvent) -> None:
        self._progress.events.setdefault(event.request_id, []).append(event)

    @workflow.signal
    def slot(self, answer: SlotAnswer) -> None:
        self._slots.take_answer(answer)

    @workflow.signal
    def slot_wanted(self) -> None:
        """Somebody waits for a slot that this stage has: that this can be told is the answer."""

    @workflow.signal
    def steer(self, steer: Steer) -> None:
        row = self._progress.rows.get(steer.step)
        if row is not None and row.waits:
            self._progress.steered[steer.step] = steer

    @workflow.signal
    def cancel(self) -> None:
        self._progress.cancelled = True

    @workflow.signal
    def give_way(self) -> None:
        self._progress.gave_way = True

    @workflow.signal
    def pause(self) -> None:
        self._progress.paused = True

    @workflow.signal
    def resume(self) -> None:
        self._progress.paused = False

    # -- the stage -----------------------------------------------------------------------------------------------

    @workflow.run
    async def run(self, given: StageInput) -> StageResult:
        progress = self._progress
        work = asyncio.create_task(self._work(given))
        news = begin_beside(self._send_news())
        progress.changed.update(progress.rows)
        state = await self._state_after(work)
        progress.row = progress.row.model_copy(update={"state": state, "finished": workflow.now()})
        news.cancel()
        self._show()
        await workflow.wait_condition(workflow.all_handlers_finished)
        mine = {entry.machine for entry in given.stage.machines}
        machines = {name: where for name, where in progress.machines.items() if name in mine}
        already = {name: words for name, words in progress.already.items() if name in mine}
        return StageResult(
            row=progress.table,
            machines=machines,
            held=progress.held,
            already=already,
            silent_sites=progress.silent_sites,
        )

    async def _state_after(self, work: asyncio.Task[None]) -> str:
        """How the stage ended: by its work, or before that, because it has to give way."""
        progress = self._progress
        try:
            await workflow.wait_condition(lambda: work.done() or progress.gave_way)
        except asyncio.CancelledError:
            await cancel_and_wait(work)
            raise
        if not work.done():
            await cancel_and_wait(work, SAFE_END.total_seconds())
            progress.cancel_what_is_open()
            return "cancelled"
        try:
            await work
        except RunEnds as end:
            workflow.logger.info("stage ends early: %s", end)
            return "cancelled" if progress.cancelled else "failed"
        return "done"

    async def _work(self, given: StageInput) -> None:
        for step in given.stage.before:
            await self._step(step)
        for wave in given.stage.waves:
            await self._wave(wave)
        for step in given.stage.after:
            await self._step(step)

    async def _wave(self, wave: list[PlanMachine]) -> None:
        """All machines of a wave side by side; the first one that ends the run lets the others finish first."""
        results = await asyncio.gather(*(self._machine(entry) for entry in wave), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _machine(self, entry: PlanMachine) -> None:
        """A machine with the steps around it; those after it need it."""
        row_id = self._progress.row_id(entry.machine)
        for step in entry.before:
            await self._step(step)
        await self._with_operator(row_id, None, lambda: self._machines.do(entry))
        for step in entry.after:
            if self._progress.rows[row_id].state == "done":
                await self._step(step)
            else:
                why = f"'{entry.machine}' is {self._progress.rows[row_id].state}"
                self._progress.set(self._progress.row_id(step.name), state="skipped", detail=why)

    async def _step(self, step: Step) -> None:
        row_id = self._progress.row_id(step.name)
        about = machine_of(step)
        if about in self._given.facts.left_out:
            why = f"{about} is not in this run: {self._given.facts.left_out[about]}"
            self._progress.set(row_id, state="skipped", detail=why)
            return
        await self._with_operator(row_id, step.on_failure, lambda: self._steps.do(step, row_id))

    async def _with_operator(
        self, row_id: str, on_failure: OnFailure | None, work: Callable[[], Awaitable[str]]
    ) -> None:
        """Do one row's work; after a failure do what the plan says: wait for the operator, go on, or stop."""
        progress = self._progress
        while True:
            await workflow.wait_condition(lambda: not progress.paused or progress.cancelled)
            progress.end_if_cancelled(row_id)
            progress.rounds[row_id] = progress.rounds.get(row_id, 0) + 1
            started = progress.rows[row_id].started or workflow.now()
            progress.set(row_id, state="running", started=started, finished=None, detail="")
            try:
                detail = await work()
            except StepFailed as failure:
                progress.set(row_id, state="failed", detail=str(failure), finished=workflow.now())
                progress.end_if_cancelled(row_id)
                rule = on_failure or self._given.group_on_failure or self._given.plan_on_failure
                if rule == "continue":
                    return
                if rule == "stop":
                    raise RunEnds(str(failure)) from failure
                decision = await self._decision(row_id)
                if decision.action == "skip":
                    progress.set(row_id, state="skipped", detail=f"{failure} (skipped by {decision.by})")
                    return
                continue
            if progress.rows[row_id].state == "running":
                progress.set(row_id, state="done", detail=detail, finished=workflow.now())
            return

    async def _decision(self, row_id: str) -> Steer:
        progress = self._progress
        progress.set(row_id, waits=True)
        await workflow.wait_condition(lambda: row_id in progress.steered or progress.cancelled)
        progress.set(row_id, waits=False)
        progress.end_if_cancelled(row_id)
        return progress.steered.pop(row_id)

    # -- telling -------------------------------------------------------------------------------------------------

    def _show(self) -> None:
        lines = ["| step | state | detail |", "|---|---|---|"]
        lines += [f"| {row.name} | {row.state} | {row.detail} |" for row in self._progress.rows.values()]
        workflow.set_current_details("\n".join(lines))

    async def _send_news(self) -> None:
        """Tell the run about changes, many at once, so that a big group does not fill the run's history.

        A stage that is over by now has told everything with its result: after that nothing may be begun.
        """
        parent = workflow.get_external_workflow_handle(plan_id(self._given.facts.plan))
        pause = NEWS_AT_MOST_EVERY * max(1, len(self._progress.rows) / ROWS_TOLD_AT_ONCE)
        while True:
            await workflow.wait_condition(lambda: bool(self._progress.changed))
            self._show()
            try:
                await parent.signal("stage_news", self._progress.take_news())
            except FailureError as error:
                if self._progress.row.finished is not None:
                    return
                workflow.logger.warning("the run did not take news: %s", error)
            await workflow.sleep(pause)
