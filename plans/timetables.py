"""When a plan is exercised: by cron, or by a calendar whose parts must all fit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from vault.domain import Value
from vault.errors import BadInput
from vault.notifications import Delivery

WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
OVERLAPS = ("skip", "queue")
_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")


class Span(NamedTuple):
    start: int
    end: int


class Times(NamedTuple):
    """One time of day and the days on which it counts, in numbers; Sunday is 0."""

    hour: int
    minute: int
    day_of_week: list[Span]
    day_of_month: list[Span]
    month: list[Span]


class Calendar(Value):
    """Days and times as an operator writes them: names or numbers, ranges, several with commas; empty: every one.

    Unlike in cron, a day has to fit both ``weekdays`` and ``days``: ``sun`` and ``1-7`` are the first Sunday.
    """

    at: str
    weekdays: str = ""
    days: str = ""
    months: str = ""

    def times(self) -> list[Times]:
        """One for each time of day. Raises ``BadInput`` naming the option."""
        weekdays = list(_spans(self.weekdays, "--weekdays", WEEKDAYS, 0, 6)) or [Span(0, 6)]
        days = list(_spans(self.days, "--days", (), 1, 31)) or [Span(1, 31)]
        months = list(_spans(self.months, "--months", MONTHS, 1, 12)) or [Span(1, 12)]
        return [Times(hour, minute, weekdays, days, months) for hour, minute in _times(self.at)]

    def __str__(self) -> str:
        parts = (
            (self.weekdays, self.weekdays),
            (self.days, f"days {self.days}"),
            (self.months, f"months {self.months}"),
        )
        return ", ".join([f"at {self.at}", *(words for given, words in parts if given)])


class Timetable(Value):
    """When a plan is exercised, and how. ``cron`` is the usual five fields; it or ``calendar`` is given, read in
    ``time_zone``."""

    cron: str = ""
    calendar: Calendar | None = None
    time_zone: str = "UTC"
    jitter_s: float = 0
    overlap: str = "skip"
    auto_approve: bool = False
    clean_up: bool = True
    deliver: list[Delivery] = []
    """Where the reports are brought."""

    def check(self) -> None:
        """Raises ``BadInput`` for what nobody has to ask Temporal about."""
        if self.overlap not in OVERLAPS:
            raise BadInput(
                f"unknown overlap policy '{self.overlap}'", where="--overlap", remedy=f"use {' or '.join(OVERLAPS)}"
            )
        if self.calendar is not None:
            self.calendar.times()

    @property
    def when(self) -> str:
        return f"{self.calendar or self.cron} {self.time_zone}"


def _times(text: str) -> Iterator[tuple[int, int]]:
    for part in text.split(","):
        found = _TIME.fullmatch(part.strip())
        if found is None:
            raise BadInput(f"'{part.strip()}' is no time of day", where="--at", remedy="write it like 04:00")
        yield int(found[1]), int(found[2])


def _spans(text: str, option: str, names: tuple[str, ...], low: int, high: int) -> Iterator[Span]:
    for part in filter(None, (part.strip() for part in text.split(","))):
        first, dash, last = part.partition("-")
        start = _number(first, option, names, low, high)
        end = _number(last, option, names, low, high) if dash else start
        if end < start:
            raise BadInput(f"'{part}' ends before it begins", where=option, remedy="write the two as two, with a comma")
        yield Span(start, end)


def _number(text: str, option: str, names: tuple[str, ...], low: int, high: int) -> int:
    word = text.strip().lower()
    if word[:3] in names and len(word) >= 3:
        return names.index(word[:3]) + low
    if word.isdecimal() and low <= int(word) <= high:
        return int(word)
    like = f"{names[0]} … {names[-1]}, or " if names else ""
    raise BadInput(f"'{text.strip()}' is none of them", where=option, remedy=f"use {like}{low} to {high}")
