"""Plans in several files: one flat plan, and every mistake told where it stands."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from console.main import app
from plans.including import MAX_INCLUDE_DEPTH, digest, origins, reviewed_text
from plans.loading import load_plan, load_plan_source
from plans.model import Plan
from vault.errors import BadInput, InputErrors, LeewardError
from vault.inventory import Inventory

pytestmark = pytest.mark.unit

MAIN = """\
plan: shop
groups:
  - include: common/database.yaml
  - name: web
    machines: [web]
    after:
      - wait: First
        for: 1s
      - include: common/dns.yaml
"""
DATABASE = """\
variables: {zone: example.com, size: 3}
groups:
  - name: database
    machines: [payment-db]
    after:
      - include: dns-of-database.yaml
"""
DNS = """\
steps:
  - manual: Switch DNS
    instructions: |
      Point it at
      {{ machines.web.address }} in {{ zone }}.
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "common").mkdir()
    write(tmp_path, "p.yaml", MAIN)
    write(tmp_path, "common/database.yaml", DATABASE)
    write(tmp_path, "common/dns.yaml", DNS)
    write(
        tmp_path,
        "common/dns-of-database.yaml",
        "steps: [{manual: Tell the owners of it}]",
    )
    return tmp_path


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)


def complaints(folder: Path, inventory: Inventory) -> list[str]:
    with pytest.raises(BadInput) as caught:
        load_plan(folder / "p.yaml", inventory)
    errors = caught.value.errors if isinstance(caught.value, InputErrors) else [caught.value]
    return [str(error).replace(f"{folder}/", "") for error in errors]


def test_one_flat_plan(folder: Path, inventory: Inventory) -> None:
    loaded = load_plan_source(folder / "p.yaml", inventory)
    plan = loaded.model
    assert [group.name for group in plan.groups] == ["database", "web"]
    assert [step.name for step in plan.groups[0].after] == ["Tell the owners of it"]
    assert [step.name for step in plan.groups[1].after] == ["First", "Switch DNS"]
    assert plan.variables == {"zone": "example.com", "size": 3}
    assert origins(loaded.source) == {"database": "common/database.yaml"}
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


def test_its_hash_is_that_of_all_its_text(folder: Path, inventory: Inventory) -> None:
    def sha256() -> str:
        return digest(load_plan_source(folder / "p.yaml", inventory).source)

    before = sha256()
    text = reviewed_text(load_plan_source(folder / "p.yaml", inventory).source).decode()
    assert text.startswith(MAIN)
    assert "\n# --- included: common/database.yaml ---\n" + DATABASE in text
    write(folder, "common/dns.yaml", DNS + "# reviewed\n")
    assert sha256() != before
    write(folder, "alone.yaml", "plan: p\ngroups: [{name: g, machines: [web]}]\n")
    alone = load_plan_source(folder / "alone.yaml", inventory).source
    assert digest(alone) == hashlib.sha256((folder / "alone.yaml").read_bytes()).hexdigest()


def test_the_including_plan_has_the_last_word_on_variables(folder: Path, inventory: Inventory) -> None:
    write(folder, "p.yaml", MAIN + "variables: {zone: mine.example}\nvariables_for: {test: {zone: t.example}}\n")
    plan = load_plan(folder / "p.yaml", inventory)
    assert plan.variables == {"zone": "mine.example", "size": 3}
    assert plan.variables_in("test", "primary-to-recovery") == {"zone": "t.example", "size": 3}


def test_a_whole_plan_is_included_for_its_groups(folder: Path, inventory: Inventory) -> None:
    whole = DATABASE + "plan: database\ndescription: alone\nrto: 5m\ncommit: automatic\n"
    write(folder, "common/database.yaml", whole)
    plan = load_plan(folder / "p.yaml", inventory)
    assert (plan.name, plan.rto, plan.commit) == ("shop", None, "manual")


