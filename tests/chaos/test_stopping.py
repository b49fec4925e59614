"""Stopping the engine, gently and not: machines run on, and leeward goes on where it was. One test after another."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest
from engine_support import AWAY, HOME, PATIENCE_S, House, house_is_empty, no_overlaps, open_house

from adapters.lab import labctl
from adapters.lab.faults import Fault
from adapters.lab.guest_client import running_guest
from adapters.lab.guest_state import GuestState
from vault.lifecycle import JobKind, Phase
from workers.engine_file import is_alive

pytestmark = pytest.mark.chaos

SLOW = 512 * 1024.0
"""Bytes a second: slow enough to stop in the middle of an initial replication."""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with open_house(tmp_path_factory.mktemp("house"), policy={"retention": {"count": 500}}) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _never_two_copies(house: House) -> Iterator[None]:
    yield
    no_overlaps(house)


def guests(house: House, site: str) -> dict[str, GuestState]:
    found = {machine: running_guest(house.lab.site(site).machine(machine)) for machine in house.machines}
    return {machine: guest for machine, guest in found.items() if guest is not None}


def stopped_in_order(house: House) -> None:
    """``leeward down`` ends every process with 0; who had to be killed, or ended otherwise, is in a log."""
    before = house.running_engine
    house.down()
    assert not any(is_alive(process) for process in (before.supervisor, *before.processes.values()))
    house.assert_quiet_logs()
    engine_log = house.logs().get("engine.log", "")
    assert "did not stop within" not in engine_log
    assert "ended with code" not in engine_log


async def test_the_engine_stops_in_the_middle_of_an_initial_replication(house: House) -> None:
    house.faults(HOME).set(Fault.LINK_SLOW, SLOW)
    leeward = await house.connect()
    for machine in house.machines:
        await leeward.protect(machine)
        await house.wait_for_phase(machine, Phase.REPLICATING_INITIALLY)
    await asyncio.sleep(1)
    stopped_in_order(house)
    house.faults(HOME).clear()
    house.up()
    for machine in house.machines:
        state = await house.wait_for_phase(machine, Phase.PROTECTED)
        copies = [job for job in state.jobs if job.kind is JobKind.INITIAL_REPLICATION]
        assert [job.state for job in copies] == ["done"]


async def test_the_engine_stops_in_steady_state_and_guests_do_not_notice(house: House) -> None:
    known = {machine: await house.wait_for_points(machine, 2) for machine in house.machines}
    running = guests(house, HOME)
    assert set(running) == set(house.machines)
    stopped_in_order(house)
    assert guests(house, HOME) == running
    house.up()
    for machine in house.machines:
        later = await house.wait_for_points(machine, len(known[machine]) + 2)
        assert {point.id for point in known[machine]} <= {point.id for point in later}
        assert (await house.state(machine)).health.level == "ok"


async def test_a_worker_of_ones_own_ends_in_order(house: House) -> None:
    """``leeward worker`` against the running engine, as in a container: SIGTERM, 0, no traceback."""
    address = house.running_engine.address
    places = [["--role", "control"], ["--role", "site", "--role", "replication", "--site", HOME]]
    workers = [house.popen("worker", *place, TEMPORAL_ADDRESS=address) for place in places]
    try:
        for worker in workers:
            assert worker.stderr is not None
            await asyncio.wait_for(asyncio.to_thread(worker.stderr.readline), PATIENCE_S)
        await asyncio.sleep(1)
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        for worker in workers:
            out, err = await asyncio.to_thread(worker.communicate, timeout=PATIENCE_S)
            assert worker.returncode == 0, out + err
            assert "Traceback" not in err
            assert "Fatal Python error" not in err
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


async def test_a_killed_supervisor_takes_its_children_along_and_up_goes_on(house: House) -> None:
    known = {machine: await house.wait_for_points(machine, 2) for machine in house.machines}
    house.write_plan("asks", house.machines, before=[{"manual": "Go?"}])
    await house.start_run("planned", "asks")
    await house.wait_for_run("waiting", "asks")
    before = house.running_engine
    os.kill(before.supervisor.pid, signal.SIGKILL)

    after = house.up()
    assert not any(is_alive(process) for process in before.processes.values()), "children of two engines at once"
    assert after.address == before.address
    assert (await house.wait_for_run("waiting", "asks")).run_type == "planned"
    for machine in house.machines:
        later = await house.wait_for_points(machine, len(known[machine]) + 1)
        assert {point.id for point in known[machine]} <= {point.id for point in later}
    await asyncio.to_thread(house.must, "plan", "approve", "asks", "--note", "go")
    assert (await house.end_of_run("asks")).state == "completed"
    house.assert_nothing_lost()


async def test_guests_survive_the_worker_that_started_them(house: House) -> None:
    running = guests(house, AWAY)
    assert set(running) == set(house.machines)
    killed = house.kill("site-recovery")
    await house.wait_for_transactions(10)
    assert not is_alive(killed)
    assert guests(house, AWAY) == running
    await house.completed_run("commit")
    house.assert_nothing_lost()


def test_the_lab_outlives_the_engine_and_shuts_down_by_itself(house: House) -> None:
    house.down()
    assert len(house.processes()) == len(house.machines), house.processes()
    assert labctl.down(house.inventory, house.settings.lab_root) == [f"{AWAY}/app", f"{AWAY}/db"]
    house_is_empty(house)
    house.assert_disks_sound()
