"""What differs between two readings of an inventory, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from vault.inventory import Inventory

SAID_AT_MOST = 4
_ONE = {"sites": "site", "policies": "policy", "machines": "machine", "consistency_groups": "consistency group"}
"""The parts whose entries have names, and what one of them is called."""


def changes(before: Inventory, now: Inventory) -> list[str]:
    """One sentence for each difference, in the order of the file; empty when both say the same."""
    told: list[str] = []
    for part in Inventory.model_fields:
        old, new = getattr(before, part), getattr(now, part)
        if part in _ONE:
            told += _of_names(part, old, new)
        elif old != new:
            told.append(f"{part.replace('_', ' ')} changed")
    return told


def _of_names(part: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    both = [name for name in new if name in old and old[name] != new[name]]
    yield from _some(part, [f"'{name}'" for name in new if name not in old], "new")
    yield from _some(part, [f"'{name}'" for name in old if name not in new], "gone")
    yield from _some(part, [f"'{name}'" for name in both], "changed", [_fields(old[name], new[name]) for name in both])


def _some(part: str, names: Sequence[str], what: str, details: Sequence[str] = ()) -> Iterator[str]:
    verb = {"changed": ""}.get(what, "is ")
    shown = len(names) if len(names) <= SAID_AT_MOST else SAID_AT_MOST - 1
    for index, name in enumerate(names[:shown]):
        yield f"{_ONE[part]} {name} {verb}{what}{details[index] if details else ''}"
    if shown < len(names):
        yield f"{len(names) - shown} more {part.replace('_', ' ')} {'are ' if verb else ''}{what}"


def _fields(old: Any, new: Any) -> str:
    """Which settings of one entry differ; empty where an entry is a list."""
    of_model = getattr(type(new), "model_fields", {})
    names = [name for name in of_model if getattr(old, name) != getattr(new, name)]
    return f" ({', '.join(names)})" if names else ""
