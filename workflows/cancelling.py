"""Cancellations that are heeded although the call that they came to ended well, or failed by something else.

Temporal hands a cancellation on to the activity or signal that is waited for. What ends in spite of it gives its
result, and the task would go on as if nobody had said a word: a failover that was abandoned would hold its machine off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from temporalio import workflow
from temporalio.exceptions import CancelledError, FailureError

Result = TypeVar("Result")

HOLDS_TO_THE_END = "a-cancellation-holds"
"""Patch: what ended in spite of its cancellation took the cancellation away."""


async def heeding_cancellation(work: Awaitable[Result]) -> Result:
    """What ``work`` gives, unless the task was cancelled meanwhile.

    Work that begins after a cancellation, to undo things, is not disturbed by it.

    Raises:
        CancelledError: cancelled while it was waited for. What was done in spite of it has to be undone.
    """
    before = _cancellations()
    try:
        result = await work
    except FailureError as error:
        if _cancellations() > before and workflow.patched(HOLDS_TO_THE_END):
            raise CancelledError() from error
        raise
    if _cancellations() > before and workflow.patched(HOLDS_TO_THE_END):
        raise CancelledError()
    return result


async def cancel_and_wait(task: asyncio.Task[Result], at_most_s: float | None = None) -> None:
    """Cancel a task and wait for its safe end. How it ended is told by what it did, not by its error."""
    task.cancel()
    await workflow.wait([task], timeout=at_most_s)
    if task.done() and not task.cancelled() and task.exception() is not None:
        workflow.logger.info("cancelled: %s", task.exception())


def _cancellations() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()
