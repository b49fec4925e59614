"""The JSON Schemas accept what the loaders accept, and refuse what an editor should mark."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plans.schema import inventory_schema, plan_schema
from vault.yamlsource import read_yaml

pytestmark = pytest.mark.unit

EXAMPLES = Path(__file__).parents[2] / "examples"
TYPES: dict[str, Any] = {
    "string": str,
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": type(None),
}
ANNOTATIONS = {"description", "default", "title", "$schema", "$defs"}


class Validator:
    """The words of JSON Schema that the schemas use; any other word fails, so none can go unchecked."""

    def __init__(self, root: dict[str, Any]) -> None:
        self.root = root

    def errors(self, data: Any, schema: Any = None, path: str = "$") -> Iterator[str]:
        schema = self.root if schema is None else schema
        if schema in (True, False):
            if schema is False:
                yield f"{path}: not allowed"
            return
        for word, value in schema.items():
            if word not in ANNOTATIONS:
                name = "word_" + word.removeprefix("$")
                yield from getattr(self, name)(data, value, schema, path)

    def word_ref(self, data: Any, value: str, schema: Any, path: str) -> Iterator[str]:
        yield from self.errors(data, self.root["$defs"][value.removeprefix("#/$defs/")], path)

    def word_type(self, data: Any, value: str, schema: Any, path: str) -> Iterator[str]:
        number = isinstance(data, int | float) and not isinstance(data, bool)
        integer = isinstance(data, int) and not isinstance(data, bool)
        fits = {"number": number, "integer": integer}.get(value, isinstance(data, TYPES.get(value, ())))
        if not fits:
            yield f"{path}: not of type {value}"

    def word_anyOf(self, data: Any, value: list[Any], schema: Any, path: str) -> Iterator[str]:
        if not any(not list(self.errors(data, choice, path)) for choice in value):
            yield f"{path}: fits none of anyOf"

    def word_oneOf(self, data: Any, value: list[Any], schema: Any, path: str) -> Iterator[str]:
        if sum(not list(self.errors(data, choice, path)) for choice in value) != 1:
            yield f"{path}: fits not exactly one of oneOf"

    def word_discriminator(self, data: Any, value: dict[str, Any], schema: Any, path: str) -> Iterator[str]:
        """OpenAPI's word for ``oneOf``: which property chooses; other programs may leave it aside."""
        if isinstance(data, dict) and data.get(value["propertyName"]) not in value["mapping"]:
            yield f"{path}: {value['propertyName']} is none of {', '.join(value['mapping'])}"

    def word_enum(self, data: Any, value: list[Any], schema: Any, path: str) -> Iterator[str]:
        if data not in value:
            yield f"{path}: not in {value}"

    def word_const(self, data: Any, value: Any, schema: Any, path: str) -> Iterator[str]:
        yield from self.word_enum(data, [value], schema, path)

    def word_pattern(self, data: Any, value: str, schema: Any, path: str) -> Iterator[str]:
        if isinstance(data, str) and not re.search(value, data):
            yield f"{path}: does not match {value}"

    def word_minimum(self, data: Any, value: float, schema: Any, path: str) -> Iterator[str]:
        if isinstance(data, int | float) and data < value:
            yield f"{path}: below {value}"

    def word_exclusiveMinimum(self, data: Any, value: float, schema: Any, path: str) -> Iterator[str]:
        if isinstance(data, int | float) and data <= value:
            yield f"{path}: not above {value}"

    def word_maximum(self, data: Any, value: float, schema: Any, path: str) -> Iterator[str]:
        if isinstance(data, int | float) and data > value:
            yield f"{path}: above {value}"

    def word_minLength(self, data: Any, value: int, schema: Any, path: str) -> Iterator[str]:
        if isinstance(data, str) and len(data) < value:
            yield f"{path}: too short"

    def word_maxLength(self, data: Any, value: int, schema: Any, path: str) -> Iterator[str]:
        if isinstance(data, str) and len(data) > value:
            yield f"{path}: too long"

    def word_minItems(self, data: Any, value: int, schema: Any, path: str) -> Iterator[str]:
        if isinstance(data, list) and len(data) < value:
            yield f"{path}: too few"

    def word_minProperties(self, data: Any, value: int, schema: Any, path: str) -> Iterator[str]:
        if isinstance(data, dict) and len(data) < value:
            yield f"{path}: too few"

    def word_items(self, data: Any, value: Any, schema: Any, path: str) -> Iterator[str]:
        for index, item in enumerate(data if isinstance(data, list) else []):
            yield from self.errors(item, value, f"{path}[{index}]")

    def word_required(self, data: Any, value: list[str], schema: Any, path: str) -> Iterator[str]:
        for name in value:
            if isinstance(data, dict) and name not in data:
                yield f"{path}: {name} is missing"

    def word_propertyNames(self, data: Any, value: Any, schema: Any, path: str) -> Iterator[str]:
        for name in data if isinstance(data, dict) else []:
            yield from self.errors(name, value, f"{path}.{name}")

    def word_properties(self, data: Any, value: dict[str, Any], schema: Any, path: str) -> Iterator[str]:
        for name, part in value.items():
            if isinstance(data, dict) and name in data:
                yield from self.errors(data[name], part, f"{path}.{name}")

    def word_patternProperties(self, data: Any, value: dict[str, Any], schema: Any, path: str) -> Iterator[str]:
        for name, item in data.items() if isinstance(data, dict) else []:
            for pattern, part in value.items():
                if re.search(pattern, name):
                    yield from self.errors(item, part, f"{path}.{name}")

    def word_additionalProperties(self, data: Any, value: Any, schema: Any, path: str) -> Iterator[str]:
        for name, item in data.items() if isinstance(data, dict) else []:
            known = name in schema.get("properties", {})
            if not known and not any(re.search(pattern, name) for pattern in schema.get("patternProperties", {})):
                yield from self.errors(item, value, f"{path}.{name}")


