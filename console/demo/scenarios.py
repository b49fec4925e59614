"""The demo's scenarios: which inventory, which plan. The phases are the same for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Scenario(NamedTuple):
    name: str
    title: str
    inventory: Callable[[], str]
    plan: Callable[[], str]


def _lab_inventory() -> str:
    from vault.template import LAB_INVENTORY

    return LAB_INVENTORY


def _lab_plan() -> str:
    from plans.template import LAB_PLAN

    return LAB_PLAN


SCENARIOS: dict[str, Scenario] = {
    "lab": Scenario("lab", "two lab sites, leeward's own replication", _lab_inventory, _lab_plan),
}
