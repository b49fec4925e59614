"""When to give up on what an array does."""

from __future__ import annotations

import time

SLOWEST_COPY = 4 * 2**20
"""Bytes a second, below which a copy stands still."""


def longest_percent_s(size: int) -> float:
    """How long one percent of so many bytes may take: an array tells no smaller step."""
    return size / 100 / SLOWEST_COPY


class Patience:
    """With something that gets on: not how long it takes counts, but how long it stands still."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._moved_at = time.monotonic()
        self._seen: object = None

    def ran_out(self, seen: object) -> bool:
        """Whether it has stood for longer than that where it is seen now."""
        if seen != self._seen:
            self._moved_at, self._seen = time.monotonic(), seen
        return time.monotonic() - self._moved_at > self._seconds
