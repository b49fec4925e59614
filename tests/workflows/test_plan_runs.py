"""Runs of recovery plans: order, steps, operators, cancelling (requirements §D)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from house import House, open_house
from temporalio.client import WorkflowFailureError, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError

from plans.model import Plan
from vault.domain import Finding, Severity
from vault.errors import AuthenticationRefused, Unreachable
from vault.lifecycle import JobKind, Phase
from workers.worker import sandbox
from workflows.model import RunStatus, StepRow

pytestmark = pytest.mark.workflow

REFUSED = AuthenticationRefused("login refused", remedy="renew the password")
GONE = Unreachable("no answer", remedy="check the link")
Handle = WorkflowHandle[Any, RunStatus]


def plan(*groups: dict[str, Any], **parts: Any) -> Plan:
    two = ({"name": "data", "machines": ["db"]}, {"name": "front", "machines": ["app", "web"]})
    return Plan.model_validate({"plan": "shop", "groups": list(groups or two), **parts})


def one_group(*machines: Any, **parts: Any) -> dict[str, Any]:
    return {"name": "all", "machines": list(machines), **parts}


async def protect(house: House, *machines: str) -> None:
    for machine in machines:
        await house.replicating(machine)


def acts(house: House, *names: str) -> list[tuple[str, str]]:
    return [(call.name, call.machine) for call in house.world.calls if call.name in names]


def states(status: RunStatus) -> dict[str, str]:
    return {row.id: row.state for stage in status.stages for row in stage.steps if row.id != "readiness/check"}


async def refusal(work: Any) -> str:
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await work
    assert isinstance(refused.value.cause, ApplicationError)
    return refused.value.cause.message


# -- order -------------------------------------------------------------------------------------------------------


async def test_a_planned_run_shuts_down_in_reverse_and_starts_in_order(house: House, tmp_path: Any) -> None:
    log = tmp_path / "log"
    say = 'echo "$LEEWARD_GROUP {{ direction }}" >> ' + str(log)
    groups: list[dict[str, Any]] = [
        {"name": "data", "machines": ["db"], "before": [{"script": "before data", "run": say}]},
        {"name": "front", "machines": ["app", "web"], "after": [{"script": "after front", "run": say}]},
    ]
    await protect(house, "db", "app", "web")
    handle = await house.plan(plan(*groups), "planned")
    status = await house.run_ends(handle)
    assert (status.state, status.message) == ("completed", "commit pending — leeward plan commit shop")
    assert [stage.title for stage in status.stages] == [
        "check readiness",
        "shut down front",
        "shut down data",
        "recover data",
        "recover front",
    ]
    order = acts(house, "shut_down", "start")
    assert {machine for _, machine in order[:2]} == {"app", "web"}
    assert order[2:4] == [("shut_down", "db"), ("start", "db")]
    assert {machine for _, machine in order[4:]} == {"app", "web"}
    assert log.read_text().splitlines() == ["data primary-to-recovery", "front primary-to-recovery"]
    for machine in ("db", "app", "web"):
        state = await house.state(machine)
        assert (state.phase, state.jobs[-1].plan, state.jobs[-1].state) == (Phase.COMMIT_PENDING, "shop", "done")
        assert house.world.most_copies_on_production[machine] == 1


async def test_all_run_types_one_after_the_other_in_the_sandbox(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    async with open_house(monkeypatch, runner=sandbox(strict=True)) as house:
        await protect(house, "db", "app")
        tell = {"script": "tell", "runs": ["planned", "commit", "failback"]}
        tell["run"] = f"echo {{{{ run_type }}}} {{{{ way }}}} >> {tmp_path}/told"
        two = plan(
            {"name": "data", "machines": ["db"]},
            {"name": "front", "machines": ["app"], "after": [tell]},
            variables_for={"primary-to-recovery": {"way": "there"}, "recovery-to-primary": {"way": "back"}},
        )
        for run_type in ("test", "cleanup", "planned", "commit", "reverse", "failback", "commit", "reverse"):
            status = await house.run_ends(await house.plan(two, run_type))
            assert status.state == "completed", (run_type, status.message)
        assert [call.machine for call in house.world.of("end_test")] == ["app", "db"]  # in reverse
        for machine in ("db", "app"):
            state = await house.state(machine)
            assert (state.phase, state.reversed, state.active_site) == (Phase.PROTECTED, False, "primary")
        told = (tmp_path / "told").read_text().splitlines()
        assert told == ["planned there", "commit there", "failback back", "commit back"]


async def test_commit_and_reversal_can_follow_by_themselves(house: House) -> None:
    await protect(house, "db")
    automatic = plan(one_group("db"), commit="automatic", reverse_replication="automatic")
    status = await house.run_ends(await house.plan(automatic, "planned"))
    assert (status.state, status.message) == ("completed", "done")
    state = await house.state("db")
    assert (state.phase, state.reversed) == (Phase.PROTECTED, True)


async def test_machines_start_in_waves_of_their_dependencies(house: House) -> None:
    await protect(house, "db", "app", "web")
    group = one_group({"machine": "web", "depends_on": ["app"]}, {"machine": "app", "depends_on": ["db"]}, "db")
    await house.run_ends(await house.plan(plan(group), "planned"))
    assert acts(house, "shut_down", "start") == [
        ("shut_down", "web"),
        ("shut_down", "app"),
        ("shut_down", "db"),
        ("start", "db"),
        ("start", "app"),
        ("start", "web"),
    ]


async def test_what_a_plan_says_about_a_machine_is_honoured(house: House) -> None:
    await protect(house, "db", "spare")
    timed = {"machine": "db", "start_delay": "90s", "boot_timeout": "7m", "shutdown_timeout": "2m"}
    group = one_group(timed, {"machine": "spare", "start": False})
    handle = await house.plan(plan(group), "planned")
    async with house.time_flies():
        status = await house.run_ends(handle)
    assert status.state == "completed"
    assert house.world.of("shut_down", "db")[0].detail == "120"
    assert house.world.of("answer", "db")[0].detail == "420"
    recover = next(stage for stage in status.stages if stage.title == "recover all")
    assert recover.started is not None
    delay = house.world.of("start", "db")[0].at - recover.started
    assert timedelta(seconds=90) <= delay < timedelta(seconds=95)
    assert house.world.of("start", "spare") == []
    assert (await house.state("spare")).phase is Phase.COMMIT_PENDING
    assert states(status)["recover all/spare"] == "done"


async def test_an_unplanned_run_takes_the_chosen_point_and_the_operators_word(house: House) -> None:
    await protect(house, "db")
    house.world.always("shut_down", "db", GONE)
    handle = await house.plan(plan(one_group("db")), "unplanned", point="db-p1", source_unreachable=True)
    status = await house.run_ends(handle)
    assert status.state == "completed"
    assert house.world.of("fail_over")[0].detail == "db-p1"


async def test_a_source_that_is_gone_costs_the_full_wait_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recovery of a plan in many groups must not wait a minute for each of them."""
    async with open_house(monkeypatch, without=("site.primary", "replication.primary"), site_answer_s=1.8) as house:
        for machine in ("db", "app", "web", "cache"):
            await house.machine(machine, Phase.PROTECTED)
        order = {"machines": ["app", {"machine": "web", "depends_on": ["app"]}]}
        groups = ({"name": "data", "machines": ["db"]}, {"name": "front", **order}, one_group("cache"))
        handle = await house.plan(plan(*groups), "unplanned", source_unreachable=True)
        status = await house.run_ends(handle)
        assert status.state == "completed"
        waits = {row.name: await _asked_its_source_for(house, row.name) for row in _machines_of(status)}
        assert waits == {"db": 1.8, "app": 0.3, "web": 0.3, "cache": 0.3}


