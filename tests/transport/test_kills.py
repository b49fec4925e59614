"""Killed with SIGKILL at any moment: the process server with its cache, the master target; and the link cut."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import kill_roles
import pytest
import xxhash
from lab_support import AWAY, HOME, no_report
from transport_sites import Sites, until_reached

from adapters.lab.faults import Fault, SiteFaults
from replication.local import LocalReplicaStore
from vault.domain import RecoveryPoint
from vault.errors import NotFound

pytestmark = pytest.mark.chaos

KILLS = int(os.environ.get("LEEWARD_TEST_KILLS", "30"))
SEED = int(os.environ.get("LEEWARD_TEST_SEED", "1"))
DISKS = {"system": "4MiB", "data": "4MiB"}
WRITTEN = 1 << 19
"""Of each disk: so the change logs stay far from half of it."""
KEEP_POINTS = 8
forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload(["pytest", "kill_roles"])
"""Imports what both need once, and forks them from it; it ends with this process."""


class Victims:
    """Both processes, the disks that are written meanwhile, and what those have held so far."""

    def __init__(self, sites: Sites, rng: random.Random) -> None:
        self.sites = sites
        self.rng = rng
        self.link = SiteFaults(sites.lab.root, HOME)
        self.states: set[str] = set()
        """Of all disks together, after each write: a recovery point holds one of them."""
        self.seen: dict[str, str] = {}
        self.cached = 0
        self.running: dict[str, multiprocessing.process.BaseProcess] = {}

    def start(self, name: str) -> None:
        vault, data = self.sites.vault, self.sites.data
        target, arguments = {
            "master target": (kill_roles.run_master_target, (AWAY, vault, data)),
            "process server": (kill_roles.run_process_server, (vault, data, KEEP_POINTS)),
        }[name]
        self.running[name] = forks.Process(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self.running[name].start()

    def kill(self, name: str) -> None:
        process = self.running.pop(name)
        assert process.is_alive(), f"the {name} ended by itself with {process.exitcode}"
        process.kill()
        process.join()

    def write(self) -> None:
        disk = self.rng.choice(list(DISKS))
        length = self.rng.choice([512, 4096, 60_000])
        self.sites.write(disk, self.rng.randrange(WRITTEN - length), self.rng.randbytes(length))
        self.states.add(self.state())

    def state(self) -> str:
        return digest(self.sites.image(disk) for disk in DISKS)

    def replica(self) -> LocalReplicaStore:
        return self.sites.lab.site(AWAY).store_in_files("db")

    def check(self, before: list[RecoveryPoint]) -> list[RecoveryPoint]:
        """Those of before are there, as far as newer ones have not replaced them; each holds what the source held.

        Of those that were looked at before only the oldest is read again, which merges and restarts have touched most.
        """
        points = self.replica().state().points
        for lost in {point.sequence for point in before} - {point.sequence for point in points}:
            assert sum(point.sequence > lost for point in points) >= KEEP_POINTS, f"lost {lost} of {before}"
        for point in [point for point in points if point.id not in self.seen or point is points[0]]:
            held = self.content(point)
            if held is not None:
                assert self.seen.setdefault(point.id, held) == held, "a recovery point has changed"
                assert held in self.states, f"{point} holds what the source never held"
        return points

    def content(self, point: RecoveryPoint) -> str | None:
        """None: it was pruned meanwhile, by a process that is alive."""
        found = []
        for disk in DISKS:
            try:
                view = self.replica().view(disk, point)
            except NotFound:
                return None
            found.append(view.read(0, view.size))
            view.close()
        return digest(found)


def digest(contents: Iterator[bytes] | list[bytes]) -> str:
    hasher = xxhash.xxh3_128()
    for content in contents:
        hasher.update(content)
    return hasher.hexdigest()


@pytest.fixture
def victims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Victims]:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])]))
    sites = Sites(tmp_path, disks=DISKS)
    victims = Victims(sites, random.Random(SEED))
    yield victims
    for process in victims.running.values():
        process.kill()
        process.join()
    sites.log.close()


def test_whoever_is_killed_whenever_nothing_is_lost(victims: Victims, record_property: pytest.RecordProperty) -> None:
    sites, rng = victims.sites, victims.rng
    provider = sites.adapters.provider(sites.relationship)
    victims.states.add(victims.state())
    victims.start("master target")
    until_reached(lambda: provider.enable(sites.relationship))
    until_reached(lambda: provider.copy_initial(sites.relationship, no_report))
    victims.start("process server")
    points: list[RecoveryPoint] = []
    killed = {"process server": 0, "master target": 0, "link": 0}
    for _ in range(KILLS):
        victims.write()
        time.sleep(rng.uniform(0, 0.1))
        victims.write()
        who = rng.choice(list(killed))
        killed[who] += 1
        if who == "link":
            victims.link.set(Fault.LINK_DOWN)
        else:
            victims.kill(who)
        points = victims.check(points)
        if who != "process server":
            for _ in range(rng.randrange(3)):
                victims.write()
                time.sleep(rng.uniform(0, 0.06))
            victims.cached += any((sites.data / "cache").rglob("*.seg"))
        if who != "process server" and rng.random() < 0.5:
            victims.kill("process server")
            killed["process server"] += 1
            victims.start("process server")
        if who == "link":
            victims.link.clear()
        else:
            victims.start(who)
    victims.kill("process server")
    until_reached(lambda: provider.send_last_changes(sites.relationship, no_report))
    victims.check(points)
    assert all(sites.replica(disk) == sites.image(disk) for disk in DISKS)
    assert not list((sites.data / "cache").rglob("*.seg"))
    assert victims.cached, "nothing ever waited in the cache"
    record_property("killed", killed)
    print(f"seed {SEED}: {killed}, {victims.cached} times with changes in the cache, {len(victims.seen)} points")
