"""The harness of the workflow tests: real workflows and activities, a time-skipping server, fake fabrics."""

from __future__ import annotations

import asyncio
import gc
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fakes import World
from temporalio.api.enums.v1 import EventType, IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.api.testservice.v1 import LockTimeSkippingRequest, UnlockTimeSkippingRequest
from temporalio.client import Client, WorkflowHandle, WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner, Worker, WorkflowRunner

from activities.machines import MachineActivities
from activities.protection import ProtectionActivities
from activities.running import BlockingRunner
from activities.runs import RunActivities
from activities.schedules import ScheduleActivities
from activities.steps import StepActivities
from activities.testing import TestingActivities
from plans.model import Plan
from vault.domain import PowerState, Relationship
from vault.inventory import Policy
from vault.lifecycle import JobKind, Phase
from workers.worker import WORKFLOWS
from workflows.attributes import ALL, attributes
from workflows.ids import machine_id, plan_id
from workflows.model import (
    Cancel,
    Decision,
    JobAccepted,
    JobRecord,
    JobRequest,
    MachineState,
    PlanRequest,
    RunStatus,
    Steer,
    StepRow,
    Timings,
)

SERVER = Path(__file__).parents[2] / ".venv/bin/temporal-test-server"
REAL_SERVER = SERVER.with_name("temporal")
QUEUES = ("control", "site.primary", "site.recovery", "replication.primary", "replication.recovery")
PATIENCE_S = 90.0
"""Real seconds until a wait gives up: far more than anything here takes."""
PATIENCE = timedelta(seconds=PATIENCE_S)
FORWARD = {
    "source_site": "primary",
    "target_site": "recovery",
    "target_network": "production",
    "test_network": "isolated",
}


def relationship(machine: str, frequency_s: float = 60) -> Relationship:
    return Relationship(machine=machine, frequency_s=frequency_s, **FORWARD)


def policy(**changes: object) -> Policy:
    return Policy.model_validate({"frequency": "60s", "resync": "manual", **changes})