PLAN = read_yaml(EXAMPLES / "payments.plan.yaml").data
INVENTORY = read_yaml(EXAMPLES / "leeward.yaml").data


@pytest.mark.parametrize(
    ("schema", "data"), [(plan_schema(), PLAN), (inventory_schema(), INVENTORY)], ids=["plan", "inventory"]
)
def test_the_examples_fit_their_schemas(schema: dict[str, Any], data: Any) -> None:
    assert list(Validator(schema).errors(data)) == []


def test_a_file_may_stand_where_its_groups_or_steps_would() -> None:
    data = copy.deepcopy(PLAN)
    data["groups"].append({"include": "more.yaml"})
    data["groups"][0]["after"].append({"include": "steps.yaml"})
    assert list(Validator(plan_schema()).errors(data)) == []
    data["groups"][-1]["for"] = "1s"
    assert list(Validator(plan_schema()).errors(data))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("groups", 0, "before", 0, "timeout"), 30),
        (("groups", 0, "before", 0, "timeout"), "30 weeks"),
        (("groups", 0, "before", 0, "script"), None),
        (("groups", 0, "after", 0, "kind"), "check"),
        (("groups", 0, "machines"), []),
        (("groups", 1, "machines", 0), 5),
        (("groups", 1, "nmae"), "x"),
        (("commit",), "sometimes"),
        (("variables",), {"not a name": 1}),
    ],
)
def test_an_editor_would_mark_mistakes(place: tuple[Any, ...], value: Any) -> None:
    data = copy.deepcopy(PLAN)
    here = data
    for part in place[:-1]:
        here = here[part]
    here[place[-1]] = value
    assert list(Validator(plan_schema()).errors(data))


@pytest.mark.parametrize("schema", [plan_schema(), inventory_schema()], ids=["plan", "inventory"])
def test_defaults_fit_their_own_schema(schema: dict[str, Any]) -> None:
    def check(part: Any) -> int:
        if isinstance(part, list):
            return sum(map(check, part))
        if not isinstance(part, dict):
            return 0
        found = 0
        if "default" in part and not isinstance(part["default"], dict | list):
            assert list(Validator(schema).errors(part["default"], part)) == []
            found = 1
        return found + sum(check(value) for word, value in part.items() if word != "default")

    assert check(schema) > 5


def test_a_plan_file_begins_steps_with_their_kind() -> None:
    definitions = plan_schema()["$defs"]
    assert "script" in definitions["ScriptStep"]["required"]
    assert "kind" not in definitions["ScriptStep"]["properties"]
    assert definitions["WaitStep"]["required"] == ["wait", "for"]
