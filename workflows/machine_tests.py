"""A machine's test copies: made and cleaned up beside replication, several at a time, each by its own run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from temporalio import workflow

from vault.lifecycle import JobKind
from workflows.machine_book import MachineBook
from workflows.model import CopyName, JobRequest, JobResult, TestCopy
from workflows.testing import test_machine_name

NEED_NO_TEST_COPY = frozenset({JobKind.REVERSE, JobKind.DISABLE})
"""Jobs after which nobody would know where the test copies are."""


class TestLane:
    """Runs test failovers and clean-ups side by side; knows which copies there are."""

    __test__ = False

    def __init__(self, book: MachineBook, run_job: Callable[[JobRequest], Coroutine[Any, Any, None]]) -> None:
        self._book = book
        self._run_job = run_job
        self._waiting: list[JobRequest] = []
        self._running: set[asyncio.Task[None]] = set()

    @property
    def is_busy(self) -> bool:
        return bool(self._waiting or self._running)

    def put(self, wanted: JobRequest) -> None:
        self._waiting.append(wanted)

    async def run(self) -> None:
        while True:
            await workflow.wait_condition(lambda: bool(self._waiting))
            job = asyncio.create_task(self._run_job(self._waiting.pop(0)))
            self._running.add(job)
            job.add_done_callback(self._running.discard)

    def refusal(self, wanted: JobRequest) -> str | None:
        """Why a job may not be accepted because of the copies that there are; None when it may."""
        copies = self._book.state.tests
        machine = self._book.state.name
        if wanted.kind is JobKind.TEST_FAILOVER:
            name = test_machine_name(machine, wanted.run_id)
            copies = [copy for copy in copies if copy.machine == name]
        elif wanted.kind not in NEED_NO_TEST_COPY:
            return None
        if not copies:
            return None
        named = ", ".join(copy.machine for copy in copies)
        plan = next((copy.plan for copy in copies if copy.plan), "PLAN")
        already = "already " if wanted.kind is JobKind.TEST_FAILOVER else ""
        return f"machine '{machine}' {already}has a test copy, {named} — clean it up first: leeward plan cleanup {plan}"

    def copies_for(self, wanted: JobRequest) -> list[CopyName]:
        """Those that a clean-up means; for a test failover all that there are."""
        copies = self._book.state.tests
        if wanted.kind is JobKind.CLEANUP_TEST:
            copies = [copy for copy in copies if copy.is_of(wanted.plan, wanted.of_run)]
        return [copy.name for copy in copies]

    def take_over(self, wanted: JobRequest, cleaned: list[CopyName], result: JobResult) -> None:
        tests = self._book.state.tests
        if wanted.kind is JobKind.CLEANUP_TEST:
            self._book.update(tests=[copy for copy in tests if copy.name not in cleaned])
        elif wanted.kind is JobKind.TEST_FAILOVER and result.recovered is not None:
            made = result.recovered
            copy = TestCopy(
                machine=made.name,
                site=made.site,
                network=made.network,
                point=made.point,
                plan=wanted.plan,
                run_id=wanted.run_id,
                made=result.outage_began,
            )
            self._book.update(tests=[*tests, copy])
