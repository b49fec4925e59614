"""How a stage carries out the steps of its plan: each kind once, with what its row says afterwards."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError

from activities import contracts
from activities.contracts import (
    CONTROL_QUEUE,
    RenderInstructions,
    RunCheck,
    RunScript,
    SendCall,
    site_queue,
)
from plans.context import MachineInRun
from plans.steps import ORCHESTRATOR, RECOVERING, CallStep, CheckStep, ManualStep, ScriptStep, Step, WaitStep
from workflows.calls import call, is_cancellation, reason
from workflows.jobs import GRACE
from workflows.progress import StageProgress, StepFailed

OUTPUT_KEPT = 4000
"""Characters of a step's output that its row keeps."""
LINE_KEPT = 200


class StepWork:
    """Each method does one step and returns the sentence for its row; it raises ``StepFailed``."""

    def __init__(self, progress: StageProgress) -> None:
        self._progress = progress
        self._timings = progress.given.facts.timings

    async def do(self, step: Step, row_id: str) -> str:
        if isinstance(step, ManualStep):
            return await self._wait_for_approval(step, row_id)
        if isinstance(step, ScriptStep):
            return await self._run_script(step, row_id)
        if isinstance(step, CheckStep):
            return await self._run_check(step, row_id)
        if isinstance(step, CallStep):
            return await self._send_call(step, row_id)
        return await self._let_time_pass(step, row_id)

    async def _wait_for_approval(self, step: ManualStep, row_id: str) -> str:
        progress = self._progress
        instructions = await self._activity(
            call(
                contracts.RENDER_INSTRUCTIONS,
                RenderInstructions(step=step, context=progress.context),
                queue=CONTROL_QUEUE,
                summary=f"instructions of '{step.name}'",
                timings=self._timings,
            )
        )
        if progress.given.facts.auto_approve:
            return "approved by the schedule's policy"
        who = f"approvers: {', '.join(step.approvers)}" if step.approvers else ""
        text = "\n\n".join(filter(None, [instructions.text.rstrip(), who])) or "waits for approval"
        progress.set(row_id, state="waiting", waits=True, detail=text)
        try:
            await workflow.wait_condition(
                lambda: row_id in progress.steered or progress.cancelled,
                timeout=step.timeout,
                timeout_summary=f"'{step.name}' must be approved",
            )
        except TimeoutError as error:
            nobody = f"nobody approved '{step.name}' within {step.timeout:g} s"
            if step.on_timeout == "fail":
                raise StepFailed(nobody) from error
            progress.set(row_id, state="skipped", detail=f"{nobody}; the plan goes on", finished=workflow.now())
            return ""
        finally:
            progress.set(row_id, waits=False)
        progress.end_if_cancelled(row_id)
        decision = progress.steered.pop(row_id)
        note = f": {decision.note}" if decision.note else ""
        if decision.action == "skip":
            progress.set(row_id, state="skipped", detail=f"skipped by {decision.by}{note}", finished=workflow.now())
            return ""
        progress.set(row_id, state="running")
        return f"approved by {decision.by}{note}"

    async def _run_script(self, step: ScriptStep, row_id: str) -> str:
        guest = self._guest(step.on)
        done = await self._activity(
            call(
                contracts.RUN_SCRIPT,
                RunScript(step=step, context=self._progress.context, guest=guest),
                queue=site_queue(guest.site) if guest else CONTROL_QUEUE,
                summary=step.name,
                timings=self._timings,
                at_most=timedelta(seconds=step.timeout) + GRACE,
            )
        )
        self._progress.set(row_id, output=done.output[-OUTPUT_KEPT:])
        return f"exit code 0: {_last_line(done.output) or 'no output'}"

    async def _run_check(self, step: CheckStep, row_id: str) -> str:
        guest = self._guest(step.command.on) if step.command is not None else None
        done = await self._activity(
            call(
                contracts.RUN_CHECK,
                RunCheck(step=step, context=self._progress.context, guest=guest),
                queue=site_queue(guest.site) if guest else CONTROL_QUEUE,
                summary=step.name,
                timings=self._timings,
                at_most=timedelta(seconds=step.timeout) + GRACE,
            )
        )
        if done.output:
            self._progress.set(row_id, output=done.output[-OUTPUT_KEPT:])
        return done.detail

    async def _send_call(self, step: CallStep, row_id: str) -> str:
        done = await self._activity(
            call(
                contracts.SEND_CALL,
                SendCall(
                    step=step,
                    context=self._progress.context,
                    row_id=row_id,
                    round=self._progress.rounds[row_id],
                ),
                queue=CONTROL_QUEUE,
                summary=step.name,
                timings=self._timings,
                at_most=timedelta(seconds=step.timeout) + GRACE,
            )
        )
        self._progress.set(row_id, output=done.body[:OUTPUT_KEPT])
        again = f" at try {done.tries}" if done.tries > 1 else ""
        said = _last_line(done.body)
        return f"answered {done.status}{again}{f': {said}' if said else ''}"

    async def _let_time_pass(self, step: WaitStep, row_id: str) -> str:
        await self._progress.pause(step.duration, row_id, step.name)
        return f"waited {step.duration:g} s"

    def _guest(self, on: str) -> MachineInRun | None:
        """Where a program runs; None: on the orchestrator.

        A program for a copy must never end up on the machine it was copied from.
        """
        if on == ORCHESTRATOR:
            return None
        known = self._progress.machines.get(on)
        in_recovery = self._progress.given.facts.run_type in RECOVERING
        is_there = on in self._progress.already
        if known is None or (known.recovery_point is None and in_recovery and not is_there):
            raise StepFailed(f"'{on}' was not recovered in this run, so nothing can run on it — skip the step")
        return known

    async def _activity(self, running: Awaitable[contracts.Output]) -> contracts.Output:
        try:
            return await running
        except ActivityError as error:
            if is_cancellation(error):
                raise
            raise StepFailed(reason(error)) from error


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1][:LINE_KEPT]
