"""One call at a time changes a group, in one process: what several could ask for at once need not be refused."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from replication.ports import Report
from vault.domain import Progress

LOOK_EVERY_S = 0.25


class Turns:
    def __init__(self) -> None:
        self._of_group: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    @contextmanager
    def of(self, group: str, report: Report) -> Iterator[None]:
        """The group's turn, once those before are over; ``report`` may end the waiting: making clones takes a while."""
        turn = self._of_group[group]
        while not turn.acquire(timeout=LOOK_EVERY_S):
            report(Progress(doing=f"waiting: another call changes group {group}"))
        try:
            yield
        finally:
            turn.release()
