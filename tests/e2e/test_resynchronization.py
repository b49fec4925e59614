"""When deltas cannot go on: links that are down for too long, and machines that come back from that."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from engine_support import HOME, House, open_house

from adapters.lab.faults import Fault
from vault.lifecycle import JobKind, Phase

pytestmark = pytest.mark.e2e

TINY = {"db": {"log": "1MiB", "data": "2MiB"}, "app": {"system": "2MiB"}}
RATE = 150
"""Transactions of 4 KiB a second: half a megabyte, so the logs pass half of the disks within seconds."""


async def test_logs_that_pass_half_of_the_disk_lead_to_a_resynchronization(tmp_path: Path) -> None:
    no_cache = {HOME: {"cache": "0B"}}
    with open_house(tmp_path, machines=TINY, rate=RATE, policy={"resync": "manual"}, sites=no_cache) as house:
        await house.protect_all()
        points = {machine: await house.wait_for_points(machine, 3) for machine in house.machines}
        house.faults(HOME).set(Fault.LINK_DOWN)
        await asyncio.gather(*(logs_given_up(house, machine) for machine in house.machines))
        house.faults(HOME).clear()
        for machine in house.machines:
            state = await house.wait_for_phase(machine, Phase.RESYNC_REQUIRED)
            assert state.health.level == "warning"
            assert "gave up tracking" in state.health.reason

        for machine in house.machines:
            await asyncio.to_thread(house.must, "resync", machine)
            state = await house.state(machine)
            assert (state.phase, state.health.level) == (Phase.PROTECTED, "ok")
            kept = (await (await house.connect()).recovery_points(machine)).points
            assert points[machine][-1] in kept, "a resynchronization keeps the recovery points"
        await house.wait_for_transactions()
        for result in (await house.completed_run("planned")).values():
            assert result.answering is not None
            assert result.answering.transactions is not None
            assert result.answering.transactions.damaged == 0
        house.assert_nothing_lost()


async def logs_given_up(house: House, machine: str) -> None:
    """Until the source has thrown its logs away; leeward itself cannot know before its next try."""
    folder = house.lab.site(HOME).machine(machine)
    for _ in range(200):
        if '"resync_required": true' in folder.storage_state.read_text():
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"the logs of {machine} go on: {[path.stat().st_size for path in folder.path.glob('*.hrl')]}")


async def test_a_link_that_breaks_during_the_initial_replication(tmp_path: Path) -> None:
    """It resumes by itself; asking again meanwhile is no mistake."""
    with open_house(tmp_path) as house:
        link = house.faults(HOME)
        link.set(Fault.LINK_SLOW, 256 * 1024.0)
        leeward = await house.connect()
        for machine in house.machines:
            await leeward.protect(machine)
            await house.wait_for_phase(machine, Phase.REPLICATING_INITIALLY)
        await asyncio.sleep(1)
        link.set(Fault.LINK_DOWN)
        for machine in house.machines:
            status = await leeward.machine_status(machine)
            assert status is not None
            for _ in range(100):
                if any("the link is down" in activity.last_failure for activity in status.activities):
                    break
                await asyncio.sleep(0.1)
                status = await leeward.machine_status(machine)
                assert status is not None
            else:
                raise AssertionError(f"{machine} does not notice the link: {status}")
        link.clear()
        for machine in house.machines:
            state = await house.wait_for_phase(machine, Phase.PROTECTED)
            assert [job.kind for job in state.jobs] == [JobKind.ENABLE, JobKind.INITIAL_REPLICATION, JobKind.FINALIZE]
            assert {job.state for job in state.jobs} == {"done"}
        await house.wait_for_transactions()
        await house.completed_run("planned")
        house.assert_nothing_lost()
