"""Holds a PowerShell script against Microsoft's reference: cmdlets, parameters, parameter sets, values, WMI methods.

Knows the PowerShell that the packaged scripts are written in: every argument of a Hyper-V, cluster or VMM cmdlet is
named in full, and splatted tables are literals of the same script.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import tree_sitter_powershell
from tree_sitter import Language, Node, Parser

REFERENCE = Path(__file__).parent / "reference"
COMPARED = {
    "SnapshotType": ("Get-VMSnapshot", "SnapshotType"),
    "ReplicationMode": ("Get-VMReplication", "ReplicationMode"),
    "ReplicationState": ("Get-VMReplication", "ReplicationState"),
    "ReplicationRelationshipType": ("Get-VMReplication", "ReplicationRelationshipType"),
}
"""Properties that scripts compare with words, and whose parameter lists the words there are."""
OF_EVERY_WMI_OBJECT = {"Path", "InstanceID", "Get", "CreateInstance", "GetText", "GetMethodParameters", "InvokeMethod"}


@dataclass
class Call:
    """One call of a cmdlet: named arguments with their text (``""``: a switch), and how many are not named."""

    name: str
    line: int
    given: dict[str, str] = field(default_factory=dict)
    sometimes: set[str] = field(default_factory=set)
    """Parameters that a splatted table has only under a condition."""
    positional: int = 0
    problems: list[str] = field(default_factory=list)


@cache
def reference(name: str) -> dict[str, Any]:
    return json.loads((REFERENCE / f"{name}.json").read_text())  # type: ignore[no-any-return]


@cache
def cmdlets() -> dict[str, tuple[dict[str, Any], set[str]]]:
    """Each known cmdlet with its reference and the parameters that every cmdlet of its module has."""
    known = {}
    for file in ("hyperv", "failoverclusters", "vmm", "builtin"):
        common = {name.lower() for name in reference(file)["common_parameters"]}
        known |= {name.lower(): (described, common) for name, described in reference(file)["cmdlets"].items()}
    return known


def parse(text: str) -> Node:
    return Parser(Language(tree_sitter_powershell.language())).parse(text.encode()).root_node


def problems(text: str) -> list[str]:
    """What a host would not understand, each with its line."""
    root = parse(text)
    broken = [f"line {node.start_point[0] + 1}: not PowerShell" for node in _all(root) if _is_broken(node)]
    own = {_text(node.child(1)).lower() for node in _all(root) if node.type == "function_statement"}
    tables = _tables(root)
    found = list(broken)
    for node in _all(root):
        if node.type == "command" and (name := _child(node, "command_name")) and _text(name).lower() not in own:
            call = _call(node, _text(name), tables)
            found += [f"line {call.line}: {call.name}: {problem}" for problem in (*call.problems, *_against(call))]
    return [*found, *_compared_words(text), *_wmi(text)]


def answered_keys(text: str) -> set[str]:
    """The keys of all tables that a script makes, but for those that it splats."""
    root = parse(text)
    splatted = {_text(node)[1:] for node in _all(root) if node.type == "variable" and _text(node).startswith("@")}
    tables = _tables(root)
    of_arguments = {key for name in splatted & set(tables) for key in tables[name][0]}
    later = {key for given, sometimes in tables.values() for key in sometimes}
    entries = (node for node in _all(root) if node.type == "hash_entry")
    return ({_text(entry.child(0)) for entry in entries} | later) - of_arguments


def _is_broken(node: Node) -> bool:
    return node.type == "ERROR" or node.is_missing


def _all(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from _all(child)


def _text(node: Node | None) -> str:
    return node.text.decode() if node is not None and node.text is not None else ""


def _child(node: Node, kind: str) -> Node | None:
    return next((child for child in node.children if child.type == kind), None)


def _tables(root: Node) -> dict[str, tuple[dict[str, str], set[str]]]:
    """Variables that are literal tables: what they always have, and the keys that are added under conditions."""
    found: dict[str, tuple[dict[str, str], set[str]]] = {}
    for node in _all(root):
        if node.type != "assignment_expression":
            continue
        target, value = _text(node.child(0)), node.children[-1]
        table = next((inner for inner in _all(value) if inner.type == "hash_literal_expression"), None)
        if table is not None and _text(table) == _text(value) and re.fullmatch(r"\$\w+", target):
            entries = [inner for inner in _all(table) if inner.type == "hash_entry"]
            found[target[1:]] = ({_text(e.child(0)): _text(e.children[-1]) for e in entries}, set())
            continue
        if match := re.fullmatch(r"\$(\w+)\.(\w+)", target):
            table_name, key = match.groups()
            if table_name in found:
                found[table_name][0][key] = _text(value)
                found[table_name][1].add(key)
    return found


def _call(node: Node, name: str, tables: dict[str, tuple[dict[str, str], set[str]]]) -> Call:
    call = Call(name, node.start_point[0] + 1)
    elements = _child(node, "command_elements")
    waiting: str | None = None
    attached = False
    for element in elements.children if elements is not None else []:
        text = _text(element)
        if element.type == "command_argument_sep":
            attached = ":" in text
        elif element.type == "redirection":
            continue
        elif element.type == "command_parameter":
            waiting = text[1:].rstrip(":")
            call.given[waiting] = ""
        elif text.startswith("@") and text[1:].isidentifier():
            if text[1:] not in tables:
                call.problems.append(f"{text} is not a literal table of this script")
            given, sometimes = tables.get(text[1:], ({}, set()))
            call.given |= given
            call.sometimes |= sometimes
        elif waiting is not None and (attached or not _is_switch(name, waiting)):
            call.given[waiting] = text
            waiting = None
        else:
            call.positional += 1
    return call


def _is_switch(cmdlet: str, parameter: str) -> bool:
    described, _ = cmdlets().get(cmdlet.lower(), ({"parameters": {}}, set()))
    return _type(_parameters(described).get(parameter.lower(), {"type": ""})) == "SwitchParameter"


def _parameters(described: dict[str, Any]) -> dict[str, Any]:
    return {name.lower(): value for name, value in described["parameters"].items()}


def _type(parameter: Any) -> str:
    return parameter if isinstance(parameter, str) else str(parameter["type"])


def _against(call: Call) -> Iterator[str]:
    if call.name.lower() not in cmdlets():
        yield "not in the reference"
        return
    described, common = cmdlets()[call.name.lower()]
    known = _parameters(described)
    own = {name.lower() for name in call.given} - common
    if call.positional > described.get("positional", 0):
        yield "an argument is not named"
    for name, value in call.given.items():
        parameter = known.get(name.lower())
        if parameter is None:
            if name.lower() not in common:
                yield f"has no parameter -{name}"
            continue
        if not value and _type(parameter) != "SwitchParameter":
            yield f"-{name} needs a value"
        if isinstance(parameter, dict) and "values" in parameter:
            for word in _words(value):
                if word not in parameter["values"]:
                    yield f"-{name} cannot be '{word}'"
    if own <= set(known) and not _fits_a_set(described, own, {name.lower() for name in call.sometimes}):
        yield f"no parameter set has -{', -'.join(sorted(own)) or 'nothing'} and all it needs"


def _fits_a_set(described: dict[str, Any], given: set[str], sometimes: set[str]) -> bool:
    parameters = _parameters(described)
    sets = described.get("syntax_sets") or {"(All)": list(described["parameters"])}
    for name, members in sets.items():
        needed = {
            member.lower()
            for member in members
            if isinstance(parameters.get(member.lower()), dict)
            and {name, "(All)"} & set(parameters[member.lower()]["mandatory_in_sets"])
        }
        if given <= {member.lower() for member in members} and needed <= given - sometimes:
            return True
    return False


def _words(value: str) -> list[str]:
    """The words that an argument is made of, when it is made of words only."""
    parts = [part.strip() for part in value.split(",")]
    if not value or not all(re.fullmatch(r"'[^']*'|[A-Za-z]\w*", part) for part in parts):
        return []
    return [part.strip("'") for part in parts]


def _compared_words(text: str) -> Iterator[str]:
    lists = dict(re.findall(r"\$(\w+) = ('\w+'(?:, '\w+')*)$", text, re.MULTILINE))
    compared = [(name, [word]) for name, word in re.findall(r"\.(\w+)\)\"? -(?:eq|ne) '(\w+)'", text)]
    compared += [
        (name, _words(lists.get(variable, "")))
        for variable, name in re.findall(r'\$(\w+) -contains "\$\(\$_\.(\w+)\)"', text)
    ]
    for name, words in compared:
        if name in COMPARED:
            cmdlet, parameter = COMPARED[name]
            values = reference("hyperv")["cmdlets"][cmdlet]["parameters"][parameter]["values"]
            yield from (f"{name} is never '{word}'" for word in words if word not in values)


def _wmi(text: str) -> Iterator[str]:
    """``Msvm_`` classes, their methods, arguments and properties."""
    described = reference("wmi")
    classes: dict[str, set[str]] = {name: set(x["properties"]) for name, x in described["classes"].items()}
    methods: dict[str, dict[str, Any]] = described["methods"]
    variables: dict[str, set[str]] = {}
    for line in text.splitlines():
        assigned = re.match(r"\s*\$(\w+) = (.*)", line)
        for name in re.findall(r"Msvm_\w+", line):
            if name not in classes and name not in methods:
                yield f"WMI class {name} is not in the reference"
        if assigned:
            variable, value = assigned.groups()
            method = re.search(r"\$\w+\.(?:GetMethodParameters|InvokeMethod)\('(\w+)'", value)
            if method:
                parameters = next((of[method[1]]["parameters"] for of in methods.values() if method[1] in of), None)
                if parameters is None:
                    yield f"WMI method {method[1]} is not in the reference"
                    continue
                variables[variable] = {parameter["name"] for parameter in parameters} | {"ReturnValue"}
            elif (name := re.match(r"Get-(?:WmiObject|CimInstance).*?(Msvm_\w+)", value)) and "|" not in value:
                variables[variable] = classes.get(name[1], set()) | OF_EVERY_WMI_OBJECT
        for variable, name in re.findall(r"\$(\w+)\.(\w+)", line):
            if variable in variables and name not in variables[variable] | OF_EVERY_WMI_OBJECT:
                yield f"${variable} has no {name} in WMI's reference"
