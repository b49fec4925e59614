"""A machine's health says what is wrong now: a warning ends with its cause, and nothing else ends it."""

from __future__ import annotations

import pytest
from house import House, open_house
from temporalio.client import WorkflowUpdateFailedError

from plans.model import Plan
from vault.access import Access
from vault.domain import PowerState
from vault.errors import AuthenticationRefused, ResynchronizationRequired, Unreachable
from vault.lifecycle import JobKind, Phase
from workflows.model import Health, MachineState, OldCopy, Resume

pytestmark = pytest.mark.workflow

REFUSED = AuthenticationRefused("login refused", remedy="renew the password")
BROKEN = ResynchronizationRequired("the change log reached half of the disk")
SHOP = Plan.model_validate({"plan": "shop", "groups": [{"name": "all", "machines": ["db"]}]})


async def health(house: House) -> Health:
    return (await house.state("db")).health


async def resume(house: House, by: str = "olga") -> MachineState:
    handle = house.client.get_workflow_handle("machine/db")
    return await handle.execute_update("resume_replication", Resume(by=by), result_type=MachineState)


async def test_a_machine_that_answers_after_a_retry_is_well(house: House) -> None:
    await house.replicating("db")
    house.world.script("answer", "db", Unreachable("'db' does not answer"))
    run = await house.plan(SHOP, "planned")
    row = await house.row(run, "recover all/db", "failed")
    assert (await health(house)).reason == "'db' does not answer"
    await house.steer(run, "retry", row.id)
    assert (await house.run_ends(run)).state == "completed"
    state = await house.state("db")
    assert (state.phase, state.health) == (Phase.COMMIT_PENDING, Health())
    assert state.recovered is not None
    assert state.recovered.address == "127.0.0.1:9"


async def test_a_clean_up_that_failed_warns_until_one_succeeds_whatever_the_phase(house: House) -> None:
    await house.replicating("db")
    assert (await house.job("db", JobKind.TEST_FAILOVER)).state == "done"
    gate = house.world.hold("end_test", "db")
    house.world.script("end_test", "db", REFUSED)
    assert (await house.job("db", JobKind.UNPLANNED_FAILOVER)).state == "done"
    gate.set()
    await house.ended("db", (await house.state("db")).jobs[-1].id)
    assert (await health(house)).reason.startswith("CleanupTestFailover failed: ")
    assert (await house.job("db", JobKind.CLEANUP_TEST)).state == "done"
    assert await health(house) == Health()


async def test_a_commit_that_fails_warns_also_after_a_halted_replication(house: House) -> None:
    house.world.script("replicate_once", "db", REFUSED)
    await house.machine("db", Phase.PROTECTED)
    await house.halted("db")
    house.world.new_point("db")
    assert (await house.job("db", JobKind.UNPLANNED_FAILOVER)).state == "done"
    assert not (await house.state("db")).halted
    house.world.script("commit", "db", REFUSED)
    assert (await house.job("db", JobKind.COMMIT)).state == "failed"
    assert (await health(house)).reason == "Commit failed: login refused — renew the password"


async def test_a_copy_that_may_run_stays_critical_whatever_job_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_house(monkeypatch, old_copy_s=0.05) as house:
        await house.replicating("db")
        house.world.always("shut_down", "db", Unreachable("no answer"))
        house.world.always("describe", "db", Unreachable("no answer"))
        house.world.set_power("primary", "db", PowerState.OFF)
        assert (await house.job("db", JobKind.UNPLANNED_FAILOVER, source_unreachable=True)).state == "done"
        house.world.always("describe", "db", REFUSED)

        async def critical() -> bool:
            return (await health(house)).level == "critical"

        await house.until(critical, "nobody can look for the old copy")
        assert (await house.job("db", JobKind.COMMIT)).state == "done"
        assert (await health(house)).level == "critical"
        assert (await resume(house)).health.level == "critical"


async def test_what_an_earlier_run_of_the_workflow_left_critical_stays_until_somebody_has_looked(house: House) -> None:
    """A run that goes on for another one knows the trouble from the machine's state only."""
    await house.replicating("db")
    assert (await house.job("db", JobKind.UNPLANNED_FAILOVER)).state == "done"
    critical = Health(
        level="critical", reason="the old copy of web at primary may run beside the recovered one: login refused"
    )
    old = OldCopy(site="primary", machine="web")
    left = (await house.state("db")).model_copy(update={"name": "web", "health": critical, "old_copy": old})
    house.world.hold("describe", "web")
    house.roots.append(await house.client.start_workflow("Machine", left, id="machine/web", task_queue="control"))
    assert (await house.job("web", JobKind.COMMIT)).state == "done"
    assert (await house.state("web")).health == critical


async def test_resuming_does_not_call_a_machine_well_that_must_be_resynchronized(house: House) -> None:
    house.world.script("replicate_once", "db", BROKEN)
    house.world.script("resynchronize", "db", REFUSED)
    await house.machine("db", Phase.PROTECTED, resync="manual")
    state = await house.phase("db", Phase.RESYNC_REQUIRED)
    assert (await resume(house)).health == state.health
    assert (await house.job("db", JobKind.RESYNCHRONIZE)).state == "failed"
    resumed = await resume(house)
    assert (resumed.halted, resumed.health) == (
        False,
        Health(level="warning", reason="it must be resynchronized: leeward resync db"),
    )


async def test_resuming_takes_a_failed_job_as_seen(house: House) -> None:
    await house.replicating("db")
    house.world.script("fail_over", "db", REFUSED)
    assert (await house.job("db", JobKind.UNPLANNED_FAILOVER)).state == "failed"
    assert (await health(house)).level == "warning"
    assert (await resume(house)).health == Health()


async def test_who_may_not_protect_may_not_resume(house: House) -> None:
    handle = await house.replicating("db")
    state = await house.state("db")
    access = Access(operators=["olga"])
    settings = {name: getattr(state, name) for name in ("name", "forward", "backward", "policy", "timings")}
    await handle.execute_update("configure", {**settings, "access": access})
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await resume(house, by="eve")
    assert "eve" in str(refused.value.cause)
    await resume(house)
