"""How many machines are worked on at once: in one plan, and at one site by all plans (requirements §D)."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from house import House
from temporalio.client import WorkflowHandle

from plans.model import Plan
from vault.errors import AuthenticationRefused
from vault.inventory import Inventory
from vault.limits import FailoverLimits
from vault.loading import load_inventory
from workflows import site_slots
from workflows.ids import site_slots_id
from workflows.model import RunStatus
from workflows.slot_model import SlotsState

pytestmark = pytest.mark.workflow

Handle = WorkflowHandle[Any, RunStatus]


def plan(name: str, *machines: str, **parts: Any) -> Plan:
    return Plan.model_validate({"plan": name, "groups": [{"name": "all", "machines": list(machines)}], **parts})


def limits(*machines: str) -> FailoverLimits:
    return FailoverLimits(at_once={"recovery": 1}, sites=dict.fromkeys(machines, ("primary", "recovery")))


def at_work(house: House, name: str) -> list[str]:
    return [call.machine for call in house.world.of(name)]


async def slots(house: House) -> SlotsState:
    handle = house.client.get_workflow_handle(site_slots_id("recovery"))
    house.roots.append(handle)
    return await handle.query("describe", result_type=SlotsState)


async def row_says(house: House, handle: Handle, row_id: str, words: str) -> None:
    async def says() -> bool:
        rows = [row for stage in (await house.status(handle)).stages for row in stage.steps]
        return any(row.id == row_id and words in row.detail and row.state == "pending" for row in rows)

    await house.until(says, f"'{row_id}' says '{words}'")


async def test_a_plan_works_on_as_many_machines_as_it_allows(house: House) -> None:
    """The third begins when one of the first two is done; a machine that waits for its operator is not at work."""
    for machine in ("a", "b", "c", "d"):
        await house.replicating(machine)
    gates = {machine: house.world.hold("start_test", machine) for machine in ("a", "b", "c", "d")}
    house.world.script("start_test", "b", AuthenticationRefused("login refused"))
    two = plan("shop", "a", "b", "c", "d", limits={"machines_at_once": 2})
    handle = await house.plan(two, "test")
    await house.until(lambda: len(at_work(house, "start_test")) == 2, "two are at work")
    await row_says(house, handle, "recover all/c", "waits: this plan works on 2 at once")
    assert sorted(at_work(house, "start_test")) == ["a", "b"]
    gates["b"].set()
    await house.row(handle, "recover all/b", "failed")
    await house.until(lambda: len(at_work(house, "start_test")) == 3, "the third is at work")
    assert at_work(house, "start_test")[-1] == "c"
    await row_says(house, handle, "recover all/d", "waits")
    for gate in gates.values():
        gate.set()
    await house.row(handle, "recover all/d", "done")
    await house.steer(handle, "retry", "recover all/b")
    assert (await house.run_ends(handle)).state == "completed"


async def test_a_site_is_shared_by_all_plans(house: House) -> None:
    await house.replicating("db")
    await house.replicating("app")
    gate = house.world.hold("fail_over", "db")
    options = {"source_unreachable": True}
    first = await house.plan(plan("shop", "db"), "unplanned", limits=limits("db"), **options)
    await house.until(lambda: at_work(house, "fail_over") == ["db"], "the first is at work")
    second = await house.plan(plan("office", "app"), "unplanned", limits=limits("app"), **options)
    await row_says(house, second, "recover all/app", "waits for a slot at recovery: 1 at once, now db (shop)")
    state = await slots(house)
    assert ([one.machine for one in state.taken], [one.machine for one in state.waiting]) == (["db"], ["app"])
    assert at_work(house, "fail_over") == ["db"]
    gate.set()
    for handle in (first, second):
        assert (await house.run_ends(handle)).state == "completed"
    assert at_work(house, "fail_over") == ["db", "app"]


async def test_who_is_cancelled_while_he_waits_leaves_the_queue(house: House) -> None:
    for machine in ("db", "app", "web"):
        await house.replicating(machine)
    gate = house.world.hold("start_test", "db")
    first = await house.plan(plan("shop", "db"), "test", limits=limits("db"))
    await house.until(lambda: at_work(house, "start_test") == ["db"], "the first is at work")
    second = await house.plan(plan("office", "app"), "test", limits=limits("app"))
    await row_says(house, second, "recover all/app", "waits for a slot at recovery")
    await house.cancel(second)
    assert (await house.run_ends(second)).state == "cancelled"
    third = await house.plan(plan("store", "web"), "test", limits=limits("web"))
    await row_says(house, third, "recover all/web", "now db (shop)")
    gate.set()
    assert (await house.run_ends(third)).state == "completed"
    assert (await house.run_ends(first)).state == "completed"
    assert at_work(house, "start_test") == ["db", "web"]


async def test_a_run_that_is_gone_loses_its_slots(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_slots, "LOOK_EVERY", timedelta(seconds=0.2))
    await house.replicating("db")
    await house.replicating("app")
    house.world.hold("start_test", "db")
    first = await house.plan(plan("shop", "db"), "test", limits=limits("db"))
    await house.until(lambda: at_work(house, "start_test") == ["db"], "the first is at work")
    second = await house.plan(plan("office", "app"), "test", limits=limits("app"))
    await row_says(house, second, "recover all/app", "waits for a slot at recovery")
    await first.terminate()
    await house.client.get_workflow_handle("plan/shop/1-recover-all").terminate()
    assert (await house.run_ends(second)).state == "completed"


def test_the_inventory_names_the_sites_with_limits() -> None:
    inventory = load_inventory(Path(__file__).parents[2] / "examples" / "leeward.yaml")
    assert inventory.failover_limits(["web"]) == FailoverLimits()
    document = inventory.model_dump(mode="json", exclude_unset=True)
    document["sites"]["recovery"]["limits"] = {"failovers_at_once": 4}
    found = Inventory.model_validate(document).failover_limits(["web"])
    assert found == FailoverLimits(at_once={"recovery": 4}, sites={"web": ("primary", "recovery")})
    assert found.limited_site("web", backwards=False) == "recovery"
    assert found.limited_site("web", backwards=True) is None
