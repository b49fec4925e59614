from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from replication.throttle import Throttle, by_schedule
from vault.inventory import Bandwidth, Site

pytestmark = pytest.mark.unit

MONDAY = datetime(2026, 6, 1, tzinfo=UTC)
MIB = 1 << 20


class Clock:
    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_the_rate_is_kept_over_time() -> None:
    clock = Clock()
    throttle = Throttle(lambda: 10 * MIB, clock=clock, sleep=clock.sleep)
    for _ in range(101):
        throttle(MIB)
    assert clock.now - 100.0 == pytest.approx(10.0, abs=0.1)


def test_an_idle_hour_is_not_saved_up() -> None:
    clock = Clock()
    throttle = Throttle(lambda: MIB, clock=clock, sleep=clock.sleep)
    throttle(MIB)
    clock.now += 3600
    throttle(MIB)
    throttle(MIB)
    assert sum(clock.slept) == pytest.approx(1.0, abs=0.1)


def test_a_limit_that_ends_lets_go_at_once() -> None:
    clock, rates = Clock(), iter([1.0, None, None])
    throttle = Throttle(lambda: next(rates), clock=clock, sleep=clock.sleep)
    for _ in range(3):
        throttle(1)
    assert clock.slept == []


def test_machines_share_a_link_fairly() -> None:
    """Threads of one site, each with a message at a time: a greedy one gets no more than the others."""
    throttle = Throttle(lambda: 4 * MIB)
    sent = {"one": 0, "two": 0, "three": 0}
    together = threading.Barrier(len(sent))
    seconds = 1.2

    def machine(name: str) -> None:
        together.wait()
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            throttle(64 << 10)
            sent[name] += 1

    threads = [threading.Thread(target=machine, args=(name,)) for name in sent]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(sent.values()) <= 1.3 * min(sent.values())
    assert sum(sent.values()) * (64 << 10) <= 4 * MIB * (seconds + 0.2)


def schedule(**window: object) -> Bandwidth:
    return Bandwidth.model_validate({"limit": "100MiB", "windows": [{"limit": "10MiB", **window}]})


@pytest.mark.parametrize(
    ("day", "time", "limit"),
    [(0, "07:59", 100), (0, "08:00", 10), (4, "17:59", 10), (4, "18:00", 100), (5, "12:00", 100), (6, "12:00", 100)],
)
def test_business_hours(day: int, time: str, limit: int) -> None:
    bandwidth = schedule(days=["mon", "tue", "wed", "thu", "fri"], until="18:00", **{"from": "08:00"})
    hours, minutes = map(int, time.split(":"))
    assert bandwidth.at(MONDAY + timedelta(days=day, hours=hours, minutes=minutes)) == limit * MIB


@pytest.mark.parametrize(
    ("day", "hour", "limit"), [(4, 21, 100), (4, 22, 10), (5, 5, 10), (5, 6, 100), (5, 23, 100), (0, 3, 100)]
)
def test_a_window_over_midnight_belongs_to_the_day_it_begins_on(day: int, hour: int, limit: int) -> None:
    bandwidth = schedule(days=["fri"], until="06:00", **{"from": "22:00"})
    assert bandwidth.at(MONDAY + timedelta(days=day, hours=hour)) == limit * MIB


def test_a_window_may_lift_the_limit_and_the_first_one_decides() -> None:
    bandwidth = Bandwidth.model_validate(
        {
            "limit": "1MiB",
            "windows": [
                {"from": "00:00", "until": "06:00"},
                {"from": "00:00", "until": "12:00", "limit": "2MiB"},
            ],
        }
    )
    at = [bandwidth.at(MONDAY + timedelta(hours=hour)) for hour in (3, 9, 15)]
    assert at == [None, 2 * MIB, MIB]
    clock = Clock()
    throttle = by_schedule(bandwidth, lambda: MONDAY + timedelta(hours=15))
    throttle._clock, throttle._sleep = clock, clock.sleep
    throttle(MIB)
    throttle(MIB)
    assert clock.slept == [pytest.approx(0.95)]


def test_a_master_target_needs_a_certificate() -> None:
    site = {"fabric": "lab", "networks": {"production": {}}, "master_target": "dr.example.com:7443"}
    with pytest.raises(ValidationError, match="'master_target' needs 'pki'"):
        Site.model_validate(site)
    assert Site.model_validate({**site, "pki": "file:pki"}).master_target == "dr.example.com:7443"
    for wrong in ("dr.example.com", "dr.example.com:", "http://dr:7443", "dr 1:7443"):
        with pytest.raises(ValidationError):
            Site.model_validate({**site, "pki": "file:pki", "master_target": wrong})
