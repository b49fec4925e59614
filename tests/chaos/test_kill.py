"""``kill -9`` at random moments of planned failovers: every run completes by itself, and nothing is lost."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
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

WORKER_KILLS, SERVER_KILLS = 30, 5
KILLS_IN_A_RUN = 5
FIRST_KILL_WITHIN_S = 3.5
"""About as long as an undisturbed failover takes."""
BETWEEN_KILLS_S = 3.0
RUN_WITHIN_S = 90
WITHOUT_OPERATOR = {"commit": "automatic", "reverse_replication": "automatic"}
SERVER = "temporal"


class Kill(NamedTuple):
    name: str
    at: datetime


async def test_workers_and_server_killed_at_random_moments_of_planned_failovers(tmp_path: Path) -> None:
    seed = a_seed()
    chance, hits, runs, began = random.Random(seed), Counter[str](), 0, time.monotonic()
    with open_house(tmp_path, plan=WITHOUT_OPERATOR) as house:
        workers = [name for name in house.running_engine.processes if name != SERVER]
        assert len(workers) == 3
        victims = shuffled([*workers * 2, SERVER], chance)
        await house.protect_all()
        while count(hits, workers) < WORKER_KILLS or count(hits, [SERVER]) < SERVER_KILLS:
            hits.update(await failover_under_fire(house, victims, chance))
            runs += 1
        acknowledged = house.assert_nothing_lost()
    print(
        f"{runs} runs, {count(hits, workers)} workers and {count(hits, [SERVER])} servers killed in {dict(hits)}, "
        f"{acknowledged} transactions acknowledged, 0 lost, {time.monotonic() - began:.0f} s"
    )


async def failover_under_fire(house: House, victims: Iterator[str], chance: random.Random) -> list[str]:
    """One planned failover or failback with commit and reverse replication; the kills that hit the failover."""
    await house.wait_for_transactions(10)
    run_type = "failback" if (await house.state(house.machines[0])).reversed else "planned"
    async with killing(house, victims, chance) as kills:
        await house.start_run(run_type)
        status = await house.end_of_run(within_s=RUN_WITHIN_S)
    assert status.state == "completed", f"{run_type} {status.state}: {status.message}"
    for machine, result in results_of(status).items():
        assert result.trouble is None, f"{machine}: {result.trouble}"
    house.assert_nothing_lost()
    for machine in house.machines:
        state = await house.state(machine)
        assert (state.phase, state.health.level) == (Phase.PROTECTED, "ok"), f"{machine}: {state.health}"
    return of_the_failover(kills, status)


@asynccontextmanager
async def killing(house: House, victims: Iterator[str], chance: random.Random) -> AsyncIterator[list[Kill]]:
    """Kills some of ``victims`` at random moments while the context is open."""
    kills: list[Kill] = []

    async def work() -> None:
        await asyncio.sleep(chance.uniform(0, FIRST_KILL_WITHIN_S))
        while len(kills) < KILLS_IN_A_RUN:
            name = next(victims)
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
    """For each kill before the commit began: the stage that was under way, and who was killed."""
    found = []
    for kill in kills:
        begun = [stage.title for stage in status.stages if stage.started and stage.started <= kill.at]
        if not any(title.startswith(("commit", "reverse")) for title in begun):
            found.append(f"{begun[-1] if begun else 'start'}: {kill.name}")
    return found


def shuffled(deck: list[str], chance: random.Random) -> Iterator[str]:
    while True:
        yield from chance.sample(deck, len(deck))


def count(hits: Counter[str], names: list[str]) -> int:
    return sum(times for hit, times in hits.items() if hit.rpartition(": ")[2] in names)


def a_seed() -> int:
    """Printed, so that a failed test can be repeated: LEEWARD_CHAOS_SEED=… pytest."""
    seed = int(os.environ.get("LEEWARD_CHAOS_SEED", "") or random.SystemRandom().randrange(10**9))
    print(f"LEEWARD_CHAOS_SEED={seed}")
    return seed
