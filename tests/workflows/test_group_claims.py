"""Machines of one replication group: a job that moves it keeps the others' jobs away, unless they are of its run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import house as house_module
import pytest
from house import House, open_house
from temporalio.client import WorkflowExecutionStatus, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from plans.model import Plan
from vault.domain import Relationship
from vault.errors import ResynchronizationRequired
from vault.lifecycle import JobKind, Phase
from workflows import claiming, group_claims, machine
from workflows.claim_model import Claim, ClaimsState
from workflows.ids import group_claims_id, machine_id

pytestmark = pytest.mark.workflow

ALONE = "web"


@pytest.fixture(autouse=True)
def on_one_array(monkeypatch: pytest.MonkeyPatch) -> None:
    """``db`` and ``app`` have their disks in the group 'payments'; ``web`` moves alone."""
    real = house_module.relationship

    def relationship(machine: str, frequency_s: float = 60) -> Relationship:
        group = "" if machine == ALONE else "payments"
        return real(machine, frequency_s).model_copy(update={"replication_group": group})

    monkeypatch.setattr(house_module, "relationship", relationship)


@pytest.fixture
async def at_a_real_server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    async with open_house(monkeypatch, real_server=True) as opened:
        yield opened


async def refusal(house: House, name: str, kind: JobKind) -> str:
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await house.ask(name, kind)
    cause = refused.value.cause
    assert isinstance(cause, ApplicationError)
    return cause.message


async def claims(house: House) -> list[str]:
    handle = house.client.get_workflow_handle(group_claims_id("payments"))
    if (await handle.describe()).run_id not in {root.first_execution_run_id for root in house.roots}:
        house.roots.append(handle)
    state = await handle.query("describe", result_type=ClaimsState)
    return [f"{one.machine} {one.kind}" for one in state.claims]


async def no_claims(house: House) -> None:
    async def none() -> bool:
        return await claims(house) == []

    await house.until(none, "the claims are given back")


async def failing_over(house: House, *names: str) -> str:
    """The first of the machines is being failed over, and stands at its last changes; the others replicate."""
    for name in names:
        await house.replicating(name)
    house.world.hold("send_last_changes", names[0])
    accepted = await house.ask(names[0], JobKind.PLANNED_FAILOVER)
    await house.until(lambda: bool(house.world.of("send_last_changes", names[0])), f"{names[0]} fails over")
    return accepted.job_id


async def reversing(house: House) -> str:
    """A machine whose old copy takes its time to stop, whatever happens meanwhile."""
    await house.machine("db", Phase.FAILED_OVER)
    house.world.hold("shut_down", "db", stubborn=True)
    accepted = await house.ask("db", JobKind.REVERSE)
    await house.until(lambda: bool(house.world.of("shut_down", "db")), "db is reversed")
    return accepted.job_id


async def test_what_would_move_or_change_the_group_is_refused_until_the_failover_is_done(house: House) -> None:
    job = await failing_over(house, "db", "app", ALONE)
    for kind in (JobKind.RESYNCHRONIZE, JobKind.DISABLE, JobKind.PLANNED_FAILOVER, JobKind.UNPLANNED_FAILOVER):
        assert await refusal(house, "app", kind) == (
            f"machine 'app' cannot run {kind} now: 'db' of its replication group 'payments' runs PlannedFailover, "
            "asked by test — wait until that is done: leeward jobs db"
        )
    assert (await house.state("app")).phase is Phase.PROTECTED
    assert (await house.job("app", JobKind.TEST_FAILOVER)).state == "done"
    assert (await house.job(ALONE, JobKind.RESYNCHRONIZE)).state == "done"
    house.world.open_gates()
    assert (await house.ended("db", job)).state == "done"
    assert (await house.job("app", JobKind.RESYNCHRONIZE)).state == "done"
    await no_claims(house)


async def test_machines_of_one_run_go_together_and_keep_another_out(house: House) -> None:
    for name in ("db", "app", "batch"):
        await house.replicating(name)
    groups = [
        {"name": "data", "machines": ["db"], "after": [{"manual": "look", "instructions": "look at it"}]},
        {"name": "front", "machines": ["app"]},
    ]
    handle = await house.plan(Plan.model_validate({"plan": "shop", "groups": groups}), "planned", run_id="r-1")
    await house.row(handle, "recover data/look", "waiting")
    said = await refusal(house, "batch", JobKind.DISABLE)
    assert "'app' of its replication group 'payments' runs PlannedFailover" in said
    assert "asked by plan shop (test), run r-1 — wait until that is done: leeward plan status shop" in said
    await house.steer(handle, "approve", "recover data/look")
    assert (await house.run_ends(handle)).state == "completed"
    await no_claims(house)
    assert (await house.job("batch", JobKind.DISABLE)).state == "done"


async def test_a_run_meets_the_refusal_before_it_does_anything(house: House) -> None:
    await failing_over(house, "db", "app")
    plan = Plan.model_validate({"plan": "front", "groups": [{"name": "all", "machines": ["app"]}]})
    handle = await house.plan(plan, "planned")
    row = await house.row(handle, "shut down all/app", "failed")
    assert "'db' of its replication group 'payments' runs PlannedFailover" in row.detail
    assert house.world.of("shut_down", "app") == []
    house.world.open_gates()
    await no_claims(house)
    await house.steer(handle, "retry", row.id)
    assert (await house.run_ends(handle)).state == "completed"


async def test_what_makes_the_mirror_whole_goes_side_by_side(house: House) -> None:
    house.world.hold("copy_initial", "db")
    for name in ("db", "app"):
        await house.machine(name)
        await house.ask(name, JobKind.ENABLE)
    await house.phase("app", Phase.PROTECTED)
    assert await claims(house) == ["db InitialReplication"]
    assert "'db' of its replication group 'payments' runs Initial" in await refusal(house, "app", JobKind.DISABLE)
    house.world.open_gates()
    await house.phase("db", Phase.PROTECTED)
    await no_claims(house)


@pytest.mark.parametrize("how", ["terminate", "cancel"])
async def test_a_job_that_is_ended_by_force_gives_the_group_back(at_a_real_server: House, how: str) -> None:
    house = at_a_real_server
    job = await failing_over(house, "db", "app")
    handle = house.client.get_workflow_handle(job)
    await (handle.terminate() if how == "terminate" else handle.cancel())
    assert (await house.ended("db", job)).state == "failed"
    assert (await house.job("app", JobKind.DISABLE)).state == "done"


async def test_without_its_machine_the_job_keeps_the_group_until_it_has_ended(at_a_real_server: House) -> None:
    house = at_a_real_server
    job = await reversing(house)
    await house.replicating("app")
    await house.client.get_workflow_handle(machine_id("db")).terminate()
    assert "'db' of its replication group 'payments' runs Reverse" in await refusal(house, "app", JobKind.DISABLE)
    house.world.open_gates()

    async def over() -> bool:
        described = await house.client.get_workflow_handle(job).describe()
        return described.status is not WorkflowExecutionStatus.RUNNING

    await house.until(over, "the job ends")
    assert (await house.job("app", JobKind.DISABLE)).state == "done"
    await no_claims(house)


async def test_a_claim_that_nobody_asks_about_is_found_too(
    at_a_real_server: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = at_a_real_server
    monkeypatch.setattr(group_claims, "LOOKS_EVERY", timedelta(seconds=0.2))
    job = await reversing(house)
    assert await claims(house) == ["db ReverseReplication"]
    await house.client.get_workflow_handle(machine_id("db")).terminate()
    await house.client.get_workflow_handle(job).terminate()
    await no_claims(house)


async def test_claims_that_are_ended_by_hand_end_no_failover(at_a_real_server: House) -> None:
    """And the next job finds that there are none."""
    house = at_a_real_server
    job = await failing_over(house, "db", "app")
    await house.client.get_workflow_handle(group_claims_id("payments")).terminate()
    house.world.open_gates()
    assert (await house.ended("db", job)).state == "done"
    assert (await house.job("app", JobKind.RESYNCHRONIZE)).state == "done"


async def test_a_resynchronization_by_the_policy_waits_for_the_failover(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "TRIES_AGAIN_AFTER", timedelta(seconds=0.3))
    await house.machine("app", Phase.RESYNC_REQUIRED)  # by hand only
    await failing_over(house, "db")
    house.world.script("replicate_once", "batch", ResynchronizationRequired("the link was lost"))
    await house.machine("batch", Phase.PROTECTED, resync="at-once")

    async def waits() -> bool:
        return "'db' of its replication group" in (await house.state("batch")).health.reason

    await house.until(waits, "batch says what it waits for")
    assert house.world.of("resynchronize") == []
    house.world.open_gates()
    await house.phase("batch", Phase.PROTECTED)
    assert len(house.world.of("resynchronize", "batch")) == 1


async def test_a_machine_that_moves_alone_pays_nothing(house: House) -> None:
    await house.replicating(ALONE)
    assert (await house.job(ALONE, JobKind.UNPLANNED_FAILOVER)).state == "done"
    (history, *_) = [one for one in await house.histories() if one.workflow_id == machine_id(ALONE)]
    told = str(history.to_json())
    assert claiming.CLAIMS_GROUPS not in told
    assert "group_claim" not in told
    assert "GroupClaims" not in told


def claim(machine: str, kind: JobKind, run_id: str = "") -> Claim:
    return Claim(
        id=machine, machine=machine, kind=kind, holder=machine, holder_run="1", requested_by="ada", run_id=run_id
    )


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        (claim("db", JobKind.REVERSE, "r1"), claim("app", JobKind.REVERSE, "r1"), True),
        (claim("db", JobKind.REVERSE, "r1"), claim("app", JobKind.REVERSE, "r2"), False),
        (claim("db", JobKind.REVERSE), claim("app", JobKind.REVERSE), False),
        (claim("db", JobKind.RESYNCHRONIZE), claim("app", JobKind.FINALIZE), True),
        (claim("db", JobKind.RESYNCHRONIZE), claim("app", JobKind.PLANNED_FAILOVER, "r1"), False),
        (claim("db", JobKind.ENABLE), claim("db", JobKind.DISABLE), True),
    ],
)
def test_who_goes_together(one: Claim, other: Claim, together: bool) -> None:
    assert one.goes_with(other) is other.goes_with(one) is together
