"""What a cut's time promises, measured: a guest writes all the time, a copy follows cut by cut."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from lab_support import Lab, lab_machine, make_inventory, running_lab

from adapters.lab.database import scan_images
from adapters.lab.ledger import ACKNOWLEDGED, read_ledger
from replication.ports import ChangeSource, Cut
from vault.domain import ConsistencyKind

pytestmark = pytest.mark.contract

DISKS = {"system": "64MiB", "data": "64MiB", "more": "64MiB"}
RATE = 2_000
"""Some for each cut; on a busy machine whoever follows must not fall half a disk of writes behind."""


def nanoseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


def seed_from_snapshot(source: ChangeSource, copies: dict[str, Path]) -> None:
    source.take_snapshot()
    for disk, copy in copies.items():
        reader = source.open_snapshot(disk)
        with copy.open("wb") as stream:
            stream.truncate(reader.size)
            for offset, length in reader.allocated():
                stream.seek(offset)
                stream.write(reader.read(offset, length))
        reader.close()
    source.delete_snapshot()


def apply(source: ChangeSource, cut: Cut, copies: dict[str, Path]) -> None:
    for disk, copy in copies.items():
        with copy.open("r+b") as stream:
            for extent in source.extents(cut, disk):
                stream.seek(extent.offset)
                stream.write(extent.data)
    source.release(cut)


def check_cut(lab: Lab, cut: Cut, copies: dict[str, Path]) -> int:
    moment = nanoseconds(cut.time)
    found = scan_images(list(copies.values()))
    acknowledged = [entry for entry in read_ledger(lab.layout.ledger("db")) if entry.kind == ACKNOWLEDGED]
    last_acknowledged = max((entry.number for entry in acknowledged if entry.time_ns <= moment), default=0)
    assert found.damaged == 0
    assert found.last >= last_acknowledged
    assert found.last_begin_ns <= moment
    return found.last


@pytest.mark.parametrize("tracking", ["log", "bitmap"])
def test_a_cut_has_all_that_was_acknowledged_before_and_nothing_begun_after(tmp_path: Path, tracking: str) -> None:
    inventory = make_inventory({"db": lab_machine(rate=RATE, disks=DISKS, tracking=tracking)})
    with running_lab(tmp_path / "lab", inventory) as lab:
        lab.up()
        source = lab.site().change_source("db")
        source.start_tracking()
        copies = {name: tmp_path / f"{name}.copy" for name in DISKS}
        seed_from_snapshot(source, copies)
        assert scan_images(list(copies.values())).damaged == 0
        chance, held = random.Random(3), [0]
        for number in range(1, 21):
            time.sleep(chance.uniform(0, 0.05))
            kind = ConsistencyKind.APPLICATION if number % 5 == 0 else ConsistencyKind.CRASH
            cut = source.cut(kind)
            assert (cut.number, cut.kind) == (number, kind)
            apply(source, cut, copies)
            held.append(check_cut(lab, cut, copies))
        assert held == sorted(held)
        assert len(set(held)) > 10  # a guest that is short of processor time may write nothing between two cuts
        lab.site().power_off("db")
        apply(source, source.cut(), copies)
        for disk, copy in copies.items():
            assert copy.read_bytes() == lab.folder().image(disk).read_bytes()
        last = max(entry.number for entry in read_ledger(lab.layout.ledger("db")))
        assert scan_images(list(copies.values())).last >= last


@pytest.mark.parametrize("tracking", ["log", "bitmap"])
def test_a_copy_that_misses_one_disk_of_a_cut_shows_as_damaged(tmp_path: Path, tracking: str) -> None:
    disks = {"system": "2MiB", "data": "32MiB"}
    inventory = make_inventory({"db": lab_machine(rate=500, disks=disks, tracking=tracking)})
    with running_lab(tmp_path / "lab", inventory) as lab:
        lab.up()
        source = lab.site().change_source("db")
        source.start_tracking()
        copies = {name: tmp_path / f"{name}.copy" for name in ("system", "data")}
        seed_from_snapshot(source, copies)
        time.sleep(0.2)
        apply(source, source.cut(), {"system": copies["system"]})
        assert scan_images(list(copies.values())).damaged > 0
