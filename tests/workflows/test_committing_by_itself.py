"""Replication that commits by itself, as that of arrays (requirements §C.5): no commit is pending; one says so."""

from __future__ import annotations

from typing import Any

import pytest
from fakes import FakeProvider, World
from house import House

from adapters.ports import Capabilities, MovesTogether
from plans.model import Plan
from vault.domain import Relationship
from vault.lifecycle import Phase
from workflows.already import COMMITTED_BY_ITSELF
from workflows.model import RunStatus

pytestmark = pytest.mark.workflow


class OnArray(FakeProvider):
    capabilities = Capabilities(commits_by_itself=True)

    def moves_with(self, relationship: Relationship) -> list[str]:
        return ["app", "db"]


@pytest.fixture(autouse=True)
def _two_of_three_are_on_an_array(monkeypatch: pytest.MonkeyPatch) -> None:
    def provider(self: World, relationship: Relationship) -> FakeProvider:
        return FakeProvider(self) if relationship.machine == "web" else OnArray(self)

    monkeypatch.setattr(World, "provider", provider)


def plan(*machines: str, **parts: Any) -> Plan:
    groups = [{"name": machine, "machines": [machine]} for machine in machines]
    return Plan.model_validate({"plan": "shop", "groups": groups, **parts})


async def run(house: House, wanted: Plan, run_type: str) -> RunStatus:
    status: RunStatus = await house.run_ends(await house.plan(wanted, run_type))
    return status


def details(status: RunStatus) -> dict[str, str]:
    return {row.id: row.detail for stage in status.stages for row in stage.steps if row.machine is not None}


async def test_a_failover_leaves_no_commit_pending_and_a_commit_says_so(house: House) -> None:
    for machine in ("db", "app"):
        await house.replicating(machine)
    status = await run(house, plan("db", "app"), "planned")
    assert status.message == f"{COMMITTED_BY_ITSELF} — leeward plan reverse shop"
    assert (await house.state("db")).phase is Phase.FAILED_OVER
    committed = await run(house, plan("db", "app"), "commit")
    assert committed.state == "completed"
    assert set(details(committed).values()) == {COMMITTED_BY_ITSELF}
    assert house.world.of("commit") == []
    assert (await run(house, plan("db", "app"), "reverse")).state == "completed"
    assert (await house.state("app")).phase is Phase.PROTECTED


async def test_in_a_mixed_plan_only_the_others_are_committed(house: House) -> None:
    for machine in ("db", "app", "web"):
        await house.replicating(machine)
    status = await run(house, plan("db", "app", "web"), "planned")
    assert status.message == "commit pending — leeward plan commit shop"
    committed = await run(house, plan("db", "app", "web"), "commit")
    assert committed.state == "completed"
    assert [call.machine for call in house.world.of("commit")] == ["web"]
    assert details(committed)["commit db/db"] == COMMITTED_BY_ITSELF
    assert {(await house.state(machine)).phase for machine in ("db", "app", "web")} == {Phase.FAILED_OVER}


async def test_an_automatic_commit_in_the_same_run_finds_it_done(house: House) -> None:
    for machine in ("db", "app"):
        await house.replicating(machine)
    status = await run(house, plan("db", "app", commit="automatic", reverse_replication="automatic"), "planned")
    assert status.state == "completed"
    assert details(status)["commit db/db"] == "committed already"
    assert (await house.state("db")).phase is Phase.PROTECTED


@pytest.mark.parametrize("run_type", ["planned", "unplanned"])
async def test_a_plan_without_all_machines_of_a_group_is_refused_before_anything_is_done(
    house: House, run_type: str
) -> None:
    for machine in ("db", "app"):
        await house.replicating(machine)
    status = await run(house, plan("db"), run_type)
    assert status.state == "refused"
    assert "db: cannot be failed over without app, whose disks move with its own" in status.message
    assert house.world.of("shut_down") == []
    assert (await run(house, plan("db"), "test")).state == "completed"


async def test_a_group_is_not_torn_apart_by_leaving_out_one_of_its_machines(house: House) -> None:
    for machine in ("db", "app", "web"):
        await house.replicating(machine)
    shop = plan("db", "app", "web")
    handle = await house.plan(shop, "unplanned", without=["app"], note="ticket 4711")
    status = await house.run_ends(handle)
    assert (status.state, status.message) == (
        "refused",
        "db: cannot be failed over without app, whose disks move with its own — leave db out of this run, too, or none "
        "of them",
    )
    assert status.way_out.endswith("again with: --without db --without app --note WHY")
    handle = await house.plan(shop, "unplanned", without=["app", "db"], note="ticket 4711")
    assert (await house.run_ends(handle)).state == "completed"


def test_a_provider_that_moves_machines_together_is_known_by_its_method() -> None:
    assert isinstance(OnArray(World()), MovesTogether)
    assert not isinstance(FakeProvider(World()), MovesTogether)
