"""Failing over, committing, reversing, failing back, and tests beside replication (requirements §C.5-7)."""

from __future__ import annotations

import asyncio

import pytest
from house import PATIENCE_S, House, open_house
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowUpdateFailedError

from vault.domain import Finding, PowerState, Severity
from vault.errors import AuthenticationRefused, InvalidState, Unreachable
from vault.lifecycle import JobKind, Phase
from workflows.ids import machine_id
from workflows.model import HeldJob, JobRecord, MachineState

pytestmark = pytest.mark.workflow

REFUSED = AuthenticationRefused("login refused", remedy="renew the password")
GONE = Unreachable("no answer", remedy="check the link")
ACTS = (
    "check_source",
    "check_target",
    "shut_down",
    "send_last_changes",
    "fail_over",
    "cancel_failover",
    "start",
    "commit",
    "prepare_reverse",
    "enable",
    "copy_initial",
    "finalize",
    "retire_replica",
)


async def planned(house: House, name: str = "db", **wanted: object) -> JobRecord:
    return await house.job(name, JobKind.PLANNED_FAILOVER, **wanted)


# -- planned -----------------------------------------------------------------------------------------------------


async def test_a_planned_failover_goes_by_the_runbook(house: House) -> None:
    await house.replicating("db")
    record = await planned(house)
    state = await house.state("db")
    acts = [(call.name, call.site) for call in house.world.calls if call.name in ACTS]
    assert acts == [
        ("check_source", "primary"),
        ("check_target", "recovery"),
        ("shut_down", "primary"),
        ("send_last_changes", "primary"),
        ("fail_over", "recovery"),
        ("start", "recovery"),
    ]
    assert record.message == "db answers at recovery, network production"
    assert (state.phase, state.active_site, state.health.level) == (Phase.COMMIT_PENDING, "recovery", "ok")
    assert state.recovered is not None
    last = house.world.points["db"][-1]
    assert house.world.of("fail_over")[0].detail == last.id == state.recovered.point.id
    assert house.world.runs_at("db") == {"recovery"}
    assert house.world.most_copies_on_production["db"] == 1


async def test_the_requests_timeouts_reach_the_fabric(house: House) -> None:
    await house.replicating("db")
    await planned(house, shut_down_timeout_s=77, boot_timeout_s=88)
    assert house.world.of("shut_down")[0].detail == "77"
    assert house.world.of("answer")[0].detail == "88"


async def test_a_machine_can_be_made_without_being_started(house: House) -> None:
    await house.replicating("db")
    record = await planned(house, start=False)
    assert record.message == "db stays off at recovery, as was asked"
    assert (await house.state("db")).phase is Phase.COMMIT_PENDING
    assert house.world.of("start") == []
    assert house.world.runs_at("db") == set()


async def test_a_planned_failover_is_refused_by_a_failed_check(house: House) -> None:
    house.world.findings["target", "db"] = [Finding(severity=Severity.FAIL, subject="recovery", what="no space")]
    await house.replicating("db")
    record = await planned(house)
    assert "refused, nothing was changed: recovery: no space" in record.message
    assert house.world.names("shut_down", "cancel_failover", "start") == []
    assert (await house.state("db")).phase is Phase.PROTECTED


@pytest.mark.parametrize("broken", ["shut_down", "send_last_changes", "fail_over"])
async def test_the_source_runs_again_when_a_step_before_the_start_fails(house: House, broken: str) -> None:
    await house.replicating("db")
    house.world.script(broken, "db", REFUSED)
    record = await planned(house)
    assert (record.state, record.message) == ("failed", "login refused — renew the password")
    undone = [(call.name, call.site) for call in house.world.calls if call.name in {"cancel_failover", "start"}]
    assert undone == [("cancel_failover", "recovery"), ("start", "primary")]
    assert house.world.runs_at("db") == {"primary"}
    await house.until(lambda: len(house.world.of("replicate_once")) == 2, "replication goes on")
    assert (await house.state("db")).phase is Phase.PROTECTED


