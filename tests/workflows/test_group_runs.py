"""A run that recovers a consistency group: one moment for all of its machines, however long the run takes."""

from __future__ import annotations

from datetime import timedelta

import house as house_module
import pytest
from fakes import EPOCH
from house import House

from plans.model import Plan
from vault.domain import RecoveryPoint, Relationship

pytestmark = pytest.mark.workflow

MEMBERS = ["app", "db"]
CHOICE = "latest-consistent:shop"
TWO_STAGES = Plan.model_validate(
    {
        "plan": "shop",
        "groups": [
            {"name": "data", "machines": ["db"], "after": [{"manual": "look", "instructions": "look at it"}]},
            {"name": "front", "machines": ["app", "web"]},
        ],
    }
)


@pytest.fixture(autouse=True)
def grouped(monkeypatch: pytest.MonkeyPatch) -> None:
    real = house_module.relationship

    def relationship(machine: str, frequency_s: float = 60) -> Relationship:
        group = {"group": "shop", "group_members": MEMBERS} if machine in MEMBERS else {}
        return real(machine, frequency_s).model_copy(update=group)

    monkeypatch.setattr(house_module, "relationship", relationship)


def common_moment(house: House, minute: int, *machines: str) -> None:
    for machine in machines or MEMBERS:
        points = house.world.points[machine]
        sequence = points[-1].sequence + 1 if points else 1
        moment = EPOCH + timedelta(days=1, minutes=minute)
        points.append(RecoveryPoint(id=f"{machine}-g{minute}", sequence=sequence, time=moment, group="shop"))


async def test_the_moment_is_fixed_when_the_run_begins(house: House) -> None:
    for machine in ("db", "app", "web"):
        await house.replicating(machine)
    common_moment(house, 1)
    handle = await house.plan(TWO_STAGES, "test", point=CHOICE)
    await house.row(handle, "recover data/look", "waiting")
    common_moment(house, 2)  # while the operator looks, replication goes on
    await house.steer(handle, "approve", "recover data/look")
    status = await house.run_ends(handle)
    assert status.state == "completed", status.message
    fixed = f"consistent:shop@{(EPOCH + timedelta(days=1, minutes=1)).isoformat()}"
    assert {call.detail for call in house.world.of("start_test")} == {fixed}
    for machine in MEMBERS:
        state = await house.state(machine)
        assert [copy.point.id for copy in state.tests] == [f"{machine}-g1"]
    (web,) = (await house.state("web")).tests
    assert web.point.group == ""


async def test_without_a_common_moment_nothing_is_changed(house: House) -> None:
    for machine in ("db", "app", "web"):
        await house.replicating(machine)
    common_moment(house, 1, "db")
    status = await house.run_ends(await house.plan(TWO_STAGES, "unplanned", point=CHOICE))
    assert status.state == "refused"
    assert "the machines of consistency group 'shop' have no common moment yet" in status.message
    assert house.world.of("shut_down") == []


async def test_a_group_that_is_not_in_the_plan_is_refused(house: House) -> None:
    await house.replicating("web")
    only_web = Plan.model_validate({"plan": "web", "groups": [{"name": "all", "machines": ["web"]}]})
    status = await house.run_ends(await house.plan(only_web, "test", point=CHOICE))
    assert status.state == "refused"
    assert "no machine of the plan is in consistency group 'shop'" in status.message
