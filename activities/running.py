"""Run a blocking adapter call as an activity: in a thread, with heartbeats, stoppable, its errors translated.

One mechanism for every activity. The call runs in a thread; meanwhile this coroutine sends the newest progress as
heartbeat. When Temporal cancels the activity or the worker shuts down, the thread is told through the ``report`` it
calls often: it raises :class:`Stopped` between two safe points, so nothing is ever torn in the middle of a write.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Generic, TypeVar

from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from activities.contracts import WORKER_LEAVING, ReplicationPulse
from activities.failures import Unexpected, as_failure, as_leeward_error
from activities.standing import Asking, Standing, asking_temporal
from vault.domain import Progress, Value

Result = TypeVar("Result")

HEARTBEATS_PER_TIMEOUT = 4
LONGEST_HEARTBEAT_PAUSE_S = 5.0

log = logging.getLogger(__name__)


class Stopped(BaseException):
    """Ends a blocking call at its next report. Not an ``Exception``: adapters must not mistake it for a failure."""


class Running:
    """Handed to the blocking call: how it reports, waits and learns that it should stop."""

    def __init__(self, standing: Standing | None = None) -> None:
        """``standing``: set for a call that must not go on once Temporal gave this try up."""
        self._stop = threading.Event()
        self._standing = standing
        self.pulse: Value | None = None
        self.healthy_at_attempt = 1
        """The attempt in which the call last succeeded at something: failures in a row are counted from there."""

    def stop(self) -> None:
        self._stop.set()

    @property
    def is_told_to_stop(self) -> bool:
        return self._stop.is_set()

    def check(self) -> None:
        """Raises ``Stopped`` when the call should end."""
        if self._stop.is_set() or not (self._standing is None or self._standing.holds(self.pulse, self._stop)):
            raise Stopped

    def report(self, progress: Progress) -> None:
        self.pulse = progress
        self.check()

    def beat(self, doing: str) -> None:
        self.report(Progress(doing=doing))

    def wait(self, seconds: float) -> None:
        """Sleep, but wake up at once (raising ``Stopped``) when the call should end."""
        if self._stop.wait(max(0.0, seconds)):
            raise Stopped


@dataclass(frozen=True)
class _Finished(Generic[Result]):
    value: Result


@dataclass(frozen=True)
class _Failed:
    error: Exception


class _Halted:
    """The call ended because it was told to stop."""


class BlockingRunner:
    """Runs blocking calls for one worker process.

    Args:
        asking: how :meth:`change` asks Temporal whether it counts on a try.
    """

    def __init__(self, threads: Executor, time_scale: float = 1.0, asking: Asking = asking_temporal) -> None:
        self._threads = threads
        self._asking = asking
        self.time_scale = time_scale

    async def change(self, call: Callable[[Running], Result]) -> Result:
        """As :meth:`run`, for what changes something at a site: begun, and continued at each report, only while
        Temporal counts on this try. A late one would undo what came after it."""
        return await self._run(call, Running(Standing(self._asking())))

    async def run(self, call: Callable[[Running], Result], *, healthy_at_attempt: int = 1) -> Result:
        """Run ``call`` in a thread under the current activity.

        ``healthy_at_attempt`` is the attempt in which the activity last succeeded at something: the retry schedule
        counts failures in a row from there.

        Raises:
            ApplicationError: the call failed; carries the product's retry decision. Or Temporal gave this try up.
            asyncio.CancelledError: the activity was cancelled and the call has come to its safe end.
        """
        running = Running()
        running.healthy_at_attempt = healthy_at_attempt
        return await self._run(call, running)

    async def _run(self, call: Callable[[Running], Result], running: Running) -> Result:
        context = contextvars.copy_context()
        work = asyncio.get_running_loop().run_in_executor(self._threads, partial(context.run, _guarded, call, running))
        leaving = asyncio.create_task(activity.wait_for_worker_shutdown())
        either: set[asyncio.Future[Any]] = {work, leaving}
        try:
            while not work.done():
                await asyncio.wait(either, timeout=_pause(), return_when=asyncio.FIRST_COMPLETED)
                if leaving.done():
                    running.stop()
                    await _safe_end(work, running)
                else:
                    _beat(running)
        except asyncio.CancelledError as cancelled:
            running.stop()
            await _safe_end(work, running)
            raise _given_up_or(cancelled) from None
        finally:
            leaving.cancel()
        outcome = work.result()
        if isinstance(outcome, _Finished):
            return outcome.value
        if isinstance(outcome, _Failed):
            raise self._failure(outcome.error, running) from outcome.error
        raise _worker_leaves() if running.is_told_to_stop else _given_up()

    async def pause(self, seconds: float, pulse: Value, until: asyncio.Event | None = None) -> None:
        """Let time pass, at most until the event, with heartbeats and without a thread.

        Raises:
            ApplicationError: the worker shuts down, or Temporal gave this try up; another one goes on.
            asyncio.CancelledError: the activity was cancelled.
        """
        clock = asyncio.get_running_loop().time
        end = clock() + seconds
        leaving = asyncio.create_task(activity.wait_for_worker_shutdown())
        asked = asyncio.create_task((until or asyncio.Event()).wait())
        try:
            while True:
                activity.heartbeat(pulse)
                left = end - clock()
                if left <= 0 or asked.done():
                    return
                await asyncio.wait({leaving, asked}, timeout=min(left, _rhythm()), return_when=asyncio.FIRST_COMPLETED)
                if leaving.done():
                    raise _worker_leaves()
        except asyncio.CancelledError as cancelled:
            raise _given_up_or(cancelled) from None
        finally:
            leaving.cancel()
            asked.cancel()

    def _failure(self, error: Exception, running: Running) -> ApplicationError:
        known = as_leeward_error(error)
        if isinstance(known, Unexpected):
            log.error("activity %s failed unexpectedly", activity.info().activity_type, exc_info=error)
        failures = activity.info().attempt - running.healthy_at_attempt + 1
        point = running.pulse.last_point if isinstance(running.pulse, ReplicationPulse) else None
        return as_failure(known, failures_in_a_row=failures, time_scale=self.time_scale, last_point=point)


async def _safe_end(work: asyncio.Future[Any], running: Running) -> None:
    """Wait for a call that was told to stop; with heartbeats, because a silent worker would be taken for a dead one."""
    while not work.done():
        _beat(running)
        await asyncio.wait({work}, timeout=_pause())


def _beat(running: Running) -> None:
    if running.pulse is None:
        activity.heartbeat()
    else:
        activity.heartbeat(running.pulse)


def _given_up_or(cancelled: asyncio.CancelledError) -> BaseException:
    """Nobody cancelled a try of which Temporal heard nothing for too long: it is made again."""
    why = activity.cancellation_details()
    if why is None or why.cancel_requested or not (why.timed_out or why.not_found):
        return cancelled
    return _given_up()


def _given_up() -> ApplicationError:
    return _goes_on_elsewhere("Temporal heard nothing of this try for too long; another one goes on")


def _worker_leaves() -> ApplicationError:
    return _goes_on_elsewhere("the worker is shutting down; another one goes on")


def _goes_on_elsewhere(message: str) -> ApplicationError:
    return ApplicationError(
        message,
        type=WORKER_LEAVING,
        category=ApplicationErrorCategory.BENIGN,
        next_retry_delay=timedelta(seconds=1),
    )


def _guarded(call: Callable[[Running], Result], running: Running) -> _Finished[Result] | _Failed | _Halted:
    try:
        running.check()
        return _Finished(call(running))
    except Stopped:
        return _Halted()
    except Exception as error:  # noqa: BLE001 - carried to the caller, which translates every one
        return _Failed(error)


def _pause() -> float:
    """Seconds between two heartbeats of a call at work: its progress is news."""
    return min(_rhythm(), LONGEST_HEARTBEAT_PAUSE_S)


def _rhythm() -> float:
    """Seconds between two heartbeats: often enough that one lost heartbeat does not fail the activity."""
    timeout = activity.info().heartbeat_timeout
    return timeout.total_seconds() / HEARTBEATS_PER_TIMEOUT if timeout else LONGEST_HEARTBEAT_PAUSE_S
