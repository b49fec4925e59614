"""Two builds of the control worker against a real Temporal server: workflows move to the one that is current."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from temporalio.api.workflowservice.v1 import SetWorkerDeploymentCurrentVersionRequest
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RPCError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from workers.connection import register_search_attributes
from workers.settings import Settings
from workers.worker import DEPLOYMENT, make_worker
from workflows.slot_model import SlotReturn, SlotsState

pytestmark = pytest.mark.e2e

TEMPORAL = Path(sys.executable).with_name("temporal")


@pytest_asyncio.fixture
async def client() -> AsyncIterator[Client]:
    async with await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(TEMPORAL), data_converter=pydantic_data_converter
    ) as environment:
        await register_search_attributes(environment.client)
        yield environment.client


def control_worker(client: Client, build: str, folder: Path) -> Worker:
    settings = Settings(vault=folder / "leeward.yaml", data=folder, build=build)
    return make_worker(client, "control", [], settings)


async def make_current(client: Client, build: str) -> None:
    """As an operator does; the build is known once its worker has polled."""
    request = SetWorkerDeploymentCurrentVersionRequest(
        namespace=client.namespace, deployment_name=DEPLOYMENT, build_id=build
    )
    for last in [False] * 50 + [True]:
        try:
            await client.workflow_service.set_worker_deployment_current_version(request)
            return
        except RPCError:
            if last:
                raise
        await asyncio.sleep(0.2)


async def test_a_running_workflow_moves_to_the_build_that_is_made_current(client: Client, tmp_path: Path) -> None:
    async with control_worker(client, "1", tmp_path):
        await make_current(client, "1")
        handle = await client.start_workflow("SiteSlots", SlotsState(at_once=1), id="slots", task_queue="control")
        assert await decided_by(client, 0) == "1"
        async with control_worker(client, "2", tmp_path):
            nothing = SlotReturn(id="nobody's")
            await handle.signal("give_back", nothing)
            assert await decided_by(client, 1) == "1", "until an operator says so, nothing moves"
            await make_current(client, "2")
            for number in range(2, 50):  # the task queue hears of it a moment later
                await handle.signal("give_back", nothing)
                if await decided_by(client, number) == "2":
                    break
            assert await decided_by(client, number) == "2"
            await handle.terminate()


async def decided_by(client: Client, number: int) -> str:
    """The build that completed the workflow's task of that number, counted from 0."""
    for _ in range(100):
        history = await client.get_workflow_handle("slots").fetch_history()
        done = [
            event.workflow_task_completed_event_attributes
            for event in history.events
            if event.HasField("workflow_task_completed_event_attributes")
        ]
        if len(done) > number:
            return done[number].deployment_version.build_id
        await asyncio.sleep(0.1)
    raise AssertionError(f"task {number} was never completed")
