"""What differs between two inventories, in words."""

from __future__ import annotations

import pytest
from lab_support import lab_machine, make_inventory

from vault.inventory_changes import changes

pytestmark = pytest.mark.unit


def test_what_is_new_gone_and_changed_is_named() -> None:
    before = make_inventory({"db": lab_machine(), "app": lab_machine()})
    described = before.machines["db"].model_copy(update={"description": "orders"})
    policy = next(iter(before.policies))
    now = before.model_copy(
        update={
            "machines": {"db": described, "web": before.machines["app"]},
            "policies": {policy: before.policies[policy].model_copy(update={"frequency": 900, "resync": "manual"})},
            "network_mappings": [],
        }
    )
    assert changes(before, now) == [
        f"policy '{policy}' changed (frequency, resync)",
        "network mappings changed",
        "machine 'web' is new",
        "machine 'app' is gone",
        "machine 'db' changed (description)",
    ]


def test_nothing_differs() -> None:
    assert changes(make_inventory(), make_inventory()) == []


def test_many_of_one_kind_are_counted() -> None:
    before, names = make_inventory({"db": lab_machine()}), [f"m{number:02}" for number in range(40)]
    now = before.model_copy(
        update={"machines": {"db": before.machines["db"], **dict.fromkeys(names, before.machines["db"])}}
    )
    assert changes(before, now) == [
        "machine 'm00' is new",
        "machine 'm01' is new",
        "machine 'm02' is new",
        "37 more machines are new",
    ]