@pytest.mark.parametrize("during", ["shut_down", "send_last_changes", "fail_over"])
async def test_the_source_runs_again_when_the_job_is_cancelled(house: House, during: str) -> None:
    house.world.hold(during, "db")
    await house.replicating("db")
    accepted = await house.ask("db", JobKind.PLANNED_FAILOVER)
    await house.until(lambda: house.world.of(during), f"{during} runs")
    await house.client.get_workflow_handle(accepted.job_id).cancel()
    record = await house.ended("db", accepted.job_id)
    assert (record.state, record.message) == ("failed", "cancelled")
    assert house.world.names(*ACTS)[-3:] == [during, "cancel_failover", "start"]
    assert house.world.runs_at("db") == {"primary"}
    assert (await house.state("db")).phase is Phase.PROTECTED


async def test_a_target_that_does_not_answer_does_not_prolong_the_outage(house: House) -> None:
    """The source is started before the target could be cleaned up; that is done as soon as it can be."""
    await house.replicating("db")
    house.world.script("fail_over", "db", REFUSED)
    house.world.script("cancel_failover", "db", GONE, GONE)
    accepted = await house.ask("db", JobKind.PLANNED_FAILOVER)
    await house.until(lambda: house.world.runs_at("db") == {"primary"}, "the source runs again")
    async with house.time_flies():
        await house.ended("db", accepted.job_id)
    undoing = house.world.names("cancel_failover", "start")
    assert undoing == ["cancel_failover", "start", "cancel_failover", "cancel_failover"]


async def test_a_source_that_does_not_come_up_again_is_told(house: House) -> None:
    await house.replicating("db")
    house.world.script("fail_over", "db", REFUSED)
    house.world.script("answer", "db", Unreachable("'db' does not answer"))
    record = await planned(house)
    assert record.message == (
        "login refused — renew the password; undone, but 'db' does not run again: 'db' does not answer — "
        "start it at primary"
    )
    assert (await house.state("db")).health.level == "warning"


async def test_a_replica_that_does_not_answer_is_past_the_point_of_no_return(house: House) -> None:
    await house.replicating("db")
    house.world.script("answer", "db", Unreachable("'db' does not answer", where="site recovery"))
    record = await planned(house)
    state = await house.state("db")
    assert (record.state, record.message) == ("done", "site recovery: 'db' does not answer")
    assert (state.phase, state.health.level) == (Phase.COMMIT_PENDING, "warning")
    assert house.world.of("cancel_failover") == []
    result = await house.client.get_workflow_handle(record.id).result()
    assert result["trouble"] == "site recovery: 'db' does not answer"


async def test_a_held_failover_can_be_abandoned_while_a_step_waits_for_its_next_try(house: House) -> None:
    await house.replicating("db")
    house.world.always("send_last_changes", "db", GONE)
    accepted = await house.ask("db", JobKind.PLANNED_FAILOVER, id="held", hold_before_start=True)
    await house.until(lambda: house.world.of("send_last_changes"), "the last changes are tried")
    machine = house.client.get_workflow_handle(machine_id("db"))
    await machine.signal("abandon", HeldJob(request_id="held", reason="wrong day"))
    record = await house.ended("db", accepted.job_id)
    assert (record.state, record.message) == ("failed", "wrong day")
    assert house.world.runs_at("db") == {"primary"}


async def test_a_failover_abandoned_before_it_began_changes_nothing(house: House) -> None:
    await house.replicating("db")
    check = house.world.hold("check_source", "db")
    accepted = await house.ask("db", JobKind.PLANNED_FAILOVER, id="held", hold_before_start=True)
    machine = house.client.get_workflow_handle(machine_id("db"))
    await machine.signal("abandon", HeldJob(request_id="held", reason="wrong day"))
    await house.until(lambda: house.world.of("check_source"), "the source is checked")
    await house.recorded(accepted.job_id, EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED)
    check.set()
    record = await house.ended("db", accepted.job_id)
    assert record.message == "wrong day"
    assert house.world.names("shut_down", "start", "cancel_failover") == []


# -- unplanned ---------------------------------------------------------------------------------------------------


async def test_an_unplanned_failover_uses_the_source_while_it_can_be_reached(house: House) -> None:
    await house.replicating("db")
    record = await house.job("db", JobKind.UNPLANNED_FAILOVER)
    assert record.state == "done"
    assert house.world.names(*ACTS) == ["check_target", "shut_down", "send_last_changes", "fail_over", "start"]
    assert house.world.most_copies_on_production["db"] == 1


