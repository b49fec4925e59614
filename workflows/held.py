"""Planned failovers that hold between the end of a machine at its source and its start at the target.

They go on, or are undone, at the word of the plan run that asked for them. A machine that holds is off: it must not
wait for a run that is gone. A run that ends in order, cancelled or failed, puts its machines back itself. One that was
terminated says nothing.
"""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, FailureError

from activities import contracts
from activities.contracts import CONTROL_QUEUE, RunQuestion
from workflows.calls import call, reason
from workflows.ids import plan_id
from workflows.machine_book import MachineBook
from workflows.machine_replies import Replies
from workflows.model import HeldJob, JobRequest, JobResult

LOOKS_EVERY = timedelta(minutes=3)
"""Long enough that a large plan's machines do not ask while their turn comes, short beside what an outage costs."""
LOOKS_FOR_ITS_RUN = "held-jobs-look-for-their-run"
"""Patch: machines waited for ever."""


class HeldJobs:
    """``running``: the machine's jobs by request, while they run."""

    def __init__(
        self,
        book: MachineBook,
        running: dict[str, workflow.ChildWorkflowHandle[object, JobResult]],
        replies: Replies,
    ) -> None:
        self._book = book
        self._running = running
        self._replies = replies
        self.given_up: dict[str, str] = {}
        """Why plan runs gave up their planned failovers, by request."""

    async def hold(self, held: HeldJob) -> None:
        """Until the job goes on or is undone."""
        self._book.record(held.request_id, state="held")
        request = self._book.requests[held.request_id]
        await self._replies.tell(request, "held", "ready; waiting for its turn to start")
        await self._watch(request)

    async def give_up(self, held: HeldJob) -> None:
        """Undo it: its plan run says so."""
        self.given_up[held.request_id] = held.reason
        await self.tell("abandon", held)

    async def tell(self, what: str, held: HeldJob) -> None:
        """The word may come before the job has started (replication ends first) or after it has ended."""
        if not self._book.is_open(held.request_id):
            await self._replies.tell_that_it_has_ended(held)
            return
        if held.reply_to is not None:
            self._book.answers_to(held.request_id, held.reply_to)
        self._book.record(held.request_id, state="running")
        await workflow.wait_condition(
            lambda: held.request_id in self._running or not self._book.is_open(held.request_id)
        )
        child = self._running.get(held.request_id)
        if child is None:
            return
        try:
            await child.signal(what, held)
        except FailureError as error:
            workflow.logger.warning("%s came when request %s had ended: %s", what, held.request_id, error)

    async def _watch(self, request: JobRequest) -> None:
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
        await self.tell("abandon", HeldJob(request_id=request.id, reason=why))
