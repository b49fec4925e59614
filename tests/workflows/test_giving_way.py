"""A production failover wins over a test, and neither is refused by it nor waits for it (requirements §C.5, §D)."""

from __future__ import annotations

import asyncio

import pytest
from house import PATIENCE, PATIENCE_S, House
from lab_support import make_inventory
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from console.client import Leeward
from plans.model import Plan
from vault.lifecycle import JobKind, Phase
from workflows.model import Decision, GiveWay

pytestmark = pytest.mark.workflow

LOOK = {"manual": "Look at it"}


def plan(name: str = "shop", *after: dict[str, object]) -> Plan:
    return Plan.model_validate({"plan": name, "groups": [{"name": "all", "machines": ["db"], "after": list(after)}]})


async def no_copies(house: House) -> None:
    async def none() -> bool:
        return (await house.state("db")).tests == []

    await house.until(none, "the test copies are gone")


def operator(house: House) -> Leeward:
    return Leeward(house.client, make_inventory(), house.timings, operator="olga")


async def test_a_failover_of_a_plan_ends_its_test(house: House) -> None:
    await house.replicating("db")
    test = await house.plan(plan("shop", LOOK), "test", run_id="t1-aa01")
    await house.row(test, "recover all/Look at it", "waiting")

    await operator(house).start_run(plan("shop"), "unplanned")
    ended = await house.client.get_workflow_handle(test.id, run_id=test.first_execution_run_id).query("status")
    assert (ended["state"], ended["message"]) == ("cancelled", "cancelled: a failover of shop took over, asked by olga")
    assert [row["state"] for row in ended["stages"][1]["steps"]] == ["done", "cancelled"]

    status = await house.run_ends(house.client.get_workflow_handle("plan/shop"))
    assert (status.run_type, status.state) == ("unplanned", "completed")
    assert [stage.title for stage in status.stages] == ["check readiness", "recover all"]
    await no_copies(house)
    state = await house.state("db")
    assert (state.phase, house.world.runs_at("db-test-aa01")) == (Phase.COMMIT_PENDING, set())
    assert state.story[0].what == (
        "a failover took over, asked by plan shop (olga): tests end and their copies are removed"
    )


async def test_it_does_not_wait_for_a_copy_that_is_being_made(house: House) -> None:
    await house.replicating("db")
    house.world.hold("start_test", "db", stubborn=True)
    test = await house.plan(plan(), "test", run_id="t1-aa01")
    await house.until(lambda: house.world.of("start_test"), "a copy is being made")
    await operator(house).start_run(plan(), "planned")
    run = house.client.get_workflow_handle("plan/shop")
    assert (await house.run_ends(run)).state == "completed"
    assert (await house.state("db")).phase is Phase.COMMIT_PENDING
    house.world.open_gates()

    async def over() -> bool:
        return not any(job.is_open for job in (await house.state("db")).jobs)

    await house.until(over, "the test job ends")
    (record,) = [job for job in (await house.state("db")).jobs if job.kind is JobKind.TEST_FAILOVER]
    assert (record.state, record.message) == ("failed", "a failover took over, asked by plan shop (olga)")
    await no_copies(house)
    assert (await house.state("db")).health.level == "ok"
    assert test.id == "plan/shop"


async def test_a_test_of_another_plan_hears_of_it(house: House) -> None:
    await house.replicating("db")
    gate = house.world.hold("start_test", "db")
    books = await house.plan(plan("books"), "test")
    await house.until(lambda: house.world.of("start_test"), "a copy is being made")
    assert (await house.job("db", JobKind.UNPLANNED_FAILOVER)).state == "done"
    row = await house.row(books, "recover all/db", "failed")
    assert row.detail == "a failover took over, asked by test"
    gate.set()
    await house.steer(books, "skip", row.id)
    assert (await house.run_ends(books)).state == "completed"
    await no_copies(house)


async def test_the_room_of_test_copies_counts_for_a_failover_that_removes_them(house: House) -> None:
    """No byte is free but what the copies hold: nothing is refused, and nobody waits a minute for the next try."""
    await house.replicating("db")
    house.world.room = {"recovery": 1}
    assert (await house.run_ends(await house.plan(plan(), "test", run_id="t1-aa01"))).state == "completed"
    second = await house.run_ends(await house.plan(plan("books"), "test", run_id="t2-aa02"))
    assert second.state == "refused"
    assert "space at recovery: 0 B are free — free space at recovery" in second.message

    gate = house.world.hold("end_test", "db")
    run = await house.plan(plan(), "planned")
    await house.until(lambda: len(house.world.of("fail_over")) > 1, "the failover waits for room")
    gate.set()
    assert (await house.run_ends(run)).state == "completed"
    assert {call.attempt for call in house.world.of("fail_over")} == {1}
    assert house.world.stored == {("recovery", "db")}


async def test_a_machines_own_failover_counts_the_room_of_its_copies(house: House) -> None:
    await house.replicating("db")
    house.world.room = {"recovery": 1}
    await house.job("db", JobKind.TEST_FAILOVER)
    assert (await house.job("db", JobKind.UNPLANNED_FAILOVER)).state == "done"
    await no_copies(house)


async def test_a_copy_in_the_making_counts_too(house: House) -> None:
    await house.replicating("db")
    gate = house.world.hold("start_test", "db", stubborn=True)
    await house.plan(plan("books"), "test", run_id="t1-aa01")
    await house.until(lambda: house.world.of("start_test"), "a copy is being made")
    house.world.room = {"recovery": 1}
    house.world.stored = {("recovery", "db-test-aa01")}
    run = await house.plan(plan(), "planned")
    await house.until(lambda: len(house.world.of("fail_over")) > 1, "the failover waits for room")
    gate.set()
    assert (await house.run_ends(run)).state == "completed"
    assert {call.attempt for call in house.world.of("fail_over")} == {1}


async def test_only_tests_and_their_clean_ups_give_way(house: House) -> None:
    await house.replicating("db")
    planned = await house.plan(plan("shop", LOOK), "planned")
    await house.row(planned, "recover all/Look at it", "waiting")
    with pytest.raises(WorkflowUpdateFailedError) as refusal:
        await planned.execute_update(
            "give_way", GiveWay(by="olga", run_type="unplanned"), result_type=Decision, rpc_timeout=PATIENCE
        )
    assert isinstance(refusal.value.cause, ApplicationError)
    assert refusal.value.cause.message == "a planned run of shop is going on, it gives way to nobody"
    with pytest.raises(Exception, match="is running already; nothing was started"):
        await asyncio.wait_for(operator(house).start_run(plan("shop"), "unplanned"), PATIENCE_S)
    await house.cancel(planned)
    await house.run_ends(planned)
