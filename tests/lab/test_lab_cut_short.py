"""Making a machine from a replica, ended at each of its reports, and asked for twice at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from lab_support import AWAY, HOME, Lab, lab_machine, make_inventory, no_beat, no_report, running_lab

from adapters.lab import hypervisor
from adapters.lab.guest_client import running_guest
from adapters.lab.guest_state import GuestState
from adapters.lab.storage import StorageLock
from adapters.lab.vdisk import VirtualDisks
from adapters.ports import ReplicationProvider
from adapters.registry import Adapters
from replication import progress
from vault.domain import LATEST, PowerState, Progress, Relationship
from vault.errors import Busy, InvalidState, Unreachable

pytestmark = pytest.mark.contract

DISKS = {"system": "2MiB", "data": "3MiB"}
PATIENCE_S = 60.0


class Ended(BaseException):
    """As an activity is ended between two safe points."""


class House(NamedTuple):
    lab: Lab
    provider: ReplicationProvider
    relationship: Relationship

    def at_target(self) -> dict[str, bytes]:
        """Every file of machines there, but what is only held."""
        folder = self.lab.layout.site(AWAY).machines
        files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}

    def machines(self) -> list[str]:
        return [one.name for one in self.lab.site(AWAY).discover()]


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """A machine that is off, with a recovery point at the other site; every piece of a copy is reported."""
    monkeypatch.setattr(progress, "REPORT_EVERY_S", 0.0)
    inventory = make_inventory({"db": lab_machine(disks=DISKS)})
    with running_lab(tmp_path / "lab", inventory) as lab:
        lab.site(HOME).define("db")
        disks = VirtualDisks(lab.folder("db"))
        for start in range(0, 2 << 20, 256 << 10):
            disks.write("data", start, bytes([1 + start % 255]) * 4096)
        disks.close()
        relationship = inventory.relationship("db")
        provider = Adapters(inventory, tmp_path).provider(relationship)
        provider.enable(relationship)
        provider.copy_initial(relationship, no_report)
        yield House(lab, provider, relationship)


Make = Callable[[House, Callable[[Progress], None]], object]
Undo = Callable[[House], None]
FAMILIES: dict[str, tuple[Make, Undo]] = {
    "failover": (
        lambda house, report: house.provider.fail_over(house.relationship, LATEST, report),
        lambda house: house.provider.cancel_failover(house.relationship),
    ),
    "test": (
        lambda house, report: house.provider.start_test(house.relationship, LATEST, "db-test", report),
        lambda house: house.provider.end_test(house.relationship, "db-test"),
    ),
}
family = pytest.mark.parametrize(("make", "undo"), FAMILIES.values(), ids=FAMILIES)


@family
def test_what_is_ended_at_any_report_can_be_undone_and_repeated(house: House, make: Make, undo: Undo) -> None:
    before = house.at_target()
    reports: list[Progress] = []
    make(house, reports.append)
    complete = house.at_target()
    undo(house)
    assert house.at_target() == before
    assert len(reports) > 3
    for at in range(len(reports)):
        for ending in ("undone", "repeated"):
            told: list[Progress] = []

            def report(progress: Progress, told: list[Progress] = told, at: int = at) -> None:
                told.append(progress)
                if len(told) > at:
                    raise Ended

            with pytest.raises(Ended):
                make(house, report)
            assert house.machines() == [], f"ended at report {at}: {reports[at].doing}"
            if ending == "repeated":
                make(house, no_report)
                assert house.at_target() == complete
            undo(house)
            assert house.at_target() == before


@family
def test_the_last_report_comes_when_nothing_is_left_but_to_register_the_machine(
    house: House, make: Make, undo: Undo
) -> None:
    """There a late try hears that Temporal counts on another one."""
    ready: list[bool] = []

    def report(_: Progress) -> None:
        making = house.lab.layout.site(AWAY).machines.glob(".making-*")
        ready.append(any((one / "machine.json").exists() for one in making))

    make(house, report)
    assert ready[-1]


@contextmanager
def going_on(house: House, make: Make) -> Iterator[threading.Event]:
    """In another worker, in the middle of its copy; it ends when the event is set."""
    begun, ends, errors = threading.Event(), threading.Event(), list[BaseException]()

    def report(progress: Progress) -> None:
        if not progress.doing.startswith("writing the disks"):
            return
        begun.set()
        assert ends.wait(PATIENCE_S)
        raise Ended

    def work() -> None:
        try:
            make(house, report)
        except Ended as error:
            errors.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        assert begun.wait(PATIENCE_S)
        yield ends
    finally:
        ends.set()
        worker.join(PATIENCE_S)
    assert errors


@family
def test_a_copy_that_goes_on_elsewhere_holds_nobody_up_for_long(
    house: House, make: Make, undo: Undo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Temporal gave it to this worker, and the one that slept copies on for hours: a cancellation has to be heard."""
    monkeypatch.setattr(hypervisor, "PATIENCE_S", 0.05)
    before = house.at_target()
    with going_on(house, make):
        with pytest.raises(Busy, match="another worker is making, starting or removing"):
            make(house, no_report)
        with pytest.raises(Busy):
            undo(house)
    undo(house)
    assert house.at_target() == before
    make(house, no_report)
    assert len(house.machines()) == 1


