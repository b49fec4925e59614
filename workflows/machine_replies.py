"""What a machine tells the plan runs that asked it for jobs."""

from __future__ import annotations

from temporalio import workflow

from workflows.machine_book import MachineBook
from workflows.model import HeldJob, JobEvent, JobRequest, JobResult
from workflows.signalling import reached


class Replies:
    """By ``job_event`` signals; whoever asked without ``reply_to`` hears nothing."""

    def __init__(self, book: MachineBook) -> None:
        self._book = book

    async def tell(self, wanted: JobRequest, kind: str, message: str, result: JobResult | None = None) -> None:
        reply_to = self._book.requests.get(wanted.id, wanted).reply_to
        if reply_to is not None:
            await self._event(reply_to, wanted.id, kind, message, result)

    async def tell_that_it_has_ended(self, held: HeldJob) -> None:
        """To a run that has a word for a job that it still takes for held."""
        if held.reply_to is None:
            workflow.logger.warning("request %s is not running any more", held.request_id)
            return
        message = f"its failover has ended before — leeward status {self._book.state.name}"
        await self._event(held.reply_to, held.request_id, "failed", message)

    async def _event(
        self, reply_to: str, request_id: str, kind: str, message: str, result: JobResult | None = None
    ) -> None:
        event = JobEvent.model_validate(
            {
                "request_id": request_id,
                "machine": self._book.state.name,
                "kind": kind,
                "message": message,
                "phase": self._book.state.phase,
                "result": result,
            }
        )
        await reached(reply_to, "job_event", event)
