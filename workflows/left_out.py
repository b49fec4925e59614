"""Machines that a run passes over: left out by its operator's word, or never recovered when it follows a recovery.

A run that commits, reverses replication or cleans up follows what was recovered: what was not stays as it is, and the
run says so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from plans.leaving_out import needing, options, why_not_leave_out
from plans.model import Plan
from plans.steps import RECOVERING
from vault.domain import Finding, RunType, Severity
from vault.lifecycle import LIFECYCLE, JobKind, Phase
from workflows.model import MachineDescribed, PlanRequest, RunFacts

NAMED = 5
"""So many machines are named in one sentence; each has its own row."""
NOT_FAILED_OVER = frozenset(
    {
        Phase.UNPROTECTED,
        Phase.ENABLING,
        Phase.ENABLED,
        Phase.REPLICATING_INITIALLY,
        Phase.COPIED,
        Phase.FINALIZING,
        Phase.PROTECTED,
        Phase.RESYNC_REQUIRED,
        Phase.RESYNCHRONIZING,
    }
)
_FOLLOWS: dict[RunType, JobKind] = {"commit": JobKind.COMMIT, "reverse": JobKind.REVERSE}
_NOTHING: dict[RunType, str] = {"commit": "nothing to commit", "reverse": "nothing to reverse"}


def refusals(given: PlanRequest) -> list[str]:
    """What speaks against the machines that the request leaves out."""
    return why_not_leave_out(given.plan, given.without, given.run_type, given.note) if given.without else []


def left_out(given: PlanRequest) -> dict[str, str]:
    """By machine, in the plan's order: that it is left out, by whom and why."""
    words = f"left out by {given.requested_by}: {given.note}"
    return {machine: words for machine in given.plan.machines if machine in given.without}


def not_recovered(
    described: Mapping[str, MachineDescribed], unprotected: Sequence[str], facts: RunFacts
) -> dict[str, str]:
    """By machine, that there is nothing to do for this run, because no run has recovered it.

    Empty when that is so of all machines: then the run makes no sense, and is refused with what speaks against it."""
    if facts.run_type == "cleanup":
        return _without_copy(described, unprotected, facts.plan)
    job = _FOLLOWS.get(facts.run_type)
    if job is None:
        return {}
    ways = {one.reversed for one in described.values() if one.phase in LIFECYCLE[job].starts_in}
    if len(ways) != 1:
        return {}
    stayed = {name: one for name, one in described.items() if one.phase in NOT_FAILED_OVER and one.reversed in ways}
    nothing = f"not failed over, {_NOTHING[facts.run_type]}"
    words = {name: f"{nothing}: it is {one.phase} at {one.active_site}" for name, one in stayed.items()}
    return dict(sorted((words | dict.fromkeys(unprotected, f"{nothing}: it is not protected")).items()))


def _without_copy(described: Mapping[str, MachineDescribed], unprotected: Sequence[str], plan: str) -> dict[str, str]:
    """Of those that a clean-up could not ask: others say themselves that they have none."""
    if not any(copy.is_of(plan, None) for one in described.values() for copy in one.tests):
        return {}
    asked = LIFECYCLE[JobKind.CLEANUP_TEST].starts_in
    busy = [name for name, one in described.items() if one.phase not in asked and not one.copies]
    return dict.fromkeys(sorted([*unprotected, *busy]), "it has no test copy, nothing to clean up")


def passed_over(without: Collection[str], all_of_them: Iterable[str]) -> str:
    """``left out: db; not recovered: web``; ``without``: those that its operator left out. Empty: nobody."""
    machines = list(all_of_them)
    chosen = in_brief([machine for machine in machines if machine in without])
    stayed = in_brief([machine for machine in machines if machine not in without])
    return "; ".join(
        filter(None, [f"left out: {chosen}" if chosen else "", f"not recovered: {stayed}" if stayed else ""])
    )


def in_brief(names: Collection[str]) -> str:
    """``db, app and 3 more``; empty without names."""
    shown = ", ".join(list(names)[:NAMED])
    return shown + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def way_out(given: PlanRequest, findings: Iterable[Finding]) -> str:
    """How to recover the others, when everything that speaks against the run is about single machines; else empty."""
    if given.run_type not in RECOVERING:
        return ""
    about = [_machine(given.plan, one) for one in findings if one.severity is Severity.FAIL]
    named = {*given.without, *filter(None, about)}
    leave = [*named, *needing(given.plan, named)]
    if None in about or not about or len(leave) >= len(given.plan.machines):
        return ""
    ordered = options(machine for machine in given.plan.machines if machine in leave)
    return f"to recover the others now, give the command again with: {ordered} --note WHY"


def _machine(plan: Plan, finding: Finding) -> str | None:
    subject = finding.subject
    return next((name for name in plan.machines if subject == name or f"'{name}'" in subject), None)
