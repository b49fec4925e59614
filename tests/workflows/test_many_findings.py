"""A plan of a thousand machines has several thousand findings before it begins."""

from __future__ import annotations

import pytest

from vault.domain import Finding
from workflows.readiness import without_repeats

pytestmark = pytest.mark.unit

MANY = 3_000


def test_findings_are_not_compared_each_with_each(monkeypatch: pytest.MonkeyPatch) -> None:
    compared, equal = 0, Finding.__eq__

    def counting(one: Finding, other: object) -> bool:
        nonlocal compared
        compared += 1
        return equal(one, other)

    monkeypatch.setattr(Finding, "__eq__", counting)
    findings = [Finding.passed(f"m{number}", "can be recovered") for number in range(MANY)]
    assert len(without_repeats([*findings, *findings])) == MANY
    assert compared < 2 * MANY
