"""One worker process: the roles it plays, on the task queues of its places (design §4)."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from temporalio.client import Client
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.worker import Worker, WorkerDeploymentConfig
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from activities.contracts import CONTROL_QUEUE, replication_queue, site_queue
from activities.machines import MachineActivities
from activities.notifications import NotificationActivities
from activities.protection import ProtectionActivities
from activities.reports import ReportActivities
from activities.running import BlockingRunner
from activities.runs import RunActivities
from activities.schedules import ScheduleActivities
from activities.steps import StepActivities
from activities.testing import TestingActivities
from adapters.registry import Adapters
from vault.errors import BadInput
from vault.inventory import Inventory
from workers.serving import serve_until
from workers.settings import Settings
from workflows.delivering import DeliverReport
from workflows.exercise import PlanExercise
from workflows.failover import Commit, PlannedFailover, ReverseReplication, UnplannedFailover
from workflows.group_claims import GroupClaims
from workflows.machine import MachineWorkflow
from workflows.notifying import Notify
from workflows.plan import PlanRun
from workflows.protection import (
    DisableProtection,
    EnableProtection,
    FinalizeProtection,
    InitialReplication,
    Resynchronize,
)
from workflows.readiness import PlanReadiness
from workflows.scheduling import ChangeSchedule
from workflows.site_slots import SiteSlots
from workflows.stage import PlanStage
from workflows.testing import CleanupTestFailover, TestFailover

THREADS_PER_ROLE = 64
"""Blocking calls at once. What has no thread yet waits with heartbeats."""
ACTIVITIES_AT_ONCE = 10_000
"""Each protected machine has one activity that mostly waits; waiting needs no thread."""
WORKFLOWS_IN_MEMORY = 5_000
"""Machines and what goes on with them; each further one is replayed from its history whenever something happens."""
DEPLOYMENT = "leeward"
LONGEST_STICKY_S = 10.0
"""A workflow waits so long for the control worker that knows it, before any other takes it: a killed one's work."""
GRACE = timedelta(seconds=15)
"""How long running activities get to come to a safe point at shutdown."""

WORKFLOWS: list[type] = [
    MachineWorkflow,
    EnableProtection,
    InitialReplication,
    FinalizeProtection,
    Resynchronize,
    DisableProtection,
    PlannedFailover,
    UnplannedFailover,
    Commit,
    ReverseReplication,
    TestFailover,
    CleanupTestFailover,
    PlanReadiness,
    PlanStage,
    PlanRun,
    PlanExercise,
    ChangeSchedule,
    SiteSlots,
    GroupClaims,
    Notify,
    DeliverReport,
]

log = logging.getLogger(__name__)


class Role(StrEnum):
    CONTROL = "control"
    SITE = "site"
    REPLICATION = "replication"


def sandbox(*, strict: bool = False) -> SandboxedWorkflowRunner:
    """Workflows see the value types that they share with everybody as they are.

    Args:
        strict: load the workflows' own modules anew for each workflow, in which whatever is not deterministic fails.
            Tests do; for workers it would be the largest part of their work with many machines.
    """
    shared = ["vault", "plans", "reports", "activities.contracts", "annotated_types", "pydantic"]
    models = ("", "job_", "machine_", "run_", "slot_", "claim_", "schedule_")
    shared += [f"workflows.{of}model" for of in models] if strict else ["workflows"]
    return SandboxedWorkflowRunner(restrictions=SandboxRestrictions.default.with_passthrough_modules(*shared))


async def run_worker(
    client: Client, settings: Settings, inventory: Inventory, roles: Sequence[Role], site: str | None
) -> None:
    """Run until SIGTERM or SIGINT, then let running activities come to a safe point.

    Raises:
        BadInput: when a role needs a site and none (or an unknown one) is given.
    """
    queues = _queues(roles, site, inventory)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with ThreadPoolExecutor(THREADS_PER_ROLE * len(queues), thread_name_prefix="activity") as threads:
        adapters = Adapters(inventory, settings.data)
        runner = BlockingRunner(threads, settings.time_scale)
        activities = _activities(adapters, runner, settings.reports)
        log.info("worker takes tasks from '%s'", "', '".join(queues))
        await serve_until(stop, [make_worker(client, queue, activities, settings) for queue in queues])


def make_worker(client: Client, queue: str, activities: list[Any], settings: Settings) -> Worker:
    sticky = timedelta(seconds=min(LONGEST_STICKY_S, settings.timings().heartbeat_s / 2))
    throttle = timedelta(seconds=min(5.0, settings.timings().heartbeat_s / 8))
    return Worker(
        client,
        task_queue=queue,
        workflows=WORKFLOWS if queue == CONTROL_QUEUE else [],
        activities=activities,
        workflow_runner=sandbox(),
        max_concurrent_activities=ACTIVITIES_AT_ONCE,
        max_cached_workflows=WORKFLOWS_IN_MEMORY,
        max_heartbeat_throttle_interval=throttle,
        default_heartbeat_throttle_interval=throttle,
        graceful_shutdown_timeout=GRACE,
        sticky_queue_schedule_to_start_timeout=sticky,
        deployment_config=deployment(settings.build) if queue == CONTROL_QUEUE and settings.build else None,
    )


def deployment(build: str) -> WorkerDeploymentConfig:
    """Control workers only: what replays histories has versions. Running workflows move to the current build, because
    machines live for years; stored histories and patches see to it that they can."""
    return WorkerDeploymentConfig(
        version=WorkerDeploymentVersion(deployment_name=DEPLOYMENT, build_id=build),
        use_worker_versioning=True,
        default_versioning_behavior=VersioningBehavior.AUTO_UPGRADE,
    )


def _activities(adapters: Adapters, runner: BlockingRunner, reports: Path) -> list[Any]:
    """Every worker knows every activity; which queue a task is on decides where it runs."""
    holders = (
        ProtectionActivities(adapters, runner),
        MachineActivities(adapters, runner),
        TestingActivities(adapters, runner),
        StepActivities(adapters, runner),
        ReportActivities(reports, runner),
        NotificationActivities(runner),
        RunActivities(),
        ScheduleActivities(),
    )
    return [
        method
        for holder in holders
        for name in dir(holder)
        if hasattr(method := getattr(holder, name), "__temporal_activity_definition")
    ]


def _queues(roles: Sequence[Role], site: str | None, inventory: Inventory) -> list[str]:
    if not roles:
        raise BadInput("a worker needs a role", where="--role", remedy="give --role control, site or replication")
    needs_site = [role for role in roles if role is not Role.CONTROL]
    if needs_site and site is None:
        raise BadInput(f"role {needs_site[0]} needs a site", where="--site", remedy="give --site NAME")
    if site is not None and site not in inventory.sites:
        known = ", ".join(sorted(inventory.sites))
        raise BadInput(f"unknown site '{site}'", where="--site", remedy=f"the inventory knows: {known}")
    queue_of = {
        Role.CONTROL: CONTROL_QUEUE,
        Role.SITE: site_queue(site or ""),
        Role.REPLICATION: replication_queue(site or ""),
    }
    return [queue_of[role] for role in dict.fromkeys(roles)]
