"""Read a recovery plan from its file and check everything in it that can be known before a run."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from plans.checking import PlanChecks
from plans.including import with_included
from plans.model import Plan
from plans.people import with_people
from plans.pruning import rest_of
from vault.access import AccessSection
from vault.errors import BadInput, InputErrors
from vault.inventory import Inventory
from vault.names import unknown
from vault.validation import MAX_ERRORS, Loaded, in_order_of_the_file, validate
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
    source, faults = with_included(read_yaml(path))
    if faults and not _has_groups(source):  # they were to come from what cannot be included
        raise in_order_of_the_file(faults)
    found = [*faults, *islice(_unknown_machines(source, inventory), MAX_ERRORS)]
    try:
        loaded = validate(source, Plan)
    except InputErrors as error:
        rest = _mistakes_of_the_rest(source, inventory, is_whole=not faults)
        raise in_order_of_the_file([*error.errors, *found, *rest]) from None
    too_large = _too_large(loaded.model)
    if too_large is not None:
        raise source.error((), too_large, remedy="split the plan")
    found += _mistakes(PlanChecks(loaded.model, source, inventory, all_machines=not faults, all_variables=not faults))
    if found:
        raise in_order_of_the_file(found)
    return Loaded(with_people(loaded.model, inventory.access or AccessSection()), loaded.source)


def _has_groups(source: YamlSource) -> bool:
    return not isinstance(source.data, dict) or source.data.get("groups") != []


def _mistakes_of_the_rest(source: YamlSource, inventory: Inventory, *, is_whole: bool) -> list[BadInput]:
    """What else is wrong with a file of which something is not a plan's."""
    rest = rest_of(source)
    if rest is None or _too_large(rest.plan) is not None:
        return []
    machines, variables = is_whole and rest.has_all_machines, is_whole and rest.has_all_variables
    return _mistakes(PlanChecks(rest.plan, rest.source, inventory, all_machines=machines, all_variables=variables))


def _mistakes(checks: PlanChecks) -> list[BadInput]:
    return list(islice(checks.all(), MAX_ERRORS))


def _unknown_machines(source: YamlSource, inventory: Inventory) -> Iterator[BadInput]:
    """Looked for in what was read: told beside whatever else keeps the file from being a plan."""
    groups = source.data.get("groups") if isinstance(source.data, dict) else None
    for index, group in enumerate(groups if isinstance(groups, list) else []):
        entries = group.get("machines") if isinstance(group, dict) else None
        for number, entry in enumerate(entries if isinstance(entries, list) else []):
            name = entry.get("machine") if isinstance(entry, dict) else entry
            place = ("groups", index, "machines", number, "machine")
            yield from unknown(source, place, "machine", name, inventory.machines)


def _too_large(plan: Plan) -> str | None:
    steps = sum(1 for _ in plan.steps)
    for count, limit, what in ((steps, MAX_STEPS, "steps"), (len(plan.machines), MAX_MACHINES, "machines")):
        if count > limit:
            return f"the plan has {count} {what}, more than {limit}"
    return None
