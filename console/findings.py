"""Findings of a readiness check as a table that people read: what speaks against the run first, the rest in brief."""

from __future__ import annotations

from vault.domain import WORST_FIRST, Finding, Severity

HEADINGS = ["result", "what", "finding", "to do"]
NAMED = 3
"""So many machines of which the same is well have a row each; more of them share one."""


def rows_of(findings: list[Finding]) -> list[list[str]]:
    """Everything that needs somebody has its own row, whatever the number."""
    same: dict[tuple[Severity, str, str, str], list[str]] = {}
    for one in sorted(findings, key=lambda one: WORST_FIRST.index(one.severity)):
        alone = "" if one.severity is Severity.PASS else one.subject
        same.setdefault((one.severity, alone, one.what, one.remedy), []).append(one.subject)
    return [
        [severity.value, subject, what, remedy]
        for (severity, _, what, remedy), subjects in same.items()
        for subject in _in_brief(subjects)
    ]


def _in_brief(subjects: list[str]) -> list[str]:
    if len(subjects) <= NAMED:
        return subjects
    return [f"{subjects[0]} and {len(subjects) - 1} more"]
