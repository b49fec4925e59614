"""Work beside a workflow's main task never dies unheard."""

from __future__ import annotations

import pytest
from house import House
from temporalio.api.enums.v1 import EventType

from vault.lifecycle import JobKind
from workflows.ids import machine_id
from workflows.machine import MachineWorkflow

pytestmark = pytest.mark.workflow

FAILED = EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED


async def test_a_defect_beside_the_main_task_is_shown_by_temporal_and_can_be_mended(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defective(*_: object) -> None:
        raise LookupError("no such book")

    await house.replicating("db")
    with monkeypatch.context() as defect:
        defect.setattr(MachineWorkflow, "_take_over", defective)
        accepted = await house.ask("db", JobKind.TEST_FAILOVER)
        await house.recorded(machine_id("db"), FAILED)
    history = await house.client.get_workflow_handle(machine_id("db")).fetch_history()
    why = [one.workflow_task_failed_event_attributes.failure.message for one in history.events]
    assert "no such book" in "".join(why)
    assert (await house.ended("db", accepted.job_id)).state == "done"
