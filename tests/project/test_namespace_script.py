"""What prepares a Temporal server in the container deployment, run against a real one."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
TEMPORAL = Path(sys.executable).with_name("temporal")


def prepare(address: str) -> str:
    return subprocess.run(
        ["sh", ROOT / "deploy/temporal/namespace.sh"],
        env={
            "PATH": f"{TEMPORAL.parent}:{os.environ['PATH']}",
            "HOME": os.environ.get("HOME", "/"),
            "TEMPORAL_ADDRESS": address,
            "TEMPORAL_NAMESPACE": "leeward",
            "LEEWARD_HISTORY_RETENTION": "90d",
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout


async def test_it_makes_the_namespace_waits_until_it_can_be_used_and_may_be_repeated() -> None:
    async with await WorkflowEnvironment.start_local(dev_server_existing_path=str(TEMPORAL)) as environment:
        address = environment.client.service_client.config.target_host
        assert prepare(address).endswith("namespace leeward is ready\n")
        client = await Client.connect(address, namespace="leeward")
        made = await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace="leeward"))
        assert made.config.workflow_execution_retention_ttl.ToTimedelta() == timedelta(days=90)
        assert [run async for run in client.list_workflows()] == []

        assert prepare(address) == "namespace leeward is ready\n"
