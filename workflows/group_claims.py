"""Who may move a replication group: the claims of its machines' jobs (docs/decisions/009-claims-on-a-group.md).

A workflow of its own, ``group/<group>``, because an array moves the volumes of several machines as a whole, and each
machine is a workflow that knows only of its own jobs. It exists while one of them has a claim. A claim whose holder is
gone without giving it back (terminated, say) is found before it refuses anybody, and by itself after a while.
"""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError

from activities import contracts
from activities.contracts import CONTROL_QUEUE, RunQuestion
from workflows.calls import call, reason
from workflows.claim_model import Claim, ClaimAnswer, ClaimReturn, ClaimsState
from workflows.model import Timings
from workflows.signalling import reached

LOOKS_EVERY = timedelta(minutes=10)
"""How often claims are looked after that nobody is refused by."""
LINGERS = timedelta(seconds=10)
"""The next machine of a run claims right after the one before; a new workflow for each would be waste."""


@workflow.defn(name="GroupClaims")
class GroupClaims:
    @workflow.init
    def __init__(self, state: ClaimsState) -> None:
        self._group = state.group
        self._claims = {claim.id: claim for claim in state.claims}
        self._asked: list[Claim] = []
        self._changed = False

    @workflow.query
    def describe(self) -> ClaimsState:
        return ClaimsState(group=self._group, claims=list(self._claims.values()))

    @workflow.signal
    def claim(self, wanted: Claim) -> None:
        """Ask for the group; the answer is a ``group_claim`` signal to the holder. May be repeated."""
        self._asked.append(wanted)

    @workflow.signal
    def begun(self, claim: Claim) -> None:
        """The job of a claim runs. It also makes a claim known that was forgotten with its workflow."""
        self._claims[claim.id] = claim
        self._changed = True

    @workflow.signal
    def give_back(self, back: ClaimReturn) -> None:
        self._claims.pop(back.id, None)
        self._asked = [one for one in self._asked if one.id != back.id]
        self._changed = True

    @workflow.run
    async def run(self, _: ClaimsState) -> None:
        while True:
            self._changed = False
            self._show()
            try:
                await workflow.wait_condition(
                    lambda: bool(self._asked) or self._changed,
                    timeout=LOOKS_EVERY if self._claims else LINGERS,
                    timeout_summary=f"do the jobs that claim {self._group} go on?" if self._claims else None,
                )
            except TimeoutError:
                if not self._claims and not self._asked:
                    return
                await self._look_for_holders()
            while self._asked:
                await self._decide(self._asked.pop(0))
            if workflow.info().is_continue_as_new_suggested() and not self._asked:
                workflow.continue_as_new(self.describe())

    async def _decide(self, wanted: Claim) -> None:
        for other in list(self._claims.values()):
            if not other.goes_with(wanted) and await self._stands(other):
                await self._answer(wanted, ClaimAnswer(id=wanted.id, refusal=other.refuses(wanted, self._group)))
                return
        self._claims[wanted.id] = wanted
        self._show()
        await self._answer(wanted, ClaimAnswer(id=wanted.id))

    async def _look_for_holders(self) -> None:
        for claim in list(self._claims.values()):
            await self._stands(claim)

    async def _stands(self, claim: Claim) -> bool:
        """Whether the claim holds. A job whose machine was terminated puts the group back: it holds until then."""
        goes_on = await self._goes_on(claim.holder, claim.holder_run)
        if not goes_on and claim.job:
            goes_on = await self._goes_on(claim.job, claim.job_run)
        if not goes_on:
            workflow.logger.warning("%s ended with its claim on %s", claim.holder, self._group)
            self._claims.pop(claim.id, None)
        return claim.id in self._claims

    async def _goes_on(self, workflow_id: str, run: str) -> bool:
        """What cannot be found out goes on: two jobs that move one group are worse than one that waits."""
        try:
            found = await call(
                contracts.FIND_RUN,
                RunQuestion(workflow_id=workflow_id, execution=run),
                queue=CONTROL_QUEUE,
                summary=f"does {workflow_id} go on?",
                timings=Timings(),
                once=True,
            )
        except ActivityError as error:
            workflow.logger.warning("whether %s goes on is not known: %s", workflow_id, reason(error))
            return True
        return found.goes_on

    async def _answer(self, wanted: Claim, answer: ClaimAnswer) -> None:
        if not await reached(wanted.holder, "group_claim", answer, run_id=wanted.holder_run):
            workflow.logger.warning("%s is gone", wanted.holder)
            self._claims.pop(wanted.id, None)

    def _show(self) -> None:
        lines = [f"{len(self._claims)} jobs have replication group {self._group}", ""]
        lines += [f"- {one.machine}: {one.kind}, asked by {one.requested_by}" for one in self._claims.values()]
        workflow.set_current_details("\n".join(lines))
