"""Plans in several files: an entry ``- include: PATH`` stands for the groups, or the steps, of another file.

It works on what was read, before anything is a plan: the included entries keep their file and line, so every later
complaint finds them, and a plan is one flat plan from then on.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from vault.errors import AuthorizationRefused, BadInput
from vault.validation import did_you_mean
from vault.yamlsource import MAX_NODES, Node, YamlSource, read_yaml

MAX_INCLUDE_DEPTH = 8
Taken = Literal["groups", "steps"]

_OF_ITS_OWN_RUN = frozenset({"plan", "description", "rto", "commit", "reverse_replication", "limits"})
"""Keys of a plan that say something about a run of it: the including plan has its own."""
_WOULD_BE_LOST = frozenset({"before", "after", "on_failure"})
_NO_PATH = re.compile(r"^$|^/|^.{1001}|/?[^/]{256}|[\x00-\x1f\ud800-\udfff]", re.DOTALL)
"""Absolute, longer than file systems allow, or with characters that no file of a plan has."""
_VARIABLES = ("variables", "variables_for")
_KNOWN = sorted({"groups", "steps", *_VARIABLES, *_OF_ITS_OWN_RUN})


def with_included(source: YamlSource) -> tuple[YamlSource, list[BadInput]]:
    """The file with everything that it includes in its place; the file itself when it includes nothing.

    Beside it what cannot be included, and stands nowhere then: a file that is missing, includes itself, or has nothing
    to take, with the place of the include; and one that is not readable as YAML, with the place in that file.

    Raises:
        BadInput: with its includes the plan is too large.
    """
    expansion = _Expansion(source)
    return expansion.expanded(), expansion.faults


def reviewed_text(source: YamlSource) -> bytes:
    """The text that was reviewed: the plan's file, then each included one below a comment with its name."""
    parts = [source.raw]
    for part in source.included:
        name = _name(part, source)
        parts.append(f"\n# --- included: {name} ---\n".encode() + part.raw)
    return b"".join(parts)


def digest(source: YamlSource) -> str:
    """SHA-256 of :func:`reviewed_text`, hexadecimal."""
    return hashlib.sha256(reviewed_text(source)).hexdigest()


def origins(source: YamlSource) -> dict[str, str]:
    """By name of a group: the file it was included from. Groups of the plan's own file are not there."""
    groups = source.root.children.get("groups")
    found = {}
    for index, group in enumerate(source.data["groups"] if groups is not None else []):
        file = source.file_of(("groups", index))
        if file is not source:
            found[group["name"]] = _name(file, source)
    return found


def _name(part: YamlSource, plan: YamlSource) -> str:
    """Where an included file is, as seen from the plan's."""
    return os.path.relpath(os.path.realpath(part.name), Path(os.path.realpath(plan.name)).parent)