async def test_without_proof_that_the_source_is_off_nothing_happens(house: House) -> None:
    await house.replicating("db")
    house.world.script("shut_down", "db", GONE)
    record = await house.job("db", JobKind.UNPLANNED_FAILOVER)
    assert record.state == "failed"
    assert "cannot prove that 'db' is off at primary: no answer — check the link" in record.message
    assert "--source-unreachable; nothing was changed" in record.message
    assert house.world.names("fail_over", "start", "cancel_failover") == []
    assert (await house.state("db")).phase is Phase.PROTECTED


async def test_the_operator_may_say_that_the_source_is_down(house: House) -> None:
    await house.replicating("db")
    house.world.script("shut_down", "db", GONE)
    house.world.set_power("primary", "db", PowerState.OFF)
    record = await house.job("db", JobKind.UNPLANNED_FAILOVER, source_unreachable=True)
    result = await house.client.get_workflow_handle(record.id).result()
    assert result["source_proven_off"] is False
    assert "the operator says that it is down" in result["sentences"][0]
    assert house.world.names(*ACTS) == ["check_target", "shut_down", "fail_over", "start"]
    assert (await house.state("db")).phase is Phase.COMMIT_PENDING


@pytest.mark.parametrize("source_unreachable", [False, True])
async def test_a_site_whose_queue_nobody_polls_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, source_unreachable: bool
) -> None:
    dead = ("site.primary", "replication.primary")
    async with open_house(monkeypatch, without=dead, site_answer_s=0.5) as house:
        await house.machine("db", Phase.PROTECTED)
        record = await house.job("db", JobKind.UNPLANNED_FAILOVER, source_unreachable=source_unreachable)
        told = "no worker took 'shut_down': its site does not answer"
        if source_unreachable:
            result = await house.client.get_workflow_handle(record.id).result()
            assert told in result["sentences"][0]
            assert (await house.state("db")).phase is Phase.COMMIT_PENDING
        else:
            assert told in record.message
            assert house.world.names("fail_over", "start") == []
            assert (await house.state("db")).phase is Phase.PROTECTED


@pytest.mark.parametrize("point", ["db-p1", "latest-processed"])
async def test_a_chosen_recovery_point_is_passed_on_and_needs_no_last_changes(house: House, point: str) -> None:
    """``latest`` sends first what the source still has; ``latest-processed`` is the newest that is at the target."""
    await house.replicating("db")
    await house.job("db", JobKind.UNPLANNED_FAILOVER, point=point)
    assert house.world.of("fail_over")[0].detail == point
    assert house.world.of("send_last_changes") == []
    state = await house.state("db")
    assert state.failed_over_to is not None
    assert point in (state.failed_over_to.id, "latest-processed")


async def test_last_changes_that_cannot_be_sent_do_not_stop_an_unplanned_failover(house: House) -> None:
    await house.replicating("db")
    house.world.script("send_last_changes", "db", GONE)
    record = await house.job("db", JobKind.UNPLANNED_FAILOVER)
    result = await house.client.get_workflow_handle(record.id).result()
    assert "last changes could not be sent: no answer" in result["sentences"][1]
    assert record.state == "done"


async def test_a_failed_unplanned_failover_cleans_up_and_says_that_the_source_is_off(house: House) -> None:
    await house.replicating("db")
    house.world.script("fail_over", "db", REFUSED)
    record = await house.job("db", JobKind.UNPLANNED_FAILOVER)
    assert "'db' was shut down at primary and stays off" in record.message
    assert house.world.names("fail_over", "cancel_failover", "start") == ["fail_over", "cancel_failover"]


# -- commit, reverse, failback ------------------------------------------------------------------------------------