@family
def test_an_undoing_waits_for_a_copy_that_is_about_to_end(house: House, make: Make, undo: Undo) -> None:
    before = house.at_target()
    with going_on(house, make) as ends:
        threading.Timer(0.1, ends.set).start()
        undo(house)
    assert house.at_target() == before


@contextmanager
def shutting_down(lab: Lab) -> Iterator[GuestState]:
    """A guest that was asked to, by a call that was ended then; as long as its last write takes, it is there."""
    lab.up()
    lab.wait_for_transactions(1)
    guest = running_guest(lab.folder())
    assert guest is not None

    def abandoned(_: str) -> None:
        raise Ended

    with closing(StorageLock(lab.folder())) as busy, busy:
        until(lambda: waits_for_a_lock(guest.pid))
        with pytest.raises(Ended):
            lab.site().shut_down("db", PATIENCE_S, abandoned)
        yield guest


def waits_for_a_lock(pid: int) -> bool:
    waiting = [line.split() for line in Path("/proc/locks").read_text().splitlines() if "->" in line]
    return any(line[line.index("->") + 4] == str(pid) for line in waiting)


def until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_machine_that_was_asked_to_shut_down_is_started_again_once_it_is_off(tmp_path: Path) -> None:
    """A failover is abandoned while its source shuts down: it answers to the last, and then it is off."""
    with running_lab(tmp_path / "lab") as lab:
        with shutting_down(lab) as before:
            starting = threading.Thread(target=lab.site().start, args=("db",))
            starting.start()
            starting.join(0.2)
        starting.join(PATIENCE_S)
        until(lambda: not before.alive())
        assert lab.site().describe("db").power is PowerState.RUNNING
        lab.site().wait_until_answering("db", PATIENCE_S, no_beat)


def test_a_machine_that_does_not_come_to_the_end_of_its_shutdown_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hypervisor, "PATIENCE_S", 0.05)
    with running_lab(tmp_path / "lab") as lab, shutting_down(lab):
        with pytest.raises(Busy, match="'db' is shutting down"):
            lab.site().start("db")
        with pytest.raises(Unreachable, match="it is shutting down"):
            lab.site().wait_until_answering("db", 0, no_beat)


def replicate(house: House) -> None:
    """A later recovery point comes."""
    disks = VirtualDisks(house.lab.folder("db"))
    disks.write("data", 0, b"later" * 100)
    disks.close()
    house.provider.replicate_once(house.relationship, no_report, app_consistent=False)


def test_a_test_copy_whose_answer_was_lost_is_kept_when_a_later_point_came(house: House) -> None:
    """A worker dies when the copy is there, and its try is made again after the next replication cycle."""
    first = house.provider.start_test(house.relationship, LATEST, "db-test", no_report)
    replicate(house)
    assert house.provider.start_test(house.relationship, LATEST, "db-test", no_report) == first
    newest = house.provider.recovery_points(house.relationship)[-1]
    assert newest.id != first.point.id
    with pytest.raises(InvalidState, match="was made from recovery point"):
        house.provider.start_test(house.relationship, newest.id, "db-test", no_report)
    house.provider.end_test(house.relationship, "db-test")
    assert house.provider.start_test(house.relationship, LATEST, "db-test", no_report).point == newest


def test_a_late_failover_hears_that_it_is_one_before_it_closes_the_replica(house: House) -> None:
    """It was undone, and the machine is protected on: a replica that was closed then would take no more from it."""

    def late(_: Progress) -> None:
        raise Ended

    with pytest.raises(Ended):
        house.provider.fail_over(house.relationship, LATEST, late)
    before = house.provider.recovery_points(house.relationship)
    replicate(house)
    assert len(house.provider.recovery_points(house.relationship)) > len(before)
