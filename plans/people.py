"""Groups of people in a plan: the inventory says who is in them, a run carries the people's names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plans.steps import ManualStep
from vault.access import OF_GROUP
from vault.domain import Value


def with_people(value: Any, groups: Mapping[str, Sequence[str]]) -> Any:
    """A plan, or a part of one, with people in place of groups as ``approvers``."""
    if isinstance(value, list):
        return [with_people(one, groups) for one in value]
    if isinstance(value, ManualStep):
        people = [person for name in value.approvers for person in _people(name, groups)]
        return value.model_copy(update={"approvers": list(dict.fromkeys(people))})
    if isinstance(value, Value):
        lists = {name: inner for name, inner in value if isinstance(inner, list)}
        return value.model_copy(update={name: with_people(inner, groups) for name, inner in lists.items()})
    return value


def _people(name: str, groups: Mapping[str, Sequence[str]]) -> Sequence[str]:
    return groups[name.removeprefix(OF_GROUP)] if name.startswith(OF_GROUP) else [name]
