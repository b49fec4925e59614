"""Recovery points of a machine that runs: their kinds, how they are chosen, how long they stay."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from lab_support import AWAY, HOME, Lab, lab_machine, make_inventory, no_beat, no_report, running_lab

from adapters.lab.database import Recovered, scan_images
from adapters.lab.ledger import ACKNOWLEDGED, read_ledger
from adapters.ports import ReplicationProvider
from adapters.registry import Adapters
from vault.domain import ConsistencyKind, Progress, RecoveryPoint, Retention
from vault.errors import NotFound

pytestmark = pytest.mark.contract

DISKS = {"system": "32MiB", "data": "64MiB"}
APP, CRASH = ConsistencyKind.APPLICATION, ConsistencyKind.CRASH


def nanoseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


class Protected:
    """A protected machine whose guest is under load."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        self.relationship = lab.inventory.relationship("db")
        self.provider: ReplicationProvider = Adapters(lab.inventory, folder).provider(self.relationship)
        lab.up()
        self.provider.enable(self.relationship)
        self.provider.copy_initial(self.relationship, no_report)

    def replicate(self, *, app: bool = False, retention: Retention | None = None) -> RecoveryPoint:
        relationship = self.relationship
        if retention is not None:
            relationship = relationship.model_copy(update={"retention": retention})
        return self.provider.replicate_once(relationship, no_report, app_consistent=app)

    def points(self) -> list[RecoveryPoint]:
        return self.provider.recovery_points(self.relationship)

    def scan(self, point: RecoveryPoint) -> Recovered:
        store = self.lab.site(AWAY).replica_store("db")
        return scan_images(store.materialise(point, self.folder / point.id, no_report))

    def acknowledged(self, moment: datetime) -> int:
        entries = read_ledger(self.lab.layout.ledger("db"))
        told = [e.number for e in entries if e.kind == ACKNOWLEDGED and e.time_ns <= nanoseconds(moment)]
        return max(told, default=0)


@pytest.mark.parametrize("tracking", ["log", "bitmap"])
def test_an_app_consistent_point_has_every_transaction_whole_and_none_under_way(tmp_path: Path, tracking: str) -> None:
    inventory = make_inventory({"db": lab_machine(rate=1000, disks=DISKS, tracking=tracking)})
    with running_lab(tmp_path / "lab", inventory) as lab:
        protected = Protected(lab, tmp_path)
        points = [protected.replicate(app=number % 2 == 0) for number in range(8)]
        assert [point.kind for point in points] == [APP, CRASH] * 4
        for point in points:
            found = protected.scan(point)
            assert found.damaged == 0
            if point.kind is APP:
                assert found.last == protected.acknowledged(point.time)
            else:
                assert found.last >= protected.acknowledged(point.time)
        held = [protected.scan(point).last for point in points]
        assert held == sorted(held)


def test_every_way_to_choose_a_point_recovers_what_it_names(tmp_path: Path) -> None:
    inventory = make_inventory({"db": lab_machine(rate=300, disks=DISKS)})
    with running_lab(tmp_path / "lab", inventory) as lab:
        protected = Protected(lab, tmp_path)
        made: dict[str, RecoveryPoint] = {}
        for name, app in (("early", False), ("app", True), ("late", False), ("latest", False)):
            made[name] = protected.replicate(app=app)
            time.sleep(0.1)
        between = made["late"].time + timedelta(milliseconds=1)
        for choice, wanted in {
            "latest": "latest",
            "latest-processed": "latest",
            "latest-app-consistent": "app",
            made["early"].id: "early",
            between.isoformat(): "late",
        }.items():
            copy = protected.provider.start_test(protected.relationship, choice, "db-test", no_report)
            assert copy.point == made[wanted], choice
            away = lab.site(AWAY)
            away.start("db-test")
            answer = away.wait_until_answering("db-test", 20, no_beat).transactions
            assert answer is not None
            assert answer.held_at_boot == protected.scan(made[wanted]).last
            assert answer.damaged == 0
            protected.provider.end_test(protected.relationship, "db-test")
        with pytest.raises(NotFound, match="no recovery point is '2001-01-01"):
            protected.provider.start_test(protected.relationship, "2001-01-01", "db-test", no_report)


def test_replication_and_retention_go_on_beside_a_test_failover_without_taking_its_point(tmp_path: Path) -> None:
    inventory = make_inventory({"db": lab_machine(rate=300, disks=DISKS)})
    with running_lab(tmp_path / "lab", inventory) as lab:
        protected = Protected(lab, tmp_path)
        chosen, *_ = protected.replicate(), protected.replicate()
        held = protected.scan(chosen).last
        copying, go_on = threading.Event(), threading.Event()

        def slow(_: Progress) -> None:
            copying.set()
            assert go_on.wait(20)

        failover = threading.Thread(
            target=lambda: protected.provider.start_test(protected.relationship, chosen.id, "db-test", slow)
        )
        failover.start()
        assert copying.wait(20)
        for _ in range(3):
            protected.replicate(retention=Retention(count=1))
        oldest, _ = protected.points()
        assert oldest == chosen
        go_on.set()
        failover.join()
        away = lab.site(AWAY)
        away.start("db-test")
        answer = away.wait_until_answering("db-test", 20, no_beat).transactions
        assert answer is not None and (answer.held_at_boot, answer.damaged) == (held, 0)
        away.remove("db-test")
        protected.replicate(retention=Retention(count=1))
        assert len(protected.points()) == 1


def test_commit_keeps_the_chosen_point_and_drops_the_others(tmp_path: Path) -> None:
    inventory = make_inventory({"db": lab_machine(rate=300, disks=DISKS)})
    with running_lab(tmp_path / "lab", inventory) as lab:
        protected = Protected(lab, tmp_path)
        chosen, *_ = protected.replicate(app=True), protected.replicate(), protected.replicate()
        lab.site(HOME).power_off("db")
        recovered = protected.provider.fail_over(protected.relationship, "latest-app-consistent", no_report)
        assert recovered.point == chosen
        assert len(protected.points()) == 5
        protected.provider.commit(protected.relationship, chosen.id)
        assert protected.points() == [chosen]
        assert protected.scan(chosen).last == protected.acknowledged(chosen.time)