async def _asked_its_source_for(house: House, machine: str) -> float:
    job = (await house.state(machine)).jobs[-1].id
    history = await house.client.get_workflow_handle(job).fetch_history()
    scheduled = [event.activity_task_scheduled_event_attributes for event in history.events]
    asked = next(one for one in scheduled if one.activity_type.name == "shut_down")
    return asked.schedule_to_start_timeout.ToTimedelta().total_seconds()


def _machines_of(status: RunStatus) -> list[StepRow]:
    return [row for stage in status.stages for row in stage.steps if row.kind == "machine"]


# -- readiness ---------------------------------------------------------------------------------------------------


async def refused_run(house: House, wanted: Plan, run_type: str) -> str:
    handle = await house.plan(wanted, run_type)
    status = await house.run_ends(handle)
    assert status.state == "refused"
    with pytest.raises(WorkflowFailureError) as failed:
        await handle.result()
    assert "refused, nothing was changed" in str(failed.value.cause)
    assert house.world.names("shut_down", "start_test", "fail_over", "start") == []
    return status.message


async def test_a_machine_that_is_not_protected_refuses_the_run(house: House) -> None:
    await protect(house, "db")
    message = await refused_run(house, plan(one_group("db", "app")), "planned")
    assert message == "app: machine 'app' is not protected — leeward protect app"


