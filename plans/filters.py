"""The filters that templates of plans may use; each measures what it makes before it makes it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jinja2 import Undefined

MAX_TEXT = 256 * 1024
"""Characters of any text that a template builds on the way."""
MAX_ITEMS = 20_000


class TemplateRefused(Exception):
    """A template does what plans may not do. ``line`` counts from 1; 0 when it is not known."""

    def __init__(self, what: str, line: int = 0) -> None:
        super().__init__(what)
        self.what = what
        self.line = line


def check_size(left: Any, right: Any) -> None:
    """Refuse a sum of two texts or lists that would become too large."""
    for kind, limit in ((str, MAX_TEXT), (list, MAX_ITEMS)):
        if isinstance(left, kind) and isinstance(right, kind) and len(left) + len(right) > limit:
            raise TemplateRefused("a value becomes too large")


def flat(items: Iterable[Any]) -> list[Any]:
    """A written-out list; lists of lists could grow without bound, so its items are plain."""
    listed = list(items)
    for item in listed:
        if isinstance(item, Undefined):
            str(item)
        if not isinstance(item, str | int | float | None):
            raise TemplateRefused("a list in a template holds only texts and numbers")
    return listed


def concatenate(parts: Iterable[Any]) -> str:
    """The operator ``~``."""
    return _bounded_join([as_text(part) for part in parts], "")


def as_text(value: Any) -> str:
    """What a value looks like written out: booleans as in YAML; never ``None`` or a list by accident."""
    if value is None:
        raise TemplateRefused("the value is not known here (None); guard it with 'if' or use default")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    if isinstance(value, Undefined):
        return str(value)
    raise TemplateRefused("only a text or a number can stand here; use a filter like join or tojson")


def _listed(value: Any) -> list[Any]:
    if isinstance(value, Undefined):
        str(value)
    if isinstance(value, str | int | float | None) or not isinstance(value, Iterable):
        raise TemplateRefused("this needs a list")
    items: list[Any] = []
    for item in value:
        items.append(item)
        if len(items) > MAX_ITEMS:
            raise TemplateRefused("a value becomes too large")
    return items


def _bounded_join(texts: list[str], separator: str) -> str:
    if sum(map(len, texts)) + len(separator) * len(texts) > MAX_TEXT:
        raise TemplateRefused("a value becomes too large")
    return separator.join(texts)


def _join(value: Any, separator: str = "", attribute: str | None = None) -> str:
    items = _listed(value)
    if attribute is not None:
        items = _attributes(items, attribute)
    return _bounded_join([as_text(item) for item in items], as_text(separator))


def _attributes(value: Any, attribute: str) -> list[Any]:
    found = []
    for item in _listed(value):
        if not isinstance(item, Mapping) or attribute not in item:
            raise TemplateRefused(f"an item has no '{attribute}'")
        found.append(item[attribute])
    return found


def _replace(value: Any, old: Any, new: Any) -> str:
    text, old_text, new_text = as_text(value), as_text(old), as_text(new)
    if not old_text:
        raise TemplateRefused("replace needs a text to look for")
    if len(text) + text.count(old_text) * (len(new_text) - len(old_text)) > MAX_TEXT:
        raise TemplateRefused("a value becomes too large")
    return text.replace(old_text, new_text)


def _default(value: Any, fallback: Any = "") -> Any:
    """Unlike Jinja2's own it also stands in for ``None``: an address that is not known yet."""
    return fallback if value is None or isinstance(value, Undefined) else value


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str | Mapping) else len(_listed(value))


def _first(value: Any) -> Any:
    items = value if isinstance(value, str) else _listed(value)
    if not items:
        raise TemplateRefused("the list is empty")
    return items[0]


def _last(value: Any) -> Any:
    items = value if isinstance(value, str) else _listed(value)
    if not items:
        raise TemplateRefused("the list is empty")
    return items[-1]


def _sort(value: Any) -> list[Any]:
    return sorted(_listed(value), key=as_text)


def _integer(value: Any) -> int:
    text = as_text(value)
    if not re.fullmatch(r"[-+]?\d{1,18}", text.strip(), re.ASCII):
        raise TemplateRefused(f"'{text[:40]}' is not a whole number")
    return int(text)


def _to_json(value: Any) -> str:
    """JSON that is safe to write out: what it holds is counted first."""
    waiting, seen = [value], 0
    while waiting:
        item = waiting.pop()
        seen += len(item) if isinstance(item, str) else 1
        if seen > MAX_TEXT:
            raise TemplateRefused("a value becomes too large")
        if isinstance(item, Mapping):
            waiting.extend([*item.keys(), *item.values()])
        elif isinstance(item, list | tuple):
            waiting.extend(item)
        elif isinstance(item, Undefined):
            str(item)
        elif not isinstance(item, str | int | float | None):
            raise TemplateRefused("this value cannot be written as JSON")
    return json.dumps(value, sort_keys=True)


def _shell_quote(value: Any) -> str:
    return shlex.quote(as_text(value))


FILTERS: dict[str, Callable[..., Any]] = {
    "attributes": _attributes,
    "default": _default,
    "first": _first,
    "int": _integer,
    "join": _join,
    "last": _last,
    "length": _length,
    "lower": lambda value: as_text(value).lower(),
    "quote": _shell_quote,
    "replace": _replace,
    "sort": _sort,
    "string": as_text,
    "tojson": _to_json,
    "trim": lambda value: as_text(value).strip(),
    "upper": lambda value: as_text(value).upper(),
}
