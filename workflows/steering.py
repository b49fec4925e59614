"""What operators may say to a run, and who may say it: pure rules, asked by the run's Update validators.

Asked there and not in the command line, so that going around the command line does not help.
"""

from __future__ import annotations

from collections.abc import Sequence

from plans.model import Plan
from plans.steps import ManualStep
from vault.access import Action, Authorizer
from workflows.model import Steer, StepRow


def why_not(access: Authorizer | None, identity: str, action: Action, note: str) -> str | None:
    """Why somebody may not do something, or has not said why he does it; None when he may."""
    refusal = access.refusal(identity, action) if access is not None else None
    if refusal is None and not note.strip():
        return "a note is required, it is kept with the run — say why with --note"
    return refusal


def why_not_start(access: Authorizer | None, identity: str, *, auto_approve: bool) -> str | None:
    """Why somebody may not have a run; None when he may. Manual steps that approve themselves need an approver."""
    if access is None:
        return None
    may_not = access.refusal(identity, Action.RUN)
    return may_not or (access.refusal(identity, Action.APPROVE) if auto_approve else None)


def why_not_steer(
    steer: Steer, row: StepRow | None, waiting: Sequence[StepRow], plan: Plan, access: Authorizer | None
) -> str | None:
    """Why a step of the run cannot be steered so; None when it can. ``row``: the step's, if there is one."""
    action = Action.APPROVE if steer.action == "approve" else Action.STEER
    refusal = why_not(access, steer.by, action, steer.note)
    if refusal is not None:
        return refusal
    listed = ", ".join(f"'{one.id}' ({one.state})" for one in waiting) or "none"
    if row is None:
        return f"no step '{steer.step}' in this run — steps that wait: {listed}"
    if not row.waits:
        return f"step '{steer.step}' is {row.state}, it does not wait for you — steps that wait: {listed}"
    if steer.action == "approve" and row.state != "waiting":
        return f"step '{steer.step}' failed; approve is for manual steps — retry or skip it"
    if steer.action == "retry" and row.state != "failed":
        return f"step '{steer.step}' waits for approval; there is nothing to retry — approve or skip it"
    return _why_not_for_him(steer, row, plan, access)


def _why_not_for_him(steer: Steer, row: StepRow, plan: Plan, access: Authorizer | None) -> str | None:
    """A manual step may name its approvers; skipping it would be a way around them."""
    step = next((step for step in plan.steps if step.name == row.name and isinstance(step, ManualStep)), None)
    if row.kind != "manual" or step is None or not step.approvers or steer.action == "retry":
        return None
    roles = {f"role:{role}" for role in access.roles(steer.by)} if access is not None else set()
    if {steer.by, *roles} & set(step.approvers):
        return None
    named = ", ".join(step.approvers)
    return f"'{steer.by}' may not {steer.action} '{row.name}': its approvers are {named} — ask one of them"
