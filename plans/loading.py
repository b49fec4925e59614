"""Read a recovery plan from its file and check everything in it that can be known before a run."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from plans.checking import PlanChecks
from plans.including import with_included
from plans.model import Plan
from vault.inventory import Inventory
from vault.validation import MAX_ERRORS, Loaded, in_order_of_the_file, validate
from vault.yamlsource import read_yaml

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
    loaded = validate(with_included(read_yaml(path)), Plan)
    _refuse_too_large(loaded)
    errors = list(islice(PlanChecks(loaded.model, loaded.source, inventory).all(), MAX_ERRORS))
    if errors:
        raise in_order_of_the_file(errors)
    return loaded


def _refuse_too_large(loaded: Loaded[Plan]) -> None:
    plan = loaded.model
    steps = sum(1 for _ in plan.steps)
    for count, limit, what in ((steps, MAX_STEPS, "steps"), (len(plan.machines), MAX_MACHINES, "machines")):
        if count > limit:
            raise loaded.source.error((), f"the plan has {count} {what}, more than {limit}", remedy="split the plan")
