"""A step that ends well although it was cancelled takes nothing of the cancellation away: nothing goes on after it."""

from __future__ import annotations

import pytest
from house import House
from test_giving_way import no_copies, operator, plan
from test_making_way import BEATS

from vault.errors import InvalidState
from vault.lifecycle import JobKind, Phase
from workflows.model import HeldJob

pytestmark = pytest.mark.workflow


@pytest.mark.parametrize("during", ["shut_down", "send_last_changes", "fail_over"])
@pytest.mark.parametrize("how", ["abandoned", "cancelled"])
async def test_a_planned_failover_is_undone(house: House, during: str, how: str) -> None:
    gate = house.world.hold(during, "db", stubborn=True)
    machine = await house.replicating("db")
    accepted = await house.ask("db", JobKind.PLANNED_FAILOVER, id="held", hold_before_start=True)
    await house.until(lambda: house.world.of(during), f"{during} runs")
    if how == "abandoned":
        await machine.signal("abandon", HeldJob(request_id="held", reason="wrong day"))
        await house.told_to_end(accepted.job_id)
    else:
        await house.cancel_job(accepted.job_id)
    gate.set()
    record = await house.ended("db", accepted.job_id)
    assert (record.state, record.message) == ("failed", "wrong day" if how == "abandoned" else "cancelled")
    assert house.world.names("shut_down", "send_last_changes", "fail_over", "cancel_failover", "start")[-3:] == [
        during,
        "cancel_failover",
        "start",
    ]
    assert house.world.runs_at("db") == {"primary"}
    assert (await house.state("db")).phase is Phase.PROTECTED


async def test_a_failover_that_is_cancelled_while_it_is_checked_changes_nothing(house: House) -> None:
    gate = house.world.hold("check_target", "db")
    await house.replicating("db")
    accepted = await house.ask("db", JobKind.UNPLANNED_FAILOVER)
    await house.until(lambda: house.world.of("check_target"), "the target is checked")
    await house.cancel_job(accepted.job_id)
    gate.set()
    record = await house.ended("db", accepted.job_id)
    assert (record.state, record.message) == ("failed", "cancelled")
    assert house.world.names("shut_down", "fail_over", "start") == []


async def test_an_unplanned_failover_does_not_recover_when_it_is_cancelled_over_the_last_changes(house: House) -> None:
    house.world.script("send_last_changes", "db", ValueError("broken"))
    gate = house.world.hold("send_last_changes", "db", stubborn=True)
    await house.replicating("db")
    accepted = await house.ask("db", JobKind.UNPLANNED_FAILOVER)
    await house.until(lambda: house.world.of("send_last_changes"), "the last changes are sent")
    await house.cancel_job(accepted.job_id)
    gate.set()
    assert (await house.ended("db", accepted.job_id)).state == "failed"
    assert house.world.names("fail_over", "start") == []


async def test_a_test_copy_that_was_cancelled_is_not_started(house: House) -> None:
    gate = house.world.hold("start_test", "db", stubborn=True)
    await house.replicating("db")
    accepted = await house.ask("db", JobKind.TEST_FAILOVER)
    await house.until(lambda: house.world.of("start_test"), "the copy is made")
    await house.cancel_job(accepted.job_id)
    gate.set()
    record = await house.ended("db", accepted.job_id)
    assert (record.state, record.message) == ("failed", "cancelled")
    assert house.world.names("start_test", "end_test", "start") == ["start_test", "end_test"]
    assert (await house.state("db")).tests == []


async def test_a_copy_that_was_cancelled_while_it_started_is_known(house: House) -> None:
    gate = house.world.hold("answer", "db-test", stubborn=True)
    await house.replicating("db")
    accepted = await house.ask("db", JobKind.TEST_FAILOVER)
    await house.until(lambda: house.world.of("answer"), "the copy starts")
    await house.cancel_job(accepted.job_id)
    gate.set()
    assert (await house.ended("db", accepted.job_id)).state == "done"
    assert [copy.machine for copy in (await house.state("db")).tests] == ["db-test"]


async def test_no_step_of_a_test_begins_after_it_gave_way(house: House) -> None:
    first, second = ({"script": word, "on": "db", "run": word} for word in ("first", "second"))
    gate = house.world.hold("run_in_guest", "db-test-aa01", stubborn=True)
    await house.replicating("db")
    await house.plan(plan("shop", first, second), "test", run_id="t1-aa01")
    await house.until(lambda: house.world.of("run_in_guest"), "the first script runs")
    await operator(house).start_run(plan("shop"), "planned")
    gate.set()
    assert (await house.run_ends(house.client.get_workflow_handle("plan/shop"))).state == "completed"
    await no_copies(house)
    assert [call.detail.split()[-1] for call in house.world.of("run_in_guest")] == ["first"]


async def test_what_a_failover_refused_to_an_ending_replication_is_over_once_it_is_undone(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The replica of a machine that is failed over takes nothing from its source; of an undone failover it does again.
    The worker of the replication hears of it by that, before it hears of its cancellation."""
    monkeypatch.setattr(BEATS, 4)  # as for real: of the cancellation it would hear after 75 s
    gate = house.world.hold("replicate_once", "db", stubborn=True)
    house.world.script("replicate_once", "db", InvalidState("the machine was failed over"))
    house.world.script("fail_over", "db", InvalidState("it cannot be made"))
    await house.replicating("db", frequency="15m")
    await house.until(lambda: house.world.of("replicate_once"), "replication is under way")
    accepted = await house.ask("db", JobKind.UNPLANNED_FAILOVER, point=house.world.new_point("db").id)
    assert (await house.ended("db", accepted.job_id)).state == "failed"
    assert house.world.names("fail_over", "cancel_failover") == ["fail_over", "cancel_failover"]
    gate.set()
    await house.until(lambda: len(house.world.of("replicate_once")) > 1, "replication goes on")
    state = await house.state("db")
    assert (state.phase, state.halted) == (Phase.PROTECTED, False)
