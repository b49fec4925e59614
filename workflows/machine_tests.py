"""A machine's test copies: made and cleaned up beside replication, several at a time, each by its own run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from temporalio import workflow

from vault.lifecycle import BESIDE_REPLICATION, JobKind
from workflows.beside import begin_beside
from workflows.machine_book import MachineBook
from workflows.model import CopyName, JobRequest, JobResult, TestCopy
from workflows.testing import test_machine_name

NEED_NO_TEST_COPY = frozenset({JobKind.REVERSE, JobKind.DISABLE})
"""Jobs after which nobody would know where the test copies are."""
GIVES_WAY = "tests-give-way"
"""Patch: failovers left test copies to the operator."""


class TestLane:
    """Runs test failovers and clean-ups side by side; knows which copies there are."""

    __test__ = False

    def __init__(
        self,
        book: MachineBook,
        run_job: Callable[[JobRequest], Coroutine[Any, Any, None]],
        children: Mapping[str, workflow.ChildWorkflowHandle[Any, JobResult]],
    ) -> None:
        """``children``: by request, the job that runs."""
        self._book = book
        self._run_job = run_job
        self._children = children
        self._waiting: list[JobRequest] = []
        self._running: set[asyncio.Task[None]] = set()
        self._tests: set[str] = set()
        """Requests for test failovers that have not ended."""
        self._overtaken: dict[str, str] = {}
        """Those of them that a failover ends, with the sentence that says so."""
        self._is_ending = False

    @property
    def is_busy(self) -> bool:
        return bool(self._waiting or self._running)

    @property
    def in_making(self) -> list[CopyName]:
        """The copies of test failovers that have not ended."""
        runs = [self._book.requests[request_id].run_id for request_id in sorted(self._tests)]
        return [CopyName(machine=test_machine_name(self._book.state.name, run_id), run_id=run_id) for run_id in runs]

    def put(self, wanted: JobRequest) -> None:
        if wanted.kind is JobKind.TEST_FAILOVER:
            self._tests.add(wanted.id)
        self._waiting.append(wanted)

    async def run(self) -> None:
        while True:
            await workflow.wait_condition(lambda: bool(self._waiting))
            self._go(self._do(self._waiting.pop(0)))

    def _go(self, work: Coroutine[Any, Any, None]) -> None:
        task = begin_beside(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _do(self, wanted: JobRequest) -> None:
        try:
            await self._run_job(wanted)
        finally:
            self._tests.discard(wanted.id)

    def give_way(self, to: JobRequest) -> None:
        """A failover of the machine begins, and waits for nothing here: tests end, and their copies are removed.

        They are isolated, so that the recovered machine may run beside them until that is done."""
        if not (self._tests or self._book.state.tests) or not workflow.patched(GIVES_WAY):
            return
        sentence = f"a failover took over, asked by {to.requested_by}"
        self._is_ending = True
        self._overtaken |= dict.fromkeys(self._tests, sentence)
        self._book.tell(f"{sentence}: tests end and their copies are removed")
        self._go(self._end_tests(to))

    async def until_ended(self) -> None:
        """Wait until the copies are gone that had to give way to the machine's failover."""
        await workflow.wait_condition(lambda: not self._is_ending)

    def overtaken(self, request_id: str) -> str | None:
        return self._overtaken.get(request_id)

    async def _end_tests(self, to: JobRequest) -> None:
        for request_id in sorted(self._overtaken):
            await self._cancel(request_id)
        await workflow.wait_condition(lambda: not self._tests & self._overtaken.keys())
        self._overtaken.clear()
        if self._book.state.tests:
            clean_up = JobRequest(
                id=f"{to.id}/tests-end", kind=JobKind.CLEANUP_TEST, requested_by=f"failover ({to.requested_by})"
            )
            self._book.accept(clean_up)
            await self._do(clean_up)
        self._is_ending = False

    async def _cancel(self, request_id: str) -> None:
        """A job that was accepted a moment ago may not have begun."""
        await workflow.wait_condition(lambda: request_id in self._children or request_id not in self._tests)
        if request_id in self._tests:
            self._children[request_id].cancel()

    def refusal(self, wanted: JobRequest) -> str | None:
        """Why a job may not be accepted because of the copies that there are; None when it may."""
        copies = self._book.state.tests
        machine = self._book.state.name
        if wanted.kind is JobKind.TEST_FAILOVER:
            name = test_machine_name(machine, wanted.run_id)
            copies = [copy for copy in copies if copy.machine == name]
        elif wanted.kind not in NEED_NO_TEST_COPY or self._is_ending:
            return None
        if not copies:
            return None
        named = ", ".join(copy.machine for copy in copies)
        plan = next((copy.plan for copy in copies if copy.plan), "PLAN")
        already = "already " if wanted.kind is JobKind.TEST_FAILOVER else ""
        return f"machine '{machine}' {already}has a test copy, {named} — clean it up first: leeward plan cleanup {plan}"

    def refusal_of_making(self, wanted: JobRequest) -> str | None:
        """As :meth:`refusal`, because of a copy that is being made."""
        if wanted.kind not in NEED_NO_TEST_COPY or self._is_ending or not self._tests:
            return None
        named = ", ".join(copy.machine for copy in self.in_making)
        plans = (self._book.requests[request_id].plan for request_id in sorted(self._tests))
        plan = next(filter(None, plans), "PLAN")
        return (
            f"a test copy of machine '{self._book.state.name}' is being made, {named} — "
            f"wait until it is there, then clean it up first: leeward plan cleanup {plan}"
        )

    def copies_for(self, wanted: JobRequest) -> list[CopyName]:
        """Those that a clean-up means; for a test failover all that there are, for another those in the making too."""
        copies = self._book.state.tests
        if wanted.kind is JobKind.CLEANUP_TEST:
            copies = [copy for copy in copies if copy.is_of(wanted.plan, wanted.of_run)]
        return [copy.name for copy in copies] + ([] if wanted.kind in BESIDE_REPLICATION else self.in_making)

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
