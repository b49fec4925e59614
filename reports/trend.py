"""Readiness over all plans: when each was last tested with success, and where its recovery time is going."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby

from pydantic import AwareDatetime

from plans.svg import BAD, CALM, GOOD, INK, LINE, PAPER, QUIET, Drawing, text_width
from reports.model import Report, Verdict
from vault.domain import Severity, Value
from vault.words import seconds

GOOD_VERDICTS = ("passed", "remarks")
MOST_RUNS_SHOWN = 60
WIDTH, HEIGHT = 1000.0, 210.0
LEFT, RIGHT, TOP, BOTTOM = 90.0, 985.0, 18.0, 170.0


class RunPoint(Value):
    """One recovering run in a trend."""

    run_id: str
    run_type: str
    at: AwareDatetime
    verdict: Verdict
    recovery_time_s: float | None = None
    rto_s: float | None = None


class PlanReadiness(Value):
    """One plan's standing. ``age_s`` is the time since its last successful test, None when there was none."""

    plan: str
    standing: Severity
    why: str
    last_good_test: AwareDatetime | None = None
    age_s: float | None = None
    recovery_time_s: float | None = None
    rto_s: float | None = None
    last_run: AwareDatetime
    last_run_type: str
    last_verdict: Verdict
    runs: int
    trend: list[RunPoint] = []

    @property
    def trend_words(self) -> str:
        """How the newest test's recovery time compares with the median of those before it: ``12 % slower``."""
        tests = [point for point in self.trend if point.run_type == "test"]
        times = [point.recovery_time_s for point in tests if point.recovery_time_s is not None]
        if len(times) < 2:
            return "-"
        *before, newest = times
        usual = sorted(before)[len(before) // 2]
        change = 100 * (newest - usual) / usual if usual > 0 else 0.0
        return "steady" if abs(change) < 5 else f"{abs(change):.0f} % {'slower' if change > 0 else 'faster'}"


def readiness(reports: Iterable[Report], now: datetime, oldest_test: timedelta) -> list[PlanReadiness]:
    """Each plan's standing, by name.

    Args:
        oldest_test: a successful test older than this is a warning.
    """
    by_plan = sorted(reports, key=lambda report: (report.run.plan, report.run.started))
    return [_readiness(plan, list(runs), now, oldest_test) for plan, runs in groupby(by_plan, key=lambda r: r.run.plan)]


def _readiness(plan: str, runs: list[Report], now: datetime, oldest_test: timedelta) -> PlanReadiness:
    recovering = [report for report in runs if report.run.run_type in ("test", "planned", "unplanned", "failback")]
    tests = [report for report in recovering if report.run.run_type == "test"]
    good = [one for one in tests if one.measured.verdict in GOOD_VERDICTS and not one.measured.left_out]
    last, newest = runs[-1], good[-1] if good else None
    age = (now - newest.run.finished).total_seconds() if newest else None
    standing, why = _standing(tests, newest, age, oldest_test)
    return PlanReadiness(
        plan=plan,
        standing=standing,
        why=why,
        last_good_test=newest.run.finished if newest else None,
        age_s=age,
        recovery_time_s=newest.measured.recovery_time_s if newest else None,
        rto_s=last.plan.rto_s,
        last_run=last.run.finished,
        last_run_type=last.run.run_type,
        last_verdict=last.measured.verdict,
        runs=len(runs),
        trend=[_point(report) for report in recovering[-MOST_RUNS_SHOWN:]],
    )


def _standing(
    tests: list[Report], newest: Report | None, age: float | None, oldest_test: timedelta
) -> tuple[Severity, str]:
    if newest is None or age is None:
        never = "never tested with all of its machines" if _left_machines_out(tests) else "never tested with success"
        return Severity.FAIL, never
    if tests[-1] is not newest and not _left_machines_out(tests):
        return Severity.FAIL, f"the last test ended as {tests[-1].measured.verdict}"
    if newest.measured.rto_met is False:
        return Severity.FAIL, "the last test missed the recovery time objective"
    doubt = next(_doubts(tests[-1], newest, age, oldest_test), "")
    return (Severity.WARN, doubt) if doubt else (Severity.PASS, "tested with success")


def _doubts(last: Report, newest: Report, age: float, oldest_test: timedelta) -> Iterator[str]:
    """What somebody should look at; ``newest``: the newest good test of all machines, so old."""
    if last.measured.left_out:
        yield f"the last test was one without {', '.join(one.machine for one in last.measured.left_out)}"
    if age > oldest_test.total_seconds():
        yield f"the last test is older than {seconds(oldest_test.total_seconds())}"
    if newest.measured.verdict == "remarks":
        yield "the last test completed with remarks"


def _left_machines_out(tests: list[Report]) -> bool:
    """Whether the last test went well, as far as it went."""
    return bool(tests and tests[-1].measured.left_out and tests[-1].measured.verdict in GOOD_VERDICTS)


def _point(report: Report) -> RunPoint:
    return RunPoint(
        run_id=report.run.run_id,
        run_type=report.run.run_type,
        at=report.run.started,
        verdict=report.measured.verdict,
        recovery_time_s=report.measured.recovery_time_s,
        rto_s=report.plan.rto_s,
    )


def trend_chart(plan: PlanReadiness) -> str:
    """Recovery time of run after run against the objective.

    The line joins tests; failovers are rings of their own, because people take their time in tests and not in them. A
    run that recovered nothing stands on the axis as a cross.
    """
    return _Chart(plan).drawn()


class _Chart:
    def __init__(self, plan: PlanReadiness) -> None:
        self._points = plan.trend
        self._drawing = Drawing(f"Recovery time of {plan.plan}, run after run")
        times = [point.recovery_time_s for point in self._points if point.recovery_time_s is not None]
        objectives = [point.rto_s for point in self._points if point.rto_s is not None]
        self._highest = max([*times, *objectives, 1.0]) * 1.15

    def drawn(self) -> str:
        self._axes()
        self._objective()
        self._line()
        for index, point in enumerate(self._points):
            self._dot(index, point)
        return self._drawing.svg(WIDTH, HEIGHT)

    def _x(self, index: int) -> float:
        return LEFT + 20 + (RIGHT - LEFT - 40) * (index / (len(self._points) - 1) if len(self._points) > 1 else 0.5)

    def _y(self, value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * value / self._highest

    def _axes(self) -> None:
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            value = self._highest * share / 1.15
            self._drawing.line(LEFT, self._y(value), RIGHT, self._y(value), stroke=QUIET if share == 0 else LINE)
            self._drawing.text(LEFT - 8, self._y(value) + 4, seconds(value), size=11, fill=QUIET, anchor="end")
        for index in sorted({0, (len(self._points) - 1) // 2, len(self._points) - 1}):
            day = f"{self._points[index].at.astimezone(UTC):%Y-%m-%d}"
            self._drawing.text(self._x(index), BOTTOM + 18, day, size=11, fill=QUIET, anchor="middle")
        self._legend()

    def _legend(self) -> None:
        x = LEFT
        for text, colour in (
            ("● test", CALM),
            ("○ failover", CALM),
            ("● objective missed", BAD),
            ("× no recovery", BAD),
            ("– – objective", GOOD),
        ):
            self._drawing.text(x, HEIGHT - 4, text, size=11, fill=colour)
            x += text_width(text, 11) + 22

    def _objective(self) -> None:
        for index, point in enumerate(self._points):
            if point.rto_s is not None:
                y, half = self._y(point.rto_s), (RIGHT - LEFT - 40) / max(1, len(self._points) - 1) / 2
                left, right = max(LEFT, self._x(index) - half), min(RIGHT, self._x(index) + half)
                self._drawing.line(left, y, right, y, stroke=GOOD, width=1.5, dash="5 4")

    def _line(self) -> None:
        run: list[str] = []
        for index, point in enumerate(self._points):
            if point.run_type != "test":
                continue
            if point.recovery_time_s is None:
                run = []
                continue
            run.append(f"{self._x(index):.1f} {self._y(point.recovery_time_s):.1f}")
            if len(run) > 1:
                self._drawing.path(f"M {run[-2]} L {run[-1]}", stroke=CALM, width=1.5)

    def _dot(self, index: int, point: RunPoint) -> None:
        x = self._x(index)
        if point.recovery_time_s is None:
            self._drawing.text(
                x, BOTTOM + 4, "×", size=15, fill=BAD if point.verdict == "failed" else INK, anchor="middle"
            )
            return
        missed = point.rto_s is not None and point.recovery_time_s > point.rto_s
        hint = f"{point.run_type} {point.run_id}: {seconds(point.recovery_time_s)}, {point.verdict}"
        colour = BAD if missed else CALM
        self._drawing.circle(x, self._y(point.recovery_time_s), 4.5, fill=colour, hint=hint)
        if point.run_type != "test":
            self._drawing.circle(x, self._y(point.recovery_time_s), 2.5, fill=PAPER, hint=hint)