async def test_every_reason_against_the_run_is_told_at_once(house: House) -> None:
    await protect(house, "db")
    await house.machine("app", Phase.ENABLED)
    await house.machine("web", Phase.COPIED)
    message = await refused_run(house, plan(), "planned")
    app, web = message.splitlines()
    assert "machine 'app' is enabled; PlannedFailover is not possible now" in app
    assert "machine 'web' is copied; PlannedFailover is not possible now" in web
    status = await house.client.get_workflow_handle("plan/shop").query("status", result_type=RunStatus)
    assert status.problems == [app, web]


async def test_a_target_that_is_not_ready_refuses_the_run(house: House) -> None:
    await protect(house, "db")
    house.world.findings["target", "db"] = [
        Finding(severity=Severity.FAIL, subject="recovery", what="2 GiB missing", remedy="free space"),
        Finding(severity=Severity.WARN, subject="recovery", what="space is scarce"),
    ]
    assert await refused_run(house, plan(one_group("db")), "test") == "recovery: 2 GiB missing — free space"


async def test_a_site_that_only_keeps_replicas_refuses_runs_and_jobs_in_one_sentence(house: House) -> None:
    await house.replicating("db", recovers=False)
    await house.machine("app", Phase.ENABLED, recovers=False)
    sentence = (
        "site 'recovery' keeps replicas, but leeward makes no virtual machines there yet: nothing can be tested or "
        "failed over to it — replication goes on; to recover machines now, replicate them to a site of another fabric"
    )
    for run_type in ("test", "planned", "unplanned"):
        assert await refused_run(house, plan(one_group("db", "app")), run_type) == f"shop: {sentence}"
    for kind in (JobKind.TEST_FAILOVER, JobKind.PLANNED_FAILOVER, JobKind.UNPLANNED_FAILOVER):
        assert await refusal(house.ask("db", kind)) == sentence
    assert (await house.job("db", JobKind.RESYNCHRONIZE)).state == "done"


async def test_machines_at_different_sides_refuse_the_run(house: House) -> None:
    await protect(house, "db")
    await house.machine("app", Phase.PROTECTED, is_reversed=True)
    message = await refused_run(house, plan(one_group("db", "app")), "unplanned")
    assert "do not run at the same side: app were failed over" in message


async def test_a_failback_needs_machines_that_are_away(house: House) -> None:
    await protect(house, "db")
    assert "nothing to fail back" in await refused_run(house, plan(one_group("db")), "failback")


async def test_a_plan_runs_only_once_at_a_time(house: House) -> None:
    await protect(house, "db")
    group = one_group("db", before=[{"manual": "go"}])
    handle = await house.plan(plan(group), "test")
    with pytest.raises(WorkflowAlreadyStartedError):
        await house.plan(plan(group), "planned")
    await house.cancel(handle)
    assert (await house.run_ends(handle)).state == "cancelled"


# -- operators ---------------------------------------------------------------------------------------------------


async def test_a_manual_step_waits_for_its_approval(house: House) -> None:
    await protect(house, "db")
    step = {"manual": "switch DNS", "instructions": "point {{ plan }} at {{ machines.db.site }}"}
    handle = await house.plan(plan(one_group("db", after=[step])), "test")
    row = await house.row(handle, "recover all/switch DNS", "waiting")
    assert (row.detail, row.waits) == ("point shop at recovery", True)
    assert (await house.status(handle)).state == "waiting"

    told = await refusal(house.steer(handle, "approve", "recover all/switch-dns"))
    assert told == (
        "no step 'recover all/switch-dns' in this run — steps that wait: 'recover all/switch DNS' (waiting)"
    )
    told = await refusal(house.steer(handle, "approve", "recover all/db"))
    assert told.startswith("step 'recover all/db' is done, it does not wait for you — steps that wait: 'recover all/sw")
    told = await refusal(house.steer(handle, "retry", "recover all/switch DNS"))
    assert "waits for approval; there is nothing to retry — approve or skip it" in told

    await house.steer(handle, "approve", "recover all/switch DNS")
    status = await house.run_ends(handle)
    assert status.state == "completed"
    assert status.stages[-1].steps[-1].detail == "approved by ada: seen"
    assert [(decision.action, decision.by, decision.note) for decision in status.decisions] == [
        ("approve", "ada", "seen")
    ]


