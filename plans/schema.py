"""JSON Schema of the files that people write, for editors that complete and check while one types."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from plans.model import Plan
from vault.inventory import Inventory

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def plan_schema() -> dict[str, Any]:
    """The schema of a recovery plan file."""
    return _schema(Plan, "leeward recovery plan")


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
    return {
        word: value if word in ("default", "enum", "const") else _cleaned(value, named=word in ("properties", "$defs"))
        for word, value in part.items()
        if word != "title"
    }
