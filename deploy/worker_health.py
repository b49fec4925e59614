"""Is this container's worker taking work? Asks Temporal, so a process that hangs or lost its connection is found.

Usage: ``worker_health.py QUEUE …``. Exit code 0 when every queue is polled from this host, else 1 with the reason.
The connection comes from Temporal's standard environment, as the worker's does.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from datetime import UTC, datetime, timedelta

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.envconfig import ClientConfig
from temporalio.service import RPCError

from workers.leaving import leave

FRESH = timedelta(seconds=150)
"""A poll is held open for up to a minute and then repeated: twice that and a half without one means it stopped."""
PATIENCE_S = 8.0


async def silent_queues(queues: list[str]) -> list[str]:
    """The queues of ``queues`` that no worker on this host has polled lately.

    Raises:
        RuntimeError: when Temporal cannot be connected to.
        RPCError: when Temporal does not answer.
    """
    client = await Client.connect(**ClientConfig.load_client_connect_config())
    return [queue for queue in queues if not await _polled_from_here(client, queue)]


async def _polled_from_here(client: Client, queue: str) -> bool:
    for kind in (TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY, TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW):
        answer = await client.workflow_service.describe_task_queue(
            DescribeTaskQueueRequest(
                namespace=client.namespace, task_queue=TaskQueue(name=queue), task_queue_type=kind
            ),
            timeout=timedelta(seconds=PATIENCE_S),
        )
        for poller in answer.pollers:
            age = datetime.now(UTC) - poller.last_access_time.ToDatetime(tzinfo=UTC)
            if poller.identity.endswith(f"@{socket.gethostname()}") and age < FRESH:
                return True
    return False


def main(queues: list[str]) -> int:
    if not queues:
        print("usage: worker_health.py QUEUE …", file=sys.stderr)
        return 2
    try:
        silent = asyncio.run(asyncio.wait_for(silent_queues(queues), PATIENCE_S))
    except (RuntimeError, RPCError, TimeoutError) as error:
        print(f"Temporal does not answer: {error}", file=sys.stderr)
        return 1
    if silent:
        print(f"no worker on this host polls {', '.join(silent)}", file=sys.stderr)
        return 1
    print(f"polling {', '.join(queues)}")
    return 0


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