@dataclass
class House:
    env: WorkflowEnvironment
    world: World
    timings: Timings
    time_scale: float
    runner: WorkflowRunner
    threads: ThreadPoolExecutor
    workers: dict[str, AsyncExitStack] = field(default_factory=dict)
    roots: list[WorkflowHandle[Any, Any]] = field(default_factory=list)
    replays: bool = True
    """Whether the histories are replayed when the test is over."""

    @property
    def client(self) -> Client:
        return self.env.client

    # -- workers -------------------------------------------------------------------------------------------------

    async def work(self, queue: str) -> None:
        stack = AsyncExitStack()
        await stack.enter_async_context(self._worker(queue))
        self.workers[queue] = stack

    async def stop_work(self, *queues: str) -> None:
        for queue in queues:
            await self.workers.pop(queue).aclose()

    def _worker(self, queue: str) -> Worker:
        runner = BlockingRunner(self.threads, self.time_scale)
        throttle = timedelta(milliseconds=20)
        return Worker(
            self.client,
            task_queue=queue,
            workflows=WORKFLOWS if queue == "control" else [],
            activities=activity_methods(self.world, runner),
            workflow_runner=self.runner,
            max_heartbeat_throttle_interval=throttle,
            default_heartbeat_throttle_interval=throttle,
            max_concurrent_activity_task_polls=1,
            max_concurrent_workflow_task_polls=2,
            graceful_shutdown_timeout=timedelta(seconds=5),
        )

    # -- machines ------------------------------------------------------------------------------------------------

    async def machine(
        self,
        name: str,
        phase: Phase = Phase.UNPROTECTED,
        *,
        is_reversed: bool = False,
        recovers: bool = True,
        **policy_changes: object,
    ) -> WorkflowHandle[Any, Any]:
        """Start a machine's workflow in a phase; one with recovery points runs at its source."""
        settings = policy(**policy_changes)
        existing = settings.initial_replication.method == "existing"
        forward = relationship(name, settings.frequency).model_copy(
            update={"recovers": recovers, "existing_replica": existing}
        )
        running_site = "recovery" if is_reversed else "primary"
        self.world.power[running_site, name] = PowerState.RUNNING
        if phase is not Phase.UNPROTECTED:
            self.world.new_point(name)
        state = MachineState(
            name=name,
            forward=forward,
            backward=forward.reversed("production", "isolated"),
            policy=settings,
            timings=self.timings,
            phase=phase,
            reversed=is_reversed,
        )
        handle = await self.client.start_workflow("Machine", state, id=machine_id(name), task_queue="control")
        self.roots.append(handle)
        return handle

    async def replicating(self, name: str, **changes: Any) -> WorkflowHandle[Any, Any]:
        """A protected machine whose steady-state replication has begun."""
        handle = await self.machine(name, Phase.PROTECTED, **changes)
        await self.until(lambda: bool(self.world.of("replicate_once", name)), f"{name} replicates")
        return handle

    async def state(self, name: str) -> MachineState:
        return await self.client.get_workflow_handle(machine_id(name)).query(
            "describe", result_type=MachineState, rpc_timeout=PATIENCE
        )

    async def ask(self, name: str, kind: JobKind, **wanted: Any) -> JobAccepted:
        wanted = {"id": uuid.uuid4().hex, "requested_by": "test", **wanted}
        request = JobRequest(kind=kind, **wanted)
        return await self.client.get_workflow_handle(machine_id(name)).execute_update(
            "request", request, result_type=JobAccepted, rpc_timeout=PATIENCE
        )

    async def job(self, name: str, kind: JobKind, **wanted: Any) -> JobRecord:
        """Ask for a job and wait until it has ended."""
        accepted = await self.ask(name, kind, **wanted)
        return await self.ended(name, accepted.job_id)

    async def halted(self, name: str) -> None:
        """Wait until replication has halted.

        A job asked for at the very moment in which an activity ends is more than the time-skipping server can take:
        it refuses the workflow's answer (``ACTIVITY_UNKNOWN``) again and again.
        """

        async def is_halted() -> bool:
            return (await self.state(name)).halted

        await self.until(is_halted, f"replication of {name} halts")

    async def ended(self, name: str, job_id: str) -> JobRecord:
        found: list[JobRecord] = []

        async def over() -> bool:
            state = await self.state(name)
            found[:] = [job for job in state.jobs if job.id == job_id and not job.is_open]
            return bool(found)

        await self.until(over, f"{job_id} ends")
        return found[0]

    async def phase(self, name: str, wanted: Phase) -> MachineState:
        async def there() -> bool:
            return (await self.state(name)).phase is wanted

        await self.until(there, f"{name} becomes {wanted}")
        return await self.state(name)

    async def cancel_job(self, job_id: str) -> None:
        """Through Temporal; its activity is told of it."""
        await self.client.get_workflow_handle(job_id).cancel()
        await self.told_to_end(job_id)

    async def told_to_end(self, job_id: str) -> None:
        await self.recorded(job_id, EventType.EVENT_TYPE_ACTIVITY_TASK_CANCEL_REQUESTED)

    async def recorded(self, workflow_id: str, event: EventType.ValueType) -> None:
        """Wait until a workflow's history has an event."""

        async def is_recorded() -> bool:
            history = await self.client.get_workflow_handle(workflow_id).fetch_history()
            return any(one.event_type == event for one in history.events)

        await self.until(is_recorded, f"{workflow_id} has {EventType.Name(event)}")

    # -- plans ---------------------------------------------------------------------------------------------------

    async def plan(self, plan: Plan, run_type: str, **wanted: Any) -> WorkflowHandle[Any, RunStatus]:
        request = PlanRequest.model_validate(
            {
                "plan": plan,
                "run_id": uuid.uuid4().hex,
                "run_type": run_type,
                "requested_by": "test",
                "timings": self.timings,
                **wanted,
            }
        )
        handle = await self.client.start_workflow(
            "PlanRun",
            request,
            id=plan_id(plan.name),
            task_queue="control",
            result_type=RunStatus,
            search_attributes=attributes(plan=plan.name, run_type=run_type),
        )
        self.roots.append(handle)
        return handle

    async def status(self, handle: WorkflowHandle[Any, Any]) -> RunStatus:
        return await handle.query("status", result_type=RunStatus, rpc_timeout=PATIENCE)

    async def row(self, handle: WorkflowHandle[Any, Any], row_id: str, *states: str) -> StepRow:
        """Wait until a row is in one of the states."""
        found: list[StepRow] = []

        async def there() -> bool:
            stages = (await self.status(handle)).stages
            found[:] = [row for stage in stages for row in stage.steps if row.id == row_id and row.state in states]
            return bool(found)

        await self.until(there, f"row '{row_id}' is {' or '.join(states)}")
        return found[0]

    async def steer(self, handle: WorkflowHandle[Any, Any], action: str, step: str) -> Decision:
        steer = Steer.model_validate({"action": action, "step": step, "by": "ada", "note": "seen"})
        return await handle.execute_update("steer", steer, result_type=Decision, rpc_timeout=PATIENCE)

    async def cancel(self, handle: WorkflowHandle[Any, Any]) -> Decision:
        return await handle.execute_update(
            "cancel", Cancel(by="ada", note="wrong day"), result_type=Decision, rpc_timeout=PATIENCE
        )

    async def run_ends(self, handle: WorkflowHandle[Any, RunStatus]) -> RunStatus:
        """Wait for the run without skipping time."""

        async def over() -> bool:
            return (await self.status(handle)).finished is not None

        await self.until(over, "the run ends")
        return await self.status(handle)

    # -- time ----------------------------------------------------------------------------------------------------

    async def now(self) -> datetime:
        return await self.env.get_current_time()

    async def skip(self, **how_long: float) -> None:
        """Let time pass at once. Only while no activity runs: the server's clock waits for activities."""
        await self.env.sleep(timedelta(**how_long))

    @asynccontextmanager
    async def time_flies(self) -> AsyncIterator[None]:
        """The clock jumps from timer to timer whenever no activity runs."""
        await self.client.test_service.unlock_time_skipping(UnlockTimeSkippingRequest())
        try:
            yield
        finally:
            await self.client.test_service.lock_time_skipping(LockTimeSkippingRequest())

    async def until(self, condition: Callable[[], Any], what: str) -> None:
        """Poll in real time."""
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while True:
            answer = condition()
            if asyncio.iscoroutine(answer):
                answer = await answer
            if answer:
                return
            if asyncio.get_running_loop().time() > deadline:
                stand = "\n".join(map(last_events, await self.histories()))
                pytest.fail(f"in {PATIENCE_S} s it did not happen that {what}\n{stand}")
            await asyncio.sleep(0.02)

    # -- the end -------------------------------------------------------------------------------------------------

    async def histories(self) -> list[WorkflowHistory]:
        """Of everything this test started, children and continued runs too (the server cannot list workflows)."""
        found: dict[str, WorkflowHistory] = {}
        to_read = [(root.id, root.first_execution_run_id) for root in self.roots]
        while to_read:
            workflow_id, run_id = to_read.pop()
            if run_id in found:
                continue
            history = await self.client.get_workflow_handle(workflow_id, run_id=run_id).fetch_history()
            found[run_id or ""] = history
            to_read += [(workflow_id, next_run) for next_run in continued_as(history)] + children(history)
        return list(found.values())

    async def end(self) -> None:
        """Stop everything; then today's code must be able to replay every history of the test."""
        self.world.open_gates()
        histories = await self.histories()
        for history in histories:
            if not is_closed(history):
                await self._terminate(history.workflow_id)
        await self.stop_work(*list(self.workers))
        if self.replays:
            await replay(histories)

    async def _terminate(self, workflow_id: str) -> None:
        try:
            await self.client.get_workflow_handle(workflow_id).terminate()
        except RPCError as gone:
            if gone.status is not RPCStatusCode.NOT_FOUND:
                raise


