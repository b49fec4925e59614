"""Exported Site Recovery plans become plans that load, and nothing of them is lost on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plans.arm_expressions import CannotTell, Template, resolve
from plans.asr_document import read_asr_plan
from plans.asr_steps import parse_timeout
from plans.context import RunContext
from plans.import_asr import Imported, import_asr_plan
from plans.loading import load_plan
from plans.model import Plan
from plans.rendering import render_step
from plans.steps import ManualStep, ScriptStep
from vault.domain import Severity
from vault.errors import BadInput
from vault.inventory import Inventory

pytestmark = pytest.mark.unit

ASR = Path(__file__).parent / "asr"
ITEM = "c0c14913-3d7a-48ea-9531-cc99e0e686e6"
CONTEXT = RunContext(plan="p", run_id="1", run_type="planned", direction="primary-to-recovery")


def imported(name: str, inventory: Inventory, **options: Any) -> Imported:
    path = ASR / name
    return import_asr_plan(read_asr_plan(path.read_bytes(), str(path)), inventory.machines, **options)


def loaded(found: Imported, tmp_path: Path, inventory: Inventory) -> Plan:
    path = tmp_path / "imported.plan.yaml"
    path.write_text(found.text, encoding="utf-8")
    return load_plan(path, inventory)


def action(name: str = "Do it", **more: Any) -> dict[str, Any]:
    return {
        "actionName": name,
        "failoverTypes": ["PlannedFailover", "UnplannedFailover", "TestFailover"],
        "failoverDirections": ["PrimaryToRecovery", "RecoveryToPrimary"],
        "customDetails": {"instanceType": "ManualActionDetails", "description": "Do."},
        **more,
    }


def plan_of(*actions: Any, items: tuple[Any, ...] = ({"id": "x/replicationProtectedItems/web"},)) -> dict[str, Any]:
    group = {"groupType": "Boot", "replicationProtectedItems": list(items), "endGroupActions": list(actions)}
    return {"properties": {"friendlyName": "shop", "groups": [group]}}


def taken(document: Any, inventory: Inventory | None = None, **options: Any) -> Imported:
    raw = json.dumps(document).encode()
    return import_asr_plan(read_asr_plan(raw, "x.json"), inventory.machines if inventory else None, **options)


def test_a_rest_answer_becomes_a_plan_that_loads(tmp_path: Path, inventory: Inventory) -> None:
    plan = loaded(imported("rest-answer.json", inventory, renamed={ITEM: "payment-app-2"}), tmp_path, inventory)
    assert plan.name == "Payments-plan"
    assert [[entry.machine for entry in group.machines] for group in plan.groups] == [
        ["payment-db"],
        ["payment-app-1", "payment-app-2"],
    ]
    (drain,) = plan.before
    assert isinstance(drain, ScriptStep)
    assert (drain.interpreter, drain.timeout, drain.runs) == ("pwsh", 300, ["planned", "failback"])
    assert drain.run == r"& '\\berlin-lib\scripts\Drain-LoadBalancer.ps1'"
    (addresses,) = plan.groups[0].before
    assert isinstance(addresses, ManualStep)
    assert "**Assign-PublicIp**" in addresses.instructions and "PT1H30M" in addresses.instructions
    assert addresses.directions == ["primary-to-recovery"]
    (check,) = plan.groups[0].after
    assert set(check.runs) == {"test", "planned", "unplanned", "failback"}
    (tell,) = plan.groups[1].after
    assert tell.runs == ["cleanup", "commit"]


def test_instructions_are_texts_not_templates(tmp_path: Path, inventory: Inventory) -> None:
    plan = loaded(imported("rest-answer.json", inventory, renamed={ITEM: "payment-app-2"}), tmp_path, inventory)
    step = render_step(plan.groups[0].after[0], CONTEXT)
    assert isinstance(step, ManualStep)
    assert step.instructions.startswith("1. Open the ledger {{ of today }}.\n2. Compare")


def test_an_item_that_no_machine_has_is_reported_and_kept(tmp_path: Path, inventory: Inventory) -> None:
    found = imported("rest-answer.json", inventory)
    (note,) = [note for note in found.notes if note.kind == "machine"]
    assert (note.severity, note.where) == (
        Severity.FAIL,
        "properties.groups[3].replicationProtectedItems[1]",
    )
    assert f"--map {ITEM}=NAME" in note.remedy
    with pytest.raises(BadInput, match=f"unknown machine '{ITEM}'"):
        loaded(found, tmp_path, inventory)


def test_a_machine_with_another_spelling_is_suggested(inventory: Inventory) -> None:
    found = taken(plan_of(items=({"id": "a/paymnt-db"},)), inventory)
    assert "is it payment-db or" in found.notes[0].what
    assert "# not in the inventory: is it payment-db" in found.text


def test_a_template_is_resolved_as_far_as_it_goes(tmp_path: Path, inventory: Inventory) -> None:
    found = imported("template.json", inventory)
    plan = loaded(found, tmp_path, inventory)
    assert (plan.name, plan.machines) == ("shop", ["web"])
    assert [step.name for step in plan.groups[0].before] == ["Before anything"]
    unresolved = [note for note in found.notes if note.severity is Severity.FAIL]
    assert len(unresolved) == 1
    assert "[parameters('runbook')] cannot be resolved" in unresolved[0].what
    assert any("primaryZone, recoveryZone" in note.what for note in found.notes)
    assert any(note.kind == "expression" and "vaults_dr_name" in note.what for note in found.notes)


def test_unknown_kinds_are_manual_steps_that_quote_them(tmp_path: Path, inventory: Inventory) -> None:
    found = imported("unknown-kinds.json", inventory)
    plan = loaded(found, tmp_path, inventory)
    steps = {step.name: step for group in plan.groups for step in (*group.before, *group.after)}
    assert '"number": "+49 30 1234"' in render_text(steps["Send a fax"])
    assert '"timeout": "soon"' in render_text(steps["Send a fax (2)"])
    assert '"groupType": "Quarantine"' in render_text(steps["Decide about the group of type Quarantine"])
    script = steps["Copy the last logs"]
    assert isinstance(script, ScriptStep)
    assert (script.timeout, script.runs, script.run) == (3600, ["failback"], r"& 'C:\it''s\Copy.ps1'")
    assert [(entry.machine, entry.start) for entry in plan.groups[-1].machines] == [("payment-app-2", False)]
    said = " ".join(note.what for note in found.notes)
    for word in ("classic", "Sideways", "RepairReplication", "FaxActionDetails", "soon", "Quarantine", "no boot group"):
        assert word in said, word


def render_text(step: Any) -> str:
    rendered = render_step(step, CONTEXT)
    assert isinstance(rendered, ManualStep)
    return rendered.instructions


@pytest.mark.parametrize(
    ("types", "directions", "runs", "ways"),
    [
        (["TestFailover"], ["PrimaryToRecovery"], ["test"], ["primary-to-recovery"]),
        (["PlannedFailover"], ["PrimaryToRecovery"], ["planned"], ["primary-to-recovery"]),
        (["PlannedFailover"], ["RecoveryToPrimary"], ["failback"], ["recovery-to-primary"]),
        (["PlannedFailover"], ["PrimaryToRecovery", "RecoveryToPrimary"], ["planned", "failback"], None),
        (["Failback", "ReverseReplicate"], ["RecoveryToPrimary"], ["failback", "reverse"], ["recovery-to-primary"]),
        (["unplannedfailover", "Test"], ["primarytorecovery"], ["test", "unplanned"], ["primary-to-recovery"]),
        (["TestFailoverCleanup", "Commit"], None, ["cleanup", "commit"], None),
        (None, None, ["test", "planned", "unplanned", "failback"], None),
    ],
)
def test_types_and_directions(
    tmp_path: Path,
    inventory: Inventory,
    types: list[str] | None,
    directions: list[str] | None,
    runs: list[str],
    ways: list[str] | None,
) -> None:
    found = taken(plan_of(action(failoverTypes=types, failoverDirections=directions)), inventory)
    (step,) = loaded(found, tmp_path, inventory).groups[0].after
    assert set(step.runs) == set(runs)
    assert step.directions == (ways or ["primary-to-recovery", "recovery-to-primary"])
    assert found.notes == []


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("PT30M", 1800),
        ("PT1H30M", 5400),
        ("P1DT2H", 93600),
        ("P2W", 1209600),
        ("PT0.5S", 0.5),
        ("pt5m", 300),
        ("00:10:00", 600),
        ("1.02:00:00", 93600),
        ("PT0S", None),
        ("P", None),
        ("PT", None),
        ("30", None),
        ("soon", None),
        ("P1Y", None),
        ("", None),
    ],
)
def test_timeouts(text: str, seconds: float | None) -> None:
    assert parse_timeout(text) == seconds


@pytest.mark.parametrize("timeout", ["PT0.000001S", "PT999999999S", "P99999D", "PT1H0.25S"])
def test_every_timeout_can_be_read_back(tmp_path: Path, inventory: Inventory, timeout: str) -> None:
    details = {"instanceType": "ScriptActionDetails", "path": "x.ps1", "timeout": timeout}
    (step,) = loaded(taken(plan_of(action(customDetails=details)), inventory), tmp_path, inventory).groups[0].after
    assert isinstance(step, ScriptStep)
    assert step.timeout == parse_timeout(timeout)


def test_two_items_never_become_one(inventory: Inventory) -> None:
    found = taken(
        plan_of(items=({"id": "a/my vm"}, {"id": "a/my_vm!"}, {"id": "a/my#vm"}, {"id": "a/my vm"})), inventory
    )
    assert found.machines == ["my-vm", "my_vm", "my-vm-2"]
    assert sum("is in the plan twice" in note.what for note in found.notes) == 1


def test_one_of_several_plans_is_chosen_by_name() -> None:
    entry = plan_of()["properties"]
    answer = {"value": [{"name": name, "properties": {**entry, "friendlyName": name}} for name in ("a", "b")]}
    raw = json.dumps(answer).encode()
    assert read_asr_plan(raw, "x.json", "b").name == "b"
    with pytest.raises(BadInput, match=r"2 recovery plans in this file.*--resource: a, b"):
        read_asr_plan(raw, "x.json")
    with pytest.raises(BadInput, match="no plan 'c'"):
        read_asr_plan(raw, "x.json", "c")


def test_nested_and_symbolic_resources_are_found() -> None:
    entry = {"type": "replicationRecoveryPlans", "name": "inner", **plan_of()}
    del entry["properties"]["friendlyName"]
    vault = {"type": "Microsoft.RecoveryServices/vaults", "name": "v", "resources": [entry]}
    deployment = {
        "type": "Microsoft.Resources/deployments",
        "properties": {"template": {"languageVersion": "2.0", "resources": {"vault": vault}}},
    }
    assert read_asr_plan(json.dumps({"resources": [deployment]}).encode(), "x.json").name == "inner"


def test_a_file_in_utf_16_is_read() -> None:
    assert read_asr_plan(json.dumps(plan_of()).encode("utf-16"), "x.json").name == "shop"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "x.json:1:1: the file is not JSON"),
        (b'{\n  "a": 1,\n}', "x.json:3:1: the file is not JSON"),
        (b"\xff\x00\xfe", "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"resources": []}', "no Site Recovery recovery plan in this file"),
        (b"42", "no Site Recovery recovery plan"),
        (json.dumps(plan_of(items=())).encode(), "protects no machine"),
        (b"resource plan 'Microsoft.RecoveryServices/vaults/replicationRecoveryPlans@2024-04-01' = {", "bicep build"),
    ],
)
def test_what_cannot_be_imported_says_why(raw: bytes, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        import_asr_plan(read_asr_plan(raw, "x.json"), None)
    assert message in str(caught.value)


def test_wrong_names_are_refused() -> None:
    with pytest.raises(BadInput, match="--name"):
        taken(plan_of(), name="no good")
    with pytest.raises(BadInput, match="--map"):
        taken(plan_of(), renamed={"web": "no good"})
    with pytest.raises(BadInput, match="no protected item of the plan is called 'absent'"):
        taken(plan_of(), renamed={"absent": "web"})


TEMPLATE = Template({"p": {"defaultValue": "[concat('a', 'b')]"}, "none": {}}, {"v": "x", "deep": {"er": "y"}})


@pytest.mark.parametrize(
    ("text", "gives"),
    [
        ("plain", "plain"),
        ("[[literal]", "[literal]"),
        ("[parameters('p')]", "ab"),
        ("[PARAMETERS('P')]", "ab"),
        ("[concat(parameters('p'), '/', variables('v'), '/it''s')]", "ab/x/it's"),
        ("[format('{0}-{1}-{0}', 'a', 7)]", "a-7-a"),
        ("[variables('deep').er]", "y"),
        ("[resourceId('t', 'a', 'b')]", "t/a/b"),
        ("[toLower('ABC')]", "abc"),
    ],
)
def test_expressions(text: str, gives: str) -> None:
    assert resolve(text, TEMPLATE).text == gives


@pytest.mark.parametrize(
    "text",
    [
        "[parameters('none')]",
        "[parameters('absent')]",
        "[resourceGroup().location]",
        "[concat('a']",
        "[format('{3}', 'a')]",
        "[variables('deep')]",
        "[§]",
        "[]",
        "[" + "concat(" * 200 + ")" * 200 + "]",
    ],
)
def test_expressions_that_only_azure_can_resolve(text: str) -> None:
    with pytest.raises(CannotTell):
        resolve(text, TEMPLATE)


def test_expressions_that_grow_or_turn_in_circles_end() -> None:
    circle = Template({}, {"a": "[variables('b')]", "b": "[variables('a')]"})
    laughs = Template({}, {f"v{n}": f"[concat(variables('v{n - 1}'), variables('v{n - 1}'))]" for n in range(1, 60)})
    laughs.variables["v0"] = "ha"  # type: ignore[index]
    for text, template in (("[variables('a')]", circle), ("[variables('v59')]", laughs)):
        with pytest.raises(CannotTell):
            resolve(text, template)


words = st.sampled_from(
    [
        "Boot",
        "Shutdown",
        "Failover",
        "Other",
        "web",
        "{{ x }}",
        "{% raw %}",
        "[parameters('p')]",
        "a\nb",
        "'",
        '"',
        "# x",
    ]
) | st.text(max_size=30)
scalars = words | st.none() | st.integers() | st.booleans() | st.floats()
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3), max_leaves=5
)
details = st.fixed_dictionaries(
    {},
    optional={
        "instanceType": st.sampled_from(
            ["ManualActionDetails", "ScriptActionDetails", "AutomationRunbookActionDetails", "Odd"]
        )
        | anything,
        "description": anything,
        "path": anything,
        "runbookId": anything,
        "timeout": st.sampled_from(["PT5M", "x"]) | anything,
        "fabricLocation": anything,
    },
)
actions = st.fixed_dictionaries(
    {},
    optional={
        "actionName": anything,
        "failoverTypes": st.lists(st.sampled_from(["PlannedFailover", "Commit", "ChangePit"]) | words, max_size=3)
        | anything,
        "failoverDirections": st.lists(st.sampled_from(["PrimaryToRecovery"]) | words, max_size=2) | anything,
        "customDetails": details | anything,
    },
)
groups = st.fixed_dictionaries(
    {},
    optional={
        "groupType": words | anything,
        "replicationProtectedItems": st.lists(
            st.fixed_dictionaries({}, optional={"id": words, "virtualMachineId": words}) | anything, max_size=3
        )
        | anything,
        "startGroupActions": st.lists(actions | anything, max_size=2) | anything,
        "endGroupActions": st.lists(actions | anything, max_size=2) | anything,
    },
)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(found=st.lists(groups | anything, max_size=4), name=anything)
def test_whatever_is_exported_loads_when_its_machines_exist(
    tmp_path: Path, inventory: Inventory, found: list[Any], name: Any
) -> None:
    boot = {"groupType": "Boot", "replicationProtectedItems": [{"id": "p/web"}]}
    document = {"type": "Microsoft.RecoveryServices/vaults/replicationRecoveryPlans", "name": name}
    document["properties"] = {"groups": [*found, boot]}
    done = taken(document)
    everywhere = inventory.model_copy(update={"machines": dict.fromkeys(done.machines, inventory.machines["web"])})
    plan = loaded(done, tmp_path, everywhere)
    assert plan.machines and set(plan.machines) == set(done.machines)
    for step in (*plan.before, *(step for group in plan.groups for step in (*group.before, *group.after))):
        render_step(step, CONTEXT)


@settings(max_examples=150, deadline=None)
@given(raw=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
def test_any_file_is_imported_or_refused(raw: bytes) -> None:
    try:
        import_asr_plan(read_asr_plan(raw, "x.json"), None)
    except BadInput as error:
        assert str(error)
