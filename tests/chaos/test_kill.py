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
from engine_support import PLAN, House, open_house, results_of

from vault.domain import RunType
from vault.lifecycle import Phase
from workers.engine_file import is_alive
from workflows.model import RunStatus

pytestmark = pytest.mark.chaos

WORKER_KILLS = int(os.environ.get("LEEWARD_TEST_WORKER_KILLS", "10"))
SERVER_KILLS = max(1, WORKER_KILLS // 6)
"""Enough for every change; a release is tested with 30 and more (CONTRIBUTING.md)."""
MOST_KILLS_IN_A_RUN = 5
FIRST_KILL_WITHIN_S = 0.7
"""About as long as an undisturbed failover takes."""
PAUSE_S = (0.2, 2.0)
RUN_WITHIN_S = 120
SERVER = "temporal"


class Kill(NamedTuple):
    name: str
    at: datetime


async def test_workers_and_server_killed_at_random_moments_of_planned_failovers(tmp_path: Path) -> None:
    seed, began = a_seed(), time.monotonic()
    chance, hits, runs, others = random.Random(seed), Counter[str](), 0, 0
    with open_house(tmp_path) as house:
        workers = [name for name in house.running_engine.processes if name != SERVER]
        assert len(workers) == 3
        await house.protect_all()
        while deck := still_wanted(hits, workers):
            run_type: RunType = "failback" if runs % 2 else "planned"
            status, kills = await run_under_fire(house, run_type, shuffled(deck, chance), chance, MOST_KILLS_IN_A_RUN)
            hits.update(f"{stage_at(kill.at, status)}: {kill.name}" for kill in kills)
            assert_recovered(status)
            house.assert_nothing_lost()
            await run_under_fire(house, "commit", iter(()), chance, 0)
            _, kills = await run_under_fire(house, "reverse", shuffled(workers, chance), chance, 1)
            others += len(kills)
            for machine in house.machines:
                state = await house.persist(lambda machine=machine: house.state(machine))  # type: ignore[misc]
                assert (state.phase, state.health.level) == (Phase.PROTECTED, "ok"), f"{machine}: {state.health}"
            runs += 1
        acknowledged = house.assert_nothing_lost()
    servers = count(hits, [SERVER])
    print(
        f"{runs} failovers and failbacks, {hits.total() - servers} workers and {servers} servers killed in them, "
        f"{others} workers in reverse replications: {dict(hits)}; "
        f"{acknowledged} transactions acknowledged, 0 lost, {time.monotonic() - began:.0f} s"
    )


async def run_under_fire(
    house: House, run_type: RunType, victims: Iterator[str], chance: random.Random, most: int
) -> tuple[RunStatus, list[Kill]]:
    """A run that completes by itself although processes are killed; the kills that it survived."""
    await house.start_run_in_any_case(run_type, PLAN)
    async with killing(house, victims, chance, most) as kills:
        status = await house.end_of_run(within_s=RUN_WITHIN_S)
    assert status.state == "completed", f"{run_type} {status.state}: {status.message}"
    assert status.finished is not None
    return status, [kill for kill in kills if kill.at < status.finished]


@asynccontextmanager
async def killing(house: House, victims: Iterator[str], chance: random.Random, most: int) -> AsyncIterator[list[Kill]]:
    """Kills at most so many of ``victims`` at random moments while the context is open."""
    kills: list[Kill] = []

    async def work() -> None:
        await asyncio.sleep(chance.uniform(0, FIRST_KILL_WITHIN_S))
        while len(kills) < most:
            name = next(victims)
            process = house.running_engine.processes.get(name)
            if process is not None and is_alive(process):
                house.kill(name)
                kills.append(Kill(name, datetime.now(UTC)))
            await asyncio.sleep(chance.uniform(*PAUSE_S))

    task = asyncio.create_task(work())
    try:
        yield kills
    finally:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()


def assert_recovered(status: RunStatus) -> None:
    for machine, result in results_of(status).items():
        assert result.trouble is None, f"{machine}: {result.trouble}"
        assert result.answering is not None
        found = result.answering.transactions
        assert found is not None
        assert (found.lost, found.damaged) == (0, 0), f"{machine}: {found}"


def stage_at(moment: datetime, run: RunStatus) -> str:
    begun = [stage.title for stage in run.stages if stage.started and stage.started <= moment]
    return begun[-1] if begun else "start"


def still_wanted(hits: Counter[str], workers: list[str]) -> list[str]:
    """Victims for the next run: a server for six workers, until there were enough of a kind."""
    deck = workers * 2 if count(hits, workers) < WORKER_KILLS else []
    return [*deck, SERVER] if count(hits, [SERVER]) < SERVER_KILLS else deck


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
