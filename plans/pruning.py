"""What is left of a plan without its parts that are no plan's: the mistakes of the rest are told beside theirs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from plans.model import Plan
from vault.yamlsource import Node, YamlSource

Place = tuple[str | int, ...]
STEPS = ("before", "after")
SOMEWHERE = "unnamed"
"""Stands for the name of a plan, or begins that of a group, that has none."""
HARMLESS = (frozenset(Plan.model_fields) | {"plan"}) - {"variables", "variables_for"}
"""Keys of a plan without which all its templates still mean the same."""


@dataclass(frozen=True)
class Rest:
    """``has_all_machines``: none went away; ``has_all_variables``: as well."""

    plan: Plan
    source: YamlSource
    has_all_machines: bool
    has_all_variables: bool


def rest_of(source: YamlSource) -> Rest | None:
    """The plan without what does not fit the model; everything that stays is found where it stood.

    A step goes as a whole: whatever it was meant to be, nothing follows from half of it. None: nothing is left, or what
    is left is no plan either.
    """
    data = source.data
    try:
        Plan.model_validate(data)
    except ValidationError as error:
        places = {_part(source.root, detail["loc"]) for detail in error.errors(include_url=False)}
    else:
        places = set()
    pruned = replace(source, root=_without(source.root, (), places))
    try:
        plan = Plan.model_validate(pruned.data)
    except ValidationError:
        return None
    keys = {str(place[0]) for place in places if len(place) == 1}
    return Rest(
        plan,
        pruned,
        has_all_machines=not any(_is_a_machine_or_group(place) for place in places),
        has_all_variables=keys <= HARMLESS,
    )


def _part(root: Node, loc: Place) -> Place:
    """The smallest part around a complaint without which the rest is what it was."""
    place: Place = ()
    node = root
    for part in loc:
        child = node.children.get(part)
        if child is None:
            return loc[:3] if _is_a_groups_name(loc[:3]) else _around(place or loc[:1])
        place, node = (*place, part), child
        if _is_a_step(place):
            return place
    return _around(place)


def _around(place: Place) -> Place:
    if place[:1] != ("groups",):
        return place[:1]
    if place[2:3] != ("machines",):
        return place[:3]
    return place[:5] if place[4:5] != ("machine",) else place[:4]


def _is_a_groups_name(place: Place) -> bool:
    return place[:1] == ("groups",) and place[2:] == ("name",)


def _is_a_step(place: Place) -> bool:
    return len(place) > 1 and place[-2] in STEPS and isinstance(place[-1], int)


def _is_a_machine_or_group(place: Place) -> bool:
    """Also a list of them."""
    return place[:1] == ("groups",) and (len(place) <= 2 or (place[2:3] == ("machines",) and len(place) <= 4))


def _without(node: Node, place: Place, parts: set[Place]) -> Node:
    kept = {
        key: _without(child, (*place, key), parts)
        for key, child in node.children.items()
        if (*place, key) not in parts and not _is_no_name(place, key, parts)
    }
    data: Any = node.data
    if isinstance(node.data, list):
        kept = dict(enumerate(kept.values()))
        data = [child.data for child in kept.values()]
    elif isinstance(node.data, dict):
        if not place and parts & {("plan",), ("name",)}:
            kept["plan"] = Node(node.position, SOMEWHERE)
        if (*place, "name") in parts and _is_a_groups_name((*place, "name")):
            kept["name"] = Node(node.position, f"{SOMEWHERE}-{place[1]}")
        data = {key: child.data for key, child in kept.items()}
    return replace(node, data=data, children=kept)


def _is_no_name(place: Place, key: str | int, parts: set[Place]) -> bool:
    """A plan's name has two keys; a complaint about it names the first, also where the other one is meant."""
    return not place and key in {"plan", "name"} and bool(parts & {("plan",), ("name",)})
