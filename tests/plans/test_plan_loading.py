"""Reading a plan: what it means, and how every kind of mistake is told."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from plans.loading import MAX_STEPS, load_plan
from plans.model import Plan, RunKind
from plans.steps import CheckStep, Direction, ManualStep, ScriptStep, WaitStep
from vault.access import AccessSection
from vault.domain import RunType
from vault.errors import BadInput, InputErrors
from vault.inventory import Inventory

pytestmark = pytest.mark.unit

FORTH: Direction = "primary-to-recovery"
BACK: Direction = "recovery-to-primary"
SMALL = """\
plan: small
groups:
  - name: database
    machines: [payment-db]
  - name: web
    machines: [web]
"""


def load(tmp_path: Path, inventory: Inventory, text: str) -> Plan:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    return load_plan(path, inventory)


def complaints(tmp_path: Path, inventory: Inventory, text: str) -> list[str]:
    with pytest.raises(InputErrors) as caught:
        load(tmp_path, inventory, text)
    return [str(error).removeprefix(f"{tmp_path}/") for error in caught.value.errors]


def test_the_example(payments: Plan) -> None:
    assert payments.name == "payments"
    assert payments.machines == ["payment-db", "payment-app-1", "payment-app-2", "web"]
    assert payments.groups[0].machines[0].boot_timeout == 120
    assert payments.variables_in("test", FORTH) == {"service": "payments.test.example.com"}
    assert payments.variables_in("planned", FORTH) == {"service": "payments.example.com"}
    kinds = [type(step) for group in payments.groups for step in (*group.before, *group.after)]
    assert kinds == [ScriptStep, CheckStep, ScriptStep, CheckStep, CheckStep, ScriptStep, CheckStep, ManualStep]


def test_variables_are_for_types_and_directions_of_runs(tmp_path: Path, inventory: Inventory) -> None:
    assert set(get_args(RunKind)) == {*get_args(RunType), *get_args(Direction)}
    text = SMALL + (
        "variables: {zone: any, site: any}\n"
        "variables_for: {recovery-to-primary: {zone: home, site: home}, test: {zone: lab}}\n"
    )
    loaded = load(tmp_path, inventory, text)
    assert loaded.variables_in("planned", FORTH) == {"zone": "any", "site": "any"}
    assert loaded.variables_in("failback", BACK) == {"zone": "home", "site": "home"}
    assert loaded.variables_in("test", BACK) == {"zone": "lab", "site": "home"}
    [told] = complaints(tmp_path, inventory, text.replace("recovery-to-primary", "backwards"))
    assert told.startswith("p.yaml:8:17: ") and "'backwards'" in told


def test_a_plan_survives_json(payments: Plan) -> None:
    assert Plan.model_validate_json(payments.model_dump_json()) == payments


def test_unknown_machines_are_told_together_with_what_else_is_wrong(tmp_path: Path, inventory: Inventory) -> None:
    text = SMALL.replace("machines: [payment-db]", "machines: [paymnt-db]").replace(
        "plan: small", "plan: small\nrto: 5"
    )
    assert complaints(tmp_path, inventory, text) == [
        "p.yaml:2:6: '5' has no unit — write a duration like 30s, 5m or 2h",
        "p.yaml:5:16: unknown machine 'paymnt-db' — did you mean 'payment-db'?",
    ]


def test_defaults(tmp_path: Path, inventory: Inventory) -> None:
    plan = load(tmp_path, inventory, SMALL)
    assert (plan.on_failure, plan.commit, plan.reverse_replication) == ("wait", "manual", "manual")
    assert plan.groups[0].machines[0].start is True


def test_all_that_a_step_can_say(tmp_path: Path, inventory: Inventory) -> None:
    plan = load(
        tmp_path,
        inventory,
        SMALL
        + """\
    on_failure: continue
    after:
      - script: Warm up
        on: web
        run: [curl, "http://localhost/{{ plan }}"]
        interpreter: bash
        timeout: 90s
        environment: {LEVEL: 3, LOUD: true}
        secrets: {TOKEN: "env:WARM_TOKEN"}
        runs: [planned, commit]
        directions: [primary-to-recovery]
        on_failure: stop
      - wait: Let caches fill
        for: 1m
      - check: Port 80
        tcp: web:80
