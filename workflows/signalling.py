"""Signals between workflows that may be gone."""

from __future__ import annotations

from temporalio import workflow
from temporalio.exceptions import FailureError

from workflows.calls import is_cancellation, reason
from workflows.cancelling import heeding_cancellation


async def send(workflow_id: str, signal: str, value: object, *, run_id: str | None = None) -> None:
    """Signal another workflow.

    Raises:
        FailureError: it has ended, or never began; or this task was cancelled meanwhile.
    """
    told = workflow.get_external_workflow_handle(workflow_id, run_id=run_id).signal(signal, value)
    await heeding_cancellation(told)


async def reached(workflow_id: str, signal: str, value: object, *, run_id: str | None = None) -> bool:
    """Signal another workflow. False: it has ended, or never began, so there is nobody who wants to know."""
    try:
        await send(workflow_id, signal, value, run_id=run_id)
    except FailureError as error:
        if is_cancellation(error):
            raise
        workflow.logger.info("%s did not reach %s: %s", signal, workflow_id, reason(error))
        return False
    return True
