"""Machines that an operator leaves out of one run: checked before anything is started, and by the run itself again."""

from __future__ import annotations

from collections.abc import Sequence

from plans.leaving_out import OPTION, unknown, why_not_leave_out
from plans.model import Plan
from vault.domain import RunType
from vault.errors import BadInput, InputErrors
from vault.validation import did_you_mean

NO_NOTE_NEEDED = "only looking"
"""Said in place of a note by what changes nothing."""


def require_that_may_be_left_out(
    plan: Plan, without: Sequence[str], run_type: RunType, note: str = NO_NOTE_NEEDED
) -> None:
    """Raises ``BadInput``, or several as ``InputErrors``, with what speaks against it."""
    if not without:
        return
    errors = [
        BadInput(f"machine '{name}' is not in plan {plan.name}", where=OPTION, remedy=did_you_mean(name, plan.machines))
        for name in unknown(plan, without)
    ]
    if not errors:
        errors = [BadInput(problem, where=OPTION) for problem in why_not_leave_out(plan, without, run_type, note)]
    if errors:
        raise errors[0] if len(errors) == 1 else InputErrors(errors)
