"""A host's clock for judging how old something is: nothing gets older because the clock was set."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

LEAST_STEP_S = 1.0
"""What the clock moved by less than this beside the steady one was drift, or somebody who corrects drift."""
STEPS_REMEMBERED = 100


def wall_clock() -> datetime:
    return datetime.now(UTC)


class AgeClock:
    """Notices when the host's clock was set, beside a clock that nobody sets. Thread-safe.

    A host that slept looks like one whose clock was set forward. What was set while nobody asked is noticed by the next
    who asks; what was set before this process began is not."""

    def __init__(self, wall: Callable[[], datetime] = wall_clock, steady: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._steady = steady
        self._lock = threading.Lock()
        self._steps: deque[tuple[float, float]] = deque(maxlen=STEPS_REMEMBERED)
        """When the clock was seen set, by the steady one, and by how many seconds."""
        self._last = wall(), steady()

    def for_ages(self, up_to: timedelta) -> datetime:
        """The time by which nothing made while this process lives is taken for older than it is, as long as it is
        younger than ``up_to``. What was made between two settings may be taken for younger."""
        with self._lock:
            wall, steady = self._wall(), self._steady()
            passed = steady - self._last[1]
            step_s = (wall - self._last[0]).total_seconds() - passed
            if abs(step_s) >= LEAST_STEP_S:
                self._steps.append((steady, step_s))
            self._last = wall, steady
            return wall - timedelta(seconds=self._too_old_by(steady - up_to.total_seconds()))

    def _too_old_by(self, since: float) -> float:
        """Seconds by which the clock makes the worst-off moment since then older: all settings after it, together."""
        worst = after = 0.0
        for at, step_s in reversed(self._steps):
            if at < since:
                break
            after += step_s
            worst = max(worst, after)
        return worst
