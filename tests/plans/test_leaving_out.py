"""Which machines one run may leave out, and what that does to its stages."""

from __future__ import annotations

from typing import Any

import pytest

from plans.context import MachineInRun, RunContext
from plans.leaving_out import why_not_leave_out
from plans.model import Plan
from plans.rendering import TemplateFault, render, tcp_target
from plans.stages import stages
from plans.steps import CheckStep
from plans.tree import run_tree
from vault.domain import RunType
from vault.errors import InvalidState

pytestmark = pytest.mark.unit

PLAN = Plan.model_validate(
    {
        "plan": "shop",
        "groups": [
            {
                "name": "data",
                "machines": [
                    {"machine": "db", "after": [{"script": "warm up", "run": "true"}]},
                    {"machine": "app", "depends_on": ["db"]},
                    {"machine": "web", "depends_on": ["app"]},
                ],
                "before": [{"script": "note it", "run": "true"}],
                "after": [{"check": "the database answers", "tcp": "db:5432"}],
            },
            {"name": "mail", "machines": ["mail"], "after": [{"script": "tell", "on": "mail", "run": "true"}]},
        ],
    }
)


def test_what_nothing_depends_on_may_be_left_out() -> None:
    assert why_not_leave_out(PLAN, ["web"], "unplanned", "ticket 4711") == []
    assert why_not_leave_out(PLAN, ["db", "web", "app"], "planned", "ticket 4711") == []
    assert why_not_leave_out(PLAN, ["mail"], "test", "ticket 4711") == []


@pytest.mark.parametrize(
    ("names", "run_type", "sentence"),
    [
        (["dbb"], "planned", "'dbb' is no machine of plan shop"),
        (
            ["db"],
            "unplanned",
            "db cannot be left out while machines that need it stay in: app depends on db; web depends on app — "
            "leave 2 machines more out: --without db --without app --without web",
        ),
        (
            ["db", "mail"],
            "unplanned",
            "db and mail cannot be left out while machines that need them stay in: app depends on db; web depends on "
            "app — without these too nothing would be left to recover; take the dependency out of the plan, or recover "
            "all",
        ),
        (
            ["web", "app", "db", "mail"],
            "failback",
            "all machines of plan shop would be left out — leave at least one of them in",
        ),
        (
            ["web"],
            "commit",
            "a commit run follows what was recovered, no machine can be left out of it — leave --without away",
        ),
    ],
)
def test_what_cannot_be_left_out_is_told_in_one_sentence(names: list[str], run_type: RunType, sentence: str) -> None:
    assert why_not_leave_out(PLAN, names, run_type, "ticket 4711") == [sentence]


def test_nobody_is_left_out_without_a_reason() -> None:
    (sentence,) = why_not_leave_out(PLAN, ["web"], "planned", "  ")
    assert sentence.startswith("a note is required")


def test_the_steps_of_a_machine_go_with_it_and_those_of_its_group_stay() -> None:
    shut_mail, shut_data, data, mail = stages(PLAN, "planned", without={"db", "app", "web"})
    assert ([entry.machine for entry in shut_mail.machines], shut_mail.left_out) == (["mail"], [])
    assert (shut_data.machines, shut_data.left_out) == ([], ["db", "app", "web"])
    assert (data.machines, data.left_out, data.waves) == ([], ["db", "app", "web"], [])
    assert [step.name for step in (*data.before, *data.after)] == ["note it", "the database answers"]
    assert mail.left_out == []


def test_a_dry_run_shows_who_is_left_out_and_which_steps_are_about_them() -> None:
    data, mail = run_tree(PLAN, "unplanned", without=["db", "app", "web"]).children
    assert [(node.kind, node.label) for node in data.children] == [
        ("script", "note it"),
        ("left out", "db"),
        ("left out", "app"),
        ("left out", "web"),
        ("left out", "the database answers"),
    ]
    assert [node.kind for node in mail.children] == ["machine", "script"]


def context(**machines: Any) -> RunContext:
    return RunContext(
        plan="shop",
        run_id="r1",
        run_type="planned",
        direction="primary-to-recovery",
        machines={name: MachineInRun(name=name, site="recovery", address=at) for name, at in machines.items()},
        left_out=["db"],
    )


def test_a_template_that_needs_a_machine_left_out_fails_and_says_so_unless_it_asks() -> None:
    with pytest.raises(TemplateFault, match="machine 'db' is left out of this run — skip the step"):
        render("{{ machines.db.address }}", context(web="192.0.2.1:80"))
    guarded = "{% if 'db' not in left_out %}{{ machines.db.address }}{% else %}none{% endif %}"
    assert render(guarded, context(web="192.0.2.1:80")) == "none"


def test_a_check_of_a_machine_left_out_says_so() -> None:
    check = CheckStep.model_validate({"check": "it answers", "tcp": "db:5432"})
    with pytest.raises(InvalidState, match="machine 'db' is left out of this run"):
        tcp_target(check, context(web="192.0.2.1:80"))
