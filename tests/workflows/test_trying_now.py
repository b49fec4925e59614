"""``leeward resume`` of what waits for its next try: nobody has to sit out half an hour once the cause is mended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from time import monotonic

import pytest
from house import House, open_house
from lab_support import lab_machine, make_inventory

from console.client import Leeward
from console.machine_status import PendingActivity
from vault.domain import CacheFill
from vault.errors import Unreachable
from vault.lifecycle import JobKind, Phase

pytestmark = pytest.mark.workflow

GONE = Unreachable("no answer", remedy="check the link")
AT_ONCE_S = 45.0
"""Far from the minute after which it would have been tried by itself."""


@pytest.fixture
async def real(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    async with open_house(monkeypatch, real_server=True, heartbeat_s=4) as opened:
        yield opened


def operator(house: House) -> Leeward:
    return Leeward(house.client, make_inventory({"db": lab_machine()}), house.timings, operator="olga")


async def waiting(house: House, leeward: Leeward, name: str) -> PendingActivity:
    found: list[PendingActivity] = []

    async def does() -> bool:
        status = await leeward.machine_status("db")
        assert status is not None
        found[:] = [
            one
            for one in status.activities
            if one.name == name and (one.waits_for_its_try or (one.pulse is not None and one.pulse.waiting))
        ]
        return bool(found)

    await house.until(does, f"{name} waits for its next try")
    return found[0]


async def test_a_job_tries_now(real: House) -> None:
    leeward = operator(real)
    real.world.script("copy_initial", "db", GONE)
    await real.machine("db", Phase.ENABLED)
    assert (await leeward.resume_replication("db")).tried_now == []
    accepted = await real.ask("db", JobKind.INITIAL_REPLICATION)
    assert (await waiting(real, leeward, "copy_initial")).last_failure == "no answer — check the link"
    began = monotonic()
    assert (await leeward.resume_replication("db")).tried_now == ["copy_initial"]
    assert (await real.ended("db", accepted.job_id)).state == "done"
    assert monotonic() - began < AT_ONCE_S


@pytest.mark.parametrize("has_cache", [False, True])
async def test_replication_tries_now(real: House, has_cache: bool) -> None:
    leeward = operator(real)
    if has_cache:
        real.world.caches["db"] = CacheFill(cuts=1, bytes=10)
    real.world.script("replicate_once", "db", None, GONE, None, GONE)
    await real.machine("db", Phase.PROTECTED, frequency="50ms")
    for tries in (2, 4):
        await waiting(real, leeward, "replicate_deltas")
        began = monotonic()
        assert (await leeward.resume_replication("db")).tried_now == ["replicate_deltas"]
        await real.until(lambda tries=tries: len(real.world.of("replicate_once")) > tries, "it is tried")
        assert monotonic() - began < AT_ONCE_S
    assert (await real.state("db")).health.level == "ok"


async def test_changed_settings_hold_at_once(real: House) -> None:
    """Not once the turn ends, which lasts an hour."""
    handle = await real.replicating("db", frequency="1h")
    state, turns = await real.state("db"), len(real.world.of("replicate_once"))
    settings = {name: getattr(state, name) for name in ("name", "forward", "backward", "policy", "timings")}
    began = monotonic()
    oftener = settings | {"forward": state.forward.model_copy(update={"frequency_s": 0.05})}
    await handle.execute_update("configure", oftener)
    await real.until(lambda: len(real.world.of("replicate_once")) > turns + 1, "it replicates oftener")
    assert monotonic() - began < AT_ONCE_S
