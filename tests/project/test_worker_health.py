"""The container health check against a real Temporal server and a real worker."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from temporalio import activity
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

pytestmark = pytest.mark.e2e

SCRIPT = Path(__file__).parents[2] / "deploy/worker_health.py"
TEMPORAL = Path(sys.executable).with_name("temporal")


@activity.defn
async def nothing() -> None:
    return None


@pytest_asyncio.fixture
async def temporal() -> AsyncIterator[WorkflowEnvironment]:
    async with await WorkflowEnvironment.start_local(dev_server_existing_path=str(TEMPORAL)) as environment:
        yield environment


async def health(address: str, *queues: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        SCRIPT,
        *queues,
        env={**os.environ, "TEMPORAL_ADDRESS": address, "TEMPORAL_NAMESPACE": "default"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_a_worker_is_healthy_while_it_polls_and_only_then(temporal: WorkflowEnvironment) -> None:
    address = temporal.client.service_client.config.target_host

    async with Worker(temporal.client, task_queue="site.primary", activities=[nothing]):
        for _ in range(20):
            answer = await health(address, "site.primary")
            if answer[0] == 0:
                break
            await asyncio.sleep(0.2)
        assert answer == (0, "polling site.primary\n")

        code, message = await health(address, "site.primary", "site.recovery")
        assert code == 1
        assert message == "no worker on this host polls site.recovery\n"


async def test_an_unreachable_server_is_unhealthy_and_said_so() -> None:
    code, message = await health("127.0.0.1:1", "control")
    assert code == 1
    assert message.startswith("Temporal does not answer: ")
