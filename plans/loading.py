"""Read a recovery plan from its file and check everything in it that can be known before a run."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from plans.checking import PlanChecks
from plans.including import with_included
from plans.model import Plan
from plans.people import with_people
from vault.errors import BadInput
from vault.inventory import Inventory
from vault.names import unknown
from vault.validation import MAX_ERRORS, Loaded, in_order_of_the_file, validate_beside
from vault.yamlsource import YamlSource, read_yaml

MAX_STEPS = 1_000
MAX_MACHINES = 5_000


def load_plan(path: Path, inventory: Inventory) -> Plan:
    """The plan, checked against the inventory, every template in it rendered once for every run type it is for.

    Raises:
        InputErrors: with everything that is wrong, each as ``file:line:column: what — what to do``.
        BadInput, NotFound, AuthorizationRefused: when the file cannot be read as YAML at all.
    """
    return load_plan_source(path, inventory).model


def load_plan_source(path: Path, inventory: Inventory) -> Loaded[Plan]:
    """As :func:`load_plan`, with the positions of everything in the file and in those that it includes."""
    source = with_included(read_yaml(path))
    strangers = list(islice(_unknown_machines(source, inventory), MAX_ERRORS))
    loaded = validate_beside(source, Plan, strangers)
    _refuse_too_large(loaded)
    errors = [*strangers, *islice(PlanChecks(loaded.model, loaded.source, inventory).all(), MAX_ERRORS)]
    if errors:
        raise in_order_of_the_file(errors)
    groups = inventory.access.groups if inventory.access is not None else {}
    return Loaded(with_people(loaded.model, groups), loaded.source)


def _unknown_machines(source: YamlSource, inventory: Inventory) -> Iterator[BadInput]:
    """Looked for in what was read: told beside whatever else keeps the file from being a plan."""
    groups = source.data.get("groups") if isinstance(source.data, dict) else None
    for index, group in enumerate(groups if isinstance(groups, list) else []):
        entries = group.get("machines") if isinstance(group, dict) else None
        for number, entry in enumerate(entries if isinstance(entries, list) else []):
            name = entry.get("machine") if isinstance(entry, dict) else entry
            place = ("groups", index, "machines", number, "machine")
            yield from unknown(source, place, "machine", name, inventory.machines)


def _refuse_too_large(loaded: Loaded[Plan]) -> None:
    plan = loaded.model
    steps = sum(1 for _ in plan.steps)
    for count, limit, what in ((steps, MAX_STEPS, "steps"), (len(plan.machines), MAX_MACHINES, "machines")):
        if count > limit:
            raise loaded.source.error((), f"the plan has {count} {what}, more than {limit}", remedy="split the plan")
