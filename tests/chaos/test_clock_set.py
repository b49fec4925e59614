"""The machine's clock is set an hour forward and back in the middle of everything: nothing notices but the times shown.

The machine's own clock stays as it is. Every process of leeward and every guest is started with a library in front of
the C library's clock; Temporal's server, which asks the kernel itself, keeps the true time (docs/operate.md, Clocks).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from engine_support import AWAY, HOME, House, no_overlaps, open_house, results_of

from adapters.lab.faults import Fault
from adapters.lab.guest_client import running_guest
from vault.domain import ConsistencyKind, RecoveryPoint
from vault.lifecycle import Phase
from workflows.model import Steer

pytestmark = pytest.mark.chaos

HOUR_S = 3600
SOON_S = 20.0
"""What takes longer than this waits for the clock: undisturbed it is done in a second or two."""
SLOW = 400 * 1024.0
"""Bytes a second of the link: what a machine writes in a second takes most of one."""
MACHINES = {"db": {"data": "32MiB"}, "app": {"system": "32MiB"}, "web": {"system": "32MiB"}}
RETENTION = {"count": 500, "hours": 1}
"""A clock that is set forward by it makes all points but the newest look expired."""
GO = {"manual": "Go?", "instructions": "Set the clock meanwhile."}


class SettableClock:
    def __init__(self, file: Path) -> None:
        self._file = file
        file.write_bytes(struct.pack("=q", 0))

    def set(self, ahead_s: int) -> None:
        """From this moment on it is so far ahead of the machine's clock."""
        with self._file.open("r+b") as file:
            file.write(struct.pack("=q", ahead_s))


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SettableClock:
    """That of every process started from now on."""
    compiler = shutil.which("cc")
    assert compiler, (
        "no C compiler: install gcc and libc6-dev, as .ci/run does, to set the clock of leeward's processes"
    )
    library, source = tmp_path / "settable_clock.so", Path(__file__).with_name("settable_clock.c")
    subprocess.run([compiler, "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, source], check=True)
    clock = SettableClock(tmp_path / "settable_clock.so.ahead")
    monkeypatch.setenv("LD_PRELOAD", str(library))
    return clock


@pytest.fixture
def house(tmp_path: Path, clock: SettableClock) -> Iterator[House]:
    policy = {"retention": RETENTION, "app_consistent_every": "2s"}
    with open_house(tmp_path / "house", machines=MACHINES, policy=policy) as opened:
        yield opened


async def test_a_failover_a_test_and_replication_go_through_both_jumps(house: House, clock: SettableClock) -> None:
    began = time.monotonic()
    house.write_plan("drill", ["web"], after=[GO])
    house.write_plan("move", [], groups=[{"name": "held", "machines": ["db", "app"], "before": [GO]}])
    await house.protect_all()
    await house.start_run("test", "drill")
    await house.wait_for_run("waiting", "drill")
    house.faults(HOME).set(Fault.LINK_SLOW, SLOW)
    before = await house.wait_for_points("web", 4)

    await house.start_run("planned", "move")
    await house.wait_for_phase("db", Phase.FAILING_OVER)
    clock.set(HOUR_S)
    ahead = await points_after(house, before, ahead_s=HOUR_S)
    assert all(0 <= rpo < SOON_S for rpo in shown_rpos(house, "web"))
    await house.wait_for_run("waiting", "move")

    clock.set(0)
    after = await points_after(house, ahead, ahead_s=0)
    assert all(0 <= rpo < SOON_S for rpo in shown_rpos(house, "web"))
    await approve(house, "move")
    moved = await house.end_of_run("move", SOON_S * 2)
    assert moved.state == "completed", await house.describe_run("move")
    assert set(results_of(moved)) == {"db", "app"}
    assert {(await house.state(machine)).phase for machine in ("db", "app")} == {Phase.COMMIT_PENDING}

    await approve(house, "drill")
    assert (await house.end_of_run("drill")).state == "completed", await house.describe_run("drill")
    assert running_guest(house.lab.site(AWAY).machine((await house.state("web")).tests[0].machine)) is not None
    await house.completed_run("cleanup", "drill")
    assert (await house.state("web")).tests == []

    kinds = {point.kind for point in after if point not in ahead}
    assert ConsistencyKind.APPLICATION in kinds, "the rhythm of app-consistent points goes on"
    acknowledged = house.assert_nothing_lost()
    no_overlaps(house)
    assert {(await house.state(machine)).health.level for machine in house.machines} == {"ok"}
    print(f"{acknowledged} transactions acknowledged, 0 lost; {len(after)} points; {time.monotonic() - began:.0f} s")


async def approve(house: House, plan: str) -> None:
    leeward = await house.connect()
    steps = [row for stage in (await leeward.run_status(plan)).stages for row in stage.steps]
    (waiting,) = [row.id for row in steps if row.waits]
    await leeward.steer(plan, Steer(action="approve", step=waiting, by="test", note="the clock was set"))


async def points_after(house: House, known: list[RecoveryPoint], *, ahead_s: int) -> list[RecoveryPoint]:
    """Until the schedule has made points by the clock as it is now; none of those known before may be gone."""
    deadline, leeward = time.monotonic() + SOON_S, await house.connect()
    while True:
        points = (await leeward.recovery_points("web")).points
        assert [point.id for point in points[: len(known)]] == [point.id for point in known], "pruned too early"
        now = datetime.now(UTC) + timedelta(seconds=ahead_s)
        stamped = [point for point in points[len(known) :] if abs((now - point.time).total_seconds()) < SOON_S]
        if len(stamped) > 3 and any(point.kind is ConsistencyKind.APPLICATION for point in stamped):
            assert points[-1] in stamped, "the newest point is of a time that is over"
            return points
        assert time.monotonic() < deadline, f"{len(stamped)} new points in {SOON_S:g} s after the clock was set"
        await asyncio.sleep(0.2)


def shown_rpos(house: House, machine: str) -> list[float]:
    """What ``leeward status`` shows by the clock as it is, several times."""
    return [house.must("status", "--json").json()[machine]["rpo_s"] for _ in range(2)]


def test_processes_with_the_library_have_the_set_clock_and_the_true_steady_one(clock: SettableClock) -> None:
    asked = "import time, datetime; print(time.time(), datetime.datetime.now().timestamp(), time.monotonic())"
    for ahead_s in (HOUR_S, -HOUR_S, 0):
        clock.set(ahead_s)
        answer = subprocess.run(
            [shutil.which("python3") or "python3", "-c", asked], capture_output=True, check=True, env=dict(os.environ)
        )
        wall, date, steady = map(float, answer.stdout.split())
        assert abs(wall - time.time() - ahead_s) < SOON_S
        assert abs(date - time.time() - ahead_s) < SOON_S
        assert 0 <= time.monotonic() - steady < SOON_S