before:
  - manual: Tell the help desk
    timeout: 1h
""",
    )
    script, wait, check = plan.groups[1].after
    assert isinstance(script, ScriptStep) and isinstance(wait, WaitStep) and isinstance(check, CheckStep)
    assert script.environment == {"LEVEL": 3, "LOUD": True}
    assert wait.duration == 60
    assert plan.failure_rule(script, plan.groups[1]) == "stop"
    assert plan.failure_rule(wait, plan.groups[1]) == "continue"
    assert plan.failure_rule(plan.before[0]) == "wait"
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


@pytest.mark.parametrize(
    ("addition", "says"),
    [
        (
            "  - {name: x, machines: [paymnt-db]}",
            "p.yaml:7:26: unknown machine 'paymnt-db' — did you mean 'payment-db'?",
        ),
        ("  - {name: x, machines: [web]}", "p.yaml:7:26: machine 'web' is in the plan twice, first in line 6"),
        ("  - {name: x, machines: []}", "p.yaml:7:25: 'machines' must not be empty"),
        ("  - {name: web, machines: [payment-app-1]}", "p.yaml:7:12: group 'web' is there twice, first in line 5"),
        ("    aftr: []", "p.yaml:7:5: unknown key 'aftr' — did you mean 'after'?"),
        ("    after: [{script: A}]", "p.yaml:7:13: 'run' is missing"),
        ("    after: [{scirpt: A}]", "'scirpt': did you mean 'script'?"),
        ("    after: [5]", "p.yaml:7:13: a step must begin with its kind"),
        ("    after: [{script: A, run: x, on: wbe}]", "p.yaml:7:37: unknown machine 'wbe' in this plan — did you mean"),
        ("    before: [{script: A, run: x, on: web}]", "machine 'web' is not recovered yet when this step runs"),
        ("    after: [{check: A}]", "p.yaml:7:13: a check asks over tcp, over http or by a command — write one of"),
        ("    after: [{check: A, tcp: wbe}]", "unknown machine 'wbe'"),
        ("    after: [{check: A, http: {machine: wbe}}]", "p.yaml:7:40: unknown machine 'wbe'"),
        ("    after: [{check: A, http: {path: /}}]", "either a machine or a url"),
        ("    after: [{check: A, http: {machine: web, path: health}}]", "p.yaml:7:51"),
        ("    after: [{check: A, command: {run: x, on: wbe}}]", "unknown machine 'wbe' in this plan"),
        ("    after: [{check: A, command: {run: '{{ x }}'}}]", "unknown variable 'x'"),
        ("    after: [{check: A, command: {run: x, matches: '('}}]", "'matches' is not a regular expression"),
        ("    after: [{check: A, tcp: web, command: {run: x}}]", "write one of 'tcp:', 'http:' and 'command:'"),
        ("    after: [{call: A}]", "p.yaml:7:13: 'url' is missing"),
        ("    after: [{call: A, url: 'http://{{ x }}'}]", "unknown variable 'x'"),
        ("    after: [{call: A, url: 'http://x', headers: {B: '{{ x }}'}}]", "p.yaml:7:57: unknown variable 'x'"),
        ("    after: [{call: A, url: 'http://x', headers: {'B C': x}}]", "p.yaml:7:50: 'B C' is not a header's name"),
        ("    after: [{call: A, url: 'http://x', headers: {Host: x}}]", "'Host' is set by leeward itself"),
        ("    after: [{call: A, url: 'http://x', headers: {a: x, A: y}}]", "a header is there twice"),
        ("    after: [{call: A, url: 'http://x', headers: {A: '${T}'}}]", "but 'secrets' has no 'T'"),
        ("    after: [{call: A, url: 'http://x', secrets: {T: 'env:T'}}]", "no header has '${T}'"),
        ("    after: [{call: A, url: 'http://x', method: GET, body: x}]", "a GET request has no body"),
        ("    after: [{call: A, url: 'http://x', method: FETCH}]", "'FETCH' is not allowed for 'method'"),
        ("    after: [{manual: A, on_timeout: continue}]", "'on_timeout' without 'timeout' says nothing"),
        ("    after: [{manual: A, approvers: ['role:viewer']}]", "'role:viewer' is no role that approves"),
        ("    after: [{manual: A, approvers: [ada, 'role:admin']}]", "p.yaml:7:42: the inventory has no 'access'"),
        ("  - {name: x, machines: [{machine: payment-app-1, priority: 6}]}", "less than or equal to 5"),
        (
            "  - {name: x, machines: [{machine: payment-app-1, target: {network: dmz}}]}",
            ": site 'recovery' has no network 'dmz' — known are 'isolated', 'production'",
        ),
        (
            "  - {name: x, machines: [{machine: payment-app-1, target: {test: {network: production}}}]}",
            "network 'production' is of kind 'production' — name a network of kind 'isolated' here",
        ),
        ("  - {name: x, machines: [{machine: payment-app-1, target: {address: 10.0.0}}]}", "is not an IP address"),
        ("  - {name: x, machines: [{machine: payment-app-1, target: {memory: 4}}]}", "'4' is not a size"),
        ("    after: [{wait: A, for: 5}]", "p.yaml:7:28: '5' has no unit"),
        ("    after: [{wait: A, for: 0s}]", "greater than 0"),
        ("    after: [{wait: A, for: 1s}, {manual: A}]", "p.yaml:7:42: two steps are named 'A', the first in line 7"),
        ("    after: [{manual: A, runs: [plannd]}]", "did you mean 'planned'?"),
        ("    after: [{manual: A, runs: []}]", "'runs' must not be empty"),
        ("    after: [{manual: ' '}]", "p.yaml:7:22"),
        ("    after: [{manual: A, script: B, run: x}]", "unknown key 'manual'"),
        ("    after: [{script: A, run: x, environment: {LEEWARD_PLAN: y}}]", "is set by leeward itself"),
        ("    after: [{script: A, run: x, environment: {A-B: y}}]", "p.yaml:7:47"),
        ("    after: [{manual: A, instructions: '{{ plam }}'}]", "p.yaml:7:43: unknown variable 'plam'"),
        ("    after: [{script: A, run: [x, '{{ plan']}]", "p.yaml:7:34: the template is not sound"),
        ("    after: [{script: A, run: x, environment: {B: '{{ v }}'}}]", "p.yaml:7:54: unknown variable 'v'"),
        ("    before: [{manual: A, instructions: '{{ machines.web.address }}'}]", "the value is not known here"),
        ("commit: sometimes", "'sometimes' is not allowed for 'commit'"),
        ("variables: {a-b: 1}", "p.yaml:7:13"),
        ("variables: [1]", "'variables' must be a mapping, not a list"),
    ],
)
def test_mistakes(tmp_path: Path, inventory: Inventory, addition: str, says: str) -> None:
    found = complaints(tmp_path, inventory, SMALL + addition + "\n")
    assert any(says in line for line in found), found


@pytest.mark.parametrize(
    ("machines", "says"),
    [
        ("[{machine: web, depends_on: [payment-app-9]}, payment-app-1]", "not a machine of the group"),
        ("[{machine: web, depends_on: [payment-app-1]}, {machine: payment-app-1, depends_on: [web]}]", "circle"),
        ("[{machine: web, depends_on: [web]}]", "circle"),
        ("[{machine: web, depends_on: [payment-app-1]}, {machine: payment-app-1, start: false}]", "not started"),
        ("[{machine: web, start: false}]\n    after: [{check: A, tcp: web}]", "is not started by this plan"),
    ],
)
def test_dependencies_and_machines_that_stay_off(
    tmp_path: Path, inventory: Inventory, machines: str, says: str
) -> None:
    text = f"plan: p\ngroups:\n  - name: g\n    machines: {machines}\n"
    assert any(says in line for line in complaints(tmp_path, inventory, text))


@pytest.mark.parametrize(
    ("machines", "says"),
    [
        ("[{machine: web, before: [{check: A, tcp: web}]}]", "machine 'web' is not recovered yet when this step runs"),
        ("[{machine: web, before: [{check: A, tcp: payment-db}]}, payment-db]", "'payment-db' is not recovered yet"),
        ("[{machine: web, after: [{manual: A}]}, {machine: payment-db, before: [{manual: A}]}]", "two steps are named"),
        ("[{machine: web, after: [{manual: A, instructions: '{{ x }}'}]}]", "unknown variable 'x'"),
        ("[{machine: web, before: [{manual: A, instructions: '{{ machines.web.address }}'}]}]", "not known here"),
    ],
)
def test_steps_of_a_machine_are_checked_where_they_run(
    tmp_path: Path, inventory: Inventory, machines: str, says: str
) -> None:
    text = f"plan: p\ngroups:\n  - name: g\n    machines: {machines}\n"
    assert any(says in line for line in complaints(tmp_path, inventory, text))


@pytest.mark.parametrize("earlier", ["depends_on: [payment-db]", "priority: 4"])
def test_steps_of_a_machine_may_use_machines_that_start_before_it(
    tmp_path: Path, inventory: Inventory, earlier: str
) -> None:
    own = "before: [{check: A, tcp: payment-db}], after: [{check: B, tcp: web}]"
    text = f"plan: p\ngroups:\n  - name: g\n    machines: [{{machine: web, {earlier}, {own}}}, payment-db]\n"
    assert [step.name for step in load(tmp_path, inventory, text).steps] == ["A", "B"]


def test_an_approver_without_the_right_to_approve_is_told(tmp_path: Path, inventory: Inventory) -> None:
    guarded = inventory.model_copy(update={"access": AccessSection(approvers=["ada"], operators=["bob"])})
    text = SMALL + "    after: [{manual: A, approvers: [ada, bob, 'role:admin']}]\n"
    found = complaints(tmp_path, guarded, text)
    assert [line.partition(" — ")[0] for line in found] == [
        "p.yaml:7:42: 'bob' may not approve: that needs the role admin or approver"
    ]


def test_groups_of_approvers_are_those_of_the_inventory(tmp_path: Path, inventory: Inventory) -> None:
    groups = {"oncall": ["ada", "bob"], "ops": ["bob"]}
    guarded = inventory.model_copy(update={"access": AccessSection(approvers=["ada"], groups=groups)})
    text = SMALL + "    after: [{manual: A, approvers: ['@oncall', '@ops', '@oncal']}]\n"
    assert complaints(tmp_path, guarded, text) == [
        "p.yaml:7:48: nobody of '@ops' may approve — add it to 'approvers' of the inventory's 'access'",
        "p.yaml:7:56: unknown group '@oncal' — did you mean '@oncall'?",
    ]
    named = text.replace(", '@ops', '@oncal'", "")
    step = next(iter(load(tmp_path, guarded, named).steps))
    assert isinstance(step, ManualStep)
    assert step.approvers == ["ada", "bob"]
    assert complaints(tmp_path, inventory, named) == [
        "p.yaml:7:37: the inventory has no 'access', so nobody is in a group — add it, or name users"
    ]


def test_a_template_is_checked_for_every_run_type_it_is_for(tmp_path: Path, inventory: Inventory) -> None:
    text = (
        SMALL
        + "    after:\n      - manual: A\n        instructions: |\n          Fine.\n          See {{ only_test }}.\n"
    )
    text += "variables_for: {test: {only_test: x}}\n"
    found = complaints(tmp_path, inventory, text)
    assert found == [
        "p.yaml:11:18: unknown variable 'only_test' (in a run of type planned) — "
        "known are 'direction', 'group', 'left_out', 'machines', 'plan', 'range', 'run_id', 'run_type', 'variables'"
    ]
    load(tmp_path, inventory, text.replace("manual: A\n", "manual: A\n        runs: [test]\n"))


def test_everything_wrong_is_told_at_once(tmp_path: Path, inventory: Inventory) -> None:
    found = complaints(tmp_path, inventory, SMALL.replace("payment-db", "db").replace("[web]", "[wb]"))
    assert len(found) == 2


def test_a_secret_in_a_plan_is_never_quoted(tmp_path: Path, inventory: Inventory) -> None:
    found = complaints(tmp_path, inventory, SMALL + "    after: [{script: A, run: x, secrets: {T: hunter2}}]\n")
    assert "hunter2" not in "".join(found)


def test_too_many_steps_and_complaints_are_bounded(tmp_path: Path, inventory: Inventory) -> None:
    steps = "".join(f"      - manual: step {n}\n" for n in range(MAX_STEPS + 1))
    with pytest.raises(BadInput, match="more than 1000"):
        load(tmp_path, inventory, SMALL + "    after:\n" + steps)
    machines = ", ".join(f"m{n}" for n in range(3000))
    assert len(complaints(tmp_path, inventory, SMALL + f"  - {{name: x, machines: [{machines}]}}\n")) == 100


TWO_ROUNDS = """\
plan: small
on_failure: wiat
groups:
  - name: database
    machines:
      - machine: payment-db
        priorty: 1
        depends_on: [payment-app-1]
    after:
      - script: Tell it
        on: web
        run: echo "{{ servcie }}"
      - script: Tell it
        run: echo well
        timeuot: 5s
  - name: database
    machines: [web]
    before:
      - manual: Look
        instructions: Look at {{ machines.payment_db.address }}
        runs: [plannned]
      - manual: Look
        instructions: "{{ oops"
