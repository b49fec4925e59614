"""The steps of a plan as activities: scripts, checks, calls, instructions."""

from __future__ import annotations

import time

from temporalio import activity

from activities import contracts
from activities.checks import run_check
from activities.contracts import (
    CallDone,
    CheckDone,
    Instructions,
    RenderInstructions,
    RunCheck,
    RunScript,
    ScriptDone,
    SendCall,
)
from activities.programs import Programs
from activities.running import BlockingRunner, Running
from activities.webcalls import send_call
from adapters.registry import Adapters
from plans.rendering import render_step
from plans.steps import ManualStep, ScriptStep
from vault.errors import NotRecoverable


class ScriptFailed(NotRecoverable):
    """A script ended with another exit code than 0, or not in its time. What it did is its author's to know."""


class StepActivities:
    """Scripts may run again when a worker dies in the middle of one: they have to be safe to repeat."""

    def __init__(self, adapters: Adapters, runner: BlockingRunner) -> None:
        self._programs = Programs(adapters)
        self._run = runner.run
        self._change = runner.change

    @activity.defn(name=contracts.RUN_SCRIPT.name)
    async def run_script(self, given: RunScript) -> ScriptDone:
        return await self._change(lambda running: self._script(given, running))

    @activity.defn(name=contracts.RUN_CHECK.name)
    async def run_check(self, given: RunCheck) -> CheckDone:
        return await self._run(lambda running: run_check(given, self._programs, running))

    @activity.defn(name=contracts.SEND_CALL.name)
    async def send_call(self, given: SendCall) -> CallDone:
        return await self._change(lambda running: send_call(given, running))

    @activity.defn(name=contracts.RENDER_INSTRUCTIONS.name)
    async def render_instructions(self, given: RenderInstructions) -> Instructions:
        def call(_: Running) -> str:
            step = render_step(given.step, given.context, where=given.step.name)
            assert isinstance(step, ManualStep)
            return step.instructions

        return Instructions(text=await self._run(call))

    def _script(self, given: RunScript, running: Running) -> ScriptDone:
        step = render_step(given.step, given.context, where=given.step.name)
        assert isinstance(step, ScriptStep)
        began = time.monotonic()
        ended = self._programs.run(
            step, given.context, given.guest, step.timeout, running, doing=f"script '{step.name}' runs"
        )
        where = given.guest.name if given.guest else "orchestrator"
        if ended.exit_code is None:
            raise ScriptFailed(
                f"'{step.name}' did not end within {step.timeout:g} s and was killed",
                where=where,
                remedy="give it a longer timeout, or correct it, then retry",
            )
        if ended.exit_code != 0:
            last_lines = " / ".join(ended.output.strip().splitlines()[-3:])
            raise ScriptFailed(
                f"'{step.name}' ended with exit code {ended.exit_code}: {last_lines or 'no output'}",
                where=where,
                remedy="correct the cause, then retry or skip the step",
            )
        return ScriptDone(output=ended.output, duration_s=time.monotonic() - began)
