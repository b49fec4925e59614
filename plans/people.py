"""Groups of people in a plan: the inventory says who is in them, a run carries the people's names."""

from __future__ import annotations

from typing import Any

from plans.steps import ManualStep
from vault.access import AccessSection
from vault.domain import Value


def with_people(value: Any, access: AccessSection) -> Any:
    """A plan, or a part of one, with people in place of groups as ``approvers``."""
    if isinstance(value, list):
        return [with_people(one, access) for one in value]
    if isinstance(value, ManualStep):
        return value.model_copy(update={"approvers": list(dict.fromkeys(access.people(value.approvers)))})
    if isinstance(value, Value):
        lists = {name: inner for name, inner in value if isinstance(inner, list)}
        return value.model_copy(update={name: with_people(inner, access) for name, inner in lists.items()})
    return value
