"""A machine's steady state: one long activity of replication after another, and resynchronization by the policy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError
from temporalio.workflow import ActivityCancellationType

from activities import contracts
from activities.contracts import Done, OfRelationship, Replicate, ReplicationStopped, replication_queue
from vault.domain import RecoveryPoint, Relationship
from vault.inventory import Policy
from vault.lifecycle import Phase
from workflows.beside import begin_beside
from workflows.calls import is_cancellation, last_point_in, reason
from workflows.machine_book import MachineBook
from workflows.model import Health, Timings
from workflows.protection import time_until

JOBS_OVERTAKE = "jobs-overtake-replication"
"""Patch: machines that were protected before waited for the end of replication first."""
MAKES_WAY_AT_ONCE = "replication-is-asked-to-make-way"
"""Patch: before, its worker heard of the end with its next heartbeat only."""
OVERTAKEN_HALTS_NOTHING = "overtaken-replication-halts-nothing"
"""Patch: what the replica refused to it because of a failover halted the machine when that failover was undone."""
ASKED_FOR_AT_MOST_S = 10.0
REPLICATION_TURN = timedelta(hours=1)
LONGEST_SILENCE_S = 300.0


class SteadyState:
    """Replicates while nobody wants the machine.

    ``wanted``: a job waits; ``overtakes``: it is one that need not wait for replication to come to its end.
    """

    def __init__(self, book: MachineBook, wanted: Callable[[], bool], overtakes: Callable[[], bool]) -> None:
        self._book = book
        self._wanted = wanted
        self._overtakes = overtakes
        self._anew = False
        self._ending: workflow.ActivityHandle[ReplicationStopped] | None = None
        """A replication that was told to stop, and was overtaken."""
        self._asking: asyncio.Task[None] | None = None
        """Nobody waits for it; kept, because the event loop holds its tasks weakly."""

    @property
    def is_ending(self) -> bool:
        return self._ending is not None

    def begin_anew(self) -> None:
        """What waits for its next try tries now: the turn ends, and the next one knows of no failure."""
        self._anew = True

    async def let_end(self) -> None:
        """Unless the next job overtakes it, too."""
        if self._ending is not None and not self._overtakes():
            ending, self._ending = self._ending, None
            await self._end_of(ending, overtaken=True)

    async def replicate(self) -> None:
        """One turn; it ends when a job wants the machine, or for the next one."""
        relationship, self._anew = self._book.state.relationship, False
        turn = workflow.start_activity(
            contracts.REPLICATE_DELTAS.name,
            Replicate(relationship=relationship, run_for_s=REPLICATION_TURN.total_seconds()),
            result_type=ReplicationStopped,
            task_queue=replication_queue(relationship.source_site),
            summary=f"replicate {relationship.machine} to {relationship.target_site}",
            heartbeat_timeout=timedelta(seconds=longest_silence_s(relationship, self._book.state.timings)),
            start_to_close_timeout=REPLICATION_TURN * 2,
            retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=1)),
            cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
        await workflow.wait_condition(lambda: turn.done() or self._wanted() or self._anew)
        if not turn.done():
            turn.cancel()
            if self._overtakes() and workflow.patched(JOBS_OVERTAKE):
                self._ending = turn
                return
            if workflow.patched(MAKES_WAY_AT_ONCE):
                self._asking = begin_beside(self._ask_to_make_way(relationship))
        await self._end_of(turn)

    async def _ask_to_make_way(self, relationship: Relationship) -> None:
        """A turn that waits for its next cut hears of its cancellation with its next heartbeat, up to 75 s later; this
        word it hears at once, when it comes to the process of the turn. Elsewhere the word changes nothing: the job
        waits for the turn's end in any case, so that a turn never wakes up beside it."""
        try:
            await workflow.execute_activity(
                contracts.MAKE_WAY.name,
                OfRelationship(relationship=relationship),
                result_type=Done,
                task_queue=replication_queue(relationship.source_site),
                summary=f"let replication of {relationship.machine} make way for a job",
                schedule_to_close_timeout=timedelta(seconds=ASKED_FOR_AT_MOST_S),
                retry_policy=RetryPolicy(maximum_attempts=1),
            )
        except ActivityError as error:
            workflow.logger.info("nobody was asked to make way: %s", reason(error))

    async def _end_of(self, turn: workflow.ActivityHandle[ReplicationStopped], *, overtaken: bool = False) -> None:
        """What ended an overtaken turn may be the failover's doing, and over with it; else the next turn meets it."""
        try:
            stopped = await turn
        except ActivityError as error:
            if is_cancellation(error) or self._book.state.phase is not Phase.PROTECTED:
                return
            self._note_point(last_point_in(error))
            if overtaken and workflow.patched(OVERTAKEN_HALTS_NOTHING):
                workflow.logger.info("an overtaken replication ended: %s", reason(error))
                return
            self._book.halt(f"replication halted: {reason(error)}")
            return
        if self._book.state.phase is not Phase.PROTECTED:
            return
        self._note_point(stopped.last_point)
        if stopped.reason == "resync-required":
            self._book.enter(Phase.RESYNC_REQUIRED)
            self._book.set_health(Health(level="warning", reason=stopped.detail))

    def _note_point(self, point: RecoveryPoint | None) -> None:
        if point is not None:
            self._book.update(last_point=point)

    def resyncs_by_itself(self) -> bool:
        state = self._book.state
        return state.phase is Phase.RESYNC_REQUIRED and state.policy.resync != "manual" and not state.halted

    async def until_wanted(self, at_most: timedelta) -> None:
        try:
            await workflow.wait_condition(self._wanted, timeout=at_most, timeout_summary="what is due is tried again")
        except TimeoutError:
            return

    async def resync_is_due(self) -> bool:
        """Wait for the policy's window; False when a job came first."""
        policy = self._book.state.policy
        try:
            await workflow.wait_condition(
                self._wanted,
                timeout=_opens_in(policy, workflow.now()),
                timeout_summary=f"resynchronization window opens at {policy.resync_window.start} UTC",
            )
        except TimeoutError:
            return True
        return False


def longest_silence_s(relationship: Relationship, timings: Timings) -> float:
    """A machine that waits most of the time beats by its own rhythm: every beat is a write for Temporal, and thousands
    of machines wait. A worker that died is missed before two cuts are."""
    return max(timings.heartbeat_s, min(relationship.pace_s / 2, LONGEST_SILENCE_S))


def _opens_in(policy: Policy, now: datetime) -> timedelta:
    window = policy.resync_window
    if policy.resync != "window" or _inside(window.start, window.until, now.strftime("%H:%M")):
        return timedelta(0)
    return time_until(window.start, now)


def _inside(start: str, until: str, clock: str) -> bool:
    """Whether ``clock`` (``HH:MM``) is in the window, which may pass midnight."""
    if start <= until:
        return start <= clock < until
    return clock >= start or clock < until
