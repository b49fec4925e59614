"""After a failover without proof the old copy is kept off production until it is taken over (requirements §E)."""

from __future__ import annotations

import asyncio

import pytest
from house import House, open_house

from vault.domain import PowerState
from vault.errors import AuthenticationRefused, Unreachable
from vault.lifecycle import JobKind, Phase
from workflows.model import MachineState

pytestmark = pytest.mark.workflow

GONE = Unreachable("no answer", remedy="check the link")
OFTEN = 0.05


async def failed_over_without_proof(house: House) -> MachineState:
    await house.replicating("db")
    house.world.always("shut_down", "db", GONE)
    house.world.always("describe", "db", GONE)
    house.world.set_power("primary", "db", PowerState.OFF)
    assert (await house.job("db", JobKind.UNPLANNED_FAILOVER, source_unreachable=True)).state == "done"
    return await house.state("db")


async def comes_back(house: House) -> None:
    """The host is there again, and has started its copy."""
    house.world.always("shut_down", "db", None)
    house.world.set_power("primary", "db", PowerState.RUNNING)
    house.world.always("describe", "db", None)


async def stopped(house: House, times: int) -> MachineState:
    async def so_often() -> bool:
        old = (await house.state("db")).old_copy
        return old is not None and old.stopped == times

    await house.until(so_often, f"the old copy was stopped {times} times")
    return await house.state("db")


async def test_a_copy_that_comes_back_is_powered_off_each_time_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_house(monkeypatch, old_copy_s=OFTEN) as house:
        state = await failed_over_without_proof(house)
        assert state.old_copy is not None
        assert (state.phase, state.old_copy.site, state.health.level) == (Phase.COMMIT_PENDING, "primary", "ok")
        await house.until(lambda: len(house.world.of("describe")) > 3, "it is looked for while its host is dead")
        assert house.world.of("power_off") == []

        await comes_back(house)
        state = await stopped(house, 1)
        assert house.world.runs_at("db") == {"recovery"}
        assert [(call.name, call.site) for call in house.world.calls if call.name == "power_off"] == [
            ("power_off", "primary")
        ]
        assert state.health.level == "warning"
        assert "the old copy at primary ran again and was powered off" in state.health.reason
        assert state.story[0].what == (
            "the old copy of db at primary ran again, on network 'production', and was powered off"
        )

        assert (await house.job("db", JobKind.COMMIT)).state == "done"
        assert (await house.state("db")).health.level == "warning"
        await comes_back(house)
        state = await stopped(house, 2)
        assert "2 times so far" in state.health.reason
        assert house.world.runs_at("db") == {"recovery"}

        assert (await house.job("db", JobKind.REVERSE)).state == "done"
        state = await house.state("db")
        assert (state.old_copy, state.health.level, len(state.story)) == (None, "ok", 2)
        looks = len(house.world.of("describe"))
        await comes_back(house)
        await house.until(lambda: len(house.world.of("replicate_once")) > 1, "it replicates backwards")
        assert len(house.world.of("describe")) == looks


async def test_a_reversal_that_fails_leaves_the_watch_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_house(monkeypatch, old_copy_s=OFTEN) as house:
        await failed_over_without_proof(house)
        house.world.always("shut_down", "db", None)
        assert (await house.job("db", JobKind.COMMIT)).state == "done"
        house.world.script("prepare_reverse", "db", AuthenticationRefused("login refused"))
        assert (await house.job("db", JobKind.REVERSE)).state == "failed"
        await comes_back(house)
        await stopped(house, 1)
        assert house.world.runs_at("db") == {"recovery"}


async def test_a_copy_that_cannot_be_looked_at_is_critical_until_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_house(monkeypatch, old_copy_s=OFTEN) as house:
        await failed_over_without_proof(house)
        house.world.always("describe", "db", AuthenticationRefused("login refused", remedy="renew the password"))

        async def critical() -> bool:
            return (await house.state("db")).health.level == "critical"

        await house.until(critical, "the machine is critical")
        state = await house.state("db")
        assert state.health.reason == (
            "the old copy of db at primary may run beside the recovered one: login refused — renew the password"
        )
        assert state.story[-1].what == state.health.reason
        await comes_back(house)
        async with house.time_flies():
            state = await stopped(house, 1)
        assert state.health.level == "warning"


async def test_while_nobody_works_at_the_old_site_the_watch_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    dead = ("site.primary", "replication.primary")
    async with open_house(monkeypatch, without=dead, site_answer_s=0.5, old_copy_s=OFTEN) as house:
        handle = await house.machine("db", Phase.PROTECTED)
        await house.job("db", JobKind.UNPLANNED_FAILOVER, source_unreachable=True)
        await house.phase("db", Phase.COMMIT_PENDING)
        before = (await handle.describe()).history_length
        await asyncio.sleep(20 * OFTEN)
        assert (await handle.describe()).history_length == before
        await house.work("site.primary")
        await stopped(house, 1)
        assert house.world.runs_at("db") == {"recovery"}


async def test_a_source_that_was_seen_off_needs_no_watch(house: House) -> None:
    await house.replicating("db")
    await house.job("db", JobKind.UNPLANNED_FAILOVER)
    assert (await house.state("db")).old_copy is None
    assert house.world.of("describe") == []
