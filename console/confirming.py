"""What a run for real will do, asked before it begins: of a person at a terminal, never of a script."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from console import prompting
from vault.words import counted

if TYPE_CHECKING:
    from vault.domain import RunType
    from workflows.model import MachineState

ASKED_BEFORE = frozenset({"planned", "unplanned", "failback", "commit"})
"""Runs that production feels, or that cannot be taken back."""
KINDS = {"planned": "planned failover", "unplanned": "unplanned failover", "failback": "failback", "commit": "commit"}


class Means(NamedTuple):
    """What was chosen for the run, most of it for an unplanned failover."""

    point: str = ""
    source_unreachable: bool = False
    left_out: Sequence[str] = ()


def asks(run_type: RunType, *, yes: bool) -> bool:
    """Whether somebody is to be asked, and there to answer."""
    return run_type in ASKED_BEFORE and not yes and is_terminal()


def is_terminal() -> bool:
    return sys.stdin.isatty()


def confirm(plan: str, run_type: RunType, machines: Sequence[MachineState | None], means: Means) -> None:
    """Raises ``typer.Abort`` when the answer is no. Asks nothing when there is nothing that the run could do: it says
    so itself."""
    asked = question(plan, run_type, machines, means)
    if asked:
        prompting.confirm(asked)


def question(plan: str, run_type: RunType, machines: Sequence[MachineState | None], means: Means) -> str:
    """How many machines, from where to where, and what that means; empty when no machine can begin."""
    from vault.lifecycle import refusal
    from workflows.readiness import MAIN_JOB

    job = MAIN_JOB[run_type]
    ready = [
        machine for machine in machines if machine is not None and refusal(machine.name, machine.phase, job) is None
    ]
    if not ready:
        return ""
    where = Counter(_where(run_type, machine) for machine in ready)
    which = ", ".join(f"{counted(count, 'machine')} {way}" for way, count in sorted(where.items()))
    left = len(machines) - len(ready)
    others = f" ({left} of the plan cannot or need not)" if left else ""
    others += f", without {', '.join(means.left_out)}" if means.left_out else ""
    return f"{plan}: {KINDS[run_type]} of {which}{others}. {_consequence(run_type, means)} Go on?"


def _where(run_type: RunType, machine: MachineState) -> str:
    relationship = machine.relationship
    if run_type == "commit":
        return f"at {machine.active_site}"
    return f"from {relationship.source_site} to {relationship.target_site}"


def _consequence(run_type: RunType, means: Means) -> str:
    if run_type == "commit":
        return "Their other recovery points are dropped: no other one can be chosen afterwards."
    if run_type == "unplanned":
        proof = "without proof that it is off where it ran, " if means.source_unreachable else ""
        return f"Not a test: production goes on there, {proof}from recovery point '{means.point}'; newer data is lost."
    return "Not a test: production is shut down where it runs and started there."
