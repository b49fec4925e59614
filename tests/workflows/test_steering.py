"""Roles, reasons, pauses, webhooks and exercises: what operators may say to a run, and what it says to others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import house as harness
import pytest
from house import House, open_house
from receiver_support import Answer, Receiver, receiving
from temporalio.client import WorkflowFailureError, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from activities.notifications import NotificationActivities
from activities.running import BlockingRunner
from plans.model import Plan
from vault.access import Access, AccessSection
from vault.lifecycle import JobKind
from workflows.exercise import unattended
from workflows.model import Cancel, Decision, ExerciseRequest, ExerciseResult, Pause, Resume, RunStatus, Steer

pytestmark = pytest.mark.workflow

ON_CALL = AccessSection(groups={"oncall": ["olga"]}, operators=["@oncall"], approvers=["abel"])
ACCESS = ON_CALL.resolved()
STEP = "recover all/switch DNS"


def plan(*after: dict[str, Any], **parts: Any) -> Plan:
    return Plan.model_validate(
        {"plan": "shop", "groups": [{"name": "all", "machines": ["db"], "after": list(after)}], **parts}
    )


MANUAL = {"manual": "switch DNS"}


async def refusal(work: Any) -> str:
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await work
    assert isinstance(refused.value.cause, ApplicationError)
    return refused.value.cause.message


async def steer(handle: Any, action: str, by: str, note: str = "because") -> Decision:
    word = Steer.model_validate({"action": action, "step": STEP, "by": by, "note": note})
    decision: Decision = await handle.execute_update("steer", word, result_type=Decision)
    return decision


async def test_the_run_itself_refuses_who_lacks_the_role(house: House) -> None:
    await house.replicating("db")
    handle = await house.plan(plan(MANUAL), "test", access=ACCESS, requested_by="olga")
    await house.row(handle, STEP, "waiting")
    assert "'olga' may not approve" in await refusal(steer(handle, "approve", "olga"))
    assert "'abel' may not retry, skip, pause or cancel" in await refusal(steer(handle, "skip", "abel"))
    cancel = handle.execute_update("cancel", Cancel(by="mallory", note="ha"), result_type=Decision)
    assert "'mallory' may not" in await refusal(cancel)
    assert (await house.status(handle)).decisions == []
    await steer(handle, "approve", "abel")
    assert (await house.run_ends(handle)).state == "completed"


async def test_only_the_named_approvers_approve_or_skip(house: House) -> None:
    """Each has the role that approving needs; for this step that is not enough."""
    access = Access(operators=["*"], approvers=["abel", "anna"], admins=["root"])
    await house.replicating("db")
    named = {**MANUAL, "approvers": ["anna", "role:admin"]}
    handle = await house.plan(plan(named, {"manual": "second", "approvers": ["role:admin"]}), "test", access=access)
    row = await house.row(handle, STEP, "waiting")
    assert row.detail == "approvers: anna, role:admin"
    assert "its approvers are anna, role:admin — ask" in await refusal(steer(handle, "approve", "abel"))
    assert "'olga' may not approve: that needs the role" in await refusal(steer(handle, "approve", "olga"))
    assert "'olga' may not skip 'switch DNS'" in await refusal(steer(handle, "skip", "olga"))
    await steer(handle, "approve", "anna")
    await house.row(handle, "recover all/second", "waiting")
    second = Steer(action="approve", step="recover all/second", by="anna", note="me too")
    assert "its approvers are role:admin" in await refusal(handle.execute_update("steer", second))
    await handle.execute_update("steer", second.model_copy(update={"by": "root"}))
    assert (await house.run_ends(handle)).state == "completed"


async def test_a_failed_approval_cannot_be_skipped_around_its_approvers(house: House) -> None:
    await house.replicating("db")
    named = {**MANUAL, "approvers": ["anna"], "timeout": "100ms"}
    handle = await house.plan(plan(named), "test")
    row = await house.row(handle, STEP, "failed")
    assert row.detail == "nobody approved 'switch DNS' within 0.1 s"
    assert "its approvers are anna" in await refusal(steer(handle, "skip", "olga"))
    await steer(handle, "skip", "anna")
    assert (await house.run_ends(handle)).state == "completed"


async def test_a_reason_is_required_and_kept(house: House) -> None:
    await house.replicating("db")
    handle = await house.plan(plan(MANUAL), "test")
    await house.row(handle, STEP, "waiting")
    assert "--note" in await refusal(steer(handle, "approve", "ada", note="  "))
    await steer(handle, "approve", "ada", note="ticket 4711")
    final = await house.run_ends(handle)
    assert [(one.action, one.by, one.note) for one in final.decisions] == [("approve", "ada", "ticket 4711")]
    assert final.decisions[0].at.tzinfo is not None


async def test_a_machine_refuses_jobs_of_who_lacks_the_role(house: House) -> None:
    handle = await house.replicating("db")
    state = await house.state("db")
    settings = {name: getattr(state, name) for name in ("name", "forward", "backward", "policy", "timings")}
    await handle.execute_update("configure", {**settings, "access": ACCESS})
    told = await refusal(house.ask("db", JobKind.RESYNCHRONIZE, requested_by="mallory"))
    assert "'mallory' may not protect, resynchronize or disable" in told
    await house.ask("db", JobKind.RESYNCHRONIZE, requested_by="olga")


async def test_a_machine_takes_settings_and_is_resumed_by_operators_only(house: House) -> None:
    """Settings hold the list itself: who could replace it would have every role."""
    handle = await house.replicating("db")
    state = await house.state("db")
    settings = {name: getattr(state, name) for name in ("name", "forward", "backward", "policy", "timings")}
    await handle.execute_update("configure", {**settings, "access": ACCESS, "by": "mallory"})
    open_again = {**settings, "by": "mallory"}
    assert "'mallory' may not" in await refusal(handle.execute_update("configure", open_again))
    assert "'mallory' may not" in await refusal(handle.execute_update("resume_replication", Resume(by="mallory")))
    assert "'' may not" in await refusal(handle.execute_update("resume_replication"))
    await handle.execute_update("resume_replication", Resume(by="olga"))
    await handle.execute_update("configure", {**open_again, "by": "olga"})
    assert (await house.state("db")).access is None


async def test_a_run_of_somebody_who_may_not_start_one_is_refused_by_itself(house: House) -> None:
    """However it was started: nothing of it is done."""
    await house.replicating("db")
    for wanted, told in (
        ({"requested_by": "abel"}, "'abel' may not run a plan"),
        ({"requested_by": "olga", "auto_approve": True}, "'olga' may not approve"),
    ):
        handle = await house.plan(plan(MANUAL), "test", access=ACCESS, **wanted)
        with pytest.raises(WorkflowFailureError) as refused:
            await asyncio.wait_for(handle.result(), 120)
        assert told in str(refused.value.cause)
        status = await house.status(handle)
        assert (status.state, told in status.message) == ("refused", True)
    assert house.world.of("start_test") == []


async def test_a_paused_run_begins_nothing_new_and_goes_on_when_resumed(house: House) -> None:
    await house.replicating("db")
    await house.replicating("web")
    two = Plan.model_validate(
        {"plan": "shop", "groups": [{"name": "data", "machines": ["db"]}, {"name": "front", "machines": ["web"]}]}
    )
    gate = house.world.hold("start_test", "db")
    handle = await house.plan(two, "test")
    await house.until(lambda: bool(house.world.of("start_test", "db")), "the first copy is being made")
    await handle.execute_update("pause", Pause(by="ada", note="phone call"), result_type=Decision)
    again = handle.execute_update("pause", Pause(by="ada", note="again"), result_type=Decision)
    assert "paused already" in await refusal(again)
    gate.set()
    await house.row(handle, "recover data/db", "done")
    await asyncio.sleep(0.3)
    status = await house.status(handle)
    assert status.state == "paused"
    assert not house.world.of("start_test", "web")
    await handle.execute_update("resume", Pause(by="ada", note="go"), result_type=Decision)
    final = await house.run_ends(handle)
    assert final.state == "completed"
    assert [one.action for one in final.decisions] == ["pause", "resume"]


async def test_a_paused_run_can_be_cancelled(house: House) -> None:
    await house.replicating("db")
    handle = await house.plan(plan(MANUAL), "test")
    await house.row(handle, STEP, "waiting")
    await handle.execute_update("pause", Pause(by="ada", note="phone call"), result_type=Decision)
    await house.cancel(handle)
    assert (await house.run_ends(handle)).state == "cancelled"


# -- webhooks ----------------------------------------------------------------------------------------------------


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving(Answer(204)) as server:
        yield server


@pytest.fixture
async def telling_house(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    usual = harness.activity_methods

    def with_notifications(world: Any, runner: BlockingRunner) -> list[Any]:
        return [*usual(world, runner), NotificationActivities(runner).notify]

    monkeypatch.setattr(harness, "activity_methods", with_notifications)
    async with open_house(monkeypatch) as opened:
        yield opened


async def test_webhooks_hear_of_waiting_of_failed_steps_and_of_the_end_once_each(
    telling_house: House, receiver: Receiver
) -> None:
    house, url = telling_house, receiver.url("/hook")
    await house.replicating("db")
    failing = {"script": "break", "run": "exit 7"}
    handle = await house.plan(plan(MANUAL, failing), "test", webhooks=[{"url": url}])
    await house.row(handle, STEP, "waiting")
    await house.until(lambda: len(receiver.got) == 1, "the webhook hears of the waiting step")
    await steer(handle, "approve", "ada")
    await house.row(handle, "recover all/break", "failed")
    await house.until(lambda: len(receiver.got) == 2, "the webhook hears of the failed step")
    await house.steer(handle, "skip", "recover all/break")
    await house.run_ends(handle)
    await house.until(lambda: len(receiver.got) == 3, "the webhook hears of the end")
    told = [json.loads(one.body) for one in receiver.got]
    assert [(one["occasion"], one["step"]) for one in told] == [
        ("waiting", STEP),
        ("failed-step", "recover all/break"),
        ("finished", None),
    ]
    assert "exit code 7" in told[1]["message"]


async def test_a_dead_webhook_does_not_hold_the_run_up(telling_house: House) -> None:
    await telling_house.replicating("db")
    handle = await telling_house.plan(plan(), "test", webhooks=[{"url": "http://127.0.0.1:9/nobody"}])
    assert (await telling_house.run_ends(handle)).state == "completed"


# -- exercises ---------------------------------------------------------------------------------------------------


async def exercise(house: House, the_plan: Plan, **wanted: Any) -> Any:
    request = ExerciseRequest(plan=the_plan, requested_by="schedule", timings=house.timings, **wanted)
    handle = await house.client.start_workflow(
        "PlanExercise", request, id="exercise/shop", task_queue="control", result_type=ExerciseResult
    )
    house.roots.append(handle)
    return handle


async def test_an_exercise_tests_approves_and_cleans_up_by_itself(house: House) -> None:
    await house.replicating("db")
    handle = await exercise(house, plan(MANUAL), auto_approve=True)
    result: ExerciseResult = await asyncio.wait_for(handle.result(), 120)
    assert result.test is not None
    assert result.cleanup is not None
    assert (result.test.state, result.cleanup.state) == ("completed", "completed")
    rows = {row.id: row for stage in result.test.stages for row in stage.steps}
    assert rows[STEP].detail == "approved by the schedule's policy"
    assert (await house.state("db")).tests == []


async def test_an_exercise_asks_whether_it_may_and_its_run_obeys_the_same_list(house: House) -> None:
    await house.replicating("db")
    for by, policy, told in (("abel", False, "'abel' may not run a plan"), ("olga", True, "'olga' may not approve")):
        handle = await exercise(house, plan(MANUAL), access=ACCESS, set_by=by, auto_approve=policy)
        with pytest.raises(WorkflowFailureError) as refused:
            await asyncio.wait_for(handle.result(), 120)
        assert told in str(refused.value.cause)
    assert house.world.of("start_test") == []
    handle = await exercise(house, plan(MANUAL), access=ACCESS, set_by="olga")
    run = house.client.get_workflow_handle("plan/shop", result_type=RunStatus)
    await house.until(lambda: house.world.of("start_test"), "the exercise makes its copy")
    await house.row(run, STEP, "waiting")
    assert "'olga' may not approve" in await refusal(steer(run, "approve", "olga"))
    await steer(run, "approve", "abel")
    assert (await asyncio.wait_for(handle.result(), 120)).test.state == "completed"


async def test_a_failed_exercise_fails_and_still_cleans_up(house: House) -> None:
    await house.replicating("db")
    handle = await exercise(house, plan({"script": "break", "run": "exit 7"}))
    with pytest.raises(WorkflowFailureError) as failed:
        await asyncio.wait_for(handle.result(), 120)
    assert isinstance(failed.value.cause, ApplicationError)
    assert "stopped at 'recover all'" in failed.value.cause.message
    assert (await house.state("db")).tests == []


async def test_an_exercise_gives_way_to_a_run_of_the_plan(house: House) -> None:
    await house.replicating("db")
    running = await house.plan(plan(MANUAL), "test")
    await house.row(running, STEP, "waiting")
    handle = await exercise(house, plan(MANUAL))
    with pytest.raises(WorkflowFailureError) as failed:
        await asyncio.wait_for(handle.result(), 120)
    assert "running already" in str(failed.value.cause)
    assert (await house.status(running)).state == "waiting"


def test_nobody_is_waited_for_in_an_exercise() -> None:
    waiting = plan(MANUAL, {"script": "a", "run": "b", "on_failure": "continue"}, on_failure="wait")
    alone = unattended(waiting)
    assert alone.on_failure == "stop"
    assert [step.on_failure for step in alone.groups[0].after] == [None, "continue"]
