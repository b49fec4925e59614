"""Test failovers side by side: own names, own networks, own clean-up, and what they do to replication (§C.5)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from house import House

from activities.testing import worst_age_s
from plans.model import Plan
from vault.domain import RecoveryPoint
from vault.errors import InvalidState
from vault.lifecycle import JobKind, Phase
from workflows.machine_book import JOBS_REMEMBERED
from workflows.model import JobInput, MachineState, RunStatus
from workflows.testing import test_machine_name as name_of_copy

START = datetime(2026, 3, 14, 2, tzinfo=UTC)


def plan(name: str, *machines: str) -> Plan:
    return Plan.model_validate({"plan": name, "groups": [{"name": "all", "machines": list(machines)}]})


async def ended(house: House, the_plan: Plan, run_type: str, run_id: str, **wanted: object) -> RunStatus:
    return await house.run_ends(await house.plan(the_plan, run_type, run_id=run_id, **wanted))


async def copies(house: House, machine: str = "db") -> dict[str, str]:
    return {copy.machine: copy.network for copy in (await house.state(machine)).tests}


@pytest.mark.workflow
async def test_each_run_has_its_own_copies_and_networks_and_cleans_up_its_own(house: House) -> None:
    house.world.test_networks = {}
    await house.replicating("db")
    await house.replicating("web")
    shop, books = plan("shop", "db", "web"), plan("books", "db")
    for the_plan, run_id in ((shop, "t1-aa01"), (shop, "t2-aa02"), (books, "t3-aa03")):
        assert (await ended(house, the_plan, "test", run_id)).state == "completed"
    assert await copies(house) == {
        "db-test-aa01": "isolated-t1-aa01",
        "db-test-aa02": "isolated-t2-aa02",
        "db-test-aa03": "isolated-t3-aa03",
    }
    assert house.world.runs_at("db-test-aa02") == {"recovery"}

    assert (await ended(house, shop, "cleanup", "c1", of_run="t1-aa01", note="orders came through")).note == (
        "orders came through"
    )
    assert set(await copies(house)) == {"db-test-aa02", "db-test-aa03"}
    refused = await ended(house, shop, "cleanup", "c2", of_run="t1-aa01")
    assert refused.state == "refused"
    assert "no machine has a test copy of run t1-aa01 — these have: t2-aa02, t3-aa03" in refused.message

    assert (await ended(house, shop, "cleanup", "c3")).state == "completed"
    assert await copies(house) == {"db-test-aa03": "isolated-t3-aa03"}
    assert await copies(house, "web") == {}
    assert house.world.test_networks == {"isolated-t3-aa03": {"db-test-aa03"}}
    assert (await ended(house, books, "cleanup", "c4")).state == "completed"
    assert house.world.test_networks == {}
    assert house.world.runs_at("db") == {"primary"}


@pytest.mark.workflow
async def test_a_test_whose_copies_all_fail_leaves_no_network_and_takes_none_from_another(house: House) -> None:
    house.world.test_networks = {}
    for machine in ("db", "web"):
        await house.replicating(machine)
        house.world.always("start_test", machine, InvalidState("the point is damaged"))
    gate = house.world.hold("start_test", "web")
    forgiving = Plan.model_validate({**plan("shop", "db", "web").model_dump(mode="json"), "on_failure": "continue"})
    run = await house.plan(forgiving, "test", run_id="t1-aa01")
    await house.row(run, "recover all/db", "failed")
    assert house.world.test_networks == {"isolated-t1-aa01": {"web-test-aa01"}}, "web's copy is being made on it"

    other = await house.plan(plan("books", "web"), "test", run_id="t2-aa02")
    await house.until(lambda: len(house.world.of("start_test", "web")) == 2, "two copies of web are being made")
    gate.set()
    await house.row(other, "recover all/web", "failed")
    await house.steer(other, "skip", "recover all/web")
    for each in (run, other):
        await house.run_ends(each)
    assert house.world.test_networks == {}


@pytest.mark.workflow
async def test_copies_of_one_machine_are_made_at_the_same_time(house: House) -> None:
    await house.replicating("db")
    gate = house.world.hold("start_test", "db")
    runs = [await house.plan(plan(name, "db"), "test", run_id=f"t-{name}") for name in ("one", "two", "three")]
    await house.until(lambda: len(house.world.of("start_test")) == 3, "three copies are being made")
    gate.set()
    assert [(await house.run_ends(run)).state for run in runs] == ["completed"] * 3
    assert set(await copies(house)) == {"db-test-one", "db-test-two", "db-test-three"}


@pytest.mark.workflow
async def test_a_test_tells_how_replication_went_beside_it(house: House) -> None:
    house.world.now = lambda: datetime.now(UTC)
    await house.replicating("db")
    (one,) = (await ended(house, plan("shop", "db"), "test", "t1")).replication
    assert one.machine == "db"
    assert one.worst_age_s is not None and 0 <= one.worst_age_s < 60
    assert (one.late_after_s, one.was_late) == (125, False)
    (state,) = (await house.state("db")).tests
    house.world.points["db"] = [
        point.model_copy(update={"time": point.time - timedelta(minutes=10)}) for point in house.world.points["db"]
    ]
    (late,) = (await ended(house, plan("shop", "db"), "cleanup", "c1")).replication
    assert state.made is not None
    assert late.worst_age_s is not None and late.worst_age_s > 600
    assert late.was_late


def points(*seconds: float) -> list[RecoveryPoint]:
    return [
        RecoveryPoint(id=f"p{number}", sequence=number, time=START + timedelta(seconds=offset))
        for number, offset in enumerate(seconds, start=1)
    ]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("moments", "worst"),
    [
        ((), None),
        ((-5, 5, 15, 25, 35, 45, 55), 10.0),  # a steady rhythm
        ((-5, 5, 45), 40.0),  # a gap inside
        ((-40, 5, 25, 45), 45.0),  # what was old when the test began
        ((-100,), 160.0),  # nothing came at all
        ((20, 40), 20.0),  # older ones were pruned
        ((-5, 20, 80), 40.0),  # what came after the end does not count
        ((70,), 0.0),
    ],
)
def test_the_oldest_that_the_newest_point_was(moments: tuple[float, ...], worst: float | None) -> None:
    assert worst_age_s(points(*moments), START, START + timedelta(seconds=60)) == worst


@pytest.mark.unit
def test_a_copys_name_is_its_runs_and_never_too_long() -> None:
    assert name_of_copy("db", "20260314T020000-ab12") == "db-test-ab12"
    assert name_of_copy("db", "") == "db-test"
    long = name_of_copy("d" * 63, "20260314T020000-ab12")
    assert (len(long), long[-10:]) == (63, "-test-ab12")


@pytest.mark.workflow
async def test_states_of_before_there_were_several_copies_still_load(house: House) -> None:
    await house.replicating("db")
    await house.job("db", JobKind.TEST_FAILOVER)
    state = await house.state("db")
    old = state.model_dump(mode="json")
    (copy,) = old.pop("tests")
    for new in ("plan", "run_id", "made"):
        copy.pop(new)
    loaded = MachineState.model_validate({**old, "test": copy})
    assert [one.machine for one in loaded.tests] == ["db-test"]
    assert MachineState.model_validate({**old, "test": None}).tests == []
    assert loaded.phase is Phase.PROTECTED

    job = {
        "request": {"id": "1", "kind": "CleanupTestFailover", "requested_by": "ada"},
        "relationship": old["forward"],
        "reverse": old["backward"],
        "policy": old["policy"],
        "timings": old["timings"],
    }
    assert [one.machine for one in JobInput.model_validate({**job, "test_machine": "db-test"}).copies] == ["db-test"]
    assert JobInput.model_validate({**job, "test_machine": None}).copies == []


async def test_no_test_is_forgotten_while_many_others_are_asked_for(house: House) -> None:
    """More than the machine remembers of those that have ended."""
    gate = house.world.hold("start_test", "db")
    await house.replicating("db")
    many = JOBS_REMEMBERED + 5
    asked = [await house.ask("db", JobKind.TEST_FAILOVER, id=f"r{n}", run_id=f"t-{n:02}") for n in range(many)]
    again = await house.ask("db", JobKind.TEST_FAILOVER, id="r0", run_id="t-00")
    assert again == asked[0]
    assert len((await house.state("db")).jobs) == many
    gate.set()
    await house.until(lambda: len(house.world.of("answer")) == many, "every copy was started")

    async def all_known() -> bool:
        return len((await house.state("db")).tests) == many

    await house.until(all_known, "every copy is known")
    assert (await house.job("db", JobKind.CLEANUP_TEST)).state == "done"
    assert len((await house.state("db")).jobs) == JOBS_REMEMBERED
