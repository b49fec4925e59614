"""Read a YAML file as plain data that remembers where each part stands in the file.

It reads YAML 1.2 events, not objects: no tag can make it build anything but text, numbers, booleans, nulls, lists
and mappings, and the limits below hold while the file is read, so a hostile file costs bounded time and memory.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from vault.errors import AuthorizationRefused, BadInput, NotFound

MAX_BYTES = 4 * 2**20
MAX_DEPTH = 64
MAX_NODES = 250_000
"""Counted with every alias written out in full, which is what stops an alias bomb."""

Path_ = Sequence[str | int]
"""A place inside the data: keys and indexes from the root, like ``("machines", "web", "site")``."""

_LINE_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
_LONG_TAG = re.compile(r"""(?:^|[\s\[\]{},:"'])![^\s]{1024}""", re.MULTILINE)
_DIRECTIVE = re.compile(r"^%", re.MULTILINE)
_MAX_DIRECTIVES = 16
_STRING_TAG = "tag:yaml.org,2002:str"
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]{1,300}\Z", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]{1,300}|[0-9]{1,300}(\.[0-9]{0,300})?)([eE][-+]?[0-9]{1,3})?\Z", re.ASCII)


class Position(NamedTuple):
    """Both count from 1, as editors do."""

    line: int
    column: int


@dataclass(slots=True)
class Node:
    """One value of the file. ``children`` are its items by index or its values by key."""

    position: Position
    data: Any = None
    children: dict[str | int, Node] = field(default_factory=dict)
    keys: dict[str, Position] = field(default_factory=dict)
    block: bool = False
    """A ``|`` text: its n-th line is the n-th line after ``position``."""
    weight: int = 1
    height: int = 0
    source: YamlSource | None = None
    """The file that the value stands in, when that is another one than its parent's."""


@dataclass(slots=True)
class YamlSource:
    """A file that was read: its data, and where each part of it stands.

    Parts may have been put in from other files, ``included``; each is found in its own.
    """

    name: str
    root: Node
    lines: list[str]
    raw: bytes = b""
    included: list[YamlSource] = field(default_factory=list)

    @property
    def data(self) -> Any:
        return self.root.data

    def node(self, path: Path_) -> Node:
        """The value at ``path``, or the innermost one around it that exists."""
        node = self.root
        for part in path:
            child = node.children.get(part)
            if child is not None:
                node = child
        return node

    def position(self, path: Path_, *, key: bool = False) -> Position:
        """Where the value at ``path`` stands, or with ``key`` its key; the innermost part that exists."""
        node, position = self.root, self.root.position
        for part in path:
            if key and isinstance(part, str) and part in node.keys:
                position = node.keys[part]
            child = node.children.get(part)
            if child is not None:
                node = child
                if not key or isinstance(part, int):
                    position = node.position
        return position

    def file_of(self, path: Path_) -> YamlSource:
        """The file that the value at ``path`` stands in."""
        node, file = self.root, self
        for part in path:
            child = node.children.get(part)
            if child is not None:
                node, file = child, child.source or file
        return file

    def where(self, path: Path_, *, key: bool = False) -> str:
        """``file:line:column`` of the value (or key) at ``path``."""
        line, column = self.position(path, key=key)
        return f"{self.file_of(path).name}:{line}:{column}"

    def where_in_text(self, path: Path_, line: int, word: str = "") -> str:
        """``file:line:column`` of the n-th line (from 1) of the text at ``path``, at ``word`` when that line has it."""
        node = self.node(path)
        if not node.block and line > 1:
            return self.where(path)
        file = self.file_of(path)
        number = node.position.line + line if node.block else node.position.line
        if number > len(file.lines):
            return self.where(path)
        text = file.lines[number - 1]
        start = 0 if node.block else node.position.column - 1
        found = re.compile(rf"\b{re.escape(word)}\b").search(text, start) if word else None
        fallback = len(text) - len(text.lstrip()) if node.block else start
        return f"{file.name}:{number}:{(found.start() if found else fallback) + 1}"

    def error(self, path: Path_, what: str, *, remedy: str = "", key: bool = False) -> BadInput:
        """A complaint about the value (or key) at ``path``; the caller raises it or adds it to others."""
        return BadInput(what, where=self.where(path, key=key), remedy=remedy)

    def error_at(self, node: Node, what: str, remedy: str) -> BadInput:
        """The same about a value of this file itself."""
        return BadInput(what, where=f"{self.name}:{node.position.line}:{node.position.column}", remedy=remedy)


def read_yaml(path: Path) -> YamlSource:
    """Read one YAML file.

    Raises:
        NotFound: when there is no such file.
        AuthorizationRefused: when it may not be read.
        BadInput: when it is not one sound YAML 1.2 document within the limits; ``where`` is ``file:line:column``.
    """
    return parse_yaml(_read_bytes(path), str(path))


