"""Cancellations that are heeded although the call that they came to ended well, or failed by something else.

Temporal hands a cancellation on to the activity or signal that is waited for. What ends in spite of it gives its
result, and the task would go on as if nobody had said a word: a failover that was abandoned would hold its machine off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Generator
from typing import Any, TypeVar

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
    before, watched = _cancellations(), _Watched(work)

    def was_cancelled() -> bool:
        return watched.was_cancelled or _cancellations() > before

    try:
        result = await watched
    except FailureError as error:
        if was_cancelled() and workflow.patched(HOLDS_TO_THE_END):
            raise CancelledError() from error
        raise
    if was_cancelled() and workflow.patched(HOLDS_TO_THE_END):
        raise CancelledError()
    return result


class _Watched(Awaitable[Result]):
    """Work that is told of a cancellation inside this task, as signals are: Temporal takes it from the task's count.

    It runs step by step as it would by itself: a task of its own would give its commands another order.
    """

    def __init__(self, work: Awaitable[Result]) -> None:
        self._work = work
        self.was_cancelled = False

    def __await__(self) -> Generator[Any, Any, Result]:
        steps = self._work.__await__()
        try:
            awaited = next(steps)
            while True:
                try:
                    given = yield awaited
                except asyncio.CancelledError as cancellation:
                    self.was_cancelled = True
                    awaited = steps.throw(cancellation)
                else:
                    awaited = steps.send(given)
        except StopIteration as end:
            result: Result = end.value
            return result
        finally:
            steps.close()


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
