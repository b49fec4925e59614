"""How workflows call activities: one retry policy, one way to read a failure."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import timedelta
from typing import TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    CancelledError,
    ChildWorkflowError,
    FailureError,
    TimeoutError,
    TimeoutType,
    is_cancelled_exception,
)
from temporalio.workflow import ActivityCancellationType

from activities.contracts import WORKER_LEAVING, ActivityCall, FailureDetails
from vault.domain import RecoveryPoint, Value
from vault.errors import BadInput, InvalidState, LeewardError, Unreachable
from workflows.cancelling import heeding_cancellation
from workflows.model import Timings

Input = TypeVar("Input", bound=Value)
Output = TypeVar("Output", bound=Value)

ONE_TASK = timedelta(hours=1)
LONG_TRANSFER = timedelta(days=14)

UNTIL_DONE = RetryPolicy(
    initial_interval=timedelta(seconds=1), backoff_coefficient=2, maximum_interval=timedelta(minutes=1)
)
"""Only for workers that died (heartbeat timeouts): adapter errors bring their own next try (activities/failures.py)."""
ONCE = RetryPolicy(maximum_attempts=1)
WORKERS_LOST_AT_MOST = 5
"""So many workers may die or leave under a call that is made once; then it is the call that kills them."""


async def call(
    what: ActivityCall[Input, Output],
    given: Input,
    *,
    queue: str,
    summary: str,
    timings: Timings,
    at_most: timedelta = ONE_TASK,
    once: bool = False,
    site_must_answer: bool = False,
    counts_when_cancelled: bool = False,
) -> Output:
    """Run an activity and wait for it. A cancelled one has come to its safe end: what undoes it cannot overtake it.

    Args:
        summary: what the Temporal UI shows beside the activity's name.
        at_most: longest time that one try may take.
        once: do not try again after an error. A worker that died or left is none: another one does the work.
        site_must_answer: fail when no worker takes the task within ``timings.site_answer_s``.
        counts_when_cancelled: what was done in spite of a cancellation is told, not undone.

    Raises:
        ActivityError: see :func:`reason`.
        CancelledError: cancelled, and the activity ended in spite of it.
    """
    lost = 0
    while True:
        try:
            running: Awaitable[Output] = workflow.execute_activity(
                what.name,
                given,
                result_type=what.gives,
                task_queue=queue,
                summary=summary,
                heartbeat_timeout=timedelta(seconds=timings.heartbeat_s),
                start_to_close_timeout=at_most,
                schedule_to_start_timeout=timedelta(seconds=timings.site_answer_s) if site_must_answer else None,
                retry_policy=ONCE if once else UNTIL_DONE,
                cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            )
            return await (running if counts_when_cancelled else heeding_cancellation(running))
        except ActivityError as error:
            lost += 1
            if not once or lost > WORKERS_LOST_AT_MOST or not _worker_was_lost(error):
                raise
            workflow.logger.info("%s lost its worker, another one does it", what.name)


def reason(error: BaseException) -> str:
    """The sentence inside a failure: what happened, where, what to do."""
    while isinstance(error, ActivityError | ChildWorkflowError) and error.cause is not None:
        if isinstance(error, ActivityError) and site_is_silent(error):
            return (
                f"no worker took '{error.activity_type}': its site does not answer — "
                "start a worker at that site, or recover without it (unplanned failover)"
            )
        error = error.cause
    if isinstance(error, ApplicationError):
        return error.message
    if isinstance(error, CancelledError):
        return "cancelled"
    return str(error) or type(error).__name__


def last_point_in(error: ActivityError) -> RecoveryPoint | None:
    """The newest point of a replication that failed; None when the failure does not tell it."""
    cause = error.cause
    if not isinstance(cause, ApplicationError) or not cause.details or not isinstance(cause.details[0], dict):
        return None
    return FailureDetails.model_validate(cause.details[0]).last_point


def site_is_unreachable(error: BaseException) -> bool:
    """Whether a call failed because the site, or the way to it, is gone."""
    if not isinstance(error, ActivityError):
        return False
    cause = error.cause
    return isinstance(cause, TimeoutError) or (
        isinstance(cause, ApplicationError) and cause.type == Unreachable.__name__
    )


def site_is_silent(error: BaseException) -> bool:
    """Whether nobody took the call: each further one costs the same wait."""
    cause = error.cause if isinstance(error, ActivityError) else None
    return isinstance(cause, TimeoutError) and cause.type == TimeoutType.SCHEDULE_TO_START


def refused(error: LeewardError) -> ApplicationError:
    """A workflow's own refusal: never retried, and worded like every other error."""
    return ApplicationError(str(error), type=type(error).__name__, non_retryable=True)


def invalid_state(what: str, remedy: str) -> ApplicationError:
    return refused(InvalidState(what, remedy=remedy))


def bad_input(what: str, remedy: str) -> ApplicationError:
    return refused(BadInput(what, remedy=remedy))


def is_cancellation(error: BaseException) -> bool:
    return is_cancelled_exception(error)


def _worker_was_lost(error: ActivityError) -> bool:
    cause = error.cause
    if isinstance(cause, TimeoutError):
        return cause.type == TimeoutType.HEARTBEAT
    return isinstance(cause, ApplicationError) and cause.type == WORKER_LEAVING


__all__ = [
    "FailureError",
    "bad_input",
    "call",
    "invalid_state",
    "is_cancellation",
    "last_point_in",
    "reason",
    "refused",
    "site_is_silent",
    "site_is_unreachable",
]
