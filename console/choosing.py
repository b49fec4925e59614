"""``--recovery-point``: what cannot be meant is told before anything is asked or started."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from vault.domain import LATEST, LATEST_APP_CONSISTENT, LATEST_CONSISTENT, LATEST_PROCESSED
from vault.errors import BadInput
from vault.validation import did_you_mean

if TYPE_CHECKING:
    from console.client import Leeward
    from plans.model import Plan
    from vault.domain import RecoveryPoint
    from vault.inventory import Inventory

    PointsByMachine = dict[str, list[RecoveryPoint]]

OPTION = "--recovery-point"
WORDS = (LATEST, LATEST_PROCESSED, LATEST_APP_CONSISTENT)
_LIKE_A_TIME = re.compile(r"\d{4}-\d{1,2}(-|$)|\d{1,4}[./]\d|\d{1,2}:\d\d")
"""How times begin that people write; no fabric's id of a point does."""
_TIME = "a time is written like 2026-01-31T03:04:05Z"


def require_a_choice(choice: str, plan: Plan, inventory: Inventory) -> None:
    """Raises ``BadInput`` for what is no word, no time and cannot be a point's id."""
    groups = inventory.consistency_groups
    if choice.startswith(LATEST_CONSISTENT):
        group = choice.removeprefix(LATEST_CONSISTENT)
        if group not in groups:
            known = did_you_mean(group, groups) or "the inventory has no 'consistency_groups'"
            raise BadInput(f"there is no consistency group '{group}'", where=OPTION, remedy=known)
        if not set(groups[group]) & set(plan.machines):
            what = f"no machine of plan {plan.name} is in consistency group '{group}'"
            raise BadInput(what, where=OPTION, remedy="name a group of its machines, or another word")
    elif choice not in WORDS and choice.partition(":")[0].startswith(LATEST):
        given = did_you_mean(choice, [*WORDS, *(f"{LATEST_CONSISTENT}{group}" for group in groups)])
        raise BadInput(f"'{choice}' is not known", where=OPTION, remedy=given)
    elif not choice.strip():
        raise BadInput("nothing was named", where=OPTION, remedy=f"name '{LATEST}', a time, or a point's id")
    elif _LIKE_A_TIME.match(choice):
        _require_a_time(choice)


def _require_a_time(choice: str) -> None:
    try:
        datetime.fromisoformat(choice)
    except ValueError:
        raise BadInput(f"'{choice}' is no time", where=OPTION, remedy=_TIME) from None


async def points_of(leeward: Leeward, machines: Sequence[str]) -> PointsByMachine:
    """What the targets keep of these machines, and of those that are cut at one moment with them."""
    groups = leeward.inventory.consistency_groups.values()
    together = {one for members in groups if set(members) & set(machines) for one in members}
    asked = sorted({*machines, *together})
    lists = await asyncio.gather(*map(leeward.recovery_points, asked))
    return {name: found.points for name, found in zip(asked, lists, strict=True)}


def require_that_it_exists(choice: str, machines: Sequence[str], points: PointsByMachine, inventory: Inventory) -> None:
    """As the sites would find when a run asks them. Raises ``NotFound`` of the first machine that has no such point."""
    from replication.groups import choose

    for machine in machines:
        group = inventory.group_of(machine)
        of_group = {name: points[name] for name in inventory.consistency_groups.get(group, [])}
        choose(points[machine], choice, group=group, of_members=partial(dict, of_group), where=f"machine {machine}")