def children(history: WorkflowHistory) -> list[tuple[str, str]]:
    started = [event.child_workflow_execution_started_event_attributes for event in history.events]
    return [
        (one.workflow_execution.workflow_id, one.workflow_execution.run_id) for one in started if one.workflow_type.name
    ]


def continued_as(history: WorkflowHistory) -> list[str]:
    continued = [event.workflow_execution_continued_as_new_event_attributes for event in history.events]
    return [one.new_execution_run_id for one in continued if one.new_execution_run_id]


def is_closed(history: WorkflowHistory) -> bool:
    last = EventType.Name(history.events[-1].event_type)
    return last.startswith("EVENT_TYPE_WORKFLOW_EXECUTION_") and not last.endswith(("SIGNALED", "STARTED", "REQUESTED"))


def last_events(history: WorkflowHistory, count: int = 12) -> str:
    """For whoever reads why a test waited in vain."""
    names = [EventType.Name(event.event_type).removeprefix("EVENT_TYPE_") for event in history.events]
    failure = history.events[-1].workflow_execution_failed_event_attributes.failure
    why = f" ({failure.message})" if failure.message else ""
    return f"  {history.workflow_id}: {len(names)} events, the last: {' '.join(names[-count:])}{why}"


async def replay(histories: Sequence[WorkflowHistory], runner: WorkflowRunner | None = None) -> None:
    replayer = Replayer(
        workflows=WORKFLOWS,
        data_converter=pydantic_data_converter,
        workflow_runner=runner or UnsandboxedWorkflowRunner(),
    )
    for history in histories:
        await replayer.replay_workflow(history)


