"""Which leeward a process is, and which ones the control workers are: they say so in their names for Temporal."""

from __future__ import annotations

import os
import re
import socket
from datetime import UTC, datetime, timedelta
from importlib.metadata import version

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client

from activities.contracts import CONTROL_QUEUE

FRESH = timedelta(seconds=150)
"""A worker asks for work about every minute; Temporal remembers those that are gone for some more."""
_VERSION = re.compile(r"^leeward-(\S+) ")


def own_version() -> str:
    return version("leeward")


def worker_identity() -> str:
    """The host stands last: the containers' health check looks for it there."""
    return f"leeward-{own_version()} {os.getpid()}@{socket.gethostname()}"


async def control_versions(client: Client) -> list[str]:
    """Of the control workers that poll now; empty when they do not say, as those of before did not."""
    answer = await client.workflow_service.describe_task_queue(
        DescribeTaskQueueRequest(
            namespace=client.namespace,
            task_queue=TaskQueue(name=CONTROL_QUEUE),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        )
    )
    now = datetime.now(UTC)
    polling = [one.identity for one in answer.pollers if now - one.last_access_time.ToDatetime(UTC) < FRESH]
    return sorted({found[1] for found in map(_VERSION.match, polling) if found is not None})
