"""A host's clock is set by an hour while replication runs: it goes on by its rhythm (times of one host, and of two)."""

from __future__ import annotations

import asyncio
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from temporalio.testing import ActivityEnvironment

sys.path.append(str(Path(__file__).parents[1] / "workflows"))

from fakes import World

from activities.cadence import app_consistent_is_due, cut_is_due, is_over, seconds_until_next, try_is_due
from activities.contracts import Replicate, ReplicationPulse, Waiting
from activities.protection import ProtectionActivities
from activities.running import BlockingRunner
from activities.testing import worst_age_s
from replication.clock import AgeClock
from replication.retention import expired, resolve
from vault.domain import CacheFill, RecoveryPoint, Relationship, Retention
from vault.errors import Unreachable

pytestmark = pytest.mark.unit

NOON = datetime(2026, 3, 14, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
BACK, FORWARD = pytest.param(-HOUR, id="an hour back"), pytest.param(HOUR, id="an hour forward")
RELATIONSHIP = Relationship(
    machine="db",
    source_site="primary",
    target_site="recovery",
    target_network="production",
    test_network="isolated",
    frequency_s=0.02,
    app_consistent_every_s=600,
)


class Clock:
    """A host's clock that is set once, so many calls after the start."""

    def __init__(self, step: timedelta, after_calls: int) -> None:
        self._step, self._left = step, after_calls

    def __call__(self) -> datetime:
        self._left -= 1
        return datetime.now(UTC) + (self._step if self._left < 0 else timedelta(0))


def replicate(world: World, clock: Clock, seconds: float) -> list[ReplicationPulse]:
    pulses: list[ReplicationPulse] = []
    environment = ActivityEnvironment()
    environment.on_heartbeat = lambda *details: pulses.extend(
        pulse for pulse in details if isinstance(pulse, ReplicationPulse)
    )
    with ThreadPoolExecutor(2) as threads:
        activities = ProtectionActivities(world, BlockingRunner(threads, 0.001), clock)  # type: ignore[arg-type]
        given = Replicate(relationship=RELATIONSHIP, run_for_s=seconds)
        asyncio.run(environment.run(activities.replicate_deltas, given))
    return pulses


@pytest.mark.parametrize("step", [BACK, FORWARD])
def test_replication_keeps_its_rhythm_and_its_turn_when_the_clock_is_set(step: timedelta) -> None:
    world, began = World(), time.monotonic()
    replicate(world, Clock(step, after_calls=7), 0.5)
    assert 0.5 <= time.monotonic() - began < 20
    assert len(world.of("replicate_once", "db")) > 8


@pytest.mark.parametrize("step", [BACK, FORWARD])
def test_a_target_that_took_nothing_gets_its_changes_when_the_clock_is_set(step: timedelta) -> None:
    world = World()
    world.caches["db"] = CacheFill(cuts=1, bytes=10, site_bytes=10, site_limit=100)
    world.script("replicate_once", "db", None, Unreachable("the link is down"))
    pulses = replicate(world, Clock(step, after_calls=9), 0.5)
    assert any(pulse.waiting for pulse in pulses)
    assert pulses[-1].waiting is None, "sending was tried again"
    assert len(world.of("replicate_once", "db")) > 4


def waiting(next_try: datetime, cut_at: datetime) -> Waiting:
    return Waiting(reason="no answer", failures=1, next_try=next_try, cut_at=cut_at, cache=CacheFill())


@pytest.mark.parametrize(
    ("now", "due"),
    [
        (NOON - HOUR, True),  # set back: the try seems an hour and a minute away
        (NOON, False),
        (NOON + timedelta(seconds=59), False),
        (NOON + timedelta(seconds=61), True),
        (NOON + HOUR, True),
    ],
)
def test_a_try_is_never_put_off_by_a_clock_that_was_set_back(now: datetime, due: bool) -> None:
    held = waiting(NOON + timedelta(minutes=1), NOON)
    assert try_is_due(held, now) is due
    pause = seconds_until_next(RELATIONSHIP, ReplicationPulse(waiting=held), 0.0, now)
    assert 0 <= pause <= RELATIONSHIP.pace_s


@pytest.mark.parametrize(
    ("now", "due"), [(NOON - HOUR, True), (NOON + timedelta(seconds=300), False), (NOON + HOUR, True)]
)
def test_cuts_and_app_consistent_points_are_due_again_after_the_clock_was_set(now: datetime, due: bool) -> None:
    assert is_over(NOON, now, 600) is due
    assert app_consistent_is_due(RELATIONSHIP, ReplicationPulse(last_app_consistent=NOON), now) is due
    slow = RELATIONSHIP.model_copy(update={"frequency_s": 600.0})
    assert cut_is_due(slow, waiting(NOON, NOON), now) is due


def points(*minutes: float) -> list[RecoveryPoint]:
    return [
        RecoveryPoint(id=f"p{number}", sequence=number, time=NOON + timedelta(minutes=offset))
        for number, offset in enumerate(minutes, start=1)
    ]


def test_the_newest_point_is_the_last_one_made_whatever_its_clock_said() -> None:
    set_back = points(0, 5, 10, -45, -40)
    assert resolve(set_back, "latest", "").id == "p5"
    assert resolve(set_back, (NOON + timedelta(minutes=7)).isoformat(), "").id == "p5"
    assert resolve(set_back, (NOON - timedelta(minutes=42)).isoformat(), "").id == "p4"


@pytest.mark.parametrize("step", [BACK, FORWARD])
def test_retention_loses_no_more_than_the_hour(step: timedelta) -> None:
    """The host that prunes and the source are two hosts: either clock may be the wrong one."""
    kept = points(*range(0, 24 * 60, 60))
    now = NOON + timedelta(hours=23, minutes=30)
    lost = expired(kept, Retention(count=100, hours=24), now + step, frozenset())
    assert [point.id for point in lost] == (["p1"] if step > timedelta(0) else [])


@pytest.mark.parametrize("step", [BACK, FORWARD])
def test_ages_between_two_clocks_are_never_negative(step: timedelta) -> None:
    """Points are of the source's clock, a test's begin and end of Temporal's."""
    age = worst_age_s(points(0, 1, 2), NOON + step, NOON + step + timedelta(minutes=2))
    assert age is not None and 0 <= age <= 7200


class TwoClocks:
    """A host's clock, which is set, and the one beside it that is not."""

    def __init__(self) -> None:
        self.wall, self.steady = NOON, 1000.0
        self.ages = AgeClock(lambda: self.wall, lambda: self.steady)

    def passes(self, time: timedelta) -> None:
        self.wall, self.steady = self.wall + time, self.steady + time.total_seconds()

    def ages_are_too_high_by(self, up_to: timedelta) -> timedelta:
        """How much older than it is something is taken that was made at the beginning."""
        return self.ages.for_ages(up_to) - NOON - timedelta(seconds=self.steady - 1000)


DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("steps", "too_old"),
    [
        ([HOUR], 0),
        ([-HOUR], -1),
        ([HOUR, -HOUR], 0),
        ([-HOUR, HOUR], -1),  # nothing made in between is taken for older either
        ([HOUR, HOUR], 0),
        ([HOUR, -2 * HOUR, HOUR], -1),
    ],
)
def test_what_was_made_is_never_taken_for_older_when_the_clock_is_set(steps: list[timedelta], too_old: int) -> None:
    clocks, made = TwoClocks(), []
    for step in [timedelta(0), *steps]:
        clocks.wall += step
        clocks.ages.for_ages(DAY)
        made.append((clocks.wall, clocks.steady))
        clocks.passes(timedelta(minutes=1))
    for stamped, at in made:
        taken = (clocks.ages.for_ages(DAY) - stamped).total_seconds()
        assert taken <= clocks.steady - at + 1
    assert clocks.ages_are_too_high_by(DAY) == too_old * HOUR


def test_the_new_time_holds_once_all_of_before_is_expired_anyway() -> None:
    clocks = TwoClocks()
    clocks.wall += HOUR
    assert clocks.ages.for_ages(DAY) == clocks.wall - HOUR
    clocks.passes(DAY + timedelta(minutes=1))
    assert clocks.ages.for_ages(DAY) == clocks.wall
    assert clocks.ages.for_ages(2 * DAY) == clocks.wall - HOUR


def test_a_clock_that_is_corrected_slowly_is_believed() -> None:
    clocks = TwoClocks()
    for _ in range(100):
        clocks.passes(timedelta(minutes=1))
        clocks.wall += timedelta(milliseconds=30)
        assert clocks.ages.for_ages(DAY) == clocks.wall
