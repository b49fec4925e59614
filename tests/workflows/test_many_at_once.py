"""Twenty-five plan runs at once, and two hundred operators' updates in flight together: none is lost or done twice."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from house import PATIENCE, PATIENCE_S, House
from temporalio.api.workflowservice.v1 import UpdateWorkflowExecutionRequest, UpdateWorkflowExecutionResponse
from temporalio.client import WorkflowHandle

from plans.model import Plan
from workflows.model import Decision, RunStatus, Steer

pytestmark = pytest.mark.workflow

RUNS, MACHINES = 25, [f"m{number}" for number in range(8)]


def plan(number: int) -> Plan:
    """Each of its machines waits for an operator of its own, all at the same time."""
    entries = [{"machine": name, "before": [{"manual": f"may {name}"}]} for name in MACHINES]
    return Plan.model_validate({"plan": f"plan-{number:02}", "groups": [{"name": "all", "machines": entries}]})


class Wire:
    """What goes to Temporal: the updates wait for each other, and go out in one moment; their ids."""

    def __init__(self, house: House, count: int) -> None:
        self.sent: list[str] = []
        self._count = count
        self._all_are_there = asyncio.Event()
        self._send = house.client.workflow_service.update_workflow_execution

    async def update(self, request: UpdateWorkflowExecutionRequest, **how: Any) -> UpdateWorkflowExecutionResponse:
        self.sent.append(request.request.meta.update_id)
        if len(self.sent) == self._count:
            self._all_are_there.set()
        await asyncio.wait_for(self._all_are_there.wait(), PATIENCE_S)
        return await self._send(request, **how)


async def test_many_runs_and_updates_at_once_lose_none(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await asyncio.gather(*(house.replicating(name) for name in MACHINES))
    runs = [await house.plan(plan(number), "test", run_id=f"r-{number:02}") for number in range(RUNS)]

    async def all_wait() -> bool:
        statuses = await asyncio.gather(*map(house.status, runs))
        waiting = [[row for stage in status.stages for row in stage.steps if row.waits] for status in statuses]
        return all(len(rows) == len(MACHINES) for rows in waiting)

    await house.until(all_wait, "every run waits for eight operators")
    wire = Wire(house, RUNS * len(MACHINES))
    monkeypatch.setattr(house.client.workflow_service, "update_workflow_execution", wire.update)
    began = time.monotonic()
    given = await asyncio.gather(*(approve(run, name, f"{run.id} {name}") for run in runs for name in MACHINES))
    took = time.monotonic() - began
    print(f"{len(given)} updates answered in {took:.1f} s")
    wanted = sorted(f"{run.id} {name}" for run in runs for name in MACHINES)
    assert sorted(wire.sent) == wanted
    assert sorted(decision.by for decision in given) == wanted

    ended: list[RunStatus] = await asyncio.gather(*map(house.run_ends, runs))
    assert {status.state for status in ended} == {"completed"}
    kept = [decision.by for status in ended for decision in status.decisions]
    assert sorted(kept) == wanted
    events = [event for run in runs for event in (await run.fetch_history()).events]
    accepted = [event.workflow_execution_update_accepted_event_attributes for event in events]
    completed = [event.workflow_execution_update_completed_event_attributes for event in events]
    assert sorted(one.accepted_request.meta.update_id for one in accepted if one.protocol_instance_id) == wanted
    assert sorted(one.meta.update_id for one in completed if one.outcome.HasField("success")) == wanted
    for name in MACHINES:
        copies = (await house.state(name)).tests
        assert {copy.machine for copy in copies} == {f"{name}-test-{number:02}" for number in range(RUNS)}


async def approve(run: WorkflowHandle[object, object], machine: str, by: str) -> Decision:
    steer = Steer(action="approve", step=f"recover all/may {machine}", by=by, note="seen")
    decision: Decision = await run.execute_update("steer", steer, id=by, result_type=Decision, rpc_timeout=PATIENCE)
    return decision
