"""The clients' ledger: what was acknowledged, and on which history."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.lab.ledger import ACKNOWLEDGED, BOOTED, Entry, Ledger, last_acknowledged, read_ledger
from vault.errors import Damaged

pytestmark = pytest.mark.unit


def test_a_boot_starts_the_history_again_at_what_is_held(tmp_path: Path) -> None:
    path = tmp_path / "clients" / "db.ledger"
    assert last_acknowledged(path) == 0
    with Ledger(path) as ledger:
        assert ledger.boot(0, 1) == 0
        ledger.acknowledge([(number, 10 + number, number) for number in range(1, 6)])
    with Ledger(path) as ledger:
        assert ledger.boot(3, 50) == 5
        assert ledger.last_acknowledged() == 3
        ledger.acknowledge([(4, 60, 59)])
        assert ledger.boot(4, 70) == 4
    assert list(read_ledger(path))[-3:] == [Entry(BOOTED, 3, 50, 5), Entry(ACKNOWLEDGED, 4, 60, 59), Entry(2, 4, 70, 4)]
    assert last_acknowledged(path) == 4


@pytest.mark.parametrize("torn", [1, 31])
def test_a_torn_record_is_cut_off(tmp_path: Path, torn: int) -> None:
    path = tmp_path / "db.ledger"
    with Ledger(path) as ledger:
        ledger.acknowledge([(1, 2, 1)])
    with path.open("ab") as stream:
        stream.write(b"x" * torn)
    with Ledger(path) as ledger:
        assert ledger.last_acknowledged() == 1
        ledger.acknowledge([(2, 4, 3)])
    assert [entry.number for entry in read_ledger(path)] == [1, 2]


def test_damage_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "db.ledger"
    with Ledger(path) as ledger:
        ledger.acknowledge([(1, 2, 1)])
    raw = bytearray(path.read_bytes())
    raw[40] ^= 1
    path.write_bytes(raw)
    with pytest.raises(Damaged):
        last_acknowledged(path)
    with pytest.raises(Damaged):
        list(read_ledger(path))
    path.write_bytes(b"something else entirely, and long enough")
    with pytest.raises(Damaged, match="not a client ledger"):
        Ledger(path)
