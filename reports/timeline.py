"""The timeline of a run: one bar for each machine and step, under its stage."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime, timedelta

from plans.svg import AMBER, BAD, CALM, GOOD, INK, LINE, QUIET, Drawing, fitted, text_width
from reports.model import RunRecord, StageRecord, StepRecord
from vault.domain import utc
from vault.words import seconds

WIDTH = 1000.0
LEFT = 290.0
RIGHT = 910.0
TOP = 30.0
ROW = 20.0
COMPACT_ABOVE = 400
"""Rows from which on bars become thin and lose their labels, so that a plan of 1,000 machines stays one picture."""
COMPACT_HEIGHT = 2400.0
THINNEST_ROW = 1.2
COLOURS = {
    "machine": CALM,
    "script": "#0f766e",
    "call": "#9d4a72",
    "check": "#6d4bb0",
    "manual": AMBER,
    "wait": "#8795a3",
    "readiness": GOOD,
}
_PARTS_OF_A_SECOND = tuple(first * 10**power for power in range(-4, 0) for first in (1, 2, 5))
_WHOLE_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)
MOST_TICKS = 9


def timeline(run: RunRecord) -> str:
    """The picture, as SVG text."""
    rows = sum(len(stage.steps) for stage in run.stages)
    return _Timeline(run, ROW if rows <= COMPACT_ABOVE else max(THINNEST_ROW, COMPACT_HEIGHT / rows)).drawn()


class _Timeline:
    def __init__(self, run: RunRecord, row_height: float) -> None:
        self._run = run
        self._row_height = row_height
        self._compact = row_height < ROW
        self._whole = max(run.duration_s, 0.001)
        self._drawing = Drawing(f"Timeline of {run.plan}, run {run.run_id}")
        self._y = TOP

    def drawn(self) -> str:
        height = TOP + sum(self._height(stage) for stage in self._run.stages) + 34
        self._axis(height - 34)
        for stage in self._run.stages:
            self._stage(stage)
        self._legend(height - 12)
        return self._drawing.svg(WIDTH, height)

    def _height(self, stage: StageRecord) -> float:
        return ROW + len(stage.steps) * self._row_height + 4

    def _x(self, moment: datetime) -> float:
        share = (moment - self._run.started).total_seconds() / self._whole
        return LEFT + min(1.0, max(0.0, share)) * (RIGHT - LEFT)

    def _axis(self, bottom: float) -> None:
        self._drawing.text(0, 14, utc(self._run.started), size=11, fill=QUIET)
        for tick in ticks(self._whole):
            x = self._x(self._run.started + timedelta(seconds=tick))
            self._drawing.line(x, TOP - 8, x, bottom)
            self._drawing.text(x, 14, _tick(tick), size=11, fill=QUIET, anchor="middle")

    def _stage(self, stage: StageRecord) -> None:
        label = fitted(stage.title, LEFT - 12, 12.5)
        self._drawing.text(0, self._y + 14, label, size=12.5, bold=True, fill=INK if stage.started else QUIET)
        if stage.started:
            end = stage.finished or self._run.finished
            left, right = self._x(stage.started), self._x(end)
            self._drawing.rect(left, self._y + 6, max(1.5, right - left), 7, fill=LINE, radius=1)
            self._took(right, self._y + 14, stage.started, end, bold=True)
        elif stage.state == "pending":
            self._drawing.text(LEFT, self._y + 14, "not begun", size=11, fill=QUIET)
        self._y += ROW
        for row in stage.steps:
            self._row(row)
        self._y += 4

    def _row(self, row: StepRecord) -> None:
        bad = row.state in {"failed", "refused", "cancelled"}
        if not self._compact:
            colour = BAD if bad else INK if row.started else QUIET
            self._drawing.text(14, self._y + 14, fitted(row.name, LEFT - 26, 12), fill=colour)
        height = self._row_height * 0.8 if self._compact else 13
        top = self._y + (self._row_height - height) / 2
        if row.started:
            end = row.finished or self._run.finished
            left, right = self._x(row.started), self._x(end)
            self._drawing.rect(
                left,
                top,
                max(2.0, right - left),
                height,
                fill=BAD if bad else "#ffffff" if row.state == "skipped" else COLOURS.get(row.kind, QUIET),
                stroke=QUIET if row.state == "skipped" else None,
                dash="3 2" if row.state == "skipped" else "",
                radius=0 if self._compact else 2,
                hint=f"{row.name}: {row.state}, {seconds((end - row.started).total_seconds())}",
            )
            if not self._compact:
                self._took(max(right, left + 2), self._y + 14, row.started, end, note=_note(row))
        elif not self._compact:
            self._drawing.text(LEFT, self._y + 14, row.state, size=11, fill=QUIET)
        self._y += self._row_height

    def _took(self, x: float, y: float, start: datetime, end: datetime, *, note: str = "", bold: bool = False) -> None:
        """How long it took, right of the bar; what does not fit there is shortened to the time alone."""
        took = seconds((end - start).total_seconds())
        text = f"{took}  {note}" if note and x + text_width(f"{took}  {note}", 11) < WIDTH - 8 else took
        self._drawing.text(x + 5, y, text, size=11, fill=QUIET, bold=bold)

    def _legend(self, y: float) -> None:
        x = 0.0
        for name, colour in _legend(self._run):
            self._drawing.rect(x, y - 9, 10, 10, fill=colour, radius=2)
            self._drawing.text(x + 15, y, name, size=11, fill=QUIET)
            x += 15 + text_width(name, 11) + 18


def _note(row: StepRecord) -> str:
    return row.state if row.state not in {"done", "running"} else ""


def _legend(run: RunRecord) -> Iterator[tuple[str, str]]:
    rows = [row for stage in run.stages for row in stage.steps]
    for kind, colour in COLOURS.items():
        if any(row.kind == kind for row in rows):
            yield kind, colour
    if any(row.state in {"failed", "refused", "cancelled"} for row in rows):
        yield "failed, refused or cancelled", BAD


def ticks(whole: float) -> list[float]:
    """Round moments of a span of so many seconds, from 0, at most ten."""
    step = next((float(step) for step in (*_PARTS_OF_A_SECOND, *_WHOLE_SECONDS) if whole / step <= MOST_TICKS), 0.0)
    if not step:
        step = 86400.0 * math.ceil(whole / 86400 / MOST_TICKS)
    return [number * step for number in range(int(whole / step + 1e-9) + 1)]


def _tick(value: float) -> str:
    if value == 0:
        return "start"
    if value < 60:
        return f"+{value:g} s"
    if value < 3600:
        return f"+{value / 60:g} min"
    if value < 172800:
        return f"+{value / 3600:g} h"
    return f"+{value / 86400:g} d"
