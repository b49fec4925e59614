"""A machine's claims on its replication group: no job that needs the whole group begins without one.

Machines that move alone have no group, and nothing of this exists for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.workflow import ParentClosePolicy

from vault.lifecycle import CLAIMS_ITS_GROUP
from workflows.claim_model import Claim, ClaimAnswer, ClaimReturn, ClaimsState
from workflows.ids import group_claims_id
from workflows.machine_book import MachineBook
from workflows.model import JobRequest, JobResult
from workflows.signalling import reached

CLAIMS_GROUPS = "jobs-claim-their-group"
"""Patch: jobs of one group's machines began without asking each other."""
ASKS_AGAIN_AFTER = timedelta(minutes=1)
"""Whoever ends the group's claims by hand must not end a recovery with them."""
TRIES = 5
"""The group's claims may end between being looked for and being asked."""


class GroupClaim:
    """Asks for the group, and gives it back.

    ``refusal``: why the machine itself refuses a job; it is asked again once the group is given.
    """

    def __init__(self, book: MachineBook, refusal: Callable[[JobRequest], str | None]) -> None:
        self._book = book
        self._refusal = refusal
        self._asking: dict[str, asyncio.Task[str | None]] = {}
        self._answers: dict[str, ClaimAnswer] = {}
        self._given: dict[str, tuple[str, Claim]] = {}
        """By request: the group, and the claim on it."""

    @property
    def is_asking(self) -> bool:
        return bool(self._asking)

    async def take_answer(self, answer: ClaimAnswer) -> None:
        """One that comes late, because it was asked for twice, says nothing any more. But what it gives goes back:
        nobody else would ever return it."""
        if answer.id in self._asking:
            self._answers[answer.id] = answer
        elif not answer.refusal and all(claim.id != answer.id for _, claim in self._given.values()):
            claims = group_claims_id(self._book.state.relationship.replication_group)
            await reached(claims, "give_back", ClaimReturn(id=answer.id))

    async def take(self, wanted: JobRequest) -> str | None:
        """Why the job may not begin because of another machine of the group, or because of another job of this one that
        was accepted meanwhile; None when it may: then it has to be accepted at once."""
        if self._book.knows(wanted.id) or not self._is_needed(wanted):
            return None
        claim = self._claim_for(wanted)
        asking = self._asking.get(claim.id)
        if asking is None:
            asking = self._asking[claim.id] = asyncio.create_task(self._ask(wanted, claim))
        try:
            why_not = await asking
        finally:
            self._asking.pop(claim.id, None)
        if why_not is None:
            why_not = self._refusal(wanted)
            if why_not is not None:
                await self.give_back(wanted)
        return why_not

    def _is_needed(self, wanted: JobRequest) -> bool:
        has_group = bool(self._book.state.relationship.replication_group)
        return has_group and wanted.kind in CLAIMS_ITS_GROUP and workflow.patched(CLAIMS_GROUPS)

    async def begun(self, wanted: JobRequest, job: workflow.ChildWorkflowHandle[object, JobResult]) -> None:
        """The claim holds as long as the job goes on, whatever becomes of the machine's own workflow."""
        if wanted.id in self._given:
            group, claim = self._given[wanted.id]
            known = {"job": job.id, "job_run": job.first_execution_run_id or ""}
            await _tell(group, "begun", claim.model_copy(update=known))

    async def pass_on(self, done: JobRequest, follower: JobRequest) -> None:
        """The next job of a chain takes over, without a moment in which another machine's could get the group."""
        if done.id in self._given:
            group, _ = self._given[done.id]
            claim = self._claim_for(follower)
            self._given[follower.id] = (group, claim)
            await _tell(group, "begun", claim)
            await self.give_back(done)

    async def give_back(self, wanted: JobRequest) -> None:
        if wanted.id in self._given:
            group, claim = self._given.pop(wanted.id)
            await reached(group_claims_id(group), "give_back", ClaimReturn(id=claim.id))

    def _claim_for(self, wanted: JobRequest) -> Claim:
        me, machine = workflow.info(), self._book.state.name
        return Claim(
            id=f"{machine}/{wanted.id}",
            machine=machine,
            kind=wanted.kind,
            holder=me.workflow_id,
            holder_run=me.run_id,
            requested_by=wanted.requested_by,
            plan=wanted.plan,
            run_id=wanted.run_id,
        )

    async def _ask(self, wanted: JobRequest, claim: Claim) -> str | None:
        group = self._book.state.relationship.replication_group
        while claim.id not in self._answers:
            if not await _tell(group, "claim", claim):
                return f"the claims on replication group '{group}' cannot be asked — try again"
            try:
                await workflow.wait_condition(
                    lambda: claim.id in self._answers,
                    timeout=ASKS_AGAIN_AFTER,
                    timeout_summary=f"ask again whether {group} may be moved",
                )
            except TimeoutError:
                workflow.logger.warning("the claims on %s did not answer", group)
        refusal = self._answers.pop(claim.id).refusal
        if refusal:
            return refusal
        self._given[wanted.id] = (group, claim)
        return None


async def _tell(group: str, what: str, claim: Claim) -> bool:
    """The claims of a group are a workflow that somebody has to start. False: it is neither found nor made."""
    for _ in range(TRIES):
        if await reached(group_claims_id(group), what, claim):
            return True
        try:
            claims = await workflow.start_child_workflow(
                "GroupClaims",
                ClaimsState(group=group),
                id=group_claims_id(group),
                parent_close_policy=ParentClosePolicy.ABANDON,
                static_summary=f"who may move replication group {group}",
            )
        except WorkflowAlreadyStartedError:
            workflow.logger.info("another machine has started the claims of %s", group)
        else:
            claims.add_done_callback(_has_ended)
    return False


def _has_ended(claims: asyncio.Task[object]) -> None:
    """Whether they ended by themselves or by hand is all the same to the machine that began them."""
    if not claims.cancelled() and claims.exception() is not None:
        workflow.logger.info("the claims were ended: %s", claims.exception())
