"""How far a transfer is: computed here and nowhere else (design §6)."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from replication.ports import Report
from vault.domain import Progress

REPORT_EVERY_S = 0.2
RATE_OVER_S = 5.0


class Meter:
    """Counts bytes and reports them, at most every 0.2 s; the rate is that of the last five seconds.

    Args:
        doing: what the transfer is about, for people: ``initial replication of db``.
        total: bytes of disk to go through.
        clock: monotonic seconds.
    """

    def __init__(self, report: Report, doing: str, total: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._report = report
        self._doing = doing
        self._total = total
        self._clock = clock
        self._done = 0
        self._sent = 0
        now = clock()
        self._reported = now - REPORT_EVERY_S
        self._samples: deque[tuple[float, int]] = deque([(now, 0)])

    def add(self, done: int, sent: int = 0) -> None:
        """``done`` more bytes of disk were dealt with, ``sent`` more bytes went over the wire.

        Raises whatever the report raises to stop the transfer."""
        self._done += done
        self._sent += sent
        if self._clock() - self._reported >= REPORT_EVERY_S:
            self.tell()

    def now_doing(self, doing: str) -> None:
        self._doing = doing
        self.tell()

    def tell(self) -> None:
        """Report at once."""
        self._reported = self._clock()
        self._report(self.progress())

    def progress(self) -> Progress:
        now = self._clock()
        self._samples.append((now, self._done))
        while len(self._samples) > 2 and now - self._samples[0][0] > RATE_OVER_S:
            self._samples.popleft()
        since, done_then = self._samples[0]
        elapsed = now - since
        return Progress(
            doing=self._doing,
            bytes_done=self._done,
            bytes_total=self._total,
            bytes_sent=self._sent,
            bytes_per_second=(self._done - done_then) / elapsed if elapsed > 0 else 0.0,
        )
