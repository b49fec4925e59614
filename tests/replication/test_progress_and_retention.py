from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replication.progress import Meter
from replication.retention import expired, resolve
from vault.domain import ConsistencyKind, Progress, RecoveryPoint, Retention
from vault.errors import NotFound

pytestmark = pytest.mark.unit

T0 = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)


def point(number: int, minutes: float, kind: ConsistencyKind = ConsistencyKind.CRASH) -> RecoveryPoint:
    return RecoveryPoint(id=f"rp-{number:06d}-x", sequence=number, time=T0 + timedelta(minutes=minutes), kind=kind)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_reports_are_rare_and_the_rate_is_that_of_the_last_seconds() -> None:
    seen: list[Progress] = []
    clock = Clock()
    meter = Meter(seen.append, "copying", 10_000, clock=clock)
    for _ in range(100):
        clock.now += 0.01
        meter.add(10, 5)
    assert 5 <= len(seen) <= 6
    for _ in range(100):
        clock.now += 0.1
        meter.add(50)
    meter.tell()
    assert (seen[-1].bytes_done, seen[-1].bytes_sent, seen[-1].bytes_total) == (6000, 500, 10_000)
    assert seen[-1].bytes_per_second == pytest.approx(500, rel=0.05)
    assert seen[-1].eta_s == pytest.approx(8, rel=0.05)


@given(st.lists(st.floats(0, 5000), min_size=1, max_size=20), st.integers(1, 25), st.floats(0.1, 100), st.data())
def test_retention_keeps_the_newest_and_what_is_in_use(
    minutes: list[float], count: int, hours: float, data: st.DataObject
) -> None:
    points = [point(number, at) for number, at in enumerate(sorted(minutes), 1)]
    in_use = frozenset(data.draw(st.sets(st.sampled_from([p.id for p in points]))))
    now = T0 + timedelta(minutes=5000)
    dropped = expired(points, Retention(count=count, hours=hours), now, in_use)
    kept = [p for p in points if p not in dropped]
    assert points[-1] in kept
    assert not in_use & {p.id for p in dropped}
    free = [p for p in kept[:-1] if p.id not in in_use]
    assert all(now - p.time <= timedelta(hours=hours) for p in free)
    assert len([p for p in kept if p.id not in in_use]) <= max(count, 1)
    for p in dropped:
        assert now - p.time > timedelta(hours=hours) or points.index(p) < len(points) - count


def test_the_newest_app_consistent_point_outlasts_the_count_but_not_the_hours() -> None:
    """Made once an hour beside 30 cuts, none would be left to choose for most of the time."""
    app = ConsistencyKind.APPLICATION
    points = [point(number, number, app if number in (1, 10) else ConsistencyKind.CRASH) for number in range(61)]
    dropped = expired(points, Retention(count=5, hours=2), T0 + timedelta(minutes=61), frozenset())
    kept = [one for one in points if one not in dropped]
    assert [one.sequence for one in kept] == [10, 56, 57, 58, 59, 60]
    assert resolve(kept, "latest-app-consistent", "db").sequence == 10
    later = expired(kept, Retention(count=5, hours=2), T0 + timedelta(minutes=131), frozenset())
    assert [one.sequence for one in later] == [10]


def test_choices() -> None:
    points = [point(1, 0), point(2, 5, ConsistencyKind.APPLICATION), point(3, 10)]

    def chosen(choice: str) -> int:
        return resolve(points, choice, "db").sequence

    assert [chosen("latest"), chosen("latest-processed"), chosen("latest-app-consistent")] == [3, 3, 2]
    assert chosen("rp-000001-x") == 1
    assert chosen("2026-05-01T12:09:59Z") == 2
    assert chosen("2026-05-01 12:10:00") == 3
    assert chosen("2026-05-01T14:05:00+02:00") == 2


@pytest.mark.parametrize("choice", ["2026-05-01T11:59:59Z", "rp-000009-x", "yesterday"])
def test_an_unknown_choice_says_what_there_is(choice: str) -> None:
    with pytest.raises(NotFound, match=r"rp-000001-x.*rp-000002-x"):
        resolve([point(1, 0), point(2, 5)], choice, "db")
    with pytest.raises(NotFound, match="initial replication"):
        resolve([], choice, "db")
