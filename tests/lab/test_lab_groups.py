"""Consistency groups: moments that several machines have in common."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lab_support import AWAY, HOME, Lab, lab_machine, make_inventory, no_beat, no_report, running_lab
from order_guest import last_order

import adapters.lab.changes
import adapters.lab.groups
from adapters.lab.groups import Member
from adapters.lab.ledger import ACKNOWLEDGED, read_ledger
from adapters.lab.storage import StorageLock
from adapters.ports import GroupRhythm
from adapters.registry import Adapters
from replication.groups import common_moments
from vault.domain import LATEST_CONSISTENT, ConsistencyKind, Progress, RecoveryPoint, Relationship, Retention
from vault.errors import NotFound
from vault.inventory import Inventory

pytestmark = pytest.mark.contract

APP, CRASH = ConsistencyKind.APPLICATION, ConsistencyKind.CRASH
OFTEN = GroupRhythm(frequency_s=0.01)
HERE = Path(__file__).resolve()


def shop(tracking: str = "log", rate: float = 50) -> Inventory:
    machine = lab_machine(rate=rate, disks={"data": "8MiB"}, tracking=tracking)
    inventory = make_inventory({"desk": machine, "mill": machine, "web": machine})
    return inventory.model_copy(update={"consistency_groups": {"orders": ["mill", "desk"]}})


class Shop:
    """Two machines of one group, replicated; and a third one that stands alone."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        self.adapters = Adapters(lab.inventory, folder)
        self.reports: list[str] = []

    def relationship(self, machine: str, **changes: object) -> Relationship:
        return self.lab.inventory.relationship(machine).model_copy(update={"frequency_s": 0.01, **changes})

    def protect(self, *machines: str) -> None:
        for machine in machines or ("desk", "mill"):
            relationship = self.relationship(machine)
            provider = self.adapters.provider(relationship)
            provider.enable(relationship)
            provider.copy_initial(relationship, no_report)

    def replicate(self, machine: str, *, app: bool = False, **changes: object) -> RecoveryPoint:
        relationship = self.relationship(machine, **changes)

        def report(progress: Progress) -> None:
            self.reports.append(progress.doing)

        return self.adapters.provider(relationship).replicate_once(relationship, report, app_consistent=app)

    def points(self, machine: str) -> list[RecoveryPoint]:
        relationship = self.relationship(machine)
        return self.adapters.provider(relationship).recovery_points(relationship)

    def resolve(self, machine: str, choice: str) -> RecoveryPoint:
        relationship = self.relationship(machine)
        return self.adapters.provider(relationship).resolve_point(relationship, choice)

    def last_order(self, machine: str, point: RecoveryPoint) -> int:
        store = self.lab.site(AWAY).replica_store(machine)
        (path,) = store.materialise(point, self.folder / machine / point.id, no_report)
        return last_order(path)

    @contextmanager
    def taking_orders(self) -> Iterator[None]:
        """Two guests: the desk writes an order to its disk, then the mill learns of it and writes it to its own."""
        environment = {**os.environ, "PYTHONPATH": str(HERE.parents[2])}
        script = str(HERE.with_name("order_guest.py"))

        def command(role: str) -> list[str]:
            return [sys.executable, "-S", script, role, str(self.lab.folder(role).path)]

        desk = subprocess.Popen(command("desk"), env=environment, stdout=subprocess.PIPE)
        mill = subprocess.Popen(command("mill"), env=environment, stdin=desk.stdout)
        try:
            deadline = time.monotonic() + 60
            while last_order(self.lab.folder("mill").image("data")) < 20:
                assert time.monotonic() < deadline and desk.poll() is None and mill.poll() is None
                time.sleep(0.02)
            yield
            assert desk.poll() is None and mill.poll() is None
        finally:
            for process in (desk, mill):
                process.kill()
                process.wait()
            if desk.stdout is not None:
                desk.stdout.close()


@contextmanager
def open_shop(folder: Path, tracking: str = "log", rate: float = 50) -> Iterator[Shop]:
    with running_lab(folder / "lab", shop(tracking, rate)) as lab:
        for machine in lab.inventory.machines:
            lab.site().define(machine)
        yield Shop(lab, folder)


@pytest.mark.parametrize("tracking", ["log", "bitmap"])
def test_at_a_common_moment_the_mill_never_knows_an_order_that_the_desk_does_not(tmp_path: Path, tracking: str) -> None:
    with open_shop(tmp_path, tracking) as opened:
        opened.protect()
        with opened.taking_orders():
            cyclists = [
                threading.Thread(target=lambda name=name: [opened.replicate(name) for _ in range(6)])
                for name in ("desk", "mill")
            ]
            for cyclist in cyclists:
                cyclist.start()
            for cyclist in cyclists:
                cyclist.join()
        for name in ("desk", "mill"):
            opened.replicate(name, frequency_s=1e6)  # sends what waits, cuts nothing
        points = {name: opened.points(name) for name in ("desk", "mill")}
        moments = common_moments(points, "orders")
        assert len(moments) >= 4
        known: list[int] = []
        for moment in moments:
            at_desk, at_mill = (
                opened.last_order(name, next(point for point in points[name] if point.time == moment))
                for name in ("desk", "mill")
            )
            assert at_mill <= at_desk
            known.append(at_mill)
        assert known == sorted(known) and known[0] >= 20 and known[-1] > known[0]


