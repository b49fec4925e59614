"""The network is cut at every WinRM request of a planned failover, its commit and its reversal, in turn.

Each round is a whole one, alternately there and back, with one cut: before the host saw the request, or after it did
what was asked and its answer was lost. What is recoverable is done again, as a worker does. Nothing may be lost, and
never may two copies run.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Callable
from typing import TypeVar

import pytest
from small_fabric import FAR_HOST, HOST, SmallFabric, quiet

from adapters.hyperv.states import ReplicationMode as Mode
from adapters.hyperv.states import ReplicationState as State
from adapters.hyperv.states import VmState
from simulation.winrm.server import Cut, Disturbance
from vault.domain import PowerState, Relationship
from vault.errors import Recoverable

pytestmark = pytest.mark.contract
CUTS = int(os.environ.get("LEEWARD_TEST_CUTS", "4"))
SEED = int(os.environ.get("LEEWARD_TEST_SEED", "1"))
TRIES = 5
Answer = TypeVar("Answer")


class CutAt:
    """Cuts one request of all that a fabric's hosts get, counted from when it was made."""

    def __init__(self, small: SmallFabric, at: int | None, cut: Cut) -> None:
        self._at, self._cut = at, cut
        self._numbers = itertools.count(1)
        self.seen = 0
        self.verb = ""
        for server in small.hosts.servers.values():
            server.disturb = self

    def __call__(self, _: int, verb: str) -> Disturbance | None:
        self.seen = next(self._numbers)
        if self.seen != self._at:
            return None
        self.verb = verb
        return self._cut


def again(call: Callable[[], Answer]) -> Answer:
    """As an activity is repeated; what is not recoverable is raised."""
    for _ in range(TRIES):
        try:
            return call()
        except Recoverable:
            time.sleep(0.05)
    return call()


def time_passes(small: SmallFabric) -> None:
    """Hosts end idle remote shells, those too that a cut left behind, which would count against the quota."""
    for server in small.hosts.servers.values():
        server.shells.reboot()


def change_sides(small: SmallFabric, way: Relationship, back: Relationship) -> None:
    provider = small.provider
    source, target = (small.east, small.west) if way.source_site == "east" else (small.west, small.east)
    assert again(lambda: source.shut_down("db", 20, quiet)) is PowerState.OFF
    point = again(lambda: provider.send_last_changes(way, quiet))
    again(lambda: provider.fail_over(way, point.id, quiet))
    again(lambda: target.start("db"))
    found = again(lambda: target.wait_until_answering("db", 20, quiet)).transactions
    assert found is not None
    assert (found.lost, found.damaged) == (0, 0)
    assert found.held_at_boot == found.acknowledged_at_boot > 0
    again(lambda: provider.commit(way, point.id))
    again(lambda: provider.prepare_reverse(back))
    again(lambda: provider.enable(back))
    again(lambda: provider.copy_initial(back, quiet))


def test_a_cut_anywhere_in_a_planned_failover_loses_nothing(small: SmallFabric) -> None:
    small.protect()
    time_passes(small)
    undisturbed = CutAt(small, None, Cut.BEFORE)
    change_sides(small, small.forward, small.backward)
    requests = undisturbed.seen
    places = [(number, cut) for number in range(1, requests + 1) for cut in (Cut.BEFORE, Cut.AFTER)]
    dice = random.Random(SEED)
    chosen = places if len(places) <= CUTS else sorted(dice.sample(places, CUTS), key=lambda place: place[0])
    way, back = small.backward, small.forward
    made = 0
    for number, cut in chosen:
        time_passes(small)
        cutting = CutAt(small, number, cut)
        change_sides(small, way, back)
        made += bool(cutting.verb)
        ends = {host: small.vm(host) for host in (HOST, FAR_HOST)}
        now, before = (FAR_HOST, HOST) if way.target_site == "west" else (HOST, FAR_HOST)
        where = f"cut {cut.name} request {number} ({cutting.verb})"
        assert (ends[now].mode, ends[before].mode) == (Mode.PRIMARY, Mode.REPLICA), where
        assert (ends[now].state, ends[before].state) == (State.REPLICATING, State.REPLICATING), where
        running = [
            host
            for host, vm in ends.items()
            if small.fabric.power(small.fabric.state.hosts[host], vm) is VmState.RUNNING
        ]
        assert running == [now], where
        way, back = back, way
    print(f"{made} of {len(places)} places cut, seed {SEED}")
    assert made >= 0.75 * len(chosen), "a round makes fewer requests than the first one did"
