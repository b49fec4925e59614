"""How a stage keeps to the limits: a machine's work begins when the plan and the site have a slot for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.workflow import ParentClosePolicy

from plans.stages import StageKind
from workflows.ids import site_slots_id
from workflows.progress import StageProgress, StepFailed
from workflows.signalling import reached
from workflows.slot_model import SlotAnswer, SlotRequest, SlotReturn, SlotsState

TRIES = 5
"""The site's slots may end between being looked for and being asked."""
ASKS_AGAIN_AFTER = timedelta(minutes=5)
"""Whoever ends the site's slots by hand must not end the recovery with them."""
LEAVING = (Exception, asyncio.CancelledError)
"""Every way out but the one by which a worker forgets a workflow: there nothing may be said to others."""
FAILS_OVER = frozenset({StageKind.SHUT_DOWN, StageKind.RECOVER})
"""Stages that make and start machines at a site; the others put no load on it that its limit is about."""


class Slots:
    """The limits of one stage. Waiting machines say in their rows what they wait for; a cancel ends the waiting."""

    def __init__(self, progress: StageProgress) -> None:
        self._progress = progress
        given = progress.given
        self._at_once = given.machines_at_once
        self._sites = given.sites if given.stage.kind in FAILS_OVER else {}
        self._queue: list[str] = []
        self._working: set[str] = set()
        self._answers: dict[str, SlotAnswer] = {}

    def take_answer(self, answer: SlotAnswer) -> None:
        self._answers[answer.id] = answer
        row = self._progress.rows.get(self._row_of(answer.id))
        if not answer.given and row is not None and row.state == "pending":
            self._progress.set(row.id, detail=self._site_words(row.name, answer.why))

    @asynccontextmanager
    async def of(self, machine: str) -> AsyncIterator[None]:
        """The plan's slot, then the site's: a run that waits for its own machines takes nothing from other runs."""
        row_id = self._progress.row_id(machine)
        await self._enter(row_id)
        try:
            site = self._sites.get(machine)
            if site is None:
                yield
                return
            slot = await self._take(site, machine, row_id)
            try:
                yield
            except LEAVING:
                await _give_back(site, slot)
                raise
            await _give_back(site, slot)
        finally:
            self._working.discard(row_id)

    # -- the plan's limit ----------------------------------------------------------------------------------------

    async def _enter(self, row_id: str) -> None:
        if self._at_once is None:
            return
        self._queue.append(row_id)

        def its_turn() -> bool:
            assert self._at_once is not None
            free = self._at_once - len(self._working)
            return not self._progress.paused and row_id in self._queue[: max(0, free)]

        if not its_turn():
            self._wait(row_id, f"waits: this plan works on {self._at_once} at once")
        await workflow.wait_condition(lambda: its_turn() or self._progress.cancelled)
        self._queue.remove(row_id)
        self._progress.end_if_cancelled(row_id)
        self._working.add(row_id)
        self._go_on(row_id)

    # -- the site's limit ----------------------------------------------------------------------------------------

    async def _take(self, site: str, machine: str, row_id: str) -> str:
        """Returns the id of the slot."""
        slot = f"{self._progress.given.facts.run_id}/{row_id}/{self._progress.rounds[row_id]}"
        wanted = SlotRequest(
            id=slot,
            holder=workflow.info().workflow_id,
            plan=self._progress.given.facts.plan,
            machine=machine,
            at_once=self._progress.given.failovers_at_once[site],
        )
        self._wait(row_id, self._site_words(machine))
        while True:
            await self._ask(site, wanted)
            try:
                if not await self._answered(slot):
                    continue
                paused = self._progress.paused
                if not self._progress.cancelled and not paused:
                    self._go_on(row_id)
                    return slot
            except LEAVING:
                await _give_back(site, slot)
                raise
            await _give_back(site, slot)
            self._answers.pop(slot, None)
            self._progress.end_if_cancelled(row_id)
            await workflow.wait_condition(lambda: not self._progress.paused or self._progress.cancelled)

    async def _answered(self, slot: str) -> bool:
        """Whether the slot was given, or is not wanted any more; False: it is time to ask again."""
        try:
            await workflow.wait_condition(
                lambda: self._has(slot) or self._progress.cancelled,
                timeout=ASKS_AGAIN_AFTER,
                timeout_summary="ask for the slot again",
            )
        except TimeoutError:
            return False
        return True

    def _has(self, slot: str) -> bool:
        return slot in self._answers and self._answers[slot].given

    async def _ask(self, site: str, wanted: SlotRequest) -> None:
        """The site's slots are a workflow that somebody has to start."""
        for _ in range(TRIES):
            if await reached(site_slots_id(site), "take", wanted):
                return
            try:
                await workflow.start_child_workflow(
                    "SiteSlots",
                    SlotsState(at_once=wanted.at_once),
                    id=site_slots_id(site),
                    parent_close_policy=ParentClosePolicy.ABANDON,
                    static_summary=f"failovers to {site}: {wanted.at_once} at once",
                )
            except WorkflowAlreadyStartedError:
                workflow.logger.info("another run has started the slots of %s", site)
        raise StepFailed(f"the slots of site '{site}' cannot be asked — retry")

    # -- rows ----------------------------------------------------------------------------------------------------

    def _row_of(self, slot: str) -> str:
        return slot.removeprefix(f"{self._progress.given.facts.run_id}/").rpartition("/")[0]

    def _site_words(self, machine: str, why: str = "") -> str:
        return f"waits for a slot at {self._sites[machine]}{f': {why}' if why else ''}"

    def _wait(self, row_id: str, why: str) -> None:
        self._progress.set(row_id, state="pending", started=None, detail=why)

    def _go_on(self, row_id: str) -> None:
        self._progress.set(row_id, state="running", started=workflow.now(), detail="")


async def _give_back(site: str, slot: str) -> None:
    await reached(site_slots_id(site), "give_back", SlotReturn(id=slot))
