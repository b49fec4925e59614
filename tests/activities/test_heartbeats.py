"""How often a machine that waits for its next cut says that it lives: every time is a write for Temporal."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from temporalio.activity import ActivityCancellationDetails
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory
from temporalio.testing import ActivityEnvironment

from activities.contracts import ReplicationPulse
from activities.running import HEARTBEATS_PER_TIMEOUT, BlockingRunner
from vault.domain import Relationship
from workflows.machine_replication import LONGEST_SILENCE_S, longest_silence_s
from workflows.model import Timings

pytestmark = pytest.mark.unit

USUAL = Timings()


def machine(frequency_s: float) -> Relationship:
    return Relationship(
        machine="db",
        source_site="primary",
        target_site="recovery",
        target_network="production",
        test_network="isolated",
        frequency_s=frequency_s,
    )


@pytest.mark.parametrize(
    ("frequency_s", "silence_s"),
    [(30, USUAL.heartbeat_s), (300, 150.0), (3600, LONGEST_SILENCE_S)],
    ids=["as every activity", "half of its rhythm", "never longer"],
)
def test_a_slow_machine_may_be_silent_for_longer(frequency_s: float, silence_s: float) -> None:
    assert longest_silence_s(machine(frequency_s), USUAL) == silence_s


def test_a_pause_beats_a_few_times_in_each_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("activities.running.LONGEST_HEARTBEAT_PAUSE_S", 0.01)
    timeout_s, beats = 0.4, list[ReplicationPulse]()
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, heartbeat_timeout=timedelta(seconds=timeout_s))
    environment.on_heartbeat = beats.append
    with ThreadPoolExecutor(1) as threads:
        asyncio.run(environment.run(BlockingRunner(threads).pause, timeout_s, ReplicationPulse()))
    assert HEARTBEATS_PER_TIMEOUT <= len(beats) <= HEARTBEATS_PER_TIMEOUT + 1


@pytest.mark.parametrize("how", ["pause", "run"])
def test_a_try_that_temporal_gave_up_is_no_cancellation(how: str) -> None:
    """As after an outage of Temporal: nobody asked for an end, and the log holds no traceback of it."""

    async def ended(why: ActivityCancellationDetails) -> None:
        environment = ActivityEnvironment()
        environment.info = replace(environment.info, heartbeat_timeout=timedelta(seconds=0.4))
        with ThreadPoolExecutor(1) as threads:
            runner = BlockingRunner(threads)
            asyncio.get_running_loop().call_later(0.05, environment.cancel, why)
            if how == "pause":
                await environment.run(runner.pause, 60, ReplicationPulse())
            else:
                await environment.run(runner.run, lambda running: running.wait(60))

    with pytest.raises(ApplicationError, match="another one goes on") as raised:
        asyncio.run(ended(ActivityCancellationDetails(timed_out=True)))
    assert raised.value.category is ApplicationErrorCategory.BENIGN
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(ended(ActivityCancellationDetails(cancel_requested=True)))
