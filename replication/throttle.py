"""Limits of throughput, shared fairly: who asked first sends first, and each asks for one message at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from vault.inventory import Bandwidth

_NOTHING_IS_SENT_AHEAD_S = 0.05
"""How much of an unused moment may be used later: enough that waking up late costs no throughput."""


class Throttle:
    """The link of one site, for all machines that one worker replicates over it. Thread-safe.

    Args:
        rate: bytes a second that may be sent now; None: as fast as it goes.
    """

    def __init__(
        self,
        rate: Callable[[], float | None],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._free_at = float("-inf")

    def __call__(self, count: int) -> None:
        """Return when ``count`` more bytes may go out."""
        with self._lock:
            now, rate = self._clock(), self._rate()
            if rate is None:
                self._free_at = now
                return
            begin = max(self._free_at, now - _NOTHING_IS_SENT_AHEAD_S)
            self._free_at = begin + count / rate
        if begin > now:
            self._sleep(begin - now)


def by_schedule(bandwidth: Bandwidth, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Throttle:
    """The throttle of a site's bandwidth schedule."""
    return Throttle(lambda: bandwidth.at(now()))