async def test_there_and_back_again(house: House) -> None:
    handle = await house.replicating("db")
    await planned(house)
    await house.job("db", JobKind.COMMIT)
    state = await house.state("db")
    assert (state.phase, state.reversed) == (Phase.FAILED_OVER, False)
    assert house.world.of("commit")[0].detail == house.world.of("fail_over")[0].detail

    await house.job("db", JobKind.REVERSE)
    state = await house.state("db")
    assert (state.phase, state.reversed, state.active_site) == (Phase.PROTECTED, True, "recovery")
    assert state.recovered is None
    reversing = [(call.name, call.site) for call in house.world.calls if call.name in ACTS][-8:]
    assert reversing == [
        ("check_source", "recovery"),
        ("check_target", "primary"),
        ("shut_down", "primary"),
        ("prepare_reverse", "primary"),
        ("enable", "recovery"),
        ("copy_initial", "recovery"),
        ("finalize", "recovery"),
        ("retire_replica", "recovery"),
    ]
    await house.until(lambda: house.world.of("replicate_once")[-1].site == "recovery", "it replicates backwards")

    await planned(house)
    assert house.world.runs_at("db") == {"primary"}
    await house.job("db", JobKind.COMMIT)
    await house.job("db", JobKind.REVERSE)
    state = await house.state("db")
    assert (state.phase, state.reversed, state.active_site) == (Phase.PROTECTED, False, "primary")

    await house.ask("db", JobKind.DISABLE)
    await asyncio.wait_for(handle.result(), PATIENCE_S)
    assert house.world.most_copies_on_production["db"] == 1


async def test_reversing_ends_a_halt_of_the_old_direction(house: House) -> None:
    house.world.script("replicate_once", "db", REFUSED)
    await house.machine("db", Phase.PROTECTED)
    await house.halted("db")
    for kind in (JobKind.UNPLANNED_FAILOVER, JobKind.COMMIT, JobKind.REVERSE):
        assert (await house.job("db", kind)).state == "done"
    await house.until(lambda: house.world.of("replicate_once")[-1].site == "recovery", "it replicates backwards")


async def test_a_failed_reversal_can_be_repeated(house: House) -> None:
    await house.replicating("db")
    await planned(house)
    await house.job("db", JobKind.COMMIT)
    house.world.script("copy_initial", "db", InvalidState("disk is missing"))
    assert (await house.job("db", JobKind.REVERSE)).state == "failed"
    assert (await house.state("db")).phase is Phase.FAILED_OVER
    assert (await house.job("db", JobKind.REVERSE)).state == "done"


# -- tests beside replication -------------------------------------------------------------------------------------


async def test_a_test_failover_runs_beside_replication(house: House) -> None:
    await house.replicating("db", frequency="50ms")
    gate = house.world.hold("start_test", "db")
    accepted = await house.ask("db", JobKind.TEST_FAILOVER)
    await house.until(lambda: house.world.of("start_test"), "the copy is being made")
    cycles = len(house.world.of("replicate_once"))
    await house.until(lambda: len(house.world.of("replicate_once")) > cycles + 2, "replication goes on meanwhile")
    gate.set()
    await house.ended("db", accepted.job_id)
    state = await house.state("db")
    (copy,) = state.tests
    assert (state.phase, copy.machine, copy.network) == (Phase.PROTECTED, "db-test", "isolated")
    assert {call.attempt for call in house.world.of("replicate_once")} == {1}
    assert house.world.runs_at("db") == {"primary"}

    with pytest.raises(WorkflowUpdateFailedError) as refusal:
        await house.ask("db", JobKind.TEST_FAILOVER)
    assert "already has a test copy, db-test" in str(refusal.value.cause)

    await house.job("db", JobKind.CLEANUP_TEST)
    assert (await house.state("db")).tests == []
    assert house.world.of("end_test")[0].detail == "db-test"
    assert house.world.runs_at("db-test") == set()


async def test_a_failed_test_failover_cleans_up(house: House) -> None:
    await house.replicating("db")
    house.world.script("start_test", "db", REFUSED)
    record = await house.job("db", JobKind.TEST_FAILOVER)
    assert record.state == "failed"
    assert house.world.of("end_test")[0].detail == "db-test"
    state = await house.state("db")
    assert (state.tests, state.phase, state.health.level) == ([], Phase.PROTECTED, "warning")
    assert (await house.job("db", JobKind.TEST_FAILOVER)).state == "done"
    assert (await house.state("db")).health.level == "ok"