def activity_methods(world: World, runner: BlockingRunner) -> list[Any]:
    kinds = (ProtectionActivities, MachineActivities, TestingActivities, StepActivities)
    holders: list[Any] = [kind(world, runner) for kind in kinds]  # type: ignore[arg-type]
    holders += [RunActivities(), ScheduleActivities()]
    return [
        method
        for holder in holders
        for name in dir(holder)
        if hasattr(method := getattr(holder, name), "__temporal_activity_definition")
    ]


async def _server(real: bool) -> WorkflowEnvironment:
    if real:
        return await WorkflowEnvironment.start_local(
            dev_server_existing_path=str(REAL_SERVER),
            data_converter=pydantic_data_converter,
            dev_server_log_level="error",
        )
    return await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=str(SERVER), data_converter=pydantic_data_converter
    )


@asynccontextmanager
async def open_house(
    monkeypatch: pytest.MonkeyPatch,
    *,
    without: Sequence[str] = (),
    time_scale: float = 1.0,
    runner: WorkflowRunner | None = None,
    real_server: bool = False,
    **timings: float,
) -> AsyncIterator[House]:
    """The harness, opened.

    Args:
        without: queues that nobody polls.
        runner: without a sandbox when None, which is much quicker; some tests and all stored histories run in it.
        real_server: time cannot be skipped there, but it tells parents and children of each other's termination.
    """
    monkeypatch.setattr("activities.running.HEARTBEATS_PER_TIMEOUT", 600)  # told to end, an activity hears it at once
    async with await _server(real_server) as env:
        with ThreadPoolExecutor(32) as threads:
            await env.client.operator_service.add_search_attributes(
                AddSearchAttributesRequest(
                    namespace=env.client.namespace,
                    search_attributes={key.name: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD for key in ALL},
                )
            )
            opened = House(env, World(), Timings(**timings), time_scale, runner or UnsandboxedWorkflowRunner(), threads)
            for queue in QUEUES:
                if queue not in without:
                    await opened.work(queue)
            with nothing_dies_unheard():
                try:
                    yield opened
                finally:
                    await opened.end()


@contextmanager
def nothing_dies_unheard() -> Iterator[None]:
    """A task of a workflow that ends by an error which nobody awaits stops what it did for good, without a word."""
    heard = Unheard()
    logger = logging.getLogger("temporalio.worker")
    logger.addHandler(heard)
    try:
        yield
        gc.collect()  # asyncio tells of it when the task is dropped
    finally:
        logger.removeHandler(heard)
    assert not heard.told, "\n".join(heard.told)


class Unheard(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "never retrieved" in record.getMessage():
            self.told.append(logging.Formatter().format(record))