MISTAKES = [
    ("p.yaml", "common/dns", "common/dsn", "p.yaml:9:18: there is no file 'common/dsn.yaml' — correct the path"),
    ("p.yaml", "common/dns.yaml", "common", "p.yaml:9:18: there is no file 'common'"),
    ("p.yaml", "common/dns.yaml", "/etc/hostname", "p.yaml:9:18: 'include' must be a path relative to this file"),
    ("p.yaml", "common/dns.yaml", "[1]", "p.yaml:9:18: 'include' must be a path relative"),
    ("p.yaml", "include: common/dns.yaml", '"include": "a\\0b"', "p.yaml:9:20: 'include' must be a path relative"),
    (
        "p.yaml",
        "include: common/dns.yaml",
        "include: common/dns.yaml\n        for: 1s",
        "p.yaml:9:9: an include stands alone",
    ),
    ("p.yaml", "common/dns.yaml", "common/database.yaml", "p.yaml:9:9: 'common/database.yaml' has no 'steps'"),
    ("p.yaml", "common/dns.yaml", "p.yaml", "p.yaml:9:18: 'p.yaml' includes itself"),
    (
        "common/dns-of-database.yaml",
        "steps: [",
        "steps: [{include: ../common/dns-of-database.yaml}, ",
        "common/dns-of-database.yaml:1:19: '../common/dns-of-database.yaml' includes itself",
    ),
    (
        "common/database.yaml",
        "payment-db",
        "paymnt-db",
        "common/database.yaml:4:16: unknown machine 'paymnt-db' — did you mean 'payment-db'?",
    ),
    (
        "common/database.yaml",
        "name: database",
        "name: web",
        "p.yaml:4:11: group 'web' is there twice, first in common/database.yaml:3",
    ),
    ("common/database.yaml", "machines", "machinse", "common/database.yaml:4:5: unknown key 'machinse'"),
    ("common/dns.yaml", "{{ zone }}", "{{ zon }}", "common/dns.yaml:5:40: unknown variable 'zon'"),
    (
        "common/dns.yaml",
        "manual: Switch DNS",
        "manual: First",
        "common/dns.yaml:2:13: two steps are named 'First', the first in line 7",
    ),
    (
        "common/dns.yaml",
        "steps:",
        "on_failure: stop\nsteps:",
        "common/dns.yaml:1:1: 'on_failure' of an included file would be lost",
    ),
    (
        "common/dns.yaml",
        "steps:",
        "step: x\nsteps:",
        "common/dns.yaml:1:1: unknown key 'step' of an included file — did you mean 'steps'?",
    ),
    (
        "common/dns.yaml",
        "steps:",
        "variables: {zone: other}\nsteps:",
        "variable 'zone' has another value in common/database.yaml:1",
    ),
    ("common/dns.yaml", DNS, "[1]", "common/dns.yaml:1:1: the file must be a mapping"),
    ("common/dns.yaml", "steps:", "steps: {", "common/dns.yaml:"),
    ("common/dns.yaml", DNS, "steps: 5", "common/dns.yaml:1:8: 'steps' must be a list"),
]


@pytest.mark.parametrize(("file", "old", "new", "says"), MISTAKES)
def test_mistakes(folder: Path, inventory: Inventory, file: str, old: str, new: str, says: str) -> None:
    text = (folder / file).read_text()
    assert old in text
    write(folder, file, text.replace(old, new))
    found = complaints(folder, inventory)
    assert any(says in line for line in found), found


def test_a_chain_that_is_too_deep(folder: Path, inventory: Inventory) -> None:
    for number in range(MAX_INCLUDE_DEPTH + 2):
        write(folder, f"{number}.yaml", f"steps: [{{include: {number + 1}.yaml}}]")
    write(folder, "p.yaml", MAIN.replace("common/dns.yaml", "0.yaml"))
    assert (
        f"{MAX_INCLUDE_DEPTH - 1}.yaml:1:19: more than {MAX_INCLUDE_DEPTH} files include each other"
        in complaints(folder, inventory)[0]
    )


def test_includes_that_multiply_are_stopped(folder: Path, inventory: Inventory) -> None:
    for number in range(MAX_INCLUDE_DEPTH):
        entries = ", ".join([f"{{include: {number + 1}.yaml}}"] * 40)
        write(folder, f"{number}.yaml", f"steps: [{entries}]")
    write(folder, f"{MAX_INCLUDE_DEPTH}.yaml", "steps: []")
    write(folder, "p.yaml", MAIN.replace("common/dns.yaml", "1.yaml"))
    assert "with its includes the plan has more than 250000 values" in complaints(folder, inventory)[0]


@pytest.mark.parametrize(
    "entry", ["null", "{}", "[]", "5", '"\\ud800"', f'"{"x" * 5000}"', f'"{"x/" * 400}"', '""', '"."', '".."']
)
def test_nothing_that_is_no_path_surprises_the_loader(folder: Path, inventory: Inventory, entry: str) -> None:
    write(folder, "p.yaml", MAIN.replace("common/dns.yaml", entry))
    with pytest.raises(LeewardError):
        load_plan(folder / "p.yaml", inventory)


def test_the_command_line_says_where_a_group_came_from(folder: Path) -> None:
    vault = Path(__file__).parents[2] / "examples" / "leeward.yaml"
    shown = CliRunner().invoke(
        app, ["plan", "show", str(folder / "p.yaml"), "--vault", str(vault), "--data", str(folder)]
    )
    assert shown.exit_code == 0, shown.output
    assert "database  from common/database.yaml" in shown.output


def test_what_cannot_be_included_hides_no_other_mistake(tmp_path: Path, inventory: Inventory) -> None:
    (tmp_path / "broken.yaml").write_text("groups: [\n")
    (tmp_path / "p.yaml").write_text(
        "plan: p\n"
        "before:\n"
        "  - include: nowhere.yaml\n"
        "  - manual: Look\n"
        "    timeuot: 5s\n"
        "groups:\n"
        "  - include: broken.yaml\n"
        "  - {name: a, machines: [web]}\n"
        "  - name: a\n"
        "    machines: [payment-db]\n"
        "    before: [{check: It answers, tcp: payment-app-1}]\n"  # which the broken file may recover
    )
    with pytest.raises(InputErrors) as caught:
        load_plan(tmp_path / "p.yaml", inventory)
    told = [str(one).removeprefix(f"{tmp_path}/") for one in caught.value.errors]
    assert [one.split(":")[0:2] for one in told] == [
        ["p.yaml", "3"],
        ["p.yaml", "5"],
        ["p.yaml", "9"],
        ["broken.yaml", "2"],
    ]
