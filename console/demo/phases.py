"""The phases of the demo, in the order of a machine's life; each is measured."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from adapters.lab.faults import Fault, SiteFaults
from adapters.lab.layout import LabLayout
from console.client import Leeward
from console.demo.evidence import judge
from console.demo.model import MachineResult, PhaseResult
from plans.including import reviewed_text
from plans.model import Plan
from vault.domain import RunType
from vault.lifecycle import JobKind
from vault.validation import Loaded
from workers.settings import Settings
from workflows.model import JobResult, RunStatus

Tell = Callable[[str], None]
LOAD_BETWEEN_PHASES_S = 2.0
"""The guests write on for so long between two phases, so that each has something to lose."""


class Stage(NamedTuple):
    """What a demo's phases work with."""

    leeward: Leeward
    plan: Loaded[Plan]
    settings: Settings
    tell: Tell


class Phases:
    """Runs the phases of one demo on one plan."""

    def __init__(self, stage: Stage, *, loses_nothing: bool = False) -> None:
        self._loses_nothing = loses_nothing
        self._leeward = stage.leeward
        self._plan = stage.plan.model
        self._file = reviewed_text(stage.plan.source)
        self._lab_root = stage.settings.lab_root
        self._lab = LabLayout(self._lab_root)
        self._tell = stage.tell

    async def all(self) -> AsyncIterator[PhaseResult]:
        yield await self.protect()
        yield await self._run("test failover", "test")
        yield await self._run("clean-up", "cleanup")
        yield await self._run("planned failover", "planned", nothing_may_be_lost=True)
        yield await self._run("commit", "commit")
        yield await self._run("reverse replication", "reverse")
        yield await self._run("failback", "failback", nothing_may_be_lost=True)
        yield await self._run("commit failback", "commit")
        yield await self._run("protect again", "reverse")
        self._kill_the_primary_host()
        yield await self._run(
            "unplanned failover", "unplanned", nothing_may_be_lost=self._loses_nothing, source_unreachable=True
        )

    async def protect(self) -> PhaseResult:
        began, clock = datetime.now(UTC), time.monotonic()
        machines = self._plan.machines
        jobs = {machine: await self._leeward.protect(machine) for machine in machines}
        states = await asyncio.gather(*(self._leeward.wait_until_protected(*started) for started in jobs.items()))
        results = {}
        for state in states:
            copies = [job for job in state.jobs if job.kind is JobKind.INITIAL_REPLICATION]
            copied = await self._leeward.job_result(copies[-1].id)
            results[state.name] = MachineResult(bytes_sent=copied.bytes_sent)
        return PhaseResult(phase="protect", began=began, duration_s=time.monotonic() - clock, machines=results)

    async def _run(
        self, phase: str, run_type: RunType, *, nothing_may_be_lost: bool = False, **options: Any
    ) -> PhaseResult:
        await asyncio.sleep(LOAD_BETWEEN_PHASES_S)
        began, clock = datetime.now(UTC), time.monotonic()
        await self._leeward.start_run(self._plan, run_type, file=self._file, **options)
        final = await self._follow()
        results = {
            machine: self._judged(result, machine, nothing_may_be_lost=nothing_may_be_lost, is_test=run_type == "test")
            for machine, result in results_of(final).items()
        }
        return PhaseResult(phase=phase, began=began, duration_s=time.monotonic() - clock, machines=results, run=final)

    async def _follow(self) -> RunStatus:
        """To the run's end, approving its manual steps as an operator would."""
        told = 0
        async for status in self._leeward.watch(self._plan.name, auto_approve=True):
            for decision in status.decisions[told:]:
                self._tell(f"    {decision.action} '{decision.step}' by {decision.by}")
            told = len(status.decisions)
            failed = [row for stage in status.stages for row in stage.steps if row.state == "failed"]
            if failed and status.finished is None:
                await self._leeward.cancel_run(self._plan.name, note=f"the demo ends: {failed[0].detail}")
        return status

    def _judged(self, result: JobResult, machine: str, *, nothing_may_be_lost: bool, is_test: bool) -> MachineResult:
        if result.recovered is None:
            return MachineResult(bytes_sent=result.bytes_sent)
        return judge(result, self._lab.ledger(machine), nothing_may_be_lost=nothing_may_be_lost, is_test=is_test)

    def _kill_the_primary_host(self) -> None:
        site = self._leeward.inventory.machines[self._plan.machines[0]].site
        SiteFaults(self._lab_root, site).set(Fault.HOST_DEAD)
        self._tell(f"    the host of site '{site}' dies with all its machines")


def results_of(status: RunStatus) -> dict[str, JobResult]:
    """The newest result of each machine in a run."""
    return {
        row.machine: row.result
        for stage in status.stages
        for row in stage.steps
        if row.machine is not None and row.result is not None
    }