async def test_nobody_approving_in_time_is_a_failure_that_waits(house: House) -> None:
    await protect(house, "db")
    handle = await house.plan(plan(one_group("db", before=[{"manual": "go", "timeout": "200ms"}])), "test")
    row = await house.row(handle, "recover all/go", "failed")
    assert row.detail == "nobody approved 'go' within 0.2 s"
    await house.steer(handle, "skip", "recover all/go")
    assert (await house.run_ends(handle)).state == "completed"


async def test_a_failed_script_waits_is_retried_and_skipped(house: House, tmp_path: Any) -> None:
    await protect(house, "db")
    flag = tmp_path / "flag"
    steps = [{"script": "needs the flag", "run": f"echo looking; test -e {flag}"}, {"script": "never", "run": "exit 3"}]
    handle = await house.plan(plan(one_group("db", after=steps)), "test")
    row = await house.row(handle, "recover all/needs the flag", "failed")
    assert "ended with exit code 1: looking" in row.detail
    assert row.waits
    told = await refusal(house.steer(handle, "approve", row.id))
    assert "failed; approve is for manual steps — retry or skip it" in told
    flag.touch()
    await house.steer(handle, "retry", row.id)
    second = await house.row(handle, "recover all/never", "failed")
    assert "exit code 3" in second.detail
    await house.steer(handle, "skip", second.id)
    status = await house.run_ends(handle)
    assert status.state == "completed"
    assert states(status)["recover all/needs the flag"] == "done"
    assert states(status)["recover all/never"] == "skipped"


async def test_a_failed_step_may_be_passed_over(house: House) -> None:
    """It is failed, but it does not wait: nobody can steer it any more."""
    await protect(house, "db")
    steps = [{"script": "never", "run": "exit 3"}, {"manual": "look"}]
    handle = await house.plan(plan(one_group("db", before=steps), on_failure="continue"), "test")
    await house.row(handle, "recover all/look", "waiting")
    told = await refusal(house.steer(handle, "retry", "recover all/never"))
    assert "is failed, it does not wait for you — steps that wait: 'recover all/look' (waiting)" in told
    await house.steer(handle, "approve", "recover all/look")
    status = await house.run_ends(handle)
    assert (status.state, states(status)["recover all/never"]) == ("completed", "failed")


async def test_a_failed_step_may_stop_the_run(house: House) -> None:
    """Nothing was started, so what was shut down is put back at its source."""
    await protect(house, "db", "app", "web")
    stops = {"name": "data", "machines": ["db"], "before": [{"script": "never", "run": "exit 3", "on_failure": "stop"}]}
    handle = await house.plan(plan(stops, one_group("app", "web")), "planned")
    status = await house.run_ends(handle)
    assert (status.state, status.message) == (
        "failed",
        "stopped at 'recover data'; put back at their source: db, app, web",
    )
    for machine in ("db", "app", "web"):
        assert house.world.runs_at(machine) == {"primary"}


async def test_a_failed_machine_is_retried(house: House) -> None:
    await protect(house, "db")
    house.world.script("start_test", "db", REFUSED)
    handle = await house.plan(plan(one_group("db")), "test")
    row = await house.row(handle, "recover all/db", "failed")
    assert row.detail == "login refused — renew the password"
    await house.steer(handle, "retry", row.id)
    assert (await house.run_ends(handle)).state == "completed"
    assert len(house.world.of("start_test")) == 2


async def test_a_machine_that_does_not_answer_is_started_again(house: House) -> None:
    await protect(house, "db")
    house.world.script("answer", "db", Unreachable("'db' does not answer"))
    handle = await house.plan(plan(one_group("db")), "planned")
    row = await house.row(handle, "recover all/db", "failed")
    assert row.detail == "'db' does not answer"
    await house.steer(handle, "retry", row.id)
    status = await house.run_ends(handle)
    assert status.state == "completed"
    assert len(house.world.of("fail_over")) == 1
    assert len(house.world.of("start")) == 2
    result = status.stages[-1].steps[0].result
    assert result is not None
    assert (result.trouble, result.answering is not None) == (None, True)


