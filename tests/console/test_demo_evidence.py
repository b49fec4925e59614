"""The demo's verdict must be able to fail: it is the product's claim about data loss."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapters.azure import vhd
from adapters.lab import database
from adapters.lab.definition import DiskDefinition
from adapters.lab.ledger import Ledger
from console.demo.evidence import differences_from_disk, judge, judge_images, window_at
from console.demo.model import DemoResult, MachineResult, PhaseResult
from vault.domain import Answering, GuestTransactions, RecoveryPoint
from workflows.model import JobResult

pytestmark = pytest.mark.unit
SECOND = 10**9


def moment(second: float) -> datetime:
    return datetime.fromtimestamp(second, UTC)


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """Ten transactions; number n begins at second n and is acknowledged half a second later."""
    path = tmp_path / "db.ledger"
    with Ledger(path) as book:
        book.acknowledge((number, number * SECOND + SECOND // 2, number * SECOND) for number in range(1, 11))
    return path


def recovery(held: int, *, acknowledged: int = 10, damaged: int = 0, at: float = 6.1) -> JobResult:
    found = GuestTransactions(first=1, last=held, damaged=damaged, held_at_boot=held, acknowledged_at_boot=acknowledged)
    return JobResult(
        point=RecoveryPoint(id="rp-1", sequence=1, time=moment(at)),
        answering=Answering(name="db", site="recovery", address="127.0.0.1:1", waited_s=1, transactions=found),
        outage_began=moment(20),
        answered_at=moment(23),
    )


def test_a_copy_of_a_moment_holds_what_was_acknowledged_before_it_and_nothing_begun_after(ledger: Path) -> None:
    assert window_at(ledger, moment(6.1)) == (5, 7)
    assert window_at(ledger, moment(6.6)) == (6, 7)
    assert window_at(ledger, moment(0.5)) == (0, 1)


def test_the_window_follows_a_boot_that_went_back_to_an_older_point(ledger: Path) -> None:
    with Ledger(ledger) as book:
        book.boot(4, 20 * SECOND)
        book.acknowledge([(5, 22 * SECOND, 21 * SECOND)])
    assert window_at(ledger, moment(20.5)) == (4, 5)
    assert window_at(ledger, moment(30)) == (5, 6)


@pytest.mark.parametrize(("held", "sound"), [(4, False), (5, True), (6, True), (7, True), (8, False)])
def test_an_unplanned_failover_is_judged_by_its_recovery_point(ledger: Path, held: int, sound: bool) -> None:
    judged = judge(recovery(held), ledger, nothing_may_be_lost=False, is_test=False)
    assert (judged.trouble == "") is sound
    assert judged.transactions_lost == 10 - held
    assert judged.rto_s == 3


def test_one_lost_transaction_spoils_a_planned_failover(ledger: Path) -> None:
    assert judge(recovery(10, at=30), ledger, nothing_may_be_lost=True, is_test=False).trouble == ""
    assert "1 acknowledged" in judge(recovery(9, at=30), ledger, nothing_may_be_lost=True, is_test=False).trouble


def test_damage_spoils_everything(ledger: Path) -> None:
    assert "1 damaged" in judge(recovery(6, damaged=1), ledger, nothing_may_be_lost=False, is_test=True).trouble


def test_a_test_copy_is_measured_against_its_own_point(ledger: Path) -> None:
    judged = judge(recovery(6), ledger, nothing_may_be_lost=False, is_test=True)
    assert (judged.transactions_acknowledged, judged.transactions_lost, judged.trouble) == (5, 0, "")


def test_a_silent_machine_is_a_problem(ledger: Path) -> None:
    silent = recovery(6).model_copy(update={"answering": None, "trouble": "does not answer"})
    assert judge(silent, ledger, nothing_may_be_lost=False, is_test=False).trouble == "does not answer"


def test_problems_of_the_whole_demo() -> None:
    phase = PhaseResult(
        phase="failback",
        began=moment(1),
        duration_s=1,
        machines={"db": MachineResult(trouble="3 damaged transactions"), "web": MachineResult()},
    )
    demo = DemoResult(scenario="lab", verdict="", began=moment(0), duration_s=2, phases=[phase], overlaps=1)
    assert demo.problems == [
        "failback: db: 3 damaged transactions",
        "two copies of a machine ran on production networks 1 times",
    ]


# -- what a recovery point holds, by its disks -------------------------------------------------------------------

SIZE = 3 << 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A disk with the transactions 1 to 8, the last of which was begun at second 8."""
    path, disks = tmp_path / "os.raw", (DiskDefinition("os", SIZE),)
    with path.open("wb+") as stream:

        def write(_: int, offset: int, data: bytes) -> None:
            stream.seek(offset)
            stream.write(data)

        def read(_: int, offset: int, length: int) -> bytes:
            stream.seek(offset)
            return stream.read(length)

        stream.truncate(SIZE)
        database.format_disks(write, disks, 4096)
        geometry = database.read_geometry(read, 1)
        for number in range(1, 9):
            database.write_transaction(write, geometry, "db", number, number * SECOND)
    return path


def point_at(second: float) -> RecoveryPoint:
    return RecoveryPoint.model_validate(
        {"id": "p1", "time": moment(second), "sequence": 1, "kind": "crash-consistent", "bytes": 0}
    )


def test_a_point_that_holds_what_was_acknowledged_before_it_is_fine(image: Path, ledger: Path) -> None:
    result = judge_images([image], point_at(8.2), ledger)
    assert (result.transactions_acknowledged, result.transactions_held, result.trouble) == (7, 8, "")


def test_a_point_without_something_acknowledged_before_it_is_not(image: Path, ledger: Path) -> None:
    result = judge_images([image], point_at(10.2), ledger)
    assert (result.transactions_lost, result.trouble) == (
        1,
        "1 transactions that were acknowledged before its moment are not in it",
    )


def test_damage_in_a_point_is_told(image: Path, ledger: Path) -> None:
    with image.open("rb+") as stream:
        stream.seek(image.read_bytes().rfind(b"GDAT") + 100)
        stream.write(b"damage")
    assert "damaged transactions" in judge_images([image], point_at(8.2), ledger).trouble


def page_blob(image: Path, path: Path) -> Path:
    path.write_bytes(image.read_bytes() + vhd.footer(SIZE, uuid.UUID(int=1), moment(10**9)))
    return path


def test_equal_copies_do_not_differ_from_their_disk(image: Path, tmp_path: Path) -> None:
    assert differences_from_disk(image, image, page_blob(image, tmp_path / "os.vhd")) == []


def test_each_copy_that_differs_is_named_with_its_place(image: Path, tmp_path: Path) -> None:
    blob, disk = page_blob(image, tmp_path / "os.vhd"), tmp_path / "disk"
    raw = bytearray(image.read_bytes())
    raw[2_000_123] ^= 1
    disk.write_bytes(raw)
    assert differences_from_disk(disk, image, blob) == [
        "the recovery point's os.raw differs from the disk at byte 2000123",
        "os.vhd, opened as a VHD, differs from the disk at byte 2000123",
    ]
    disk.write_bytes(image.read_bytes() + b"more")
    assert differences_from_disk(disk, image, blob) == [
        f"the recovery point's os.raw differs from the disk at byte {SIZE}",
        f"os.vhd does not end with the footer of a fixed VHD of {SIZE + 4} bytes",
    ]
