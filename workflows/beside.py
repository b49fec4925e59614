"""Work beside a workflow's main task."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from temporalio import workflow


def begin_beside(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Begin work that nobody awaits.

    An error that it does not handle fails the workflow task: Temporal shows it, and tries again until a worker with
    corrected code takes it. It would end the work for good otherwise, and nobody would hear of it.
    """
    task = asyncio.create_task(work)
    asyncio.create_task(workflow.wait_condition(lambda: _has_ended(task)))  # noqa: RUF006 -- Temporal's loop keeps it
    return task


def _has_ended(task: asyncio.Task[None]) -> bool:
    """Raises what the task died of. An error in what a workflow waits for fails its workflow task."""
    if not task.done():
        return False
    error = None if task.cancelled() else task.exception()
    if error is not None:
        raise error
    return True
