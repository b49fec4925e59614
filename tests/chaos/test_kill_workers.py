"""``kill -9`` at random moments of planned failovers: every run completes by itself, and nothing is lost."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest
from engine_support import House, open_house, results_of

from vault.lifecycle import Phase
from workers.engine_file import is_alive
from workflows.model import RunStatus

pytestmark = pytest.mark.chaos

KILLED_WORKERS = 30
KILLED_SERVERS = 5
AFTER_START_S = 3.5
"""The first kill comes at most so long after the start of a run: about as long as an undisturbed failover takes."""
BETWEEN_KILLS_S = 4.0
RUN_WITHIN_S = 90
WITHOUT_OPERATOR = {"commit": "automatic", "reverse_replication": "automatic"}


class Kill(NamedTuple):
    name: str
    at: datetime


@asynccontextmanager
async def killing(house: House, victims: list[str], chance: random.Random) -> AsyncIterator[list[Kill]]:
    """Kills one of ``victims`` at random moments while the context is open."""
    kills: list[Kill] = []

    async def work() -> None:
        await asyncio.sleep(chance.uniform(0, AFTER_START_S))
        while True:
            name = chance.choice(victims)
            process = house.running_engine.processes.get(name)
            if process is not None and is_alive(process):
                house.kill(name)
                kills.append(Kill(name, datetime.now(UTC)))
            await asyncio.sleep(chance.uniform(0.2, BETWEEN_KILLS_S))

    task = asyncio.create_task(work())
    try:
        yield kills
    finally:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()


def of_the_failover(kills: list[Kill], status: RunStatus) -> list[str]:
    """For each kill before the last machine was recovered: the stage that was under way, and who was killed."""
    found = []
    for kill in kills:
        under_way = [
            stage.title
            for stage in status.stages
            if stage.started and stage.finished and stage.started <= kill.at
        ]
        if not any(title.startswith(("commit", "reverse")) for title in under_way):
            found.append(f"{under_way[-1] if under_way else 'start'}: {kill.name}")
    return found


async def failovers_under_fire(house: House, victims: list[str], enough: int, seed: int) -> None:
    """Fail over and back until ``enough`` kills hit a failover."""
    chance, hits, runs = random.Random(seed), Counter[str](), 0
    began = time.monotonic()
    await house.protect_all()
    while hits.total() < enough:
        await house.wait_for_transactions(10)
        run_type = "failback" if (await house.state(house.machines[0])).reversed else "planned"
        async with killing(house, victims, chance) as kills:
            status = await house.finished_run(run_type, within_s=RUN_WITHIN_S)
        assert status.state == "completed", f"{run_type} {status.state}: {status.message}"
        for machine, result in results_of(status).items():
            assert result.trouble is None, f"{machine}: {result.trouble}"
        hits.update(of_the_failover(kills, status))
        runs += 1
        house.assert_nothing_lost()
        for machine in house.machines:
            state = await house.state(machine)
            assert (state.phase, state.health.level) == (Phase.PROTECTED, "ok")
    acknowledged = house.assert_nothing_lost()
    took = time.monotonic() - began
    print(f"{runs} runs, {hits.total()} kills of {dict(hits)}, {acknowledged} acknowledged, 0 lost, {took:.0f} s")


def a_seed() -> int:
    """Printed, so that a failed test can be repeated: LEEWARD_CHAOS_SEED=… pytest."""
    seed = int(os.environ.get("LEEWARD_CHAOS_SEED", "") or random.SystemRandom().randrange(10**9))
    print(f"LEEWARD_CHAOS_SEED={seed}")
    return seed


async def test_workers_killed_at_random_moments_of_planned_failovers(tmp_path: Path) -> None:
    with open_house(tmp_path, plan=WITHOUT_OPERATOR) as house:
        workers = [name for name in house.running_engine.processes if name != "temporal"]
        assert len(workers) == 3
        await failovers_under_fire(house, workers, KILLED_WORKERS, a_seed())


async def test_temporal_killed_at_random_moments_of_planned_failovers(tmp_path: Path) -> None:
    with open_house(tmp_path, plan=WITHOUT_OPERATOR) as house:
        await failovers_under_fire(house, ["temporal"], KILLED_SERVERS, a_seed())