"""


def test_what_keeps_a_file_from_being_a_plan_hides_no_other_mistake(tmp_path: Path, inventory: Inventory) -> None:
    told = [one.split(" — ")[0] for one in complaints(tmp_path, inventory, TWO_ROUNDS)]
    assert [(int(one.split(":")[1]), one.split(": ", 1)[1]) for one in told] == [
        (2, "'wiat' is not allowed for 'on_failure'"),
        (7, "unknown key 'priorty'"),
        (8, "'payment-app-1' is not a machine of the group 'database'"),
        (11, "machine 'web' is not recovered yet when this step runs"),
        (12, "unknown variable 'servcie' (in a run of type test)"),
        (15, "unknown key 'timeuot'"),
        (16, "group 'database' is there twice, first in line 4"),
        (21, "'plannned' is not allowed for entry 1 of 'runs'"),
        (
            23,
            "the template is not sound: unexpected end of template, expected 'end of print statement'. "
            "(in a run of type test)",
        ),
    ]


def test_a_group_without_a_name_still_has_its_machines(tmp_path: Path, inventory: Inventory, example_text: str) -> None:
    text = example_text.replace("- name: web", "- nmae: web", 1).replace("tcp: payment-db", "tcp: payment-bd", 1)
    told = [one.split(": ", 1)[1].split(" — ")[0] for one in complaints(tmp_path, inventory, text)]
    assert told == ["unknown machine 'payment-bd' in this plan", "'name' is missing", "unknown key 'nmae'"]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("variables:", "varaibles:", "unknown key 'varaibles'"),  # the templates would lack them all
        ("  service: payments.example.com", "  serv ice: payments.example.com", "'serv ice' is not a variable's name"),
        ("- machine: payment-db", "- machien: payment-db", "unknown key 'machien'"),  # checks name it
        ("  - name: application\n", "  - name: an application\n", "'name': 'an application' is not a valid name"),
        ("  - name: web\n    machines:\n      - web", "  - name: web\n    machines: web", "'machines' must be a list"),
        ("plan: payments", "plan: the payments", "'plan': 'the payments' is not a valid name"),
        ("plan: payments", "name: the payments", "'name': 'the payments' is not a valid name"),
        ("groups:", "gruops:", "unknown key 'gruops'"),
    ],
)
def test_what_follows_from_a_mistake_is_not_told_as_another_one(
    tmp_path: Path, inventory: Inventory, example_text: str, old: str, new: str, told: str
) -> None:
    assert old in example_text
    said = complaints(tmp_path, inventory, example_text.replace(old, new, 1))
    assert any(told in one for one in said)
    assert all(" is missing" in one or told in one for one in said), said
