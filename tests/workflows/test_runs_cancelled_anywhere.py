"""Every type of plan run, cancelled over its machines' activities that end well nevertheless.

The run ends as cancelled, its machines are where their phases say, one copy of each in production, and the same run can
be started again.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple, cast

import pytest
from house import House, open_house
from temporalio.client import WorkflowHandle

from plans.model import Plan
from vault.lifecycle import AT_TARGET, IDLE, Phase
from workflows.model import RunStatus

pytestmark = pytest.mark.workflow

STEPS: dict[str, list[tuple[str, str]]] = {
    "test": [("start_test", "db")],
    "planned": [("fail_over", "db")],
    "unplanned": [("shut_down", "app")],
}
BY = ("operator", "temporal")


class Case(NamedTuple):
    run_type: str
    step: str
    at: str
    by: str

    @property
    def plan(self) -> str:
        return f"{self.step}-{self.at}-{self.by}".replace("_", "-")

    @property
    def machines(self) -> dict[str, str]:
        return {short: f"{short}-{self.plan}" for short in ("db", "app")}

    @property
    def busy(self) -> str:
        """Whose activity the run is cancelled over."""
        return self.machines[self.at]

    async def run(self, house: House, run_type: str, number: int) -> WorkflowHandle[object, RunStatus]:
        groups = [{"name": short, "machines": [machine]} for short, machine in self.machines.items()]
        plan = Plan.model_validate({"plan": self.plan, "groups": groups})
        handle = await house.plan(plan, run_type, run_id=f"r{number}-aa{number:02}")
        return cast(WorkflowHandle[object, RunStatus], handle)


@pytest.mark.parametrize(("run_type", "step", "at"), [(kind, *step) for kind, steps in STEPS.items() for step in steps])
async def test_a_run_that_is_cancelled_leaves_machines_that_can_go_on(
    monkeypatch: pytest.MonkeyPatch, run_type: str, step: str, at: str
) -> None:
    """On the real server: the time-skipping one refuses for ever to cancel an activity that has just ended."""
    async with open_house(monkeypatch, real_server=True) as house:
        await asyncio.gather(*(lives_on(house, Case(run_type, step, at, by)) for by in BY))


async def lives_on(house: House, case: Case) -> None:
    world = house.world
    for machine in case.machines.values():
        await house.machine(machine, Phase.PROTECTED)
    seen = len(world.of(case.step, case.busy))
    gate = world.hold(case.step, case.busy, stubborn=True)
    handle = await case.run(house, case.run_type, 8)
    await house.until(lambda: len(world.of(case.step, case.busy)) > seen, f"{case} begins")
    await (house.cancel(handle) if case.by == "operator" else handle.cancel())
    await asyncio.sleep(0.2)
    gate.set()
    status = await house.run_ends(handle)
    assert status.state in {"cancelled", "completed"}, (case, status.message)
    await where_they_should_be(house, case, status)

    again = await house.run_ends(await case.run(house, case.run_type, 9))
    assert again.state in {"completed", "refused"}, (case, again.message)
    await where_they_should_be(house, case, again)


async def where_they_should_be(house: House, case: Case, status: RunStatus) -> None:
    for name in case.machines.values():

        async def is_idle(machine: str = name) -> bool:
            state = await house.state(machine)
            return state.phase in IDLE and not any(job.is_open for job in state.jobs)

        await house.until(is_idle, f"{name} is idle after {case}")
        state = await house.state(name)
        backwards = state.reversed
        at = ("recovery", "primary") if (state.phase in AT_TARGET) != backwards else ("primary", "recovery")
        assert house.world.runs_at(name) == {at[0]}, (case, name, state.phase, status.message)
        assert house.world.most_copies_on_production[name] <= 1, case
        known = {(copy.site, copy.machine) for copy in state.tests}
        stored = {one for one in house.world.stored if one[1].startswith(f"{name}-test")}
        assert stored <= known, (case, stored, known, status.message)
