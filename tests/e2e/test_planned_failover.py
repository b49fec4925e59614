"""Planned failover and failback under write load: nothing acknowledged is ever lost."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import pytest
from engine_support import AWAY, HOME, House, open_house

from vault.lifecycle import Phase

pytestmark = pytest.mark.e2e

ROUNDS = int(os.environ.get("LEEWARD_TEST_FAILOVERS", "10")) // 2
"""Each is a failover and a failback. Before a release there are 20 and more in a row (CONTRIBUTING.md)."""
WITHOUT_OPERATOR = {"commit": "automatic", "reverse_replication": "automatic"}


async def test_failovers_and_failbacks_in_a_row_lose_nothing(tmp_path: Path) -> None:
    with open_house(tmp_path, plan=WITHOUT_OPERATOR) as house:
        await house.protect_all()
        for number in range(ROUNDS):
            await move(house, "planned", AWAY, number)
            await move(house, "failback", HOME, number)
        acknowledged = house.assert_nothing_lost()
        print(f"{2 * ROUNDS} planned runs, {acknowledged} transactions acknowledged, 0 lost")


async def move(house: House, run_type: Literal["planned", "failback"], to: str, number: int) -> None:
    """One failover with commit and reverse replication, while clients write."""
    await house.wait_for_transactions(10)
    results = await house.completed_run(run_type)
    assert set(results) == set(house.machines)
    for machine, result in results.items():
        what = f"{run_type} {number} of {machine}: {result}"
        assert result.source_proven_off, what
        assert result.answering is not None, what
        assert result.answering.site == to, what
        found = result.answering.transactions
        assert found is not None, what
        assert found.acknowledged_at_boot == found.held_at_boot > 0, what
        assert (found.lost, found.damaged) == (0, 0), what
    for machine in house.machines:
        state = await house.state(machine)
        assert (state.phase, state.active_site, state.health.level) == (Phase.PROTECTED, to, "ok")
