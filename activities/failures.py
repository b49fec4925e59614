"""Errors of adapters → failures of activities: the product's one retry mechanism (requirements §C.4).

Not recoverable errors end the activity at once. Recoverable ones carry the exact next try: 1, 2, 4, 8, 10 minutes,
then every 30.
"""

from __future__ import annotations

import errno

from temporalio.exceptions import ApplicationError

from activities.contracts import FailureDetails
from vault.domain import RecoveryPoint
from vault.errors import LeewardError, NoSpace, NotRecoverable, Recoverable, Unreachable
from vault.retry import delay_after_failure


class Unexpected(NotRecoverable):
    """Nobody foresaw this: a defect in leeward or in an adapter. Not retried, because nobody knows what it did."""


def as_leeward_error(error: Exception) -> LeewardError:
    """Give every exception that can leave an adapter its place in the tree."""
    if isinstance(error, LeewardError):
        return error
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return NoSpace(
            str(error.strerror), where=str(error.filename or ""), remedy="free space there; leeward tries again"
        )
    if isinstance(error, ConnectionError | TimeoutError):
        return Unreachable(f"connection failed: {error}", remedy="check the network; leeward tries again")
    if isinstance(error, MemoryError):
        return NoMemory("not enough memory", remedy="free memory on the worker's host; leeward tries again")
    return Unexpected(
        f"unexpected {type(error).__name__}: {error}",
        remedy="the worker's log has the traceback; please report it with that log",
    )


class NoMemory(Recoverable):
    """The worker's host is out of memory."""


def as_failure(
    error: Exception, *, failures_in_a_row: int, time_scale: float, last_point: RecoveryPoint | None = None
) -> ApplicationError:
    """The Temporal failure for an adapter's error; the message is the whole sentence an operator reads."""
    known = as_leeward_error(error)
    delay = delay_after_failure(failures_in_a_row, time_scale) if known.recoverable else None
    details = FailureDetails(
        error=type(known).__name__,
        what=known.what,
        where=known.where,
        remedy=known.remedy,
        recoverable=known.recoverable,
        next_retry_s=delay.total_seconds() if delay else None,
        last_point=last_point,
    )
    return ApplicationError(
        str(known),
        details,
        type=type(known).__name__,
        non_retryable=not known.recoverable,
        next_retry_delay=delay,
    )
