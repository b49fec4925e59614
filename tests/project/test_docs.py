"""The documents keep their word: links lead somewhere, commands exist, decisions are complete."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest

from vault.retry import LATER_DELAY_MINUTES, RECOVERABLE_DELAYS_MINUTES
from workflows.attributes import ALL

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    ROOT / name
    for name in subprocess.check_output(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"], cwd=ROOT, text=True
    ).split()
)
OPERATE = ROOT / "docs/operate.md"
DECISIONS = sorted((ROOT / "docs/decisions").glob("*.md"))
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
CONSOLE_BLOCK = re.compile(r"^```console\n(?P<body>.*?)^```", re.MULTILINE | re.DOTALL)

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as they are made from their text."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(document: Path) -> list[str]:
    return [
        line.removeprefix("$ ").split("  #")[0].strip()
        for block in CONSOLE_BLOCK.finditer(document.read_text())
        for line in block["body"].splitlines()
        if line.startswith("$ ")
    ]


@every_document
def test_relative_links_lead_somewhere(document: Path) -> None:
    for match in LINK.finditer(without_code(document.read_text())):
        target, _, anchor = match["target"].partition("#")
        if re.match(r"^[a-z]+:", target):
            continue
        linked = (document.parent / target).resolve() if target else document
        assert linked.exists(), f"{document.name} links to {target}, which does not exist"
        if anchor:
            assert anchor in anchors(linked), f"{document.name} links to #{anchor}, which {linked.name} lacks"


@every_document
def test_make_targets_and_files_in_commands_exist(document: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    for command in commands(document):
        words = [word for word in command.split() if not re.match(r"^[A-Z_]+=", word)]
        if words[0] == "make":
            assert set(words[1:]) <= targets, f"{document.name}: {command}"
        if words[0] == "sh":
            assert (ROOT / words[1]).is_file(), f"{document.name}: {command}"


def test_the_readme_begins_with_the_two_commands() -> None:
    assert [command for command in commands(ROOT / "README.md") if not command.startswith("leeward")] == [
        "make demo",
        "make test",
    ]


@pytest.mark.parametrize("decision", DECISIONS, ids=lambda path: path.name)
def test_a_decision_says_status_context_decision_and_consequences(decision: Path) -> None:
    text = decision.read_text()
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Status", "Context", "Decision", "Consequences"]
    number = re.match(r"^(\d{3})-", decision.name)
    title = re.match(r"^# (\d+)\. \S", text)
    assert number
    assert title
    assert int(number[1]) == int(title[1])
    sections = re.split(r"^## .+$", text, flags=re.MULTILINE)[1:]
    assert all(section.strip() for section in sections)


def test_decisions_are_numbered_without_gaps_and_listed() -> None:
    assert [int(path.name[:3]) for path in DECISIONS] == list(range(1, len(DECISIONS) + 1))
    architecture = (ROOT / "docs/architecture.md").read_text()
    for decision in DECISIONS:
        assert f"(decisions/{decision.name})" in architecture


def test_the_map_names_every_package_and_only_those() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {pattern.rstrip("*") for pattern in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    (diagram,) = re.findall(r"```mermaid\n(flowchart.*?)```", (ROOT / "docs/architecture.md").read_text(), re.DOTALL)
    assert set(re.findall(r'\["(\w+)/ —', diagram)) == packages


def test_the_map_draws_no_import_that_the_contract_forbids() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (layers,) = [c["layers"] for c in project["tool"]["importlinter"]["contracts"] if c["type"] == "layers"]
    level = {package.strip(): depth for depth, layer in enumerate(layers) for package in layer.split("|")}
    (diagram,) = re.findall(r"```mermaid\n(flowchart.*?)```", (ROOT / "docs/architecture.md").read_text(), re.DOTALL)
    arrows = re.findall(r"^ +(\w+)(?:\[.*?\])? --> (\w+)", diagram, re.MULTILINE)
    assert len(arrows) >= len(level) - 1
    for above, below in arrows:
        assert level[above] < level[below], f"{above} → {below}"


def test_the_documented_retry_schedule_is_the_one_in_the_code() -> None:
    *first, last = (str(minutes) for minutes in RECOVERABLE_DELAYS_MINUTES)
    schedule = f"{', '.join(first)} and {last} minutes, then every {LATER_DELAY_MINUTES} minutes"
    operate = re.sub(r"\s+", " ", OPERATE.read_text())
    assert schedule in operate


def test_the_documented_search_attributes_are_the_ones_in_the_code() -> None:
    documented = re.findall(r"search-attribute create --type Keyword --name (\w+)$", "\n".join(commands(OPERATE)), re.M)
    assert sorted(documented) == sorted(key.name for key in ALL)


def test_the_documented_variables_are_the_ones_in_the_code() -> None:
    documented = set(re.findall(r"^\| `(LEEWARD_\w+)` \|", OPERATE.read_text(), re.MULTILINE))
    code = "\n".join(path.read_text() for path in (ROOT / "workers").glob("*.py"))
    assert documented == set(re.findall(r'"(LEEWARD_\w+)"', code))


def test_the_picture_is_well_formed_and_described() -> None:
    picture = ElementTree.parse(ROOT / "docs/leeward.svg").getroot()
    names = {element.tag.rpartition("}")[2] for element in picture}
    assert {"title", "desc"} <= names
    _, _, width, height = (float(number) for number in picture.attrib["viewBox"].split())
    for element in picture.iter():
        x, y = float(element.get("x", 0)), float(element.get("y", 0))
        assert 0 <= x <= width
        assert 0 <= y <= height
