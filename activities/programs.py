"""Programs that a plan names, run on this host or in a recovered guest, with what they said."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from activities.running import Running
from adapters.registry import Adapters
from plans.context import MachineInRun, RunContext
from plans.rendering import command, environment
from plans.steps import Program
from vault.secrets import resolve

OUTPUT_KEPT = 64 * 1024
"""Bytes of a program's output that are kept: the last ones."""


class Ended(NamedTuple):
    """How a program ended. ``exit_code`` None: not within its time, so it was killed."""

    exit_code: int | None
    output: str


class Programs:
    """Runs rendered programs, their secrets resolved here and taken out of what they say."""

    def __init__(self, adapters: Adapters) -> None:
        self._adapters = adapters

    def run(
        self,
        program: Program,
        context: RunContext,
        guest: MachineInRun | None,
        timeout_s: float,
        running: Running,
        *,
        doing: str,
    ) -> Ended:
        """Run to the end, or for ``timeout_s``; on ``guest`` when given, else on this host.

        Raises:
            NotFound, AuthorizationRefused, BadInput: a secret cannot be read.
            LeewardError: what the guest's fabric raises, its own time limit among it.
        """
        secrets = {name: resolve(reference) for name, reference in program.secrets.items()}
        if guest is None:
            ended = _on_this_host(program, context, secrets, timeout_s, running, doing)
        else:
            ended = self._on_guest(program, context, guest, secrets, timeout_s, running)
        return ended._replace(output=masked(ended.output, secrets.values()))

    def _on_guest(
        self,
        program: Program,
        context: RunContext,
        guest: MachineInRun,
        secrets: dict[str, str],
        timeout_s: float,
        running: Running,
    ) -> Ended:
        variables = environment(context, "", program) | secrets | {"LEEWARD_CONTEXT_JSON": context.model_dump_json()}
        del variables["LEEWARD_CONTEXT"]
        fabric = self._adapters.hypervisor(guest.site)
        result = fabric.run_in_guest(guest.name, command(program), variables, timeout_s, running.beat)
        return Ended(result.exit_code, result.output)


def masked(text: str, secrets: Iterable[str]) -> str:
    """``text`` without the secrets; a longer one first, because it may contain a shorter one."""
    for value in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(value, "***")
    return text


def _on_this_host(
    program: Program, context: RunContext, secrets: dict[str, str], timeout_s: float, running: Running, doing: str
) -> Ended:
    """In a process group of its own, so that nothing of it outlives its step."""
    with tempfile.TemporaryDirectory(prefix="leeward-step-") as folder:
        context_file = Path(folder, "context.json")
        context_file.write_text(context.model_dump_json(indent=2))
        output_file = Path(folder, "output")
        variables = {**os.environ, **environment(context, str(context_file), program), **secrets}
        with output_file.open("wb") as output:
            process = subprocess.Popen(
                command(program),
                env=variables,
                cwd=program.working_directory or folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                in_time = _ended_within(timeout_s, process, running, doing)
            finally:
                _end_group(process)
        return Ended(process.returncode if in_time else None, _tail(output_file))


def _ended_within(timeout_s: float, process: subprocess.Popen[bytes], running: Running, doing: str) -> bool:
    deadline = time.monotonic() + timeout_s
    while process.poll() is None:
        if time.monotonic() > deadline:
            return False
        running.beat(doing)
        running.wait(0.05)
    return True


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tail(file: Path) -> str:
    with file.open("rb") as output:
        output.seek(max(0, file.stat().st_size - OUTPUT_KEPT))
        return output.read().decode(errors="replace")
