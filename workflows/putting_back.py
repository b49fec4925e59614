"""Compensation of a plan run: machines that were shut down but not started at the target run at their source again."""

from __future__ import annotations

from collections.abc import Iterable

from temporalio import workflow
from temporalio.exceptions import FailureError

from workflows.calls import reason
from workflows.ids import machine_id
from workflows.model import HeldJob, JobEvent

NOT_FINISHED = "the plan run did not finish"


class HeldMachines:
    """Those that hold their planned failover, by the run's order, with the id of the request for it."""

    def __init__(self) -> None:
        self.requests: dict[str, str] = {}
        self._restored: dict[str, JobEvent] = {}

    def take_answer(self, event: JobEvent) -> None:
        self._restored[event.machine] = event

    def started(self, machines: Iterable[str | None]) -> None:
        """They are at the target now."""
        gone = set(machines)
        self.requests = {machine: held for machine, held in self.requests.items() if machine not in gone}

    async def put_back(self, order: list[str]) -> str:
        """One after another in the plan's order, so that a database is up before its applications; what to tell."""
        back: list[str] = []
        troubles: list[str] = []
        for machine in [machine for machine in order if machine in self.requests]:
            trouble = await self._restore(machine)
            if trouble is None:
                back.append(machine)
            else:
                troubles.append(f"; '{machine}' could not be put back: {trouble}")
        self.requests = {}
        return (f"; put back at their source: {', '.join(back)}" if back else "") + "".join(troubles)

    async def _restore(self, machine: str) -> str | None:
        """None when the machine runs at its source again, else what happened instead."""
        word = HeldJob(request_id=self.requests[machine], reply_to=workflow.info().workflow_id, reason=NOT_FINISHED)
        try:
            await workflow.get_external_workflow_handle(machine_id(machine)).signal("abandon", word)
        except FailureError as error:
            return reason(error)
        await workflow.wait_condition(lambda: machine in self._restored)
        event = self._restored[machine]
        return None if event.message == NOT_FINISHED else event.message or f"it is {event.phase}"
