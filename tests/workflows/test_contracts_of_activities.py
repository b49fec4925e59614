"""What workflows call, workers must have: names, inputs, outputs; and the lifecycle's table to the last pair."""

from __future__ import annotations

import ast
import inspect
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from fakes import World

from activities import contracts
from activities.contracts import ActivityCall
from activities.running import BlockingRunner
from vault.lifecycle import IDLE, LIFECYCLE, JobKind, Phase, refusal
from workers import worker

pytestmark = pytest.mark.unit

CALLS = {name: value for name, value in vars(contracts).items() if isinstance(value, ActivityCall)}
WORKFLOW_MODULES = sorted((Path(worker.__file__).parents[1] / "workflows").glob("*.py"))


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What every worker registers."""
    with ThreadPoolExecutor(1) as threads:
        world: Any = World()
        return worker._activities(world, BlockingRunner(threads), tmp_path_factory.mktemp("reports"))


@pytest.mark.parametrize("call", CALLS.values(), ids=lambda call: call.name)
def test_every_call_is_implemented_once_as_it_is_declared(call: ActivityCall, registered: list[Any]) -> None:
    found = [one for one in registered if one.__temporal_activity_definition.name == call.name]
    assert len(found) == 1
    hints = get_type_hints(found[0])
    assert hints.pop("return") is call.gives
    assert list(hints.values()) == [call.takes]
    assert inspect.iscoroutinefunction(found[0])


def test_no_activity_is_registered_that_nobody_can_call(registered: list[Any]) -> None:
    names = [one.__temporal_activity_definition.name for one in registered]
    assert sorted(names) == sorted(call.name for call in CALLS.values())


@pytest.mark.parametrize("module", WORKFLOW_MODULES, ids=lambda path: path.stem)
def test_workflows_name_activities_only_through_the_contracts(module: Path) -> None:
    """The name handed to Temporal is always ``<call>.name``, and what is called exists in the contracts."""
    tree = ast.parse(module.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "contracts":
            assert hasattr(contracts, node.attr), f"{module.name}:{node.lineno}"
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {
            "workflow.execute_activity",
            "workflow.start_activity",
            "workflow.execute_local_activity",
        }:
            name = ast.unparse(node.args[0])
            assert re.fullmatch(r"what\.name|contracts\.[A-Z_]+\.name", name), f"{module.name}:{node.lineno}: {name}"


@pytest.mark.parametrize("kind", JobKind)
def test_every_job_is_a_registered_workflow(kind: JobKind) -> None:
    names = [workflow.__temporal_workflow_definition.name for workflow in worker.WORKFLOWS]
    assert names.count(kind.value) == 1


@pytest.mark.parametrize("kind", JobKind)
@pytest.mark.parametrize("phase", Phase)
def test_a_job_starts_only_in_the_phases_of_the_table(phase: Phase, kind: JobKind) -> None:
    why_not = refusal("db", phase, kind)
    if phase in LIFECYCLE[kind].starts_in:
        assert why_not is None
        return
    assert why_not is not None
    assert why_not.what == f"machine 'db' is {phase}; {kind} is not possible now"
    assert "{machine}" not in why_not.remedy
    assert ("wait until it is done" in why_not.remedy) == (phase not in IDLE)


@pytest.mark.parametrize("kind", JobKind)
def test_no_job_starts_while_another_changes_the_phase(kind: JobKind) -> None:
    assert LIFECYCLE[kind].starts_in <= IDLE


def test_every_phase_that_a_job_leads_to_has_a_way_on() -> None:
    startable = frozenset().union(*(transition.starts_in for transition in LIFECYCLE.values()))
    reached = {transition.done for transition in LIFECYCLE.values()} | {
        transition.failed for transition in LIFECYCLE.values()
    }
    assert reached - {None} <= startable
