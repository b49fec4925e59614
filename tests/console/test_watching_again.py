"""Watching outlives Temporal's absence: the run does, too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from lab_support import make_inventory
from temporalio.client import Client

from console.client import Leeward
from console.following import follow
from console.holding import all_with_what_holds
from console.output import Output
from vault.errors import NotFound, Unreachable
from workflows.model import RunStatus, StageRow, StepRow, Timings

pytestmark = pytest.mark.unit

STEP = StepRow(id="recover all/db", kind="machine", name="db", machine="db", state="running")
RUNNING = RunStatus(
    plan="shop",
    run_id="r1",
    run_type="test",
    state="running",
    direction="primary-to-recovery",
    requested_by="olga",
    started=datetime(2026, 3, 14, tzinfo=UTC),
    stages=[StageRow(id="recover all", title="recover all", state="running", steps=[STEP])],
)
FINISHED = RUNNING.model_copy(update={"state": "completed", "finished": datetime(2026, 3, 14, 1, tzinfo=UTC)})
GONE = Unreachable("Temporal does not answer")


async def watched(monkeypatch: pytest.MonkeyPatch, *answers: RunStatus | Exception) -> tuple[list[str], list[str]]:
    """The states that were shown, and what was told of Temporal's absence."""
    monkeypatch.setattr("console.plan_runs.LOOK_EVERY_S", 0.001)
    left = list(answers)

    async def run_status(plan: str) -> RunStatus:
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def machine_status(machine: str) -> None:
        raise GONE

    leeward = Leeward(await Client.connect("127.0.0.1:1", lazy=True), make_inventory(), Timings())
    monkeypatch.setattr(leeward, "run_status", run_status)
    monkeypatch.setattr(leeward, "machine_status", machine_status)
    told: list[str] = []
    seen = leeward.watch("shop", lost=told.append)
    return [status.state async for status in all_with_what_holds(leeward, seen)], told


async def test_it_goes_on_when_temporal_is_back_and_tells_each_loss_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, told = await watched(monkeypatch, RUNNING, GONE, GONE, RUNNING, GONE, FINISHED)
    assert shown == ["running", "running", "completed"]
    assert told == ["Temporal does not answer"] * 2


async def test_without_temporal_it_does_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unreachable):
        await watched(monkeypatch, GONE, RUNNING)


async def test_a_run_that_is_gone_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFound):
        await watched(monkeypatch, RUNNING, NotFound("no run of plan 'shop' is known here"))


async def test_ctrl_c_says_how_to_watch_it_again(capsys: pytest.CaptureFixture[str]) -> None:
    begun = asyncio.Event()

    class Engine:
        async def watch(self, plan: str, *, auto_approve: bool, lost: object) -> AsyncIterator[RunStatus]:
            begun.set()
            await asyncio.Event().wait()
            yield RUNNING

    watching = asyncio.create_task(follow(Engine(), "shop", Output()))  # type: ignore[arg-type]
    await begun.wait()
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    assert capsys.readouterr().err == (
        "warning: the run goes on; watch it again with: leeward plan watch shop, end it with: leeward plan cancel "
        "shop\n"
    )
