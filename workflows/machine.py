"""The machine: an entity workflow, the only writer of one protected machine's state (design §4).

Two lanes. The *main lane* runs phase-changing jobs one at a time and, while the machine is protected, the one long
activity of steady-state replication between them. The *test lane* runs test failovers and their clean-up beside
replication. All decisions about what may start when are in :mod:`vault.lifecycle`.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError
from temporalio.workflow import ParentClosePolicy

from activities import contracts
from activities.contracts import OfRelationship, PointList, site_queue
from vault.access import Action
from vault.lifecycle import BESIDE_REPLICATION, IDLE, LIFECYCLE, JobKind, Phase, refusal, refusal_of_target
from workflows.attributes import attributes
from workflows.beside import begin_beside
from workflows.calls import call, invalid_state, reason
from workflows.claim_model import ClaimAnswer
from workflows.claiming import GroupClaim
from workflows.held import HeldJobs
from workflows.machine_book import MachineBook
from workflows.machine_health import HealthJudge
from workflows.machine_model import refusal_of_sites
from workflows.machine_replication import SteadyState
from workflows.machine_replies import Replies
from workflows.machine_tests import TestLane
from workflows.model import (
    AnswersNow,
    ChangedSettings,
    CopyName,
    DescribeTo,
    Health,
    HeldJob,
    JobAccepted,
    JobInput,
    JobRequest,
    JobResult,
    MachineDescribed,
    MachineState,
    Resume,
)
from workflows.old_copy import TAKES_OVER, OldCopyWatch
from workflows.signalling import reached

FOLLOWED_BY = {JobKind.ENABLE: JobKind.INITIAL_REPLICATION, JobKind.INITIAL_REPLICATION: JobKind.FINALIZE}
"""Jobs that go on by themselves, so that one ``leeward protect`` leads to a protected machine."""
OVERTAKE_REPLICATION = frozenset({JobKind.PLANNED_FAILOVER, JobKind.UNPLANNED_FAILOVER})
"""Jobs that begin while replication comes to its end: a worker learns of that with its next heartbeat only, and an
outage must not wait for it. What they send themselves waits for the replica's lock (activities/protection.py)."""

UNDONE_IS_NO_TROUBLE = "undone-failovers-are-no-trouble"
"""Patch: machines of a cancelled run stayed in *warning* until their next job."""
NO_COPY_IN_THE_MAKING = "no-test-copy-in-the-making-is-left-behind"
"""Patch: a test copy that was being made when the machine was given up stayed, and nobody knew of it."""
SETTINGS_HOLD_AT_ONCE = "changed-settings-hold-at-once"
"""Patch: they held from the next turn of replication on, up to an hour later."""
TRIES_AGAIN_AFTER = timedelta(minutes=5)
"""A resynchronization by the policy that another machine of the group stands in the way of."""


