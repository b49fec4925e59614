"""What machines do when nobody comes back: a plan run that was terminated, a source site that is gone for good."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from fakes import FakeProvider
from house import PATIENCE_S, House, open_house

from plans.model import Plan
from vault.errors import AuthenticationRefused, NotFound, Unreachable
from vault.lifecycle import JobKind, Phase
from workflows import held

pytestmark = pytest.mark.workflow

GONE = Unreachable("no answer", where="site primary", remedy="check the link")
PLAN = Plan.model_validate(
    {
        "plan": "shop",
        "groups": [{"name": "all", "machines": ["db"], "before": [{"manual": "go", "instructions": "look first"}]}],
    }
)


async def test_a_machine_whose_plan_run_was_terminated_puts_itself_back(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "LOOKS_EVERY", timedelta(milliseconds=300))
    await house.replicating("db")
    run = await house.plan(PLAN, "planned", run_id="r1-aa01")
    await house.row(run, "recover all/go", "waiting")
    await asyncio.sleep(1)
    assert house.world.runs_at("db") == set(), "while the run goes on, the machine stays held"

    await run.terminate("by mistake")
    state = await house.phase("db", Phase.PROTECTED)
    assert house.world.runs_at("db") == {"primary"}
    story = (
        "run r1-aa01 of plan shop was terminated while db was off for it and waited to be started at recovery: "
        "nobody would have started it, so it is put back"
    )
    assert [line.what for line in state.story] == [story]
    assert (state.jobs[-1].state, state.jobs[-1].message) == ("failed", story)
    assert state.health.level == "warning"
    assert (await house.job("db", JobKind.PLANNED_FAILOVER)).state == "done"


async def test_the_next_run_of_the_plan_is_not_taken_for_the_one_that_is_gone(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the same workflow id."""
    monkeypatch.setattr(held, "LOOKS_EVERY", timedelta(milliseconds=300))
    await house.replicating("db")
    first = await house.plan(PLAN, "planned")
    await house.row(first, "recover all/go", "waiting")
    await first.terminate("by mistake")
    await house.replicating("web")
    other = {"name": "other", "machines": ["web"], "before": [{"manual": "wait", "runs": ["test"]}]}
    second = await house.plan(Plan.model_validate({"plan": "shop", "groups": [other]}), "test")
    await house.row(second, "recover other/wait", "waiting")
    await house.phase("db", Phase.PROTECTED)
    assert (await house.status(second)).state == "waiting"
    assert house.world.runs_at("db") == {"primary"}


async def test_a_run_goes_on_when_temporals_clock_moves_an_hour_forward(house: House) -> None:
    """All timers of that hour fire at once; the machine looks for its run again and again, and finds it."""
    await house.replicating("db")
    run = await house.plan(PLAN, "planned")
    go = await house.row(run, "recover all/go", "waiting")
    before = await house.now()
    await house.skip(hours=1)
    assert await house.now() - before >= timedelta(hours=1)
    assert (await house.state("db")).phase is Phase.FAILING_OVER
    await house.steer(run, "approve", go.id)
    status = await house.run_ends(run)
    assert (status.state, house.world.runs_at("db")) == ("completed", {"recovery"})


@pytest.mark.parametrize("nobody_works_there", [True, False])
async def test_a_machine_of_a_dead_site_is_disabled_when_the_operator_says_so(
    monkeypatch: pytest.MonkeyPatch, nobody_works_there: bool
) -> None:
    dead = ("site.primary", "replication.primary") if nobody_works_there else ()
    async with open_house(monkeypatch, without=dead, site_answer_s=0.5) as house:
        handle = await house.machine("db", Phase.PROTECTED)
        house.world.always("disable_source", "db", GONE)
        refused = await house.job("db", JobKind.DISABLE)
        assert refused.state == "failed"
        assert "leeward disable db --source-unreachable; nothing was changed" in refused.message
        assert (await house.state("db")).phase is Phase.PROTECTED
        assert house.world.of("disable_target") == []

        accepted = await house.ask("db", JobKind.DISABLE, source_unreachable=True)
        await asyncio.wait_for(handle.result(), PATIENCE_S)
        assert len(house.world.of("disable_target")) == 1
        result = await house.client.get_workflow_handle(accepted.job_id).result()
        assert result["sentences"][0].startswith("tracking not stopped at primary, which does not answer")


async def test_a_refused_login_is_no_dead_site(house: House) -> None:
    """The operator's word that the site is gone does not pass over what he can correct."""
    await house.replicating("db")
    house.world.script("disable_source", "db", AuthenticationRefused("login refused", remedy="renew the password"))
    record = await house.job("db", JobKind.DISABLE, source_unreachable=True)
    assert (record.state, record.message) == ("failed", "login refused — renew the password")
    assert house.world.of("disable_target") == []


async def test_a_machine_out_of_the_inventory_is_disabled_and_what_remains_is_told(house: House) -> None:
    unknown = NotFound("the inventory does not name 'db' any more", where="site recovery", remedy="remove it by hand")
    house.world.always("disable_target", "db", unknown)
    handle = await house.replicating("db")
    refused = await house.job("db", JobKind.DISABLE)
    assert (refused.state, refused.message) == ("failed", str(unknown))

    accepted = await house.ask("db", JobKind.DISABLE, not_in_inventory=True)
    await asyncio.wait_for(handle.result(), PATIENCE_S)
    result = await house.client.get_workflow_handle(accepted.job_id).result()
    told = f"not cleaned up at recovery: {unknown}"
    assert (result["sentences"], result["trouble"]) == (["tracking stopped at primary", told], told)


async def test_the_inventory_excuses_no_other_failure(house: House) -> None:
    await house.replicating("db")
    house.world.script("disable_source", "db", AuthenticationRefused("login refused"))
    record = await house.job("db", JobKind.DISABLE, not_in_inventory=True)
    assert (record.state, record.message) == ("failed", "login refused")
    assert house.world.of("disable_target") == []


async def test_what_stays_of_a_replica_is_told_instead_of_its_deletion(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a group of an array, whose mirror goes on for others, say."""
    handle = await house.replicating("db")
    for side in ("source", "target"):
        monkeypatch.setattr(FakeProvider, f"disable_{side}", lambda *_: "the mirror goes on: it protects web")
    accepted = await house.ask("db", JobKind.DISABLE)
    await asyncio.wait_for(handle.result(), PATIENCE_S)
    result = await house.client.get_workflow_handle(accepted.job_id).result()
    assert result["sentences"] == [
        "at primary: the mirror goes on: it protects web",
        "at recovery: the mirror goes on: it protects web",
    ]
