"""While the target does not take changes, cuts go on by their rhythm, and sending is tried by the retry schedule."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

sys.path.append(str(Path(__file__).parents[1] / "workflows"))

from fakes import World

from activities.contracts import Replicate, ReplicationPulse, ReplicationStopped, Waiting
from activities.protection import ProtectionActivities
from activities.running import BlockingRunner
from console.cmd_machines import what_waits
from vault.domain import CacheFill, Relationship
from vault.errors import AuthenticationRefused, Damaged, NoSpace, ResynchronizationRequired, Unreachable

pytestmark = pytest.mark.unit

GONE = Unreachable("the link is down", where="site primary", remedy="repair the link")
FREQUENCY_S = 0.02
SECOND_A_MINUTE = 1 / 60 / 5
"""Time scale: the first retry comes after 0.2 s, the second after 0.4 s more."""
RELATIONSHIP = Relationship(
    machine="db",
    source_site="primary",
    target_site="recovery",
    target_network="production",
    test_network="isolated",
    frequency_s=FREQUENCY_S,
)


class Turn:
    """One run of the activity that replicates, with fakes below it."""

    def __init__(self) -> None:
        self.world = World()
        self.pulses: list[ReplicationPulse] = []
        self.threads = ThreadPoolExecutor(2)
        self.environment = ActivityEnvironment()
        self.environment.on_heartbeat = self.beat

    def beat(self, *details: object) -> None:
        self.pulses += [pulse for pulse in details if isinstance(pulse, ReplicationPulse)]

    @property
    def waited(self) -> list[Waiting]:
        return [pulse.waiting for pulse in self.pulses if pulse.waiting]

    def run(self, seconds: float) -> ReplicationStopped:
        activities = ProtectionActivities(self.world, BlockingRunner(self.threads, SECOND_A_MINUTE))  # type: ignore[arg-type]
        given = Replicate(relationship=RELATIONSHIP, run_for_s=seconds)
        return asyncio.run(self.environment.run(activities.replicate_deltas, given))


@pytest.fixture
def turn() -> Iterator[Turn]:
    turn = Turn()
    yield turn
    turn.threads.shutdown()


@pytest.mark.parametrize("error", [GONE, NoSpace("the target is full", remedy="make space")])
def test_cuts_go_on_while_sending_waits_for_its_next_try(turn: Turn, error: Exception) -> None:
    turn.world.caches["db"] = CacheFill(cuts=3, bytes=1000, site_bytes=2000, site_limit=4000)
    turn.world.script("replicate_once", "db", None, error, error)
    stopped = turn.run(0.9)
    assert stopped.reason == "time-is-up"
    sent, kept = turn.world.of("replicate_once", "db"), turn.world.of("keep_changes", "db")
    first_sent_again = turn.world.names().index("replicate_once", 3)
    assert first_sent_again - 2 >= 4, f"cuts waited for the next try to send: {turn.world.names()}"
    assert len(kept) > 10
    assert len(sent) > 3, "the third try succeeded, and replication went on"
    assert {waiting.failures for waiting in turn.waited} == {1, 2}
    assert {waiting.reason for waiting in turn.waited} == {str(error)}
    assert turn.waited[-1].cache.cuts == 3
    assert turn.pulses[-1].waiting is None


def test_without_a_cache_temporal_tries_again(turn: Turn) -> None:
    turn.world.script("replicate_once", "db", GONE)
    with pytest.raises(ApplicationError, match="the link is down") as failed:
        turn.run(5)
    assert failed.value.next_retry_delay is not None
    assert not failed.value.non_retryable


def test_what_waiting_cannot_cure_is_not_kept_back(turn: Turn) -> None:
    turn.world.caches["db"] = CacheFill()
    turn.world.script("replicate_once", "db", AuthenticationRefused("the certificate expired"))
    with pytest.raises(ApplicationError) as failed:
        turn.run(5)
    assert failed.value.non_retryable
    assert not turn.world.of("keep_changes", "db")


def test_a_source_that_cannot_be_cut_either_fails_the_activity(turn: Turn) -> None:
    turn.world.caches["db"] = CacheFill()
    turn.world.script("replicate_once", "db", GONE)
    turn.world.script("keep_changes", "db", Unreachable("the host is dead"))
    with pytest.raises(ApplicationError, match="the host is dead"):
        turn.run(5)


def test_a_source_that_lost_track_while_the_link_was_down_needs_a_resynchronization(turn: Turn) -> None:
    turn.world.caches["db"] = CacheFill()
    turn.world.script("replicate_once", "db", GONE)
    turn.world.script("keep_changes", "db", None, ResynchronizationRequired("the logs grew too large"))
    stopped = turn.run(5)
    assert (stopped.reason, stopped.detail) == ("resync-required", "the logs grew too large")


def test_damage_asks_for_a_resynchronization(turn: Turn) -> None:
    """Of a stored block at either side: what is missing is what a comparison finds."""
    turn.world.script("replicate_once", "db", None, Damaged("a frame does not match its checksum", where="2-os.seg"))
    stopped = turn.run(5)
    assert stopped.reason == "resync-required"
    assert stopped.detail == "2-os.seg: a frame does not match its checksum"


def test_status_says_that_the_cache_is_full() -> None:
    said = what_waits(CacheFill(cuts=12, bytes=3 << 20, site_bytes=1 << 30, site_limit=1 << 30, full=True))
    assert said == "12 cuts, 3.0 MiB wait, 100% of the cache used; cache full: newer changes stay in the change log"