def test_machines_that_are_not_held_together_do_know_orders_from_the_future(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cutter that holds one machine after the other must fail here, else the test above proves nothing."""

    def one_after_the_other(group: str, members: dict[str, Member], *_: object) -> str:
        time_ns = time.time_ns()
        for name in sorted(members):
            with members[name].source.prepared(CRASH) as hold, hold() as cut:
                cut(time_ns, group)
            time.sleep(0.2)
        return ""

    monkeypatch.setattr(adapters.lab.groups, "_cut_all", one_after_the_other)
    with open_shop(tmp_path) as opened:
        opened.protect()
        with opened.taking_orders():
            at_desk = opened.last_order("desk", opened.replicate("desk"))
            at_mill = opened.last_order("mill", opened.replicate("mill", frequency_s=60))
        assert at_mill > at_desk


def test_one_choice_brings_every_machine_to_the_same_moment(tmp_path: Path) -> None:
    with open_shop(tmp_path) as opened:
        opened.protect("desk", "mill", "web")
        with pytest.raises(NotFound, match="no common moment yet"):
            opened.resolve("desk", f"{LATEST_CONSISTENT}orders")
        with opened.taking_orders():
            opened.replicate("desk")
            opened.replicate("mill")
            common = opened.points("mill")[-1]
            opened.replicate("web")
            opened.replicate("desk")  # a newer moment, which the mill has not sent yet
        for choice in (f"{LATEST_CONSISTENT}orders", f"consistent:orders@{common.time.isoformat()}", common.id):
            chosen = {name: opened.resolve(name, choice) for name in ("desk", "mill")}
            assert {(point.time, point.group) for point in chosen.values()} == {(common.time, "orders")}
        assert opened.points("desk")[-1].time > common.time
        assert opened.resolve("web", f"{LATEST_CONSISTENT}orders") == opened.points("web")[-1]
        own = opened.points("desk")[0]
        with pytest.raises(NotFound, match="another machine's own point"):
            opened.resolve("mill", own.id)
        away, images = opened.lab.site(AWAY), {}
        for name in ("desk", "mill"):
            relationship = opened.relationship(name)
            provider = opened.adapters.provider(relationship)
            made = provider.start_test(relationship, f"{LATEST_CONSISTENT}orders", f"{name}-test", no_report)
            assert made.point == opened.resolve(name, common.id)
            images[name] = opened.lab.folder(f"{name}-test", AWAY).image("data")
        assert 20 <= last_order(images["mill"]) <= last_order(images["desk"])
        for name in images:
            away.remove(f"{name}-test")


def test_a_moment_is_made_once_however_many_ask_for_it(tmp_path: Path) -> None:
    with open_shop(tmp_path) as opened:
        opened.protect()
        rhythm = GroupRhythm(frequency_s=60)
        answers: list[str] = []
        barrier = threading.Barrier(6)

        def ask() -> None:
            site = opened.lab.site()
            barrier.wait()
            answers.append(site.cut_together("orders", ["desk", "mill"], rhythm, CRASH))

        askers = [threading.Thread(target=ask) for _ in range(6)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
        assert answers == [""] * 6
        (desk,), (mill,) = (opened.lab.site().change_source(name).pending() for name in ("desk", "mill"))
        assert (desk.time, desk.group) == (mill.time, mill.group) == (desk.time, "orders")


def test_members_that_are_not_due_only_send_what_waits(tmp_path: Path) -> None:
    with open_shop(tmp_path) as opened:
        opened.protect()
        first = opened.replicate("desk", frequency_s=60)
        assert opened.replicate("mill", frequency_s=60).time == first.time
        assert opened.replicate("mill", frequency_s=60).time == first.time
        assert opened.replicate("desk", frequency_s=60) == first
        assert len(opened.points("desk")) == len(opened.points("mill")) == 3


def test_a_member_that_cannot_take_part_does_not_hold_up_the_others(tmp_path: Path) -> None:
    with open_shop(tmp_path) as opened:
        opened.protect("desk")
        alone = opened.replicate("desk")
        assert alone.group == ""
        assert opened.reports[0] == (
            "cut without its consistency group 'orders': 'mill' is not replicated from here, or not yet"
        )
        source = opened.lab.site().change_source("mill")
        source.start_tracking()  # its initial replication goes on: a cut now would be older than its base
        opened.replicate("desk")
        assert source.pending() == []
        opened.protect("mill")
        assert opened.replicate("desk").group == "orders"
        for _ in range(adapters.lab.groups.MOST_PENDING + 3):
            time.sleep(0.01)
            last = opened.replicate("desk")
        assert last.group == "" and len(source.pending()) == adapters.lab.groups.MOST_PENDING
        assert any("'mill' has 8 cuts to send first" in said for said in opened.reports)
        opened.replicate("mill")
        time.sleep(0.01)
        assert opened.replicate("desk").group == "orders"
        opened.lab.site().remove("mill")
        assert opened.replicate("desk").group == ""


def test_retention_leaves_the_newest_common_moment_to_a_group_of_which_one_member_lags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_shop(tmp_path) as opened:
        opened.protect()
        common = opened.replicate("desk", frequency_s=60)
        assert opened.replicate("mill", frequency_s=60).time == common.time
        keep_two = Retention(count=2, hours=24)
        for _ in range(5):
            time.sleep(0.01)
            opened.replicate("desk", retention=keep_two)
        assert [opened.resolve(name, f"{LATEST_CONSISTENT}orders").time for name in ("desk", "mill")] == [
            common.time
        ] * 2
        assert len(opened.points("desk")) == 3
        away = opened.lab.site(AWAY)
        manifest = next(away.store_in_files("mill")._files.root.glob("manifest.json"))
        sound = manifest.read_bytes()
        manifest.write_bytes(b"{")
        opened.replicate("desk", retention=keep_two)
        assert common in opened.points("desk"), "what the mill has can not be told now"
        manifest.write_bytes(sound)
        opened.replicate("mill", frequency_s=60, retention=keep_two)
        opened.replicate("desk", retention=keep_two)
        assert common not in opened.points("desk"), "they have a newer one"
        opened.replicate("desk", retention=Retention(count=1, hours=1e-9))
        assert len(opened.points("desk")) == 1, "a group is no reason to keep anything for ever"


def test_a_member_that_is_stuck_in_a_write_is_not_waited_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapters.lab.groups, "PATIENCE_S", 0.1)
    with open_shop(tmp_path) as opened:
        opened.protect()
        stuck = StorageLock(opened.lab.folder("mill"))
        with stuck:
            point = opened.replicate("desk")
        stuck.close()
        assert point.group == ""
        assert "another process has held the storage" in opened.reports[0]


def test_a_crash_in_the_middle_of_a_group_leaves_a_moment_that_nobody_calls_common(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_shop(tmp_path) as opened:
        opened.protect()
        site = opened.lab.site()
        real = adapters.lab.changes.LabChangeSource._cut_now
        cuts = 0

        def dies_in_the_second(self: object, *arguments: object) -> object:
            nonlocal cuts
            cuts += 1
            if cuts == 2:
                raise KeyboardInterrupt
            return real(self, *arguments)  # type: ignore[arg-type]

        with monkeypatch.context() as patched:
            patched.setattr(adapters.lab.changes.LabChangeSource, "_cut_now", dies_in_the_second)
            with pytest.raises(KeyboardInterrupt):
                site.cut_together("orders", ["desk", "mill"], OFTEN, CRASH)
        assert [len(site.change_source(name).pending()) for name in ("desk", "mill")] == [1, 0]
        opened.replicate("desk")
        opened.replicate("mill", frequency_s=60)
        desk = [point.time for point in opened.points("desk") if point.group]
        mill = [point.time for point in opened.points("mill") if point.group]
        assert len(desk) == 2 and len(mill) == 1
        assert opened.resolve("desk", f"{LATEST_CONSISTENT}orders").time == mill[0] == desk[1]


@pytest.mark.parametrize("tracking", ["log", "bitmap"])
def test_an_app_consistent_moment_holds_all_guests_at_once(tmp_path: Path, tracking: str) -> None:
    with running_lab(tmp_path / "lab", shop(tracking, rate=200)) as lab:
        lab.up()
        opened = Shop(lab, tmp_path)
        opened.protect()
        every = {"app_consistent_every_s": 0.01}
        opened.replicate("desk", app=True, **every)
        opened.replicate("mill", frequency_s=60)
        desk, mill = opened.points("desk")[-1], opened.points("mill")[-1]
        assert (desk.kind, mill.kind, desk.time) == (APP, APP, mill.time)
        for name, point in (("desk", desk), ("mill", mill)):
            relationship = opened.relationship(name)
            made = opened.adapters.provider(relationship).start_test(relationship, point.id, "copy", no_report)
            assert made.point == point
            away = lab.site(AWAY)
            away.start("copy")
            held = away.wait_until_answering("copy", 20, no_beat).transactions
            entries = list(read_ledger(lab.layout.ledger(name)))
            moment_ns = int(point.time.timestamp() * 1e6) * 1000
            told = max(e.number for e in entries if e.kind == ACKNOWLEDGED and e.time_ns <= moment_ns)
            assert held is not None and (held.held_at_boot, held.damaged) == (told, 0)
            away.remove("copy")
        again = opened.replicate("mill", app=True, app_consistent_every_s=60, frequency_s=60)
        assert again == mill  # the group has an app-consistent moment that is young enough
        lab.site(HOME).power_off("desk")
