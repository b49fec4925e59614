"""What a run does, in order; and the trees that show it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plans.model import Plan, PlanMachine
from plans.stages import StageKind, stages, start_waves
from plans.tree import TreeNode, plan_tree, run_tree
from vault.domain import RunType, TargetSettings

pytestmark = pytest.mark.unit

PLAN = Plan.model_validate(
    {
        "plan": "p",
        "before": [{"manual": "Tell everybody"}],
        "groups": [
            {
                "name": "a",
                "machines": ["a1", {"machine": "a2", "depends_on": ["a1"]}, "a3"],
                "before": [{"wait": "Before a", "for": "1s"}],
                "after": [
                    {"wait": "Only real", "for": "1s", "runs": ["planned", "unplanned"]},
                    {"wait": "After commit", "for": "1s", "runs": ["commit"]},
                    {"wait": "Only back", "for": "1s", "directions": ["recovery-to-primary"]},
                ],
            },
            {"name": "b", "machines": ["b1"]},
        ],
        "after": [{"manual": "Say it is over", "runs": ["planned"]}],
    }
)


def titles(plan: Plan, run_type: RunType) -> list[str]:
    return [stage.title for stage in stages(plan, run_type)]


@pytest.mark.parametrize(
    ("run_type", "expected"),
    [
        ("test", ["begin", "recover a", "recover b"]),
        ("planned", ["begin", "shut down b", "shut down a", "recover a", "recover b", "end"]),
        ("unplanned", ["begin", "recover a", "recover b"]),
        ("failback", ["begin", "shut down b", "shut down a", "recover a", "recover b"]),
        ("cleanup", ["clean up b", "clean up a"]),
        ("commit", ["commit a", "commit b"]),
        ("reverse", ["reverse replication of a", "reverse replication of b"]),
    ],
)
def test_order_of_each_run_type(run_type: RunType, expected: list[str]) -> None:
    assert titles(PLAN, run_type) == expected


def test_automatic_commit_and_reverse_replication_follow() -> None:
    plan = PLAN.model_copy(update={"commit": "automatic", "reverse_replication": "automatic"})
    tail = ["commit a", "commit b", "reverse replication of a", "reverse replication of b"]
    assert titles(plan, "planned")[5:-1] == tail
    assert titles(plan, "failback")[5:] == tail
    assert titles(plan, "unplanned")[3:] == tail[:2]
    assert titles(plan, "test") == titles(PLAN, "test")
    assert titles(plan, "commit") == tail


def test_reverse_replication_waits_for_a_manual_commit() -> None:
    plan = PLAN.model_copy(update={"reverse_replication": "automatic"})
    assert titles(plan, "planned") == titles(PLAN, "planned")
    assert titles(plan, "commit") == ["commit a", "commit b", "reverse replication of a", "reverse replication of b"]


def test_steps_belong_to_run_types_and_directions() -> None:
    def after(run_type: RunType) -> list[str]:
        stage = next(stage for stage in stages(PLAN, run_type) if stage.group == "a" and stage.kind != "shut down")
        return [step.name for step in stage.after]

    assert after("planned") == ["Only real"]
    assert after("test") == []
    assert after("failback") == ["Only back"]
    assert after("commit") == ["After commit"]
    reversed_test = stages(PLAN, "test", "recovery-to-primary")
    assert [step.name for step in reversed_test[1].after] == ["Only back"]


def test_shutting_down_runs_no_steps() -> None:
    shut_down = [stage for stage in stages(PLAN, "planned") if stage.kind is StageKind.SHUT_DOWN]
    assert not any(stage.before or stage.after for stage in shut_down)


def test_machines_start_in_waves_and_stop_the_other_way_round() -> None:
    by_title = {stage.title: stage for stage in stages(PLAN, "planned")}
    start = [[entry.machine for entry in wave] for wave in by_title["recover a"].waves]
    stop = [[entry.machine for entry in wave] for wave in by_title["shut down a"].waves]
    assert start == [["a1", "a3"], ["a2"]]
    assert stop == [["a2"], ["a1", "a3"]]


def waves(*machines: dict[str, Any]) -> list[list[str]]:
    entries = [PlanMachine.model_validate(machine) for machine in machines]
    return [[entry.machine for entry in wave] for wave in start_waves(entries)]


def test_urgent_machines_start_first_and_dependencies_win() -> None:
    assert waves(
        {"machine": "a"}, {"machine": "b", "priority": 1}, {"machine": "c", "priority": 5}, {"machine": "d"}
    ) == [
        ["b"],
        ["a", "d"],
        ["c"],
    ]
    late = {"machine": "late", "priority": 5}
    assert waves({"machine": "a"}, {"machine": "b", "priority": 1, "depends_on": ["late"]}, late) == [
        ["late"],
        ["b"],
        ["a"],
    ]
    chain = [{"machine": "a", "priority": 2, "depends_on": ["b"]}, {"machine": "b", "depends_on": ["c"]}]
    assert waves({"machine": "z", "priority": 1}, *chain, {"machine": "c", "priority": 4}, {"machine": "y"}) == [
        ["z"],
        ["c"],
        ["b"],
        ["a"],
        ["y"],
    ]


@given(st.lists(st.tuples(st.integers(1, 5), st.sets(st.integers(0, 11), max_size=4)), min_size=1, max_size=12))
def test_whatever_the_priorities_no_machine_starts_before_what_it_depends_on(
    machines: list[tuple[int, set[int]]],
) -> None:
    """Dependencies go to smaller numbers only, so there is no circle."""
    entries = [
        {"machine": f"m{number}", "priority": priority, "depends_on": [f"m{one}" for one in needs if one < number]}
        for number, (priority, needs) in enumerate(machines)
    ]
    found = waves(*entries)
    wave_of = {name: number for number, wave in enumerate(found) for name in wave}
    assert sorted(wave_of) == sorted(entry["machine"] for entry in entries)
    for entry in entries:
        assert all(wave_of[needed] < wave_of[entry["machine"]] for needed in entry["depends_on"])
    alone = [entry for entry in entries if not entry["depends_on"]]
    needed = {name for entry in entries for name in entry["depends_on"]}
    free = [entry for entry in alone if entry["machine"] not in needed]
    for one in free:
        for other in free:
            if one["priority"] < other["priority"]:
                assert wave_of[one["machine"]] < wave_of[other["machine"]]


def test_steps_of_a_machine_belong_to_run_types_like_others() -> None:
    machine = {"machine": "m", "before": [{"manual": "ever"}], "after": [{"manual": "then", "runs": ["commit"]}]}
    plan = Plan.model_validate({"plan": "p", "groups": [{"name": "a", "machines": [machine]}], "commit": "automatic"})
    shut, recover, commit = stages(plan, "planned")
    assert [(len(stage.machines[0].before), len(stage.machines[0].after)) for stage in (shut, recover, commit)] == [
        (0, 0),
        (1, 0),
        (0, 1),
    ]


def test_a_test_copy_gets_the_size_but_never_the_network_of_production() -> None:
    target = {
        "network": "dmz",
        "address": "10.0.0.5",
        "cpus": 4,
        "memory": "8GiB",
        "test": {"cpus": 1, "network": "lab"},
    }
    group = {"name": "a", "machines": [{"machine": "m", "target": target}, "n"]}
    plan = Plan.model_validate({"plan": "p", "groups": [group]})
    assert plan.targets_in("planned") == {
        "m": TargetSettings(network="dmz", address="10.0.0.5", cpus=4, memory=8 * 2**30)
    }
    assert plan.targets_in("test") == {"m": TargetSettings(network="lab", cpus=1, memory=8 * 2**30)}
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
    (machine,) = [node for node in run_tree(plan, "test").children[0].children if node.label == "m"]
    assert machine.detail == "network lab, 1 cpus, 8GiB memory"
    (group_node,) = plan_tree(plan).children
    assert group_node.children[0].children[0].detail == (
        "network dmz, address 10.0.0.5, 4 cpus, 8GiB memory; in a test network lab, 1 cpus, 8GiB memory"
    )


def test_stages_survive_json() -> None:
    for stage in stages(PLAN, "planned"):
        assert type(stage).model_validate_json(stage.model_dump_json()) == stage


def lines(node: TreeNode, depth: int = 0) -> list[str]:
    own = "  " * depth + node.label + (f" [{node.detail}]" if node.detail else "")
    return [own, *(line for child in node.children for line in lines(child, depth + 1))]


def test_the_tree_of_a_plan() -> None:
    shown = lines(plan_tree(PLAN))
    assert shown[0] == "p [a failed step: wait; commit: manual; reverse replication: manual]"
    assert "      a2 [after a1]" in shown
    assert "      Only real [1s; only planned, unplanned]" in shown


def test_the_tree_of_a_dry_run_follows_the_stages() -> None:
    tree = run_tree(PLAN, "planned")
    assert [child.label for child in tree.children] == titles(PLAN, "planned")
    recover = tree.children[3]
    assert [child.label for child in recover.children] == ["Before a", "a1", "a3", "a2", "Only real"]


def test_what_workflows_import_stays_light() -> None:
    """They are imported into Temporal's sandbox: no YAML, no Jinja2."""
    code = (
        "import sys, plans.model, plans.stages, plans.context, plans.tree\n"
        "print(sorted(name for name in ('ruamel', 'ruamel.yaml', 'jinja2', 'plans.rendering') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
