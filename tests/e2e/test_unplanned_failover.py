"""Unplanned failover: what the chosen recovery point promises is there, and nothing that came after it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from engine_support import AWAY, HOME, House, nanoseconds, open_house

from adapters.lab.faults import Fault
from vault.domain import LATEST, utc
from vault.lifecycle import Phase
from workflows.model import JobResult

pytestmark = pytest.mark.e2e

MACHINES = {name: {"system": "32MiB"} for name in ("newest", "older", "moment")}
"""Each is recovered by a plan of its own, to another kind of recovery point."""


async def test_a_dead_host_and_three_ways_to_choose_the_recovery_point(tmp_path: Path) -> None:
    with open_house(tmp_path, machines=MACHINES) as house:
        for name in MACHINES:
            house.write_plan(name, [name])
        await house.protect_all()
        await house.wait_for_points("older", 4)
        moment = datetime.now(UTC) - timedelta(seconds=1)
        await asyncio.sleep(1)
        points = await house.wait_for_points("older", 4)
        house.faults(HOME).set(Fault.HOST_DEAD)

        await a_source_that_may_still_run_is_not_overtaken(house, "newest")
        results = dict(
            zip(
                MACHINES,
                await asyncio.gather(
                    recovered(house, "newest", LATEST),
                    recovered(house, "older", points[1].id),
                    recovered(house, "moment", moment.isoformat()),
                ),
                strict=True,
            )
        )
        for machine, result in results.items():
            assert_keeps_its_promise(house, machine, result)
        assert results["older"].point == points[1]
        chosen = results["moment"].point
        assert chosen is not None
        assert timedelta(0) <= moment - chosen.time < timedelta(seconds=5)

        house.faults(HOME).clear()
        await asyncio.gather(*(brought_home(house, machine) for machine in MACHINES))


async def a_source_that_may_still_run_is_not_overtaken(house: House, machine: str) -> None:
    """Without the operator's word nobody knows whether a host that does not answer has stopped its machines."""
    await house.start_run("unplanned", machine)
    status = await house.end_of_run(machine)
    assert status.state == "refused"
    assert "--source-unreachable" in status.message
    assert [copy.path.parts[-3] for copy in house.copies(machine)] == [HOME]
    assert (await house.state(machine)).phase is Phase.PROTECTED


async def recovered(house: House, machine: str, point: str) -> JobResult:
    results = await house.completed_run("unplanned", machine, point=point, source_unreachable=True)
    return results[machine]


def assert_keeps_its_promise(house: House, machine: str, result: JobResult) -> None:
    assert result.trouble is None
    assert result.source_proven_off is False
    assert result.point is not None
    assert result.answering is not None
    guest = result.answering.transactions
    assert guest is not None
    disks = house.held_at(machine, AWAY, result.point)
    what = f"{machine} at {utc(result.point.time)}: disks {disks}, guest {guest}"
    assert (disks.damaged, guest.damaged) == (0, 0), what
    assert guest.held_at_boot == disks.last > 0, what
    assert disks.last >= house.acknowledged_before(machine, result.point.time), what
    assert disks.last_begin_ns <= nanoseconds(result.point.time), what


async def brought_home(house: House, machine: str) -> None:
    """The old source went on after the recovery point; its disks become the replica all the same."""
    await house.completed_run("commit", machine)
    await house.completed_run("reverse", machine)
    result = (await house.completed_run("failback", machine))[machine]
    assert result.answering is not None
    assert result.answering.site == HOME
    found = result.answering.transactions
    assert found is not None
    assert (found.lost, found.damaged) == (0, 0), f"{machine}: {found}"
    await house.completed_run("commit", machine)
    await house.completed_run("reverse", machine)
    assert (await house.state(machine)).phase is Phase.PROTECTED
