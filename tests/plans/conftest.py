from __future__ import annotations

from pathlib import Path

import pytest

from plans.loading import load_plan
from plans.model import Plan
from vault.inventory import Inventory
from vault.loading import load_inventory

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="session")
def inventory() -> Inventory:
    return load_inventory(EXAMPLES / "leeward.yaml")


@pytest.fixture(scope="session")
def example_text() -> str:
    return (EXAMPLES / "payments.plan.yaml").read_text()


@pytest.fixture(scope="session")
def payments(inventory: Inventory) -> Plan:
    return load_plan(EXAMPLES / "payments.plan.yaml", inventory)