async def test_a_skipped_machine_stays_as_it_is(house: House) -> None:
    await protect(house, "db", "app")
    house.world.script("send_last_changes", "db", REFUSED)
    handle = await house.plan(plan(one_group("db", "app")), "planned")
    row = await house.row(handle, "shut down all/db", "failed")
    await house.steer(handle, "skip", row.id)
    row = await house.row(handle, "recover all/db", "failed")
    assert "'db' was not shut down in this run, so it is not started — skip it" in row.detail
    await house.steer(handle, "skip", row.id)
    assert (await house.run_ends(handle)).state == "completed"
    assert (house.world.runs_at("db"), house.world.runs_at("app")) == ({"primary"}, {"recovery"})


async def test_a_script_never_runs_on_the_machine_that_a_copy_was_not_made_of(house: House) -> None:
    """In a test, a script for a copy that does not exist must not end up on production."""
    await protect(house, "db")
    house.world.script("start_test", "db", REFUSED)
    group = one_group("db", after=[{"script": "wipe caches", "on": "db", "run": "rm -rf /cache"}])
    handle = await house.plan(plan(group, on_failure="continue"), "test")
    status = await house.run_ends(handle)
    assert house.world.of("run_in_guest") == []
    assert "'db' was not recovered in this run" in status.stages[-1].steps[-1].detail


async def test_a_script_runs_on_the_recovered_machine(house: House) -> None:
    await protect(house, "db")
    group = one_group("db", after=[{"script": "warm", "on": "db", "run": "echo {{ machines.db.name }}"}])
    status = await house.run_ends(await house.plan(plan(group), "test"))
    assert status.state == "completed"
    call = house.world.of("run_in_guest")[0]
    copy = f"db-test-{status.run_id[-6:]}"
    assert (call.machine, call.site, call.detail) == (copy, "recovery", f"sh -eu -c echo {copy}")


# -- cancelling --------------------------------------------------------------------------------------------------


async def assert_put_back(house: House, status: RunStatus, *machines: str) -> None:
    assert status.state == "cancelled"
    for machine in machines:
        assert house.world.runs_at(machine) == {"primary"}
        state = await house.state(machine)
        assert (state.phase, state.health.level) == (Phase.PROTECTED, "ok")
        assert state.jobs[-1].state == "failed"
        assert house.world.most_copies_on_production[machine] <= 1


async def test_cancelled_in_the_middle_of_shut_downs(house: House) -> None:
    await protect(house, "db", "app", "web")
    house.world.hold("shut_down", "db")
    handle = await house.plan(plan(), "planned")
    await house.until(lambda: house.world.of("shut_down", "db"), "the database is being shut down")
    await house.cancel(handle)
    status = await house.run_ends(handle)
    assert status.message == "cancelled by ada (wrong day); put back at their source: app, web"
    await assert_put_back(house, status, "db", "app", "web")
    assert states(status)["shut down data/db"] == "failed"
    assert house.world.names("fail_over", machine="db") == []


async def test_a_failover_overtakes_replication_that_is_slow_to_end(house: House) -> None:
    """A worker hears of a cancellation with its next heartbeat only, a dead one never; later jobs wait for that."""
    gate = house.world.hold("replicate_once", "db", stubborn=True)
    await protect(house, "db")
    handle = await house.plan(plan(one_group("db")), "planned")
    assert (await house.run_ends(handle)).state == "completed"
    assert house.world.runs_at("db") == {"recovery"}
    handle = await house.plan(plan(one_group("db")), "commit")
    await house.row(handle, "commit all/db", "running")
    assert house.world.names("commit") == []
    gate.set()
    assert (await house.run_ends(handle)).state == "completed"
    assert (await house.state("db")).phase is Phase.FAILED_OVER


