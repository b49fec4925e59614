"""A try that Temporal gave to another worker changes nothing any more, however late it wakes up."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fakes import World
from house import House, open_house, relationship
from temporalio import activity, workflow
from temporalio.client import AsyncActivityCancelledError
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import ActivityEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker
from temporalio.workflow import ActivityCancellationType

from activities import contracts, standing
from activities.contracts import (
    ActivityCall,
    CommitPoint,
    EndTest,
    FailOver,
    OfRelationship,
    ShutDown,
    StartMachine,
    StartTest,
    WatchOldCopy,
)
from activities.machines import MachineActivities
from activities.protection import ProtectionActivities
from activities.running import BlockingRunner
from activities.standing import Ask, Standing, asking_temporal
from activities.testing import TestingActivities
from vault.domain import LATEST, PowerState, Value

pytestmark = pytest.mark.workflow

DB = relationship("db")
OF_DB = OfRelationship(relationship=DB)
CHANGES: dict[ActivityCall[Any, Any], Value] = {
    contracts.ENABLE: OF_DB,
    contracts.COPY_INITIAL: OF_DB,
    contracts.FINALIZE: OF_DB,
    contracts.RESYNCHRONIZE: OF_DB,
    contracts.SEND_LAST_CHANGES: OF_DB,
    contracts.FAIL_OVER: FailOver(relationship=DB, choice=LATEST),
    contracts.CANCEL_FAILOVER: OF_DB,
    contracts.COMMIT: CommitPoint(relationship=DB, point_id="db-p1"),
    contracts.PREPARE_REVERSE: OF_DB,
    contracts.RETIRE_REPLICA: OF_DB,
    contracts.DISABLE_SOURCE: OF_DB,
    contracts.DISABLE_TARGET: OF_DB,
    contracts.START_TEST: StartTest(relationship=DB, choice=LATEST, name="db-test"),
    contracts.END_TEST: EndTest(relationship=DB, name="db-test"),
    contracts.SHUT_DOWN: ShutDown(site="primary", machine="db", timeout_s=1),
    contracts.START_MACHINE: StartMachine(site="primary", machine="db", timeout_s=1),
    contracts.WATCH_OLD_COPY: WatchOldCopy(site="primary", machine="db", every_s=1, run_for_s=0),
}


def answering(error: Exception | None) -> Callable[[], Ask]:
    async def ask(_: Value | None) -> None:
        if error is not None:
            raise error

    return lambda: ask


GONE = RPCError("activity task not found", RPCStatusCode.NOT_FOUND, b"")
SILENT = RPCError("nobody there", RPCStatusCode.UNAVAILABLE, b"")


async def tried(world: World, call: ActivityCall[Any, Any], error: Exception | None) -> None:
    given: Any = world
    with ThreadPoolExecutor(1) as threads:
        runner = BlockingRunner(threads, asking=answering(error))
        holders = (kind(given, runner) for kind in (ProtectionActivities, MachineActivities, TestingActivities))
        methods = [getattr(holder, name) for holder in holders for name in dir(holder)]
        (method,) = (
            one
            for one in methods
            if getattr(one, "__temporal_activity_definition", None)
            and one.__temporal_activity_definition.name == call.name
        )
        environment = ActivityEnvironment()
        environment.info = replace(environment.info, heartbeat_timeout=timedelta(seconds=0.2))
        await environment.run(method, CHANGES[call])


@pytest.mark.parametrize("call", CHANGES, ids=lambda call: call.name)
@pytest.mark.parametrize("error", [GONE, SILENT], ids=["given up", "no answer"])
async def test_nothing_is_changed_by_a_try_that_temporal_does_not_count_on(
    call: ActivityCall[Any, Any], error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing, "ASK_AGAIN_S", 0.01)
    world = World()
    world.new_point("db")
    world.power["primary", "db"] = PowerState.RUNNING
    with pytest.raises(ApplicationError, match="another one goes on") as raised:
        await tried(world, call, error)
    assert raised.value.type == contracts.WORKER_LEAVING
    assert world.calls == []
    assert world.power == {("primary", "db"): PowerState.RUNNING}


@pytest.mark.parametrize("call", CHANGES, ids=lambda call: call.name)
async def test_what_it_counts_on_is_done(call: ActivityCall[Any, Any]) -> None:
    world = World()
    world.new_point("db")
    world.power["primary", "db"] = PowerState.RUNNING
    if call is contracts.SEND_LAST_CHANGES:
        world.power["primary", "db"] = PowerState.OFF
    await tried(world, call, None)
    assert world.calls


async def asked(ask: Ask, then: Callable[[Standing, threading.Event], bool], heartbeat_s: float = 0.4) -> bool:
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, heartbeat_timeout=timedelta(seconds=heartbeat_s))

    async def run() -> bool:
        found = Standing(ask)
        return await asyncio.to_thread(then, found, threading.Event())

    return await environment.run(run)


async def test_an_answer_holds_for_half_of_the_time_after_which_temporal_gives_a_try_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, asks = datetime.now(UTC).timestamp(), list[float]()
    monkeypatch.setattr(standing.time, "time", lambda: now)

    async def ask(_: Value | None) -> None:
        asks.append(now)

    def looks(found: Standing, stop: threading.Event) -> bool:
        nonlocal now
        for pause in (0, 10, 4, 2, 3600):
            now += pause
            assert found.holds(None, stop)
        return True

    began = now
    assert await asked(ask, looks, heartbeat_s=30)
    assert [at - began for at in asks] == [0, 16, 3616]


async def test_temporal_is_asked_again_while_its_time_is_not_over() -> None:
    errors = [SILENT, SILENT]

    async def ask(_: Value | None) -> None:
        if errors:
            raise errors.pop()

    assert await asked(ask, lambda found, stop: found.holds(None, stop), heartbeat_s=60)
    assert errors == []


async def test_a_call_that_was_told_to_stop_asks_nothing_more() -> None:
    def looks(found: Standing, stop: threading.Event) -> bool:
        stop.set()
        return found.holds(None, stop)

    assert not await asked(answering(SILENT)(), looks, heartbeat_s=60)
    assert not await asked(answering(AsyncActivityCancelledError())(), looks, heartbeat_s=60)


# -- the real server ----------------------------------------------------------------------------------------------

HEARTBEAT_S = 1.0


@workflow.defn
class Sleeping:
    @workflow.run
    async def run(self, name: str) -> None:
        await workflow.execute_activity(
            name,
            start_to_close_timeout=timedelta(minutes=1),
            heartbeat_timeout=timedelta(seconds=HEARTBEAT_S),
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=10)),
            cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )


@pytest.fixture
async def real(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    async with open_house(monkeypatch, real_server=True) as opened:
        yield opened


async def through_temporal(house: House, work: Callable[[], Awaitable[None]], cancel: asyncio.Event | None) -> None:
    queue = f"sleeping-{uuid.uuid4().hex}"

    @activity.defn(name="sleep")
    async def sleep() -> None:
        await work()

    async with Worker(
        house.client,
        task_queue=queue,
        workflows=[Sleeping],
        activities=[sleep],
        workflow_runner=UnsandboxedWorkflowRunner(),
    ):
        handle = await house.client.start_workflow(Sleeping.run, "sleep", id=queue, task_queue=queue)
        if cancel is not None:
            await asyncio.wait_for(cancel.wait(), 60)
            await handle.cancel()
        await asyncio.wait_for(handle.result(), 60)


async def uncancelled(work: Awaitable[Any]) -> Any:
    """Of a worker that hears nothing."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            continue
    return task.result()


async def test_temporal_tells_a_late_try_that_another_one_has_begun(real: House) -> None:
    second, first_is_over, found = asyncio.Event(), asyncio.Event(), list[bool]()

    async def work() -> None:
        if found:
            second.set()
            while not first_is_over.is_set():
                activity.heartbeat()
                await asyncio.sleep(0.1)
            return
        mine, stop = Standing(asking_temporal()), threading.Event()
        if not await uncancelled(asyncio.to_thread(mine.holds, None, stop)):
            return  # this process was so slow that Temporal had given it up already: the next one is the first
        found.append(True)
        await uncancelled(second.wait())
        found.append(await uncancelled(asyncio.to_thread(mine.holds, None, stop)))
        first_is_over.set()

    await through_temporal(real, work, None)
    assert found == [True, False]


async def test_temporal_tells_a_try_that_it_is_cancelled(real: House) -> None:
    begun, found = asyncio.Event(), list[int]()

    async def work() -> None:
        begun.set()
        stop = threading.Event()
        while await uncancelled(asyncio.to_thread(Standing(asking_temporal()).holds, None, stop)):
            await uncancelled(asyncio.sleep(0.05))
        found.append(activity.info().attempt)

    await through_temporal(real, work, begun)
    assert found
