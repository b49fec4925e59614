"""A machine that holds its planned failover is off at its source: it must not wait for a plan run that is gone.

A run that ends in order, cancelled or failed, puts its machines back itself. One that was terminated says nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError

from activities import contracts
from activities.contracts import CONTROL_QUEUE, RunQuestion
from workflows.calls import call, reason
from workflows.ids import plan_id
from workflows.machine_book import MachineBook
from workflows.model import HeldJob, JobRequest

LOOKS_EVERY = timedelta(minutes=3)
"""Long enough that a large plan's machines do not ask while their turn comes, short beside what an outage costs."""
LOOKS_FOR_ITS_RUN = "held-jobs-look-for-their-run"
"""Patch: machines waited for ever."""


class HeldWatch:
    """``abandon`` tells the job to undo what it did, and why."""

    def __init__(self, book: MachineBook, abandon: Callable[[HeldJob], Awaitable[None]]) -> None:
        self._book = book
        self._abandon = abandon

    async def watch(self, request: JobRequest) -> None:
        """From the hold on, until the job goes on or is abandoned."""
        if request.plan is None or not request.execution or not workflow.patched(LOOKS_FOR_ITS_RUN):
            return
        while self._book.is_held(request.id):
            try:
                await workflow.wait_condition(
                    lambda: not self._book.is_held(request.id),
                    timeout=LOOKS_EVERY,
                    timeout_summary=f"does the run that {self._book.state.name} waits for go on?",
                )
            except TimeoutError:
                how = await self._how_it_ended(request.plan, request.execution)
                if how is not None and self._book.is_held(request.id):
                    await self._put_back(request, how)
                    return

    async def _how_it_ended(self, plan: str, execution: str) -> str | None:
        try:
            found = await call(
                contracts.FIND_RUN,
                RunQuestion(workflow_id=plan_id(plan), execution=execution),
                queue=CONTROL_QUEUE,
                summary=f"does the run of {plan} go on?",
                timings=self._book.state.timings,
                once=True,
            )
        except ActivityError as error:
            workflow.logger.warning("whether the run of %s goes on is not known: %s", plan, reason(error))
            return None
        return None if found.goes_on else found.how

    async def _put_back(self, request: JobRequest, how: str) -> None:
        state = self._book.state
        why = (
            f"run {request.run_id} of plan {request.plan} {how} while {state.name} was off for it and waited to be "
            f"started at {state.relationship.target_site}: nobody would have started it, so it is put back"
        )
        self._book.tell(why)
        await self._abandon(HeldJob(request_id=request.id, reason=why))
