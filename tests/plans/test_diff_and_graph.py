"""Comparing plans by what they do, and drawing them."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from plans.diff import diff_plans
from plans.graph import plan_graph
from plans.model import Plan
from plans.steps import RECOVERING
from plans.svg import fitted, printable, text_width, wrapped
from plans.tree import plan_tree, run_tree

pytestmark = pytest.mark.unit

SVG = "{http://www.w3.org/2000/svg}"


def edited(plan: Plan, edit: str) -> list[str]:
    """What the diff says after python code changed the plan's JSON, ``p``."""
    document = plan.model_dump(mode="json")
    exec(edit, {"p": document, "g": document["groups"]})
    return [str(change) for change in diff_plans(plan, Plan.model_validate(document))]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ("", []),
        ("p['commit'] = 'automatic'", ["plan 'payments': commit: manual → automatic"]),
        ("p['limits']['machines_at_once'] = 2", ["plan 'payments': limits.machines_at_once: (none) → 2"]),
        ("p['rto'] = '15m'", ["plan 'payments': rto: (none) → 15m"]),
        ("p['variables']['service'] = 'x'", ["plan 'payments': variables.service: payments.example.com → x"]),
        ("g[0]['machines'][0]['boot_timeout'] = '90s'", ["machine 'payment-db': boot_timeout: 2m → 90s"]),
        (
            "g[2]['machines'].append(g[1]['machines'].pop())",
            ["machine 'payment-app-2' moved from group application to group web"],
        ),
        ("g[1]['machines'].reverse()", []),
        ("g[1]['on_failure'] = 'stop'", ["group 'application': on_failure: (none) → stop"]),
        (
            "g.insert(0, g.pop())",
            ["group 'web' moved from place 3 to place 1"],
        ),
        (
            "g[2]['after'].pop()",
            ["step 'Confirm that DNS was switched' removed (after group web)"],
        ),
        (
            "p['before'] = [{'kind': 'wait', 'name': 'Breathe', 'for': '5s'}]",
            ["step 'Breathe' added (before everything)"],
        ),
        (
            "g[2]['before'].append(g[2]['after'].pop(0))",
            ["step 'The shop answers' moved from after group web to before group web"],
        ),
        (
            "g[1]['after'].append(g[1]['after'].pop(0))",
            ["step 'The first application server answers' moved from place 1 to place 3"],
        ),
        (
            "g[1]['machines'][0]['target'] |= {'memory': '8GiB', 'test': {'cpus': 2}}",
            [
                "machine 'payment-app-1': target.memory: (none) → 8GiB",
                "machine 'payment-app-1': target.test: (none) → {'cpus': 2}",
            ],
        ),
        ("g[1]['machines'][0]['priority'] = 1", ["machine 'payment-app-1': priority: 3 → 1"]),
        (
            "g[0]['machines'][0]['after'] = [{'manual': 'Look'}]",
            ["step 'Look' added (after payment-db)"],
        ),
        ("g[2]['after'][0]['timeout'] = '2m'", ["step 'The shop answers': timeout: 1m → 2m"]),
        (
            "g[0]['before'][0]['environment']['X'] = '1'",
            ["step 'Note the start in the run log': environment.X: (none) → 1"],
        ),
    ],
)
def test_each_difference_is_said_once(payments: Plan, edit: str, said: list[str]) -> None:
    assert edited(payments, edit) == said


def test_a_diff_the_other_way_says_the_opposite(payments: Plan) -> None:
    document = payments.model_dump(mode="json")
    del document["groups"][2]
    smaller = Plan.model_validate(document)
    there, back = diff_plans(payments, smaller), diff_plans(smaller, payments)
    assert [(change.what, change.name) for change in there] == [(change.what, change.name) for change in back]
    assert {change.kind for change in there} == {"removed"}
    assert {change.kind for change in back} == {"added"}


@pytest.mark.parametrize("run_type", [None, *RECOVERING, "cleanup", "commit", "reverse"])
def test_a_picture_names_every_machine_and_step_and_stays_in_its_frame(payments: Plan, run_type) -> None:  # type: ignore[no-untyped-def]
    root = ElementTree.fromstring(plan_graph(payments, run_type))
    hints = " / ".join(element.text or "" for element in root.iter(f"{SVG}title"))
    for machine in payments.machines:
        assert f"machine: {machine}" in hints
    if run_type in (None, "planned"):
        for group in payments.groups:
            for step in (*group.before, *group.after):
                assert f"{step.kind}: {step.name}" in hints
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    for rect in root.iter(f"{SVG}rect"):
        x, y = float(rect.get("x", -1)), float(rect.get("y", -1))
        assert x >= 0 and x + float(rect.get("width", 0)) <= width
        assert y >= 0 and y + float(rect.get("height", 0)) <= height
    assert "http" not in plan_graph(payments, run_type).replace("http://www.w3.org/2000/svg", "").replace("http ", "")


def test_dependencies_become_rows(payments: Plan) -> None:
    document = payments.model_dump(mode="json")
    document["groups"][1]["machines"][1]["depends_on"] = ["payment-app-1"]
    text = plan_graph(Plan.model_validate(document))
    assert ">then<" in text
    assert "after payment-app-1" in text


def test_steps_of_a_machine_stand_beside_it_in_pictures_and_trees(payments: Plan) -> None:
    document = payments.model_dump(mode="json")
    document["groups"][0]["machines"][0] |= {"before": [{"manual": "Look"}], "after": [{"wait": "Rest", "for": "1s"}]}
    plan = Plan.model_validate(document)
    assert "manual: Look" in plan_graph(plan) and ">before" in plan_graph(plan)
    recover = next(stage for stage in run_tree(plan, "planned").children if stage.label == "recover database")
    labels = [(node.label, node.detail) for node in recover.children]
    at = labels.index(("payment-db", ""))
    assert labels[at - 1] == ("Look", "before payment-db; an operator approves")
    assert labels[at + 1] == ("Rest", "after payment-db; 1s")
    shut_down = run_tree(plan, "planned").children[2]
    assert [node.label for node in shut_down.children] == ["payment-db"]
    machines = next(part for part in plan_tree(plan).children[0].children if part.kind == "machines")
    assert [part.label for part in machines.children[0].children] == ["before", "after"]


def test_texts_fit_and_are_safe() -> None:
    assert text_width(fitted("x" * 400, 100, 12), 12) <= 100
    assert fitted("short", 100, 12) == "short"
    lines = wrapped("a rather long name of a step that goes on and on", 100, 12, 2)
    assert len(lines) == 2
    assert all(text_width(line, 12) <= 100 for line in lines)
    assert wrapped("", 100, 12, 2) == []
    assert printable("a\x00b\ud800") == "a\ufffdb\ufffd"
