"""A job that lets replication come to its end first waits no heartbeat for that."""

from __future__ import annotations

import asyncio

import pytest
from house import House

from activities.turns import Turns
from vault.lifecycle import JobKind, Phase

pytestmark = pytest.mark.workflow

BEATS = "activities.running.HEARTBEATS_PER_TIMEOUT"


@pytest.mark.parametrize("kind", [JobKind.RESYNCHRONIZE, JobKind.DISABLE])
async def test_replication_that_waits_for_its_next_cut_ends_at_once(
    house: House, monkeypatch: pytest.MonkeyPatch, kind: JobKind
) -> None:
    monkeypatch.setattr(BEATS, 4)  # as for real: of the cancellation it would hear after 75 s
    machine = await house.replicating("db", frequency="15m")
    if kind is JobKind.DISABLE:
        await house.ask("db", kind)
        await asyncio.wait_for(machine.result(), 120)
        return
    assert (await house.job("db", kind)).state == "done"
    assert (await house.state("db")).phase is Phase.PROTECTED


async def test_a_process_that_does_not_replicate_the_machine_leaves_it_to_the_heartbeat(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(Turns, "make_way", lambda _, machine: asked.append(machine))
    await house.replicating("db")
    assert (await house.job("db", JobKind.RESYNCHRONIZE)).state == "done"
    assert asked == ["db"]


async def test_a_site_that_is_silent_is_asked_for_a_moment_only(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workflows.machine_replication.ASKED_FOR_AT_MOST_S", 0.3)
    await house.replicating("db", frequency="15m")
    await house.stop_work("replication.primary")
    accepted = await house.ask("db", JobKind.RESYNCHRONIZE)
    await asyncio.sleep(1)
    await house.work("replication.primary")
    assert (await house.ended("db", accepted.job_id)).state == "done"
