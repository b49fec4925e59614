"""Machines that one run leaves out by its operator's word: which may be, and what that means for the plan's steps."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from plans.model import Plan
from plans.steps import RECOVERING, CheckStep, ScriptStep, Step
from vault.domain import RunType
from vault.words import counted

OPTION = "--without"


def unknown(plan: Plan, names: Iterable[str]) -> list[str]:
    """Those that are no machines of the plan."""
    return [name for name in names if name not in plan.machines]


def why_not_leave_out(plan: Plan, names: Sequence[str], run_type: RunType, note: str) -> list[str]:
    """What speaks against a run without these machines, a sentence each; empty: nothing."""
    if run_type not in RECOVERING:
        return [f"a {run_type} run follows what was recovered, no machine can be left out of it — leave {OPTION} away"]
    strangers = unknown(plan, names)
    if strangers:
        return [f"'{name}' is no machine of plan {plan.name}" for name in strangers]
    if set(names) >= set(plan.machines):
        return [f"all machines of plan {plan.name} would be left out — leave at least one of them in"]
    problems = []
    left_behind = needing(plan, names)
    if left_behind:
        problems.append(f"{_depends(plan, names, left_behind)} — {_remedy(plan, names, left_behind)}")
    if not note.strip():
        problems.append("a note is required, it is kept with the run — say why the machines are left out with --note")
    return problems


def needing(plan: Plan, names: Collection[str]) -> list[str]:
    """The other machines that depend on these, directly or by others of them; in the plan's order."""
    without = set(names)
    entries = [entry for group in plan.groups for entry in group.machines]
    while more := {entry.machine for entry in entries if without & set(entry.depends_on)} - without:
        without |= more
    return [name for name in plan.machines if name in without and name not in names]


def options(names: Iterable[str]) -> str:
    """``--without db --without app``."""
    return " ".join(f"{OPTION} {name}" for name in names)


def machine_of(step: Step) -> str:
    """The machine that a step is carried out on or asks; empty when it names none outside of its templates."""
    if isinstance(step, ScriptStep):
        return step.on
    if not isinstance(step, CheckStep):
        return ""
    if step.command is not None:
        return step.command.on
    if step.http is not None:
        return step.http.machine or ""
    return (step.tcp or "").strip().partition(":")[0]


def _depends(plan: Plan, names: Collection[str], left_behind: list[str]) -> str:
    needs = {entry.machine: entry.depends_on for group in plan.groups for entry in group.machines}
    gone = {*names, *left_behind}
    said = [f"{name} depends on {', '.join(n for n in needs[name] if n in gone)}" for name in left_behind]
    which = "it" if len(names) == 1 else "them"
    return f"{' and '.join(names)} cannot be left out while machines that need {which} stay in: {'; '.join(said)}"


def _remedy(plan: Plan, names: Collection[str], left_behind: list[str]) -> str:
    if len(names) + len(left_behind) >= len(plan.machines):
        return "without these too nothing would be left to recover; take the dependency out of the plan, or recover all"
    too = counted(len(left_behind), "machine")
    return f"leave {too} more out: {options([*names, *left_behind])}"
