"""The slots of one site: how many machines are failed over to it at a time, of all plan runs together.

A workflow of its own, ``site/<site>/failovers``, because runs of several plans share it. It exists while somebody has
or wants a slot. A run that is gone without giving its slots back (terminated, say) loses them: while others wait, its
holder is looked for now and then.
"""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import FailureError

from workflows.signalling import reached
from workflows.slot_model import SlotAnswer, SlotRequest, SlotReturn, SlotsState

LOOK_EVERY = timedelta(minutes=1)
"""How often holders are looked for while others wait."""
LINGERS = timedelta(seconds=10)
"""The next machine of a run wants its slot right after the one before; a new workflow for each would be waste."""
NAMES_TOLD = 3


@workflow.defn(name="SiteSlots")
class SiteSlots:
    @workflow.init
    def __init__(self, state: SlotsState) -> None:
        self._state = state
        self._told: dict[str, str] = {}
        """What each waiting request was told last."""
        self._changed = True

    @workflow.query
    def describe(self) -> SlotsState:
        return self._state

    @workflow.signal
    def take(self, wanted: SlotRequest) -> None:
        """Ask for a slot; the answer is a ``slot`` signal. The newest limit holds."""
        known = {one.id for one in (*self._state.taken, *self._state.waiting)}
        waiting = self._state.waiting if wanted.id in known else [*self._state.waiting, wanted]
        self._update(at_once=wanted.at_once, waiting=waiting)

    @workflow.signal
    def give_back(self, back: SlotReturn) -> None:
        self._update(
            taken=[one for one in self._state.taken if one.id != back.id],
            waiting=[one for one in self._state.waiting if one.id != back.id],
        )

    @workflow.run
    async def run(self, _: SlotsState) -> None:
        while True:
            self._changed = False
            await self._give_and_tell()
            idle = not self._state.taken and not self._state.waiting
            if workflow.info().is_continue_as_new_suggested() and not self._changed:
                workflow.continue_as_new(self._state)
            timeout = LINGERS if idle else LOOK_EVERY if self._state.waiting else None
            try:
                await workflow.wait_condition(lambda: self._changed, timeout=timeout)
            except TimeoutError:
                if idle:
                    return
                await self._look_for_holders()

    async def _give_and_tell(self) -> None:
        """First come, first served. Who waits is told for whom, once, and again when that changes."""
        self._show()
        while self._state.waiting and len(self._state.taken) < self._state.at_once:
            first = self._state.waiting[0]
            self._update(waiting=self._state.waiting[1:], taken=[*self._state.taken, first])
            await self._answer(first, SlotAnswer(id=first.id, given=True))
        for one in list(self._state.waiting):
            why = self._busy_with()
            if self._told.get(one.id) != why:
                self._told[one.id] = why
                await self._answer(one, SlotAnswer(id=one.id, given=False, why=why))
        self._told = {one.id: self._told[one.id] for one in self._state.waiting if one.id in self._told}
        self._show()

    def _busy_with(self) -> str:
        taken = self._state.taken
        named = ", ".join(f"{one.machine} ({one.plan})" for one in taken[:NAMES_TOLD])
        more = f" and {len(taken) - NAMES_TOLD} more" if len(taken) > NAMES_TOLD else ""
        return f"{self._state.at_once} at once, now {named}{more}"

    async def _answer(self, wanted: SlotRequest, answer: SlotAnswer) -> None:
        if not await reached(wanted.holder, "slot", answer):
            self.give_back(SlotReturn(id=wanted.id))

    async def _look_for_holders(self) -> None:
        """A signal to a workflow that has ended is refused: that is how a slot without a holder is found."""
        for holder in dict.fromkeys(one.holder for one in self._state.taken):
            try:
                await workflow.get_external_workflow_handle(holder).signal("slot_wanted")
            except FailureError:
                for one in [one for one in self._state.taken if one.holder == holder]:
                    workflow.logger.warning("%s ended with the slot of %s", holder, one.machine)
                    self.give_back(SlotReturn(id=one.id))

    def _update(self, **changes: object) -> None:
        self._state = self._state.model_copy(update=changes)
        self._changed = True

    def _show(self) -> None:
        state = self._state
        lines = [f"{len(state.taken)} of {state.at_once} slots taken, {len(state.waiting)} machines wait", ""]
        lines += [f"- {one.machine} ({one.plan})" for one in state.taken]
        workflow.set_current_details("\n".join(lines))
