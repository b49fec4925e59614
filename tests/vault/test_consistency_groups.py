"""``consistency_groups`` in the inventory."""

from __future__ import annotations

from pathlib import Path

import pytest

from vault.errors import InputErrors
from vault.inventory import Inventory
from vault.loading import load_inventory
from vault.template import LAB_INVENTORY

pytestmark = pytest.mark.unit


def load(folder: Path, groups: str, inventory: str = LAB_INVENTORY) -> Inventory:
    path = folder / "leeward.yaml"
    path.write_text(f"{inventory}\nconsistency_groups:\n{groups}")
    return load_inventory(path)


def complaints(folder: Path, groups: str, inventory: str = LAB_INVENTORY) -> list[str]:
    with pytest.raises(InputErrors) as raised:
        load(folder, groups, inventory)
    return [f"{error.what} — {error.remedy}" for error in raised.value.errors]


def test_machines_know_their_group(tmp_path: Path) -> None:
    inventory = load(tmp_path, "  payments: [payment-db, payment-app-1]\n  shop: [web, payment-app-2]\n")
    relationship = inventory.relationship("payment-db")
    assert (relationship.group, relationship.group_members) == ("payments", ["payment-app-1", "payment-db"])
    assert relationship.reversed("n", "t").group == "payments"
    assert inventory.relationship("web").group_members == ["payment-app-2", "web"]


def test_a_machine_need_not_be_in_a_group(tmp_path: Path) -> None:
    inventory = load(tmp_path, "  payments: [payment-db, payment-app-1]\n")
    assert (inventory.relationship("web").group, inventory.relationship("web").group_members) == ("", [])


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (
            "  payments: [payment-db, payment-ap-1]\n",
            "unknown machine 'payment-ap-1' — did you mean 'payment-app-1'?",
        ),
        (
            "  payments: [payment-db, payment-app-1]\n  shop: [web, payment-db]\n",
            "machine 'payment-db' is in consistency group 'payments' already — a machine can be in one group, once",
        ),
        (
            "  payments: [payment-db, web, payment-db]\n",
            "machine 'payment-db' is in consistency group 'payments' already — a machine can be in one group, once",
        ),
        (
            "  payments: [payment-db]\n",
            "consistency group 'payments' has 1 machine — name at least two, or remove the group",
        ),
    ],
)
def test_mistakes_are_named_at_their_place(tmp_path: Path, groups: str, expected: str) -> None:
    assert complaints(tmp_path, groups) == [expected]


def test_members_are_at_one_site_and_follow_one_policy(tmp_path: Path) -> None:
    other = LAB_INVENTORY.replace("policies:\n", "policies:\n  slow:\n    frequency: 1h\n", 1).replace(
        "    network: production\n    policy: gold\n    lab:\n      disks:\n        - name: log",
        "    network: production\n    policy: slow\n    lab:\n      disks:\n        - name: log",
        1,
    )
    assert complaints(tmp_path, "  payments: [web, payment-db]\n", other) == [
        "machine 'payment-db' has policy 'slow', but 'web' of its group has 'gold' — "
        "machines of a consistency group have one policy"
    ]
    moved = LAB_INVENTORY.replace(
        "    site: primary\n    target: recovery\n", "    site: recovery\n    target: primary\n", 1
    )
    assert complaints(tmp_path, "  payments: [web, payment-db]\n", moved)[0].startswith(
        "machine 'payment-db' has site 'recovery', but 'web' of its group has 'primary'"
    )