def parse_yaml(raw: bytes, name: str) -> YamlSource:
    """As :func:`read_yaml`, from bytes; ``name`` is what errors call the file."""
    if len(raw) > MAX_BYTES:
        raise BadInput(
            f"the file is larger than {MAX_BYTES // 2**20} MiB", where=name, remedy="split it, or check what it is"
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - (raw.rfind(b"\n", 0, error.start) + 1) + 1
        raise BadInput(
            "the file is not UTF-8 text", where=f"{name}:{line}:{column}", remedy="save it in the encoding UTF-8"
        ) from None
    _refuse_what_parses_in_quadratic_time(text, name)
    root = _Builder(name).build(_events(text, name))
    return YamlSource(name=name, root=root, lines=_LINE_BREAK.split(text), raw=raw)


def _refuse_what_parses_in_quadratic_time(text: str, name: str) -> None:
    """The parser needs minutes for a tag of a megabyte, and for ten thousands of directives; no plan has either."""
    long_tag = _LONG_TAG.search(text)
    if long_tag:
        line = text.count("\n", 0, long_tag.end()) + 1
        raise BadInput(
            "a word that begins with '!' is longer than 1024 characters",
            where=f"{name}:{line}",
            remedy="YAML takes it for a tag: remove it, or put spaces into it",
        )
    if sum(1 for _ in islice(_DIRECTIVE.finditer(text), _MAX_DIRECTIVES + 1)) > _MAX_DIRECTIVES:
        raise BadInput(
            f"more than {_MAX_DIRECTIVES} lines begin with '%'", where=name, remedy="remove or indent these lines"
        )


def _read_bytes(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise BadInput("this is not a file", where=str(path), remedy="name a YAML file")
        with path.open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise NotFound("there is no such file", where=str(path), remedy="check the path") from None
    except PermissionError:
        raise AuthorizationRefused(
            "the file may not be read", where=str(path), remedy="give this user the right to read it"
        ) from None
    except (OSError, ValueError) as error:
        raise BadInput(f"the file cannot be read: {error}", where=repr(str(path)), remedy="check the path") from None


def _events(text: str, name: str) -> Iterator[Any]:
    try:
        yield from YAML(typ="safe", pure=True).parse(text)
    except MarkedYAMLError as error:
        raise _syntax_error(error, name) from None
    except ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, error.position - (before.rfind("\n") + 1) + 1
        raise BadInput(
            "a character is not allowed in YAML",
            where=f"{name}:{line}:{column}",
            remedy='remove it, or write it as an escape like "\\x00" in double quotes',
        ) from None
    except (YAMLError, ValueError, LookupError, AttributeError, AssertionError, TypeError, OverflowError) as error:
        # The parser's own defects on broken text surface as these; for the operator they are a syntax error too.
        raise BadInput(
            "the file is not valid YAML", where=name, remedy=f"check its syntax ({type(error).__name__})"
        ) from None


_SYNTAX_HINTS = (
    ("'\\t'", "a tab is used for indentation", "indent with spaces"),
    ("mapping values are not allowed here", "a ':' is not expected here", "check the indentation, or quote the text"),
    (
        "expected <block end>",
        "the indentation does not match the lines above",
        "indent entries of one list or mapping by the same number of spaces",
    ),
    ("could not find expected ':'", "a ':' is missing", "write 'key: value', or check the indentation"),
    ("unexpected end of stream", "the quoted text never ends", "add the closing quote"),
    ("incompatible YAML document", "the YAML version is not supported", "remove the %YAML line"),
    ("tag handle", "the tag is not known", "remove the tag that begins with '!'"),
)


def _syntax_error(error: MarkedYAMLError, name: str) -> BadInput:
    mark = error.problem_mark or error.context_mark
    where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
    problem = str(error.problem or error.context or "syntax error")
    for sign, what, remedy in _SYNTAX_HINTS:
        if sign in problem:
            return BadInput(what, where=where, remedy=remedy)
    return BadInput(
        f"the file is not valid YAML: {shorten(problem, 200)}", where=where, remedy="check the syntax around this place"
    )


@dataclass(slots=True)
class _Open:
    """A list or mapping that is being read; ``key`` waits for its value."""

    node: Node
    mapping: bool
    anchor: str | None
    key: str | None = None


_SURROGATE = re.compile("[\ud800-\udfff]")
_A_TAG = "a word that begins with '!' is a tag, and tags are not supported"
"""Neither it nor an alias is quoted: what was meant may be a password that begins so."""


class _Builder:
    """Turns events into nodes without recursion, so depth costs no stack."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._open: list[_Open] = []
        self._anchors: dict[str, Node | None] = {}
        self._root: Node | None = None
        self._nodes = 0

    def build(self, events: Iterator[Any]) -> Node:
        for event in events:
            self._take(event)
        if self._root is None:
            raise BadInput("the file is empty", where=self._name, remedy="write something into it")
        return self._root

    def _take(self, event: Any) -> None:
        if isinstance(event, DocumentStartEvent) and self._root is not None:
            raise self._error(event, "the file has more than one document", "remove the '---' and what follows")
        if isinstance(event, MappingEndEvent | SequenceEndEvent):
            closed = self._open.pop()
            if closed.anchor:
                self._anchors[closed.anchor] = closed.node
            self._place(closed.node, event)
        elif isinstance(event, AliasEvent):
            self._place(self._aliased(event), event)
        elif isinstance(event, NodeEvent):
            self._begin(event)

    def _begin(self, event: Any) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise self._error(event, f"the file has more than {MAX_NODES} values", "split it")
        node = Node(Position(event.start_mark.line + 1, event.start_mark.column + 1))
        if isinstance(event, ScalarEvent):
            node.data, node.block = self._scalar(event), event.style == "|"
            if event.anchor:
                self._anchors[event.anchor] = node
            self._place(node, event)
            return
        mapping = isinstance(event, MappingStartEvent)
        if event.tag is not None:
            raise self._error(event, _A_TAG, "remove it")
        if self._open and self._open[-1].mapping and self._open[-1].key is None:
            raise self._error(event, "a key must be text, not a list or mapping", "write 'key: value'")
        if len(self._open) >= MAX_DEPTH:
            raise self._error(event, f"the file is nested deeper than {MAX_DEPTH} levels", "make it flatter")
        node.data = {} if mapping else []
        if event.anchor:
            self._anchors[event.anchor] = None
        assert isinstance(event, MappingStartEvent | SequenceStartEvent)
        self._open.append(_Open(node, mapping, event.anchor))

    def _aliased(self, event: Any) -> Node:
        if event.anchor not in self._anchors:
            what = "a word that begins with '*' is an alias, and there is no such anchor before it"
            raise self._error(event, what, "quote the text, or define the anchor with '&'")
        node = self._anchors[event.anchor]
        if node is None:
            raise self._error(event, "an alias contains itself", "write the value out")
        return node

    def _place(self, node: Node, event: Any) -> None:
        if not self._open:
            self._root = node
            return
        parent = self._open[-1]
        if parent.mapping and parent.key is None:
            parent.key = self._key(parent.node, node, event)
            return
        part: str | int
        if parent.mapping:
            assert parent.key is not None
            part, parent.key = parent.key, None
            parent.node.data[part] = node.data
        else:
            part = len(parent.node.data)
            parent.node.data.append(node.data)
        parent.node.children[part] = node
        parent.node.weight += node.weight
        parent.node.height = max(parent.node.height, node.height + 1)
        if sum(opened.node.weight for opened in self._open) > MAX_NODES:
            raise self._error(event, f"with its aliases the file has more than {MAX_NODES} values", "use fewer aliases")
        if len(self._open) + node.height > MAX_DEPTH:
            raise self._error(event, f"the file is nested deeper than {MAX_DEPTH} levels", "make it flatter")

    def _key(self, mapping: Node, key: Node, event: Any) -> str:
        if not isinstance(key.data, str):
            raise self._error(event, f"the key '{event_text(event)}' is not text", "put it in quotes")
        if key.data in mapping.keys:
            first = mapping.keys[key.data].line
            raise self._error(
                event, f"the key '{shorten(key.data)}' is there twice, first in line {first}", "remove one of the two"
            )
        mapping.keys[key.data] = Position(event.start_mark.line + 1, event.start_mark.column + 1)
        return key.data

    def _scalar(self, event: ScalarEvent) -> str | int | float | bool | None:
        text = self._whole_characters(event)
        if event.tag is not None and event.tag not in ("!", _STRING_TAG):
            raise self._error(event, _A_TAG, "remove it, or quote the text")
        if event.tag is not None or not event.implicit[0]:
            return text
        if text in _NULLS:
            return None
        if text in _BOOLEANS:
            return _BOOLEANS[text]
        if _INTEGER.match(text):
            return int(text)
        if _FLOAT.match(text):
            number = float(text)
            return number if math.isfinite(number) else text
        return text

    def _whole_characters(self, event: ScalarEvent) -> str:
        """JSON writes characters beyond 16 bits as two escapes, which the parser leaves as they are."""
        text: str = event.value
        if _SURROGATE.search(text) is None:
            return text
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            raise self._error(
                event, "a character is written by half of its escapes", "write the character itself"
            ) from None

    def _error(self, event: Any, what: str, remedy: str) -> BadInput:
        mark = event.start_mark
        return BadInput(what, where=f"{self._name}:{mark.line + 1}:{mark.column + 1}", remedy=remedy)


def event_text(event: Any) -> str:
    """What a scalar or alias event says, short enough for a message."""
    return shorten(str(getattr(event, "value", None) or getattr(event, "anchor", None) or ""))


def shorten(text: str, limit: int = 60) -> str:
    """``text`` on one line and at most ``limit`` characters long, for messages."""
    line = "".join(character if character.isprintable() else "�" for character in text)
    return line if len(line) <= limit else line[: limit - 1] + "…"
