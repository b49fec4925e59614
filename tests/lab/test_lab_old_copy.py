"""A dead host comes back with its guests: the watch of the old copy, against real guests."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from lab_support import HOME, counted_on, make_inventory, no_beat, running_lab
from temporalio.testing import ActivityEnvironment

from activities.contracts import WatchOldCopy
from activities.machines import MachineActivities
from activities.running import BlockingRunner
from adapters.lab import labctl
from adapters.lab.faults import Fault, SiteFaults
from adapters.registry import Adapters
from vault.domain import PowerState, Progress

pytestmark = pytest.mark.contract


async def test_a_host_that_comes_back_with_its_guest_has_it_powered_off(tmp_path: Path) -> None:
    inventory = make_inventory()
    with running_lab(tmp_path / "lab", inventory) as lab, ThreadPoolExecutor(2) as threads:
        lab.up()
        SiteFaults(lab.root, HOME).set(Fault.HOST_DEAD)
        activities = MachineActivities(Adapters(inventory, tmp_path), BlockingRunner(threads, asking=counted_on))
        env = ActivityEnvironment()
        silent = asyncio.Event()

        def beat(*details: Progress) -> None:
            if any("the host does not answer" in one.doing for one in details):
                silent.set()

        env.on_heartbeat = beat
        watching = asyncio.create_task(
            env.run(activities.watch_old_copy, WatchOldCopy(site=HOME, machine="db", every_s=0.05, run_for_s=60))
        )
        await asyncio.wait_for(silent.wait(), 60)
        assert await asyncio.to_thread(labctl.host_returns, inventory, lab.root, HOME) == ["db"]
        watched = await asyncio.wait_for(watching, 60)
        assert (
            watched.stopped == "the old copy of db at primary ran again, on network 'production', and was powered off"
        )
        assert lab.site().describe("db").power is PowerState.OFF


def test_a_returning_host_starts_only_what_ran_when_it_died(tmp_path: Path) -> None:
    with running_lab(tmp_path, make_inventory()) as lab:
        lab.up()
        lab.site().shut_down("db", 10, no_beat)
        SiteFaults(lab.root, HOME).set(Fault.HOST_DEAD)
        assert labctl.host_returns(lab.inventory, lab.root, HOME) == []
        assert lab.site().describe("db").power is PowerState.OFF
