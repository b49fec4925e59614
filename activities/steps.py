"""The steps of a plan as activities: scripts, checks, instructions."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from temporalio import activity

from activities import contracts
from activities.contracts import CheckDone, Instructions, RenderInstructions, RunCheck, RunScript, ScriptDone
from activities.running import BlockingRunner, Running
from adapters.registry import Adapters
from plans.context import MachineInRun, RunContext
from plans.model import CheckStep, ManualStep, ScriptStep
from plans.rendering import command, environment, http_target, render_step, tcp_target
from vault.errors import NotRecoverable
from vault.secrets import resolve

OUTPUT_KEPT = 64 * 1024
"""Bytes of a script's output that are kept: the last ones."""
ONE_TRY_S = 5.0
"""Longest time that one connection attempt of a check may take."""
BODY_READ = 64 * 1024
"""Bytes of an answer in which a check looks for its text."""


class ScriptFailed(NotRecoverable):
    """A script ended with another exit code than 0, or not in its time. What it did is its author's to know."""


class CheckFailed(NotRecoverable):
    """Something does not answer as it should, and has had its time."""


class StepActivities:
    """Scripts may run again when a worker dies in the middle of one: they have to be safe to repeat."""

    def __init__(self, adapters: Adapters, runner: BlockingRunner) -> None:
        self._adapters = adapters
        self._run = runner.run

    @activity.defn(name=contracts.RUN_SCRIPT.name)
    async def run_script(self, given: RunScript) -> ScriptDone:
        return await self._run(lambda running: self._script(given, running))

    @activity.defn(name=contracts.RUN_CHECK.name)
    async def run_check(self, given: RunCheck) -> CheckDone:
        return await self._run(lambda running: _check(given, running))

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
        secrets = {name: resolve(reference) for name, reference in step.secrets.items()}
        began = time.monotonic()
        if given.guest is None:
            exit_code, output = _on_this_host(step, given.context, secrets, running)
        else:
            exit_code, output = self._on_guest(step, given.context, given.guest, secrets, running)
        output = _without(secrets, output)
        if exit_code != 0:
            last_lines = " / ".join(output.strip().splitlines()[-3:])
            raise ScriptFailed(
                f"'{step.name}' ended with exit code {exit_code}: {last_lines or 'no output'}",
                where=given.guest.name if given.guest else "orchestrator",
                remedy="correct the cause, then retry or skip the step",
            )
        return ScriptDone(output=output, duration_s=time.monotonic() - began)

    def _on_guest(
        self, step: ScriptStep, context: RunContext, guest: MachineInRun, secrets: dict[str, str], running: Running
    ) -> tuple[int, str]:
        variables = environment(context, "", step) | secrets | {"LEEWARD_CONTEXT_JSON": context.model_dump_json()}
        del variables["LEEWARD_CONTEXT"]
        fabric = self._adapters.hypervisor(guest.site)
        result = fabric.run_in_guest(guest.name, command(step), variables, step.timeout, running.beat)
        return result.exit_code, result.output


def _on_this_host(step: ScriptStep, context: RunContext, secrets: dict[str, str], running: Running) -> tuple[int, str]:
    """Run a script in a process group of its own, so that nothing of it outlives its step."""
    with tempfile.TemporaryDirectory(prefix="leeward-step-") as folder:
        context_file = Path(folder, "context.json")
        context_file.write_text(context.model_dump_json(indent=2))
        output_file = Path(folder, "output")
        variables = {**os.environ, **environment(context, str(context_file), step), **secrets}
        with output_file.open("wb") as output:
            process = subprocess.Popen(
                command(step),
                env=variables,
                cwd=step.working_directory or folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                _wait_for(process, step, running)
            finally:
                _end_group(process)
        return process.returncode, _tail(output_file)


def _wait_for(process: subprocess.Popen[bytes], step: ScriptStep, running: Running) -> None:
    deadline = time.monotonic() + step.timeout
    while process.poll() is None:
        if time.monotonic() > deadline:
            raise ScriptFailed(
                f"'{step.name}' did not end within {step.timeout:g} s and was killed",
                where="orchestrator",
                remedy="give it a longer timeout, or correct it, then retry",
            )
        running.beat(f"script '{step.name}' runs")
        running.wait(0.05)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tail(file: Path) -> str:
    with file.open("rb") as output:
        output.seek(max(0, file.stat().st_size - OUTPUT_KEPT))
        return output.read().decode(errors="replace")


def _without(secrets: dict[str, str], text: str) -> str:
    for value in secrets.values():
        if value:
            text = text.replace(value, "***")
    return text


def _check(given: RunCheck, running: Running) -> CheckDone:
    """Try until it answers as it should, or its time is over; then say what it answered last."""
    step = render_step(given.step, given.context, where=given.step.name)
    assert isinstance(step, CheckStep)
    began = time.monotonic()
    while True:
        running.beat(f"check '{step.name}'")
        trouble, detail = _ask_http(step, given.context) if step.http else _ask_tcp(step, given.context)
        waited = time.monotonic() - began
        if trouble is None:
            return CheckDone(detail=f"{detail} after {waited:.1f} s", duration_s=waited)
        if waited + step.every > step.timeout:
            raise CheckFailed(
                f"{detail} {trouble} ({step.timeout:g} s)",
                where=step.name,
                remedy="look at the machine, then retry or skip the step",
            )
        running.wait(step.every)


def _ask_http(step: CheckStep, context: RunContext) -> tuple[str | None, str]:
    assert step.http is not None
    url = http_target(step, context)
    try:
        with urlopen(Request(url, headers={"User-Agent": "leeward"}), timeout=ONE_TRY_S) as answer:
            status, body = answer.status, answer.read(BODY_READ).decode(errors="replace")
    except HTTPError as error:
        status, body = error.code, error.read(BODY_READ).decode(errors="replace")
    except (URLError, OSError) as error:
        return f"does not answer: {getattr(error, 'reason', error)}", url
    if status != step.http.status:
        return f"answers {status}, expected {step.http.status}", url
    if step.http.contains is not None and step.http.contains not in body:
        return f"answers {status}, but without '{step.http.contains[:80]}'", url
    return None, f"{url} answered {status}"


def _ask_tcp(step: CheckStep, context: RunContext) -> tuple[str | None, str]:
    host, port = tcp_target(step, context)
    try:
        socket.create_connection((host, port), timeout=ONE_TRY_S).close()
    except OSError as error:
        return f"does not answer: {error}", f"{host}:{port}"
    return None, f"{host}:{port} answered"
