"""The examples and the tables of ``docs/plans.md`` are true."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from plans import sandbox
from plans.context import MachineInRun, RunContext
from plans.filters import FILTERS
from plans.loading import MAX_MACHINES, MAX_STEPS, load_plan
from plans.model import Plan, PlanMachine
from plans.schema import plan_schema
from plans.steps import CallStep, CheckStep, CommandCheck, HttpCheck, ManualStep, ScriptStep, WaitStep
from vault import yamlsource
from vault.access import AccessSection
from vault.domain import Value
from vault.inventory import Inventory

pytestmark = pytest.mark.unit

TEXT = (Path(__file__).parents[2] / "docs" / "plans.md").read_text()
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
AROUND = "plan: p\ngroups:\n  - name: g\n    machines: [web]\n    after:\n"


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_examples_load(tmp_path: Path, inventory: Inventory, example: str) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(example if example.startswith("plan:") else AROUND + textwrap.indent(example, "      "))
    load_plan(path, inventory.model_copy(update={"access": AccessSection(approvers=["ada"])}))


MODELS = [
    Plan,
    PlanMachine,
    ScriptStep,
    ManualStep,
    CheckStep,
    HttpCheck,
    CommandCheck,
    CallStep,
    WaitStep,
    RunContext,
    MachineInRun,
]


@pytest.mark.parametrize("model", MODELS)
def test_every_key_is_explained(model: type[Value]) -> None:
    definition = plan_schema()["$defs"].get(model.__name__) or (plan_schema() if model is Plan else None)
    keys = definition["properties"] if definition else model.model_fields
    for key in keys:
        assert re.search(rf"`{key}[`(:]", TEXT), f"{model.__name__}.{key} is not in docs/plans.md"


def test_filters_and_limits_are_those_of_the_code() -> None:
    for name in FILTERS:
        assert re.search(rf"`{name}[`(]", TEXT)
    for limit in (sandbox.MAX_TURNS, yamlsource.MAX_NODES, MAX_MACHINES, MAX_STEPS):
        assert f"{limit:,}" in TEXT
    assert sandbox.MAX_OUTPUT == 256 * 1024 and sandbox.MAX_SECONDS == 2
    assert yamlsource.MAX_BYTES == 4 * 2**20 and yamlsource.MAX_DEPTH == 64
