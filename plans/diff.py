"""What changed between two plans, in the words of the language: not which lines, but what a run would do otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Any, Literal

from plans.model import Group, Plan, PlanMachine
from plans.steps import Step
from plans.yamltext import duration, size
from vault.domain import Value

MOST_SHOWN = 120
"""Characters of a value that are shown."""
_DURATIONS = {"rto", "timeout", "every", "duration", "start_delay", "boot_timeout", "shutdown_timeout"}


class Change(Value):
    """One difference. ``what`` is ``plan``, ``group``, ``machine`` or ``step``; ``name`` says which.

    ``changed`` has ``setting`` with both values, ``moved`` the two places. A value that was not set is empty.
    """

    kind: Literal["added", "removed", "moved", "changed"]
    what: Literal["plan", "group", "machine", "step"]
    name: str
    setting: str = ""
    before: str = ""
    after: str = ""

    def __str__(self) -> str:
        subject = f"{self.what} '{self.name}'"
        if self.kind == "changed":
            return f"{subject}: {self.setting}: {self.before or '(none)'} → {self.after or '(none)'}"
        if self.kind == "moved":
            return f"{subject} moved from {self.before} to {self.after}"
        place = self.after if self.kind == "added" else self.before
        return f"{subject} {self.kind}{f' ({place})' if place else ''}"


def diff_plans(old: Plan, new: Plan) -> list[Change]:
    """The differences, in the order of the file: the plan's own settings, groups, machines, steps."""
    changes = list(_settings("plan", new.name, old, new, skip={"groups", "before", "after"}))
    changes += _groups(old, new)
    changes += _machines(old, new)
    changes += _steps(old, new)
    return changes


def _groups(old: Plan, new: Plan) -> Iterator[Change]:
    before, after = ({group.name: group for group in plan.groups} for plan in (old, new))
    yield from _came_and_went("group", list(before), list(after))
    yield from _reordered("group", [*before], [*after], lambda name, order: f"place {order.index(name) + 1}")
    for name, group in after.items():
        if name in before:
            yield from _settings("group", name, before[name], group, skip={"name", "machines", "before", "after"})


def _machines(old: Plan, new: Plan) -> Iterator[Change]:
    before, after = _machines_of(old), _machines_of(new)
    yield from _came_and_went(
        "machine",
        list(before),
        list(after),
        {name: f"group {group.name}" for name, (group, _) in (*before.items(), *after.items())},
    )
    for name, (group, entry) in after.items():
        if name in before:
            earlier_group, earlier = before[name]
            if earlier_group.name != group.name:
                places = (f"group {earlier_group.name}", f"group {group.name}")
                yield Change(kind="moved", what="machine", name=name, before=places[0], after=places[1])
            yield from _settings("machine", name, earlier, entry, skip={"machine", "before", "after"})


def _machines_of(plan: Plan) -> dict[str, tuple[Group, PlanMachine]]:
    return {entry.machine: (group, entry) for group in plan.groups for entry in group.machines}


def _steps(old: Plan, new: Plan) -> Iterator[Change]:
    before, after = _steps_of(old), _steps_of(new)
    places = {name: place for name, (place, _) in (*before.items(), *after.items())}
    yield from _came_and_went("step", list(before), list(after), places)
    for name, (place, step) in after.items():
        if name in before:
            earlier_place, earlier = before[name]
            if earlier_place != place:
                yield Change(kind="moved", what="step", name=name, before=earlier_place, after=place)
            yield from _settings("step", name, earlier, step, skip={"name"})
    for place in dict.fromkeys(place for place, _ in after.values()):
        order = [
            [name for name, (where, _) in steps.items() if where == place and _stays(name, place, before, after)]
            for steps in (before, after)
        ]
        yield from _reordered("step", order[0], order[1], lambda name, all_: f"place {all_.index(name) + 1}")


def _stays(name: str, place: str, before: dict[str, tuple[str, Step]], after: dict[str, tuple[str, Step]]) -> bool:
    return name in before and name in after and before[name][0] == after[name][0] == place


def _steps_of(plan: Plan) -> dict[str, tuple[str, Step]]:
    lists: list[tuple[str, Sequence[Step]]] = [("before everything", plan.before)]
    for group in plan.groups:
        lists.append((f"before group {group.name}", group.before))
        for entry in group.machines:
            lists += [(f"before {entry.machine}", entry.before), (f"after {entry.machine}", entry.after)]
        lists.append((f"after group {group.name}", group.after))
    lists.append(("after everything", plan.after))
    return {step.name: (place, step) for place, steps in lists for step in steps}


def _came_and_went(
    what: Literal["group", "machine", "step"], before: list[str], after: list[str], places: dict[str, str] | None = None
) -> Iterator[Change]:
    for name in before:
        if name not in after:
            yield Change(kind="removed", what=what, name=name, before=(places or {}).get(name, ""))
    for name in after:
        if name not in before:
            yield Change(kind="added", what=what, name=name, after=(places or {}).get(name, ""))


def _reordered(what: Literal["group", "step"], before: list[str], after: list[str], place: Any) -> Iterator[Change]:
    """The fewest names that have to move to turn one order of the common ones into the other."""
    common = [[name for name in names if name in other] for names, other in ((before, after), (after, before))]
    blocks = SequenceMatcher(a=common[0], b=common[1], autojunk=False).get_matching_blocks()
    stay = {name for block in blocks for name in common[0][block.a : block.a + block.size]}
    for name in common[1]:
        if name not in stay:
            yield Change(
                kind="moved", what=what, name=name, before=place(name, common[0]), after=place(name, common[1])
            )


def _settings(
    what: Literal["plan", "group", "machine", "step"], name: str, old: Value, new: Value, skip: set[str]
) -> Iterator[Change]:
    before, after = ({key: getattr(side, key) for key in type(side).model_fields} for side in (old, new))
    for key in dict.fromkeys([*before, *after]):
        if key in skip or before.get(key) == after.get(key):
            continue
        left, right = _parts(before.get(key)), _parts(after.get(key))
        if isinstance(left, dict) and isinstance(right, dict):
            for inner in dict.fromkeys([*left, *right]):
                if left.get(inner) != right.get(inner):
                    yield Change(
                        kind="changed",
                        what=what,
                        name=name,
                        setting=f"{key}.{inner}",
                        before=_shown(inner, left.get(inner)),
                        after=_shown(inner, right.get(inner)),
                    )
        else:
            yield Change(
                kind="changed", what=what, name=name, setting=key, before=_shown(key, left), after=_shown(key, right)
            )


def _parts(value: Any) -> Any:
    """A value inside a setting as its own settings."""
    return {key: getattr(value, key) for key in type(value).model_fields} if isinstance(value, Value) else value


def _shown(key: str, value: Any) -> str:
    if isinstance(value, Value):
        value = value.model_dump(mode="json", exclude_defaults=True)
    if value in (None, "", [], {}):
        return ""
    if key in _DURATIONS and isinstance(value, int | float):
        return duration(value)
    if key == "memory" and isinstance(value, int):
        return size(value)
    text = ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)
    text = text.replace("\n", "⏎")
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"