@workflow.defn(name="Machine")
class MachineWorkflow:
    """Runs as ``machine/<name>`` for as long as the machine is protected."""

    @workflow.init
    def __init__(self, state: MachineState) -> None:
        self._book = MachineBook(state)
        self._running: dict[str, workflow.ChildWorkflowHandle[object, JobResult]] = {}
        self._steady = SteadyState(self._book, lambda: self._waiting is not None, self._overtakes)
        self._old_copy = OldCopyWatch(self._book)
        self._health = HealthJudge(self._book, self._old_copy)
        self._replies = Replies(self._book)
        self._held = HeldJobs(self._book, self._running, self._replies)
        self._tests = TestLane(self._book, self._run_job, self._running)
        self._claim = GroupClaim(self._book, self._refusal)
        self._waiting: JobRequest | None = None
        self._resume_asked = False

    @property
    def state(self) -> MachineState:
        return self._book.state

    # -- what people and plans ask ------------------------------------------------------------------------------

    @workflow.query
    def describe(self) -> MachineState:
        return self.state

    @workflow.update
    async def request(self, wanted: JobRequest) -> JobAccepted:
        """Start a job; answers as soon as it is accepted, with the id of its workflow."""
        why_not = await self._claim.take(wanted)
        if why_not is not None:
            raise ApplicationError(why_not, type="Refused", non_retryable=True)
        if not self._book.knows(wanted.id):
            self._accept(wanted)
        return JobAccepted(job_id=self._book.job_of(wanted.id))

    @request.validator
    def _may_request(self, wanted: JobRequest) -> None:
        self._require_operator(wanted.requested_by)
        why_not = self._refusal(wanted)
        if why_not is None and not self._book.knows(wanted.id):
            why_not = self._tests.refusal_of_making(wanted)
        if why_not is not None:
            raise ApplicationError(why_not, type="Refused", non_retryable=True)

    def _require_operator(self, identity: str) -> None:
        access = self.state.access
        why_not = access.refusal(identity, Action.PROTECT) if access is not None else None
        if why_not is not None:
            raise ApplicationError(why_not, type="Refused", non_retryable=True)

    @workflow.update
    async def resume_replication(self, wanted: Resume | None = None) -> MachineState:
        """Replication that an error halted starts again; a job that failed is taken as seen.

        ``wanted`` is None in histories of before it was asked who resumes."""
        self._resume_asked = True
        if wanted is not None and wanted.try_now:
            self._steady.begin_anew()
        self._health.resumed()
        return self.state

    @resume_replication.validator
    def _may_resume(self, wanted: Resume | None = None) -> None:
        self._require_operator(wanted.by if wanted is not None else "")

    @workflow.update
    async def recovery_points(self) -> PointList:
        """The recovery points at the target, oldest first."""
        relationship = self.state.relationship
        return await call(
            contracts.RECOVERY_POINTS,
            OfRelationship(relationship=relationship),
            queue=site_queue(relationship.target_site),
            summary="list the recovery points",
            timings=self.state.timings,
            once=True,
            site_must_answer=True,
        )

    @workflow.update
    async def configure(self, settings: ChangedSettings) -> MachineState:
        """Take over changed settings from the inventory; replication goes by them at once."""
        before = self.state.relationship
        self._book.update(
            forward=settings.forward,
            backward=settings.backward,
            policy=settings.policy,
            timings=settings.timings,
            access=settings.access,
            webhooks=settings.webhooks,
        )
        if self.state.relationship != before and workflow.patched(SETTINGS_HOLD_AT_ONCE):
            self._steady.begin_anew()
        return self.state

    @configure.validator
    def _may_configure(self, settings: ChangedSettings) -> None:
        """By the list that holds until now: the settings bring the next one."""
        self._require_operator(settings.by)
        why_not = refusal_of_sites(self.state, settings)
        if why_not is not None:
            raise ApplicationError(why_not, type="Refused", non_retryable=True)

    @workflow.signal
    async def ask(self, wanted: JobRequest) -> None:
        """A plan's request; the answer is a ``job_event`` signal to ``wanted.reply_to``."""
        why_not = self._refusal(wanted) or await self._claim.take(wanted)
        if why_not is not None:
            await self._replies.tell(wanted, "refused", why_not)
        elif not self._book.knows(wanted.id):
            self._accept(wanted)

    @workflow.query
    def described(self) -> MachineDescribed:
        """What a plan wants to know before it begins."""
        return MachineDescribed(
            machine=self.state.name,
            phase=self.state.phase,
            reversed=self.state.reversed,
            relationship=self.state.relationship,
            tests=self.state.tests,
            tests_in_making=[copy.machine for copy in self._tests.in_making],
            recovered=self.state.recovered,
            health=self.state.health,
            recovered_by=self.state.recovered_by,
        )

    @workflow.signal
    async def describe_to(self, asked: DescribeTo) -> None:
        await reached(asked.reply_to, "machine_described", self.described())

    @workflow.signal
    def answers_now(self, told: AnswersNow) -> None:
        """A plan run has started the recovered machine once more."""
        recovered = self.state.recovered
        if recovered is not None and recovered.name == told.answering.name:
            self._book.update(recovered=recovered.model_copy(update={"address": told.answering.address}))
        self._health.is_over(told.trouble)

    @workflow.signal
    async def job_held(self, held: HeldJob) -> None:
        await self._held.hold(held)

    @workflow.signal
    async def group_claim(self, answer: ClaimAnswer) -> None:
        await self._claim.take_answer(answer)

    @workflow.signal
    async def proceed(self, held: HeldJob) -> None:
        await self._held.tell("proceed", held)

    @workflow.signal
    async def abandon(self, held: HeldJob) -> None:
        await self._held.give_up(held)

    # -- the two lanes ------------------------------------------------------------------------------------------

    @workflow.run
    async def run(self, _: MachineState) -> None:
        self._book.show()
        test_lane = begin_beside(self._tests.run())
        watching = begin_beside(self._old_copy.run())
        while not self._is_over():
            await self._steady.let_end()
            if self._waiting is not None:
                await self._run_job(self._take_waiting())
            elif self.state.phase is Phase.PROTECTED and not self.state.halted:
                await self._steady.replicate()
            elif self._steady.resyncs_by_itself():
                await self._resynchronize_when_due()
            else:
                await workflow.wait_condition(lambda: self._waiting is not None or self._resume_asked)
                self._resume_asked = False
            if workflow.info().is_continue_as_new_suggested() and self._is_quiet():
                await self._end(test_lane, watching)
                workflow.continue_as_new(self.state)
        await self._end(test_lane, watching)

    async def _end(self, test_lane: asyncio.Task[None], watching: asyncio.Task[None]) -> None:
        test_lane.cancel()
        await self._old_copy.end()
        watching.cancel()
        await workflow.wait_condition(workflow.all_handlers_finished)

    def _overtakes(self) -> bool:
        return self._waiting is not None and self._waiting.kind in OVERTAKE_REPLICATION

    async def _resynchronize_when_due(self) -> None:
        if await self._steady.resync_is_due():
            request_id = f"resync/{self.state.jobs_started + 1}"
            asked_by = f"policy ({self.state.policy.resync})"
            wanted = JobRequest(id=request_id, kind=JobKind.RESYNCHRONIZE, requested_by=asked_by)
            why_not = await self._claim.take(wanted)
            if why_not is None:
                self._accept(wanted)
            elif self._waiting is None:
                self._book.set_health(Health(level="warning", reason=why_not))
                await self._steady.until_wanted(TRIES_AGAIN_AFTER)

    # -- one job ------------------------------------------------------------------------------------------------

    async def _run_job(self, wanted: JobRequest) -> None:
        came_from = self.state.phase
        transition = LIFECYCLE[wanted.kind]
        if transition.during is not None:
            self._book.enter(transition.during)
        copies = self._tests.copies_for(wanted)
        try:
            if wanted.kind in TAKES_OVER:
                await self._leave_nobody_else(wanted)
            result = await self._run_child(wanted, copies)
        except FailureError as error:
            overtaken = self._tests.overtaken(wanted.id)
            message = overtaken or reason(error)
            if transition.during is not None:
                self._book.enter(transition.failed or came_from)
            self._book.record(wanted.id, state="failed", message=message)
            if overtaken is None and not self._was_undone(wanted, message):
                self._health.job_failed(wanted.kind, message)
            await self._claim.give_back(wanted)
            await self._replies.tell(wanted, "failed", message)
            return
        self._take_over(wanted, copies, result)
        if transition.done is not None:
            committed = result.recovered is not None and result.recovered.committed
            self._book.enter(Phase.FAILED_OVER if committed else transition.done)
        self._book.record(wanted.id, state="done", message=result.trouble or (result.sentences or ["done"])[-1])
        self._health.job_succeeded(wanted.kind, result)
        follower = FOLLOWED_BY.get(wanted.kind)
        if follower is not None:
            next_job = wanted.model_copy(update={"id": f"{wanted.id}+", "kind": follower})
            self._accept(next_job)
            await self._claim.pass_on(wanted, next_job)
        await self._claim.give_back(wanted)
        await self._replies.tell(wanted, "finished", result.trouble or "", result)

    async def _leave_nobody_else(self, wanted: JobRequest) -> None:
        """For a job that takes the machine's other copies over, or gives the machine up."""
        await self._old_copy.end_turn()
        await self._tests.until_ended()
        why_not = self._tests.refusal(wanted)
        making = self._tests.refusal_of_making(wanted)
        if making is not None and workflow.patched(NO_COPY_IN_THE_MAKING):
            why_not = making
        if why_not is not None:
            raise invalid_state(why_not, f"then try again: leeward status {self.state.name}")

    def _was_undone(self, wanted: JobRequest, message: str) -> bool:
        """A plan run gave it up, and the machine runs at its source as before: the run tells that, not its health."""
        return message == self._held.given_up.get(wanted.id) and workflow.patched(UNDONE_IS_NO_TROUBLE)

    async def _run_child(self, wanted: JobRequest, copies: list[CopyName]) -> JobResult:
        state = self.state
        workflow_id = self._book.job_of(wanted.id)
        given = JobInput(
            request=wanted,
            relationship=state.relationship.shaped(wanted.target, isolated=wanted.kind is JobKind.TEST_FAILOVER),
            reverse=state.reverse_relationship,
            policy=state.policy,
            timings=state.timings,
            failed_over_to=state.failed_over_to,
            copies=copies if wanted.kind in BESIDE_REPLICATION | OVERTAKE_REPLICATION else [],
        )
        child = await workflow.start_child_workflow(
            wanted.kind.value,
            given,
            result_type=JobResult,
            id=workflow_id,
            parent_close_policy=ParentClosePolicy.REQUEST_CANCEL,
            search_attributes=attributes(
                machine=state.name,
                plan=wanted.plan,
                site=state.active_site,
                phase=wanted.kind.value,
                run_type=wanted.run_type,
            ),
            static_summary=f"{wanted.kind.value} of {state.name}, asked by {wanted.requested_by}",
            task_timeout=timedelta(seconds=state.timings.decision_s),
        )
        self._running[wanted.id] = child
        try:
            await self._claim.begun(wanted, child)
            result: JobResult = await child
            return result
        finally:
            del self._running[wanted.id]

    def _take_over(self, wanted: JobRequest, copies: list[CopyName], result: JobResult) -> None:
        """What the finished job changed about the machine, beyond its phase."""
        if result.point is not None and wanted.kind not in BESIDE_REPLICATION:
            self._book.update(last_point=result.point)
        if wanted.kind in BESIDE_REPLICATION:
            self._tests.take_over(wanted, copies, result)
        elif wanted.kind in {JobKind.PLANNED_FAILOVER, JobKind.UNPLANNED_FAILOVER}:
            self._book.update(failed_over_to=result.point, recovered=result.recovered_at)
            self._old_copy.begin(result)
        elif wanted.kind is JobKind.REVERSE:
            self._book.update(reversed=not self.state.reversed, failed_over_to=None, recovered=None, old_copy=None)

    # -- bookkeeping --------------------------------------------------------------------------------------------

    def _refusal(self, wanted: JobRequest) -> str | None:
        if self._book.knows(wanted.id):
            return None
        why_not = refusal_of_target(self.state.relationship, wanted.kind)
        why_not = why_not or refusal(self.state.name, self.state.phase, wanted.kind)
        if why_not is not None:
            return f"{why_not.what} — {why_not.remedy}"
        if wanted.kind not in BESIDE_REPLICATION and self._waiting is not None:
            return f"machine '{self.state.name}' is about to run {self._waiting.kind} — try again when it is done"
        return self._tests.refusal(wanted)

    def _accept(self, wanted: JobRequest) -> None:
        self._book.accept(wanted)
        if wanted.kind in BESIDE_REPLICATION:
            self._tests.put(wanted)
        else:
            self._waiting = wanted
        if wanted.kind in OVERTAKE_REPLICATION:
            self._tests.give_way(wanted)

    def _take_waiting(self) -> JobRequest:
        wanted, self._waiting = self._waiting, None
        assert wanted is not None
        return wanted

    def _is_over(self) -> bool:
        """Unprotected with nothing to do: the entity ends; ``leeward protect`` makes a new one."""
        return self.state.phase is Phase.UNPROTECTED and self.state.jobs_started > 0 and self._is_quiet()

    def _is_quiet(self) -> bool:
        return (
            self.state.phase in IDLE
            and self._waiting is None
            and not self._claim.is_asking
            and not (self._tests.is_busy or self._running or self._steady.is_ending)
        )