async def test_cancelled_at_the_hold(house: House) -> None:
    await protect(house, "db", "app", "web")
    handle = await house.plan(plan(before=[], after=[], **{}), "planned")
    await house.run_ends(handle)
    for run_type in ("commit", "reverse"):
        await house.run_ends(await house.plan(plan(), run_type))
    waiting = {"name": "data", "machines": ["db"], "before": [{"manual": "go"}]}
    handle = await house.plan(plan(waiting, one_group("app", "web")), "failback")
    await house.row(handle, "recover data/go", "waiting")
    for machine in ("db", "app", "web"):
        assert (await house.state(machine)).jobs[-1].state == "held"
    seen = len(house.world.calls)
    await house.cancel(handle)
    assert "is being cancelled already, by ada" in await refusal(house.cancel(handle))
    status = await house.run_ends(handle)
    assert status.message == "cancelled by ada (wrong day); put back at their source: db, app, web"
    started = [(call.machine, call.site) for call in house.world.calls[seen:] if call.name == "start"]
    assert started == [("db", "recovery"), ("app", "recovery"), ("web", "recovery")]
    assert status.direction == "recovery-to-primary"


async def test_cancelled_while_recovering(house: House) -> None:
    """What is started stays, what is not is put back."""
    await protect(house, "db", "app", "web")
    gate = house.world.hold("answer", "db")
    handle = await house.plan(plan(), "planned")
    await house.until(lambda: house.world.of("answer", "db"), "the database boots")
    await house.cancel(handle)
    gate.set()
    status = await house.run_ends(handle)
    assert status.message == (
        "cancelled by ada (wrong day); put back at their source: app, web; recovered, commit pending: db"
    )
    assert house.world.runs_at("db") == {"recovery"}
    assert (await house.state("db")).phase is Phase.COMMIT_PENDING
    await assert_put_back(house, status, "app", "web")


async def test_a_cancellation_request_to_temporal_is_a_cancel(house: House) -> None:
    await protect(house, "db", "app", "web")
    gate = house.world.hold("shut_down", "db")
    handle = await house.plan(plan(), "planned")
    await house.until(lambda: house.world.of("shut_down", "db"), "the database is being shut down")
    await handle.cancel()
    status = await house.run_ends(handle)
    gate.set()
    assert status.message == "cancelled by a cancellation request to Temporal; put back at their source: app, web"
    await assert_put_back(house, status, "db", "app", "web")


async def test_a_wait_does_not_hold_up_a_cancel(house: House) -> None:
    await protect(house, "db")
    handle = await house.plan(plan(one_group("db", before=[{"wait": "settle", "for": "10h"}])), "planned")
    await house.row(handle, "recover all/settle", "running")
    await house.cancel(handle)
    await assert_put_back(house, await house.run_ends(handle), "db")


async def test_a_wait_lets_its_time_pass(house: House) -> None:
    await protect(house, "db")
    handle = await house.plan(plan(one_group("db", before=[{"wait": "settle", "for": "10h"}])), "planned")
    async with house.time_flies():
        status = await house.run_ends(handle)
    row = next(row for stage in status.stages for row in stage.steps if row.name == "settle")
    assert row.finished is not None
    assert row.started is not None
    assert timedelta(hours=10) <= row.finished - row.started < timedelta(hours=10, seconds=5)


async def test_a_held_job_that_was_cancelled_by_hand_does_not_hang_the_run(house: House) -> None:
    await protect(house, "db")
    handle = await house.plan(plan(one_group("db", before=[{"manual": "go"}])), "planned")
    await house.row(handle, "recover all/go", "waiting")
    held = (await house.state("db")).jobs[-1]
    assert held.kind is JobKind.PLANNED_FAILOVER
    await house.client.get_workflow_handle(held.id).cancel()
    await house.phase("db", Phase.PROTECTED)
    await house.cancel(handle)
    status = await house.run_ends(handle)
    assert status.message == (
        "cancelled by ada (wrong day); 'db' could not be put back: its failover has ended before — leeward status db"
    )


async def test_a_source_that_does_not_come_back_is_told_in_the_runs_last_word(house: House) -> None:
    await protect(house, "db")
    handle = await house.plan(plan(one_group("db", before=[{"manual": "go"}])), "planned")
    await house.row(handle, "recover all/go", "waiting")
    house.world.script("answer", "db", Unreachable("'db' does not answer"))
    await house.cancel(handle)
    status = await house.run_ends(handle)
    assert "'db' could not be put back: the plan run did not finish; undone, but 'db' does not run again" in (
        status.message
    )
