"""What an operator does with the runs of a plan: start, watch, steer."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta

from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError

from activities.contracts import CONTROL_QUEUE
from console.asking import LOOK_EVERY_S, Connection, translated
from console.leaving_out import require_that_may_be_left_out
from plans.model import Plan
from vault.domain import LATEST, RunType
from vault.errors import InvalidState, NotFound, Unreachable
from workflows.attributes import RUN_TYPE, attributes
from workflows.ids import plan_id
from workflows.model import Cancel, Decision, GiveWay, Pause, PlanRequest, RunStatus, Steer
from workflows.steering import why_not_start

FAILOVERS = frozenset({"planned", "unplanned", "failback"})
"""Runs that a test of the same plan gives way to."""
GIVE_WAY = frozenset({"test", "cleanup"})
TESTS_END_WITHIN_S = 60.0
LARGEST_PLAN_TEXT = 64 * 1024
"""Bytes of a plan's file that travel with a run: together with the plan itself they must fit into one payload."""


class PlanRuns(Connection):
    """Of one plan at most one run is going on."""

    async def start_run(
        self,
        plan: Plan,
        run_type: RunType,
        *,
        point: str = LATEST,
        source_unreachable: bool = False,
        of_run: str | None = None,
        without: Sequence[str] = (),
        note: str = "",
        file: bytes = b"",
    ) -> str:
        """Start a run of a plan; returns its run id. A failover ends a test of the plan that is going on.

        Raises ``InvalidState`` when the plan is running for another reason, ``BadInput`` when it cannot leave out the
        machines in ``without``.

        ``file`` is the plan as it was reviewed, with what it includes: the run's report shows it, or its digest when it
        is large. ``of_run``: clean up only what that test run made.
        """
        self.require_starter()
        require_that_may_be_left_out(plan, without, run_type, note)
        run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"
        request = PlanRequest(
            plan=plan,
            run_id=run_id,
            run_type=run_type,
            requested_by=self.operator,
            point=point,
            source_unreachable=source_unreachable,
            of_run=of_run,
            without=list(without),
            note=note,
            timings=self.timings,
            access=self.inventory.authorizer,
            webhooks=self.inventory.notifications,
            limits=self.inventory.failover_limits(plan.machines),
            **travelling(file),
        )
        while not await self._started(request):
            if run_type not in FAILOVERS or not await self._test_gives_way(plan.name, run_type):
                raise InvalidState(
                    f"plan '{plan.name}' is running already; nothing was started",
                    remedy=f"watch it with: leeward plan watch {plan.name}",
                )
        return run_id

    def require_starter(self, *, auto_approve: bool = False) -> None:
        """The run asks the same; here it costs nothing. Raises ``InvalidState``."""
        why_not = why_not_start(self.inventory.authorizer, self.operator, auto_approve=auto_approve)
        if why_not is not None:
            raise InvalidState(f"{why_not}; nothing was started")

    async def _started(self, request: PlanRequest) -> bool:
        """False: a run of the plan is going on."""
        plan, run_type = request.plan, request.run_type
        try:
            await self.client.start_workflow(
                "PlanRun",
                request,
                id=plan_id(plan.name),
                task_queue=CONTROL_QUEUE,
                search_attributes=attributes(plan=plan.name, run_type=run_type),
                static_summary=f"{run_type} of {plan.name}, asked by {self.operator}",
                task_timeout=timedelta(seconds=self.timings.decision_s),
            )
        except WorkflowAlreadyStartedError:
            return False
        except RPCError as error:
            raise translated(error, plan.name) from error
        return True

    async def _test_gives_way(self, plan: str, run_type: RunType) -> bool:
        """End a test or a clean-up of the plan that is going on; False: what is going on is a run of another kind."""
        status = await self.run_status(plan)
        if status.run_type not in GIVE_WAY:
            return False
        handle = self.client.get_workflow_handle(plan_id(plan))
        if status.finished is None:
            with contextlib.suppress(InvalidState, NotFound):  # it has ended meanwhile, or is about to
                await self.asked(handle.execute_update("give_way", GiveWay(by=self.operator, run_type=run_type)))
        try:
            with contextlib.suppress(WorkflowFailureError):
                await asyncio.wait_for(handle.result(), TESTS_END_WITHIN_S)
        except TimeoutError as error:
            raise InvalidState(
                f"the {status.run_type} run of '{plan}' does not end for the failover; nothing was started",
                remedy=f"end it: leeward plan cancel {plan}, then try again",
            ) from error
        return True

    async def run_status(self, plan: str) -> RunStatus:
        """The plan's running or last run. Raises ``NotFound`` when it never ran."""
        handle = self.client.get_workflow_handle(plan_id(plan))
        try:
            status: RunStatus = await self.asked(handle.query("status", result_type=RunStatus), f"plan {plan}")
        except NotFound as error:
            raise NotFound(
                f"no run of plan '{plan}' is known here",
                remedy=f"check the name, or start one: leeward plan test {plan}",
            ) from error
        return status

    async def going_on(self, plan: str) -> str | None:
        """The type of the plan's run that is going on; None: there is none. Temporal alone is asked: it knows of one
        that was terminated, and whether a control worker has time to answer does not matter."""
        try:
            run = await self.asked(self.client.get_workflow_handle(plan_id(plan)).describe(), f"plan {plan}")
        except NotFound:
            return None
        if run.status is not WorkflowExecutionStatus.RUNNING:
            return None
        return run.typed_search_attributes.get(RUN_TYPE) or "plan"

    async def watch(
        self, plan: str, *, auto_approve: bool = False, lost: Callable[[str], None] = lambda _: None
    ) -> AsyncIterator[RunStatus]:
        """The run's status again and again until it has ended; the last one is the final one.

        Once there was a status, it goes on over any absence of Temporal, and tells ``lost`` of each.
        ``auto_approve`` approves every manual step that waits, in the operator's name.
        """
        reached = there_at_all = False
        while True:
            try:
                status = await self.run_status(plan)
            except Unreachable as gone:
                if not there_at_all:
                    raise
                if reached:
                    lost(str(gone))
                reached = False
                await asyncio.sleep(LOOK_EVERY_S)
                continue
            reached = there_at_all = True
            yield status
            if status.finished is not None:
                return
            if auto_approve:
                for step in [row for stage in status.stages for row in stage.steps if row.state == "waiting"]:
                    await self._approve_if_it_still_waits(plan, step.id)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _approve_if_it_still_waits(self, plan: str, step: str) -> None:
        steer = Steer(action="approve", step=step, by=self.operator, note="approved automatically")
        with contextlib.suppress(InvalidState, Unreachable):  # somebody else was faster; or it is asked again
            await self.steer(plan, steer)

    async def steer(self, plan: str, steer: Steer) -> Decision:
        return await self._decide(plan, "steer", steer)

    async def cancel_run(self, plan: str, note: str = "") -> Decision:
        return await self._decide(plan, "cancel", Cancel(by=self.operator, note=note))

    async def pause_run(self, plan: str, note: str) -> Decision:
        return await self._decide(plan, "pause", Pause(by=self.operator, note=note))

    async def resume_run(self, plan: str, note: str) -> Decision:
        return await self._decide(plan, "resume", Pause(by=self.operator, note=note))

    async def _decide(self, plan: str, update: str, word: Steer | Cancel | Pause) -> Decision:
        handle = self.client.get_workflow_handle(plan_id(plan))
        try:
            decision: Decision = await self.asked(handle.execute_update(update, word, result_type=Decision))
        except NotFound as error:
            raise InvalidState(
                f"no run of plan '{plan}' is going on", remedy=f"see the last one: leeward plan status {plan}"
            ) from error
        return decision


def travelling(file: bytes) -> dict[str, str]:
    """What goes with a run of its plan's file: the text, unless it is too large, and the digest."""
    return {
        "plan_text": file.decode(errors="replace") if len(file) <= LARGEST_PLAN_TEXT else "",
        "plan_sha256": hashlib.sha256(file).hexdigest() if file else "",
    }