class _Expansion:
    """One plan being put together. ``_left`` bounds what all files together may add."""

    def __init__(self, plan: YamlSource) -> None:
        self._plan = plan
        self._files: dict[str, YamlSource] = {}
        self._variables: dict[str, Node] = {}
        self._left = MAX_NODES
        self.faults: list[BadInput] = []
        self._real_path = functools.cache(os.path.realpath)

    def expanded(self) -> YamlSource:
        root = self._plan.root
        if not isinstance(root.data, dict):
            return self._plan
        chain = [os.path.realpath(self._plan.name)]
        children = dict(root.children)
        if "groups" in children:
            children["groups"] = self._list(children["groups"], "groups", self._plan, chain)
        children |= {key: self._list(children[key], "steps", self._plan, chain) for key in _step_lists(children)}
        if not self._files and not self.faults:
            return self._plan
        for key, node in self._variables.items():
            children[key] = _overlaid(node, children.get(key))
        whole = _mapping(root, children)
        return replace(self._plan, root=whole, included=list(self._files.values()))

    # -- lists of groups and of steps ----------------------------------------------------------------------------

    def _list(self, node: Node, kind: Taken, file: YamlSource, chain: list[str]) -> Node:
        if not isinstance(node.data, list):
            return node
        items = [item for child in node.children.values() for item in self._entry(child, kind, file, chain)]
        return replace(node, data=[item.data for item in items], children=dict(enumerate(items)))

    def _entry(self, node: Node, kind: Taken, file: YamlSource, chain: list[str]) -> Iterator[Node]:
        self._left -= node.weight
        if self._left < 0:
            raise file.error_at(node, f"with its includes the plan has more than {MAX_NODES} values", "split it")
        if isinstance(node.data, dict) and "include" in node.data:
            yield from self._included_or_told(node, kind, file, chain)
            return
        inner = self._steps_inside(node, file, chain)
        yield inner if file is self._plan else replace(inner, source=file)

    def _steps_inside(self, node: Node, file: YamlSource, chain: list[str]) -> Node:
        """A group, or a machine, with what its lists of steps include."""
        if not isinstance(node.data, dict):
            return node
        children = dict(node.children)
        for key in _step_lists(children):
            children[key] = self._list(children[key], "steps", file, chain)
        machines = children.get("machines")
        if machines is not None and isinstance(machines.data, list):
            entries = {index: self._steps_inside(entry, file, chain) for index, entry in machines.children.items()}
            data = [entry.data for entry in entries.values()]
            children["machines"] = replace(machines, data=data, children=entries)
        return _mapping(node, children)

    def _included_or_told(self, node: Node, kind: Taken, file: YamlSource, chain: list[str]) -> list[Node]:
        try:
            return list(self._included(node, kind, file, chain))
        except BadInput as error:
            if self._left < 0:
                raise
            self.faults.append(error)
            return []

    def _included(self, node: Node, kind: Taken, file: YamlSource, chain: list[str]) -> Iterator[Node]:
        part, real = self._read(node, file, chain)
        root = part.root
        if not isinstance(root.data, dict):
            raise part.error((), "the file must be a mapping of keys to values", remedy=f"begin it with '{kind}:'")
        for key in root.data:
            if key in _WOULD_BE_LOST:
                remedy = "move it into a group, or into the including plan"
                raise part.error((key,), f"'{key}' of an included file would be lost", remedy=remedy, key=True)
            if key not in _KNOWN:
                remedy = did_you_mean(key, _KNOWN)
                raise part.error((key,), f"unknown key '{key}' of an included file", remedy=remedy, key=True)
        if kind not in root.data:
            what = f"'{part.name}' has no '{kind}', so there is nothing to include here"
            other = "among the plan's 'groups'" if kind == "steps" else "among steps"
            raise file.error_at(node, what, f"add '{kind}:' to it, or include it {other}")
        if not isinstance(root.data[kind], list):
            raise part.error((kind,), f"'{kind}' must be a list", remedy="begin each entry with '- '")
        self._take_variables(part)
        yield from self._list(root.children[kind], kind, part, [*chain, real]).children.values()

    def _read(self, node: Node, file: YamlSource, chain: list[str]) -> tuple[YamlSource, str]:
        place, given = node.children["include"], node.data["include"]
        if len(node.data) > 1:
            raise file.error_at(node, "an include stands alone", "write '- include: PATH' and nothing else")
        if not isinstance(given, str) or _NO_PATH.search(given):
            raise file.error_at(place, "'include' must be a path relative to this file", "write '- include: PATH'")
        path = Path(file.name).parent / given
        real = self._real_path(str(path))
        if real in chain:
            raise file.error_at(place, f"'{given}' includes itself", "remove one of the includes of this circle")
        if len(chain) > MAX_INCLUDE_DEPTH:
            raise file.error_at(place, f"more than {MAX_INCLUDE_DEPTH} files include each other", "make it flatter")
        if real not in self._files:
            if not Path(real).is_file():
                raise file.error_at(
                    place, f"there is no file '{path}'", "correct the path; it is relative to this file"
                )
            try:
                self._files[real] = read_yaml(path)
            except AuthorizationRefused as error:
                raise file.error_at(place, f"'{path}' cannot be included: {error.what}", error.remedy) from None
        return self._files[real], real

    # -- variables -----------------------------------------------------------------------------------------------

    def _take_variables(self, part: YamlSource) -> None:
        """Values of included files hold where the including plan has none; two files must not disagree."""
        for key in _VARIABLES:
            node = part.root.children.get(key)
            if node is None or not isinstance(node.data, dict):
                continue
            mine = self._plan.root.children.get(key)
            for path, value in _leaves(node):
                other = _at(self._variables.get(key), path)
                if other is not None and other.data != value.data and _at(mine, path) is None:
                    where = f"{(other.source or self._plan).name}:{other.position.line}"
                    what = f"variable '{path[-1]}' has another value in {where}"
                    raise part.error((key, *path), what, remedy="say in the including plan which one holds")
            self._variables[key] = _overlaid(_from(node, part), self._variables.get(key))


def _step_lists(children: dict[str | int, Node]) -> list[str]:
    return [key for key in ("before", "after") if key in children]


def _mapping(node: Node, children: dict[str | int, Node]) -> Node:
    data: dict[Any, Any] = {key: child.data for key, child in children.items()}
    return replace(node, data=data, children=children)


def _from(node: Node, file: YamlSource) -> Node:
    """The mapping with its file written at each entry, so that they can be put into another mapping."""
    return _mapping(node, {key: replace(child, source=file) for key, child in node.children.items()})


def _overlaid(lower: Node, upper: Node | None) -> Node:
    """Two mappings as one; what is in ``upper`` holds, mapping by mapping."""
    if upper is None:
        return lower
    if not isinstance(lower.data, dict) or not isinstance(upper.data, dict):
        return upper
    children = {**lower.children, **upper.children}
    for key in lower.children.keys() & upper.children.keys():
        children[key] = _overlaid(lower.children[key], upper.children[key])
    merged = _mapping(upper, children)
    return replace(merged, keys={**lower.keys, **upper.keys})


def _leaves(node: Node, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Node]]:
    if not isinstance(node.data, dict):
        yield path, node
        return
    for key, child in node.children.items():
        yield from _leaves(child, (*path, key))


def _at(node: Node | None, path: tuple[str | int, ...]) -> Node | None:
    for part in path:
        node = node.children.get(part) if node is not None else None
    return node
