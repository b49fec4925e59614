"""JSON Schema of the files that people write, for editors that complete and check while one types."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from plans.model import Plan
from vault.inventory import DURATION_PATTERN, SIZE_PATTERN, Inventory, format_duration, format_size

_INCLUDE = {
    "description": "The groups, or the steps, of another file. The path is relative to this file.",
    "type": "object",
    "properties": {"include": {"type": "string", "minLength": 1}},
    "required": ["include"],
    "additionalProperties": False,
}
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def plan_schema() -> dict[str, Any]:
    """The schema of a recovery plan file."""
    schema = _schema(Plan, "leeward recovery plan")
    for part in (schema, *schema["$defs"].values()):
        for name in ("groups", "before", "after"):
            entries = part.get("properties", {}).get(name)
            if entries is not None:
                entries["items"] = {"anyOf": [entries["items"], {"$ref": "#/$defs/Include"}]}
    schema["$defs"]["Include"] = _INCLUDE
    return schema


def inventory_schema() -> dict[str, Any]:
    """The schema of the inventory file ``leeward.yaml``."""
    return _schema(Inventory, "leeward inventory")


def _schema(model: type[BaseModel], title: str) -> dict[str, Any]:
    cleaned = _cleaned(model.model_json_schema(mode="validation"), named=False)
    assert isinstance(cleaned, dict)
    return {"$schema": _DIALECT, "title": title, **cleaned}


def _cleaned(part: Any, *, named: bool) -> Any:
    """Without what only matters to pydantic: invented titles, and the ``kind`` that files never write.

    ``named``: the keys of ``part`` are names of properties or definitions, not words of JSON Schema.
    """
    if isinstance(part, list):
        return [_cleaned(item, named=False) for item in part]
    if not isinstance(part, dict):
        return part
    if named:
        return {
            name: _cleaned(value, named=False)
            for name, value in part.items()
            if not (name == "kind" and "const" in value)
        }
    if "patternProperties" in part:
        part = {**part, "additionalProperties": False}
    return {
        word: value if word in _VALUES else _cleaned(value, named=word in ("properties", "$defs", "patternProperties"))
        for word, value in _with_written_default(part).items()
        if word not in _NOT_FOR_EDITORS
    }


_VALUES = ("default", "enum", "const")
_NOT_FOR_EDITORS = ("title", "gt")


def _with_written_default(part: dict[str, Any]) -> dict[str, Any]:
    """The default as one would write it in the file: with its unit; none for a whole mapping."""
    default = part.get("default")
    if isinstance(default, dict):
        return {word: value for word, value in part.items() if word != "default"}
    if isinstance(default, int | float) and part.get("pattern") == DURATION_PATTERN:
        return {**part, "default": format_duration(default)}
    if isinstance(default, int) and part.get("pattern") == SIZE_PATTERN:
        return {**part, "default": format_size(default)}
    return part
