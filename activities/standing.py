"""Whether Temporal still counts on this try of an activity: asked before what cannot be taken back.

A worker that slept, or was cut off, hears late that Temporal gave its try to another worker. That one has ended
meanwhile; its work may have been undone, and the machine failed over anew. A late try that went on would make a replica
machine that nobody looks after, or start an old copy beside the recovered machine.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta

from temporalio import activity
from temporalio.client import AsyncActivityCancelledError
from temporalio.service import RPCError, RPCStatusCode

from vault.domain import Value

Ask = Callable[[Value | None], Awaitable[None]]
"""Tell Temporal how far this try is. Raises ``RPCError`` (``NOT_FOUND``: it counts on another one, or on none),
``AsyncActivityCancelledError``."""
Asking = Callable[[], Ask]
"""Called in the activity's own context."""

WITHOUT_TIMEOUT_S = 10.0
ANSWER_WITHIN_S = 5.0
ASK_AGAIN_S = 0.5


def asking_temporal() -> Ask:
    """A heartbeat of this try alone, whose answer is seen: those of the worker are sent later, by its core."""
    handle = activity.client().get_async_activity_handle(task_token=activity.info().task_token)

    async def ask(pulse: Value | None) -> None:
        details = () if pulse is None else (pulse,)
        await handle.heartbeat(*details, rpc_timeout=timedelta(seconds=ANSWER_WITHIN_S))

    return ask


class Standing:
    """That of one try. Temporal waits for its heartbeat timeout before it gives the try to another worker, so an answer
    holds for half of that.

    Call it from the activity's thread, while the loop runs in another one."""

    def __init__(self, ask: Ask) -> None:
        timeout = activity.info().heartbeat_timeout
        self._patience_s = timeout.total_seconds() if timeout else WITHOUT_TIMEOUT_S
        self._ask = ask
        self._loop = asyncio.get_running_loop()
        self._heard: _Moment | None = None

    def holds(self, pulse: Value | None, stop: threading.Event) -> bool:
        """Asks, when the last answer is too old. False also when ``stop`` was set, or Temporal does not answer for so
        long that it has given this try up."""
        if self._heard is not None and self._heard.age_s() < self._patience_s / 2:
            return True
        began = _Moment()
        while not stop.is_set() and began.age_s() <= self._patience_s:
            asked = _Moment()
            try:
                asyncio.run_coroutine_threadsafe(self._told(pulse), self._loop).result()
            except AsyncActivityCancelledError:
                stop.wait(self._patience_s)  # which the worker hears with its next heartbeat
                return False
            except RPCError as error:
                if error.status is RPCStatusCode.NOT_FOUND:
                    return False
                stop.wait(ASK_AGAIN_S)
            else:
                self._heard = asked
                return not stop.is_set()
        return False

    async def _told(self, pulse: Value | None) -> None:
        await self._ask(pulse)


class _Moment:
    """Now. Its age counts the time, too, in which the host slept or was moved, and one of its clocks stood still."""

    def __init__(self) -> None:
        self._wall, self._run = time.time(), time.monotonic()

    def age_s(self) -> float:
        return max(time.time() - self._wall, time.monotonic() - self._run)
