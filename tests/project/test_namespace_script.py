"""What prepares a Temporal server in the container deployment, run against a real one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment

from workflows.attributes import ALL

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


async def test_it_makes_the_namespace_and_every_search_attribute_and_may_be_repeated() -> None:
    async with await WorkflowEnvironment.start_local(dev_server_existing_path=str(TEMPORAL)) as environment:
        address = environment.client.service_client.config.target_host
        assert prepare(address).endswith("namespace leeward is ready\n")
        assert prepare(address) == "namespace leeward is ready\n"

        client = await Client.connect(address, namespace="leeward")
        made = await client.operator_service.list_search_attributes(ListSearchAttributesRequest(namespace="leeward"))
        wanted = {key.name: key.indexed_value_type for key in ALL}
        assert {name: int(kind) for name, kind in made.custom_attributes.items()} == {
            name: int(kind) for name, kind in wanted.items()
        }
