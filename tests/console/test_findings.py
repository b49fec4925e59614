"""Readiness of large plans stays readable."""

from __future__ import annotations

from console.findings import NAMED, rows_of
from vault.domain import Finding

MACHINES = [f"m{number}" for number in range(50)]


def test_what_is_well_with_many_machines_is_one_row() -> None:
    rows = rows_of([Finding.passed(machine, "is protected") for machine in MACHINES])

    assert rows == [["pass", "m0 and 49 more", "is protected", ""]]


def test_few_machines_are_named() -> None:
    rows = rows_of([Finding.passed(machine, "is protected") for machine in MACHINES[:NAMED]])

    assert [row[1] for row in rows] == MACHINES[:NAMED]


def test_everything_that_needs_somebody_comes_first_and_by_name() -> None:
    passed = [Finding.passed(machine, "is protected") for machine in MACHINES]
    failed = [Finding.failed(machine, "is not protected", "leeward protect") for machine in MACHINES[:30]]
    warned = [Finding.warned("m7", "RPO 9 min", "wait")]

    rows = rows_of([*passed, *warned, *failed])

    assert [row[0] for row in rows] == ["fail"] * 30 + ["warn", "pass"]
    assert [row[1] for row in rows[:30]] == MACHINES[:30]


def test_different_findings_are_not_put_together() -> None:
    rows = rows_of([Finding.passed(machine, f"RPO {machine[1:]} s") for machine in MACHINES])

    assert len(rows) == len(MACHINES)
