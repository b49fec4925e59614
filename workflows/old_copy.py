"""Keeping the copy at the old site off production after a failover without proof (requirements §E).

Whoever fails over with ``--source-unreachable`` says that the source does not run. When its host comes back, it may
start again, beside the recovered machine. From the commit pending on, until reverse replication takes its disks over, a
worker of the old site looks for it. While no worker polls that site's queue, the watch waits there at no cost, and
begins with the first one that does.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError
from temporalio.workflow import ActivityCancellationType

from activities import contracts
from activities.contracts import Notification, OldCopyWatched, WatchOldCopy, site_queue
from vault.domain import utc
from vault.lifecycle import JobKind, Phase
from vault.notifications import Occasion
from workflows.calls import is_cancellation, reason
from workflows.machine_book import MachineBook
from workflows.model import Health, JobResult, OldCopy
from workflows.notifying import notify

WATCHED_IN = frozenset({Phase.COMMIT_PENDING, Phase.COMMITTING, Phase.FAILED_OVER})
TURN = timedelta(hours=6)
"""A watch that sees nothing begins anew so often: few events a day, however long nobody reverses."""
AFTER_A_FAILURE = timedelta(minutes=10)
TOLD_AT_MOST_EVERY = timedelta(minutes=10)
"""A copy that is started again and again is stopped each time, but told of less often."""
TAKES_OVER = frozenset({JobKind.REVERSE, JobKind.DISABLE})
"""Jobs before which the watch ends: one owns the old copy from then on, the other gives the machine up."""
KNOWS_WHAT_WAS_LEFT = "old-copy-trouble-outlives-a-run"
"""Patch: what an earlier run of the workflow had left critical stayed so, whatever a later one saw."""
WATCHES = "watch-old-copy"
"""Patch: machines that were failed over before were not watched."""


class OldCopyWatch:
    """A lane of the machine's workflow, beside its jobs."""

    def __init__(self, book: MachineBook) -> None:
        self._book = book
        self._turn: workflow.ActivityHandle[OldCopyWatched] | None = None
        self._told: datetime | None = None
        self._trouble = ""
        """Why the last look failed; empty: it did not."""
        self._left = self._left_trouble()
        """The same of an earlier run of the workflow, until this one has looked."""
        self._over = False

    def _left_trouble(self) -> str:
        state = self._book.state
        told = state.old_copy is not None and state.health.reason.startswith(_may_run(state.old_copy))
        return state.health.reason if told else ""

    def begin(self, result: JobResult) -> None:
        """After a failover: watch, unless the source was seen off."""
        relationship = self._book.state.relationship
        unproven = result.source_proven_off is False and workflow.patched(WATCHES)
        old = OldCopy(site=relationship.source_site, machine=relationship.machine) if unproven else None
        self._book.update(old_copy=old)

    async def run(self) -> None:
        while True:
            await workflow.wait_condition(self._is_wanted)
            await self._watch()

    async def end_turn(self) -> None:
        """For a job that takes the old copy over, or ends the machine: nobody else touches it from here on."""
        if self._turn is not None:
            self._turn.cancel()
            await workflow.wait_condition(lambda: self._turn is None)

    async def end(self) -> None:
        """This run of the workflow ends; the next one, if there is one, watches on."""
        self._over = True
        await self.end_turn()

    def health(self) -> Health:
        """How the machine is when nothing else is wrong with it."""
        if self._trouble or self._left:
            return Health(level="critical", reason=self._trouble or self._left)
        old = self._book.state.old_copy
        if old is None or old.last_stopped is None:
            return Health()
        times = f", {old.stopped} times so far" if old.stopped > 1 else ""
        what = (
            f"the old copy at {old.site} ran again and was powered off ({utc(old.last_stopped)}{times}); it is watched "
            "until reverse replication takes it over — keep it from starting there"
        )
        return Health(level="warning", reason=what)

    def _is_wanted(self) -> bool:
        state = self._book.state
        return state.old_copy is not None and state.phase in WATCHED_IN and not self._over

    async def _watch(self) -> None:
        old, timings = self._book.state.old_copy, self._book.state.timings
        assert old is not None
        turn = AFTER_A_FAILURE if self._trouble or self._left else TURN
        self._turn = workflow.start_activity(
            contracts.WATCH_OLD_COPY.name,
            WatchOldCopy(
                site=old.site, machine=old.machine, every_s=timings.old_copy_s, run_for_s=turn.total_seconds()
            ),
            result_type=OldCopyWatched,
            task_queue=site_queue(old.site),
            summary=f"keep the old copy of {old.machine} off at {old.site}",
            heartbeat_timeout=timedelta(seconds=timings.heartbeat_s),
            start_to_close_timeout=turn * 2,
            retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=1)),
            cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
        try:
            watched = await self._turn
        except ActivityError as error:
            if not is_cancellation(error):
                await self._failed(old, reason(error))
            return
        finally:
            self._turn = None
        self._trouble_is_over()
        if watched.stopped is not None:
            await self._stopped(old, watched.stopped)

    async def _stopped(self, old: OldCopy, what: str) -> None:
        self._book.update(old_copy=old.model_copy(update={"stopped": old.stopped + 1, "last_stopped": workflow.now()}))
        self._book.tell(what)
        self._book.set_health(self.health())
        await self._notify("stopped", what)

    async def _failed(self, old: OldCopy, why: str) -> None:
        """The copy may run, and nobody can look or stop it: worse news there are not."""
        what = f"{_may_run(old)}{why}"
        self._left = ""
        if self._trouble != what:
            self._trouble = what
            self._book.tell(what)
            self._book.set_health(Health(level="critical", reason=what))
        await self._notify("not-stopped", what)
        try:
            await workflow.wait_condition(
                lambda: not self._is_wanted(), timeout=AFTER_A_FAILURE, timeout_summary="look for the old copy again"
            )
        except TimeoutError:
            return

    def _trouble_is_over(self) -> None:
        told, trouble, left = self._book.state.health.reason, self._trouble, self._left
        self._trouble = self._left = ""
        if (trouble and told == trouble) or (left and told == left and workflow.patched(KNOWS_WHAT_WAS_LEFT)):
            self._book.set_health(self.health())

    async def _notify(self, state: str, message: str) -> None:
        now, machine = workflow.now(), self._book.state.name
        if self._told is not None and now - self._told < TOLD_AT_MOST_EVERY:
            return
        self._told = now
        for number, webhook in enumerate(self._book.state.webhooks):
            if Occasion.OLD_COPY not in webhook.on:
                continue
            key = f"{machine}/{Occasion.OLD_COPY}/{number}/{now:%Y%m%dT%H%M%S}"
            await notify(
                Notification(
                    webhook=webhook,
                    id=key,
                    occasion=Occasion.OLD_COPY,
                    machine=machine,
                    state=state,
                    message=message,
                    at=now,
                )
            )


def _may_run(old: OldCopy) -> str:
    return f"the old copy of {old.machine} at {old.site} may run beside the recovered one: "
