"""A lab machine whose link goes down: its cuts go on, and become recovery points of their moments."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from lab_support import AWAY, HOME, Lab, lab_machine, make_inventory, no_report

from adapters.lab.faults import Fault, SiteFaults
from adapters.lab.vdisk import VirtualDisks
from adapters.registry import Adapters
from replication.ports import ReplicaStore
from vault.domain import CacheFill
from vault.errors import Unreachable

pytestmark = pytest.mark.contract


class Machine:
    def __init__(self, folder: Path, tracking: str, **site: str) -> None:
        self.rng = random.Random(8)
        sizes = {"system": "1MiB", "data": "2MiB"}
        inventory = make_inventory({"db": lab_machine(disks=sizes, tracking=tracking)}, primary=site)
        self.data = folder / "data"
        self.lab = Lab(self.data / "lab", inventory)
        self.lab.site().define("db")
        self.link = SiteFaults(self.lab.root, HOME)
        self.relationship = inventory.relationship("db")
        self.provider = Adapters(inventory, self.data).provider(self.relationship)
        self.provider.enable(self.relationship)
        self.provider.copy_initial(self.relationship, no_report)
        self.provider.finalize(self.relationship)

    @property
    def replica(self) -> ReplicaStore:
        return self.lab.site(AWAY).replica_store("db")

    def write(self, length: int) -> bytes:
        """Returns what the disk holds then."""
        disks = VirtualDisks(self.lab.folder())
        try:
            disks.write("data", self.rng.randrange(2**21 - length), self.rng.randbytes(length))
            disks.flush()
        finally:
            disks.close()
        return self.lab.folder().image("data").read_bytes()

    def keep(self) -> CacheFill:
        fill = self.provider.keep_changes(self.relationship, no_report, app_consistent=False)
        assert fill is not None
        return fill

    def at(self, number: int) -> bytes:
        view = self.replica.view("data", self.replica.state().points[number])
        try:
            return view.read(0, view.size)
        finally:
            view.close()


@pytest.mark.parametrize("tracking", ["log", "bitmap"])
def test_cuts_of_a_broken_link_become_recovery_points(tmp_path: Path, tracking: str) -> None:
    machine = Machine(tmp_path, tracking)
    machine.link.set(Fault.LINK_DOWN)
    with pytest.raises(Unreachable):
        machine.provider.replicate_once(machine.relationship, no_report, app_consistent=False)
    before = len(machine.replica.state().points)
    held = []
    for _ in range(4):
        held.append(machine.write(70_000))
        machine.keep()
    source = machine.lab.site().change_source("db")
    assert source.pending() == [], "the change log was given back"
    machine.link.clear()
    held.append(machine.write(5_000))
    machine.provider.replicate_once(machine.relationship, no_report, app_consistent=False)
    points = machine.replica.state().points[before:]
    assert len(points) == 5
    assert [machine.at(before + number) for number in range(5)] == held
    assert not list((machine.data / "cache").rglob("*.seg"))


def test_a_planned_failover_sends_what_waits_first(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "log")
    held = machine.write(9_000)
    machine.keep()
    point = machine.provider.send_last_changes(machine.relationship, no_report)
    assert point.bytes == 0
    assert machine.at(-1) == held


def test_a_resynchronization_sends_what_waits_first(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "log")
    before = len(machine.replica.state().points)
    first = machine.write(9_000)
    machine.keep()
    second = machine.write(9_000)
    machine.provider.resynchronize(machine.relationship, no_report)
    assert machine.at(before) == first
    assert machine.at(-1) == second


def test_a_damaged_cache_is_forgotten_by_a_resynchronization(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "log")
    machine.write(9_000)
    machine.keep()
    for path in (machine.data / "cache").rglob("cache.json"):
        path.write_bytes(path.read_bytes()[:-40])
    held = machine.write(9_000)
    machine.provider.resynchronize(machine.relationship, no_report)
    assert machine.at(-1) == held
    machine.write(9_000)
    assert machine.keep().cuts == 1


def test_a_site_may_have_no_cache(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "log", cache="0B")
    assert machine.provider.keep_changes(machine.relationship, no_report, app_consistent=False) is None
    machine.write(9_000)
    machine.provider.disable_source(machine.relationship)
    assert not (machine.data / "cache").exists()


def test_a_machine_that_is_not_protected_any_more_leaves_nothing_in_the_cache(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "log")
    machine.write(9_000)
    machine.keep()
    machine.provider.disable_source(machine.relationship)
    assert not (machine.data / "cache" / HOME / "db").exists()