async def test_a_test_copy_must_be_cleaned_up_before_protection_ends(house: House) -> None:
    await house.replicating("db")
    await house.job("db", JobKind.TEST_FAILOVER)
    with pytest.raises(WorkflowUpdateFailedError) as refusal:
        await house.ask("db", JobKind.DISABLE)
    assert "has a test copy, db-test — clean it up first" in str(refusal.value.cause)
    await house.job("db", JobKind.CLEANUP_TEST)
    await house.ask("db", JobKind.DISABLE)
    await house.until(lambda: house.world.of("disable_target", "db"), "the replica is deleted")


async def test_protection_does_not_end_beside_a_test_copy_in_the_making(house: House) -> None:
    await house.replicating("db")
    gate = house.world.hold("start_test", "db")
    test = await house.ask("db", JobKind.TEST_FAILOVER)
    with pytest.raises(WorkflowUpdateFailedError) as refusal:
        await house.ask("db", JobKind.DISABLE)
    assert "a test copy of machine 'db' is being made, db-test — wait until it is there" in str(refusal.value.cause)
    gate.set()
    assert (await house.ended("db", test.job_id)).state == "done"


async def test_nor_beside_one_that_was_begun_while_the_end_waited_for_replication(house: House) -> None:
    await house.replicating("db", frequency="15m")
    cycles = len(house.world.of("replicate_once", "db"))
    cycle = house.world.hold("replicate_once", "db", stubborn=True)
    await house.job("db", JobKind.RESYNCHRONIZE)
    await house.until(lambda: len(house.world.of("replicate_once", "db")) > cycles, "a cycle runs")
    end = await house.ask("db", JobKind.DISABLE)
    copy = house.world.hold("start_test", "db")
    test = await house.ask("db", JobKind.TEST_FAILOVER)
    await house.until(lambda: house.world.of("start_test", "db"), "the copy is being made")
    cycle.set()
    refused = await house.ended("db", end.job_id)
    assert refused.state == "failed"
    assert "a test copy of machine 'db' is being made, db-test" in refused.message
    assert not house.world.of("disable_target", "db")
    copy.set()
    assert (await house.ended("db", test.job_id)).state == "done"
    assert (await house.state("db")).phase is Phase.PROTECTED


async def test_a_failover_leaves_no_test_copy_to_the_reverse_replication(house: House) -> None:
    await house.replicating("db")
    for kind in (JobKind.TEST_FAILOVER, JobKind.PLANNED_FAILOVER, JobKind.COMMIT):
        await house.job("db", kind)
    assert (await house.job("db", JobKind.REVERSE)).state == "done"
    assert house.world.of("end_test", "db")


# -- continue-as-new ----------------------------------------------------------------------------------------------


async def test_continuing_as_new_keeps_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    from temporalio import workflow

    async with open_house(monkeypatch) as house:
        handle = await house.replicating("db")
        await house.job("db", JobKind.TEST_FAILOVER, id="test-1")
        before = await house.state("db")
        grown = workflow.Info.get_current_history_length

        def history_has_grown(info: workflow.Info) -> bool:
            return info.continued_run_id is None and grown(info) > 0

        monkeypatch.setattr(workflow.Info, "is_continue_as_new_suggested", history_has_grown)
        await house.ask("db", JobKind.RESYNCHRONIZE, id="resync-1")
        first_run = handle.first_execution_run_id

        async def continued() -> bool:
            return (await house.client.get_workflow_handle(machine_id("db")).describe()).run_id != first_run

        # No query before: one that meets the end of a run is lost by the time-skipping server.
        await house.until(continued, "the machine continues as new")
        after: MachineState = await house.state("db")
        assert [job.request_id for job in after.jobs] == ["test-1", "resync-1"]
        assert (after.tests, after.jobs_started, after.phase) == (before.tests, 2, Phase.PROTECTED)
        again = await house.ask("db", JobKind.RESYNCHRONIZE, id="resync-1")
        assert again.job_id == after.jobs[-1].id
        await house.until(lambda: len(house.world.of("replicate_once")) == 2, "replication goes on")
        assert (await house.job("db", JobKind.PLANNED_FAILOVER)).state == "done"
        house.replays = False  # the first run was told to continue by the patched method
