"""The part of ARM's template expressions that exported recovery plans use: ``[concat(parameters('x'), '/y')]``.

Only what the template itself says can be known here: parameters by their default values, variables, and functions over
texts. Everything else is :class:`CannotTell`, and the importer keeps the expression and reports it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

MAX_LENGTH = 16 * 1024
"""Letters of an expression, and of what it gives."""
MAX_STEPS = 500
MAX_DEPTH = 20
_TOKEN = re.compile(r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<number>-?\d+)|(?P<name>[A-Za-z_]\w*)|(?P<sign>[(),.\[\]]))")
_HOLE = re.compile(r"\{(\d+)\}")


class CannotTell(Exception):
    """What an expression gives depends on something the file does not hold; the sentence says on what."""


class Template(NamedTuple):
    """What expressions of one template can refer to."""

    parameters: Mapping[str, Any]
    variables: Mapping[str, Any]


class Resolved(NamedTuple):
    """``used`` names the parameters and variables whose values went into the text."""

    text: str
    used: list[str]


def is_expression(text: str) -> bool:
    return text.startswith("[") and text.endswith("]") and not text.startswith("[[")


def resolve(text: str, template: Template) -> Resolved:
    """What ``text`` stands for; a text that is no expression stands for itself.

    Raises:
        CannotTell: the file alone does not say.
    """
    reader = _Reader(template)
    return Resolved(reader.text(text, 0), reader.used)


class _Reader:
    def __init__(self, template: Template) -> None:
        self._template = template
        self._steps = 0
        self.used: list[str] = []

    def text(self, text: str, depth: int) -> str:
        if text.startswith("[["):
            return text[1:]
        if not is_expression(text):
            return text
        value = self.value(text[1:-1], depth)
        if not isinstance(value, str | int):
            raise CannotTell("it does not give a text")
        return str(value)

    def value(self, source: str, depth: int) -> Any:
        if depth > MAX_DEPTH or len(source) > MAX_LENGTH:
            raise CannotTell("it is too long, or refers to itself")
        tokens = _tokens(source)
        value, rest = self._term(tokens, depth)
        if rest:
            raise CannotTell(f"'{rest[0]}' is not understood there")
        return value

    def _term(self, tokens: list[str], depth: int) -> tuple[Any, list[str]]:
        self._steps += 1
        if self._steps > MAX_STEPS or depth > MAX_DEPTH:
            raise CannotTell("it is too long, or refers to itself")
        if not tokens:
            raise CannotTell("it ends too early")
        head, rest = tokens[0], tokens[1:]
        if head.startswith("'"):
            value: Any = head[1:-1].replace("''", "'")
        elif head.lstrip("-").isdigit():
            value = int(head)
        elif rest[:1] == ["("]:
            arguments, rest = self._arguments(rest[1:], depth)
            value = self._call(head, arguments, depth)
        else:
            raise CannotTell(f"'{head}' is not understood there")
        while rest[:1] == ["."]:
            if len(rest) < 2 or not isinstance(value, Mapping) or rest[1] not in value:
                raise CannotTell(f"'.{rest[1] if len(rest) > 1 else ''}' is not in the file")
            value, rest = value[rest[1]], rest[2:]
        return value, rest

    def _arguments(self, tokens: list[str], depth: int) -> tuple[list[Any], list[str]]:
        arguments: list[Any] = []
        while tokens[:1] != [")"]:
            value, tokens = self._term(tokens, depth + 1)
            arguments.append(value)
            if tokens[:1] == [","]:
                tokens = tokens[1:]
            elif tokens[:1] != [")"]:
                raise CannotTell("a bracket is not closed")
        return arguments, tokens[1:]

    def _call(self, name: str, arguments: list[Any], depth: int) -> Any:
        if name.lower() == "parameters":
            return self._named("parameter", self._template.parameters, arguments, depth)
        if name.lower() == "variables":
            return self._named("variable", self._template.variables, arguments, depth)
        function = _FUNCTIONS.get(name.lower())
        if function is None:
            raise CannotTell(f"only Azure knows what '{name}()' gives")
        if not all(isinstance(argument, str | int) for argument in arguments):
            raise CannotTell(f"'{name}()' is given something else than texts")
        text = function([str(argument) for argument in arguments])
        if len(text) > MAX_LENGTH:
            raise CannotTell("it gives too long a text")
        return text

    def _named(self, kind: str, values: Mapping[str, Any], arguments: list[Any], depth: int) -> Any:
        name = str(arguments[0]) if arguments else ""
        found = {key.lower(): value for key, value in values.items()}.get(name.lower())
        if kind == "parameter":
            found = found.get("defaultValue") if isinstance(found, Mapping) else None
        if found is None:
            raise CannotTell(f"the {kind} '{name}' has no value in the file")
        self.used.append(f"{kind} '{name}'")
        return self.text(found, depth + 1) if isinstance(found, str) else found


def _tokens(source: str) -> list[str]:
    tokens, place = [], 0
    while place < len(source.rstrip()):
        match = _TOKEN.match(source, place)
        if match is None:
            raise CannotTell(f"'{source[place : place + 10].strip()}' is not understood there")
        tokens.append(match.group().strip())
        place = match.end()
    return tokens


def _format(arguments: list[str]) -> str:
    text, *values = arguments or [""]

    def filled(match: re.Match[str]) -> str:
        if int(match[1]) >= len(values):
            raise CannotTell("'format()' has too few values")
        return values[int(match[1])]

    return _HOLE.sub(filled, text)


_FUNCTIONS: dict[str, Callable[[list[str]], str]] = {
    "concat": "".join,
    "format": _format,
    "tolower": lambda arguments: "".join(arguments).lower(),
    "toupper": lambda arguments: "".join(arguments).upper(),
    # Only the last names of a resource id say which machine, runbook or fabric it is.
    "resourceid": "/".join,
    "extensionresourceid": "/".join,
    "subscriptionresourceid": "/".join,
}
