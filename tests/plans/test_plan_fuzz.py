"""No file, however broken, makes a loader do anything but return or raise a LeewardError, and soon."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plans.loading import load_plan
from vault.errors import LeewardError
from vault.inventory import Inventory
from vault.loading import load_inventory
from vault.template import LAB_INVENTORY
from vault.yamlsource import parse_yaml

pytestmark = pytest.mark.unit

PLAN_TEXT = (Path(__file__).parents[2] / "examples" / "payments.plan.yaml").read_text()
PLAN_DATA = parse_yaml(PLAN_TEXT.encode(), "plan").data
PLAN_DATA["limits"] = {"machines_at_once": 2}
PLAN_DATA["groups"][1]["machines"][0] = {
    "machine": "payment-app-1",
    "priority": 1,
    "depends_on": ["payment-app-2"],
    "target": {"network": "production", "memory": "1GiB", "test": {"address": "10.0.0.1"}},
    "before": [{"manual": "Look", "approvers": ["ada"], "timeout": "1m", "on_timeout": "continue"}],
    "after": [
        {"check": "Lag", "command": {"run": "x {{ plan }}", "matches": "^a+$", "secrets": {"T": "env:T"}}},
        {
            "call": "Tell",
            "url": "http://{{ plan }}",
            "headers": {"A": "${T}"},
            "secrets": {"T": "env:T"},
            "status": [200],
        },
        {"include": "more.yaml"},
    ],
}
INVENTORY_DATA = parse_yaml(LAB_INVENTORY.encode(), "inventory").data

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["{{", "{{ x }}", "{% for %}", "5", "1e400s", "/", "a/b/c", "env:", "web", "*", "9" * 500]),
    st.lists(st.none(), max_size=2),
    st.dictionaries(st.text(max_size=5), st.none(), max_size=2),
)


@st.composite
def broken_text(draw: st.DrawFn, text: str) -> bytes:
    """A sound file with a few pieces cut out, doubled, moved or overwritten."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(0, len(text) - 1)))
        end = min(len(text), start + draw(st.integers(0, 40)))
        piece = draw(
            st.one_of(
                st.just(""),
                st.just(text[start:end] * 2),
                st.sampled_from(
                    [":", "\t", "- ", "\n", "{", "}", "[", "*a", "&a ", "|", "'", '"', "#", "!!x ", "{{", "%}"]
                ),
                st.text(max_size=5),
            )
        )
        text = text[:start] + piece + text[end:]
    return text.encode("utf-8", "surrogatepass")


@st.composite
def broken_data(draw: st.DrawFn, data: Any) -> bytes:
    """A sound file with some values and keys exchanged for odd ones; JSON is YAML."""
    data = json.loads(json.dumps(data))
    for _ in range(draw(st.integers(1, 3))):
        here = data
        while True:
            places: list[Any] = list(here) if isinstance(here, dict) else list(range(len(here)))
            if not places:
                break
            place = draw(st.sampled_from(places))
            if isinstance(here[place], dict | list) and here[place] and draw(st.integers(0, 4)):
                here = here[place]
                continue
            if isinstance(here, dict) and draw(st.booleans()):
                here[draw(st.text(max_size=8))] = here.pop(place)
            else:
                here[place] = draw(ODD)
            break
    return json.dumps(data).encode()


def only_leeward_errors(load: Callable[[Path], object], path: Path, raw: bytes) -> None:
    path.write_bytes(raw)
    started = time.monotonic()
    try:
        load(path)
    except LeewardError as error:
        assert str(error)
    assert time.monotonic() - started < 5


@quick
@given(raw=st.one_of(broken_text(PLAN_TEXT), broken_data(PLAN_DATA), st.binary(max_size=100)))
def test_any_plan(tmp_path: Path, inventory: Inventory, raw: bytes) -> None:
    (tmp_path / "more.yaml").write_text("steps: [{manual: More}]")
    only_leeward_errors(lambda path: load_plan(path, inventory), tmp_path / "plan.yaml", raw)


@quick
@given(raw=st.one_of(broken_text(LAB_INVENTORY), broken_data(INVENTORY_DATA), st.binary(max_size=100)))
def test_any_inventory(tmp_path: Path, raw: bytes) -> None:
    only_leeward_errors(load_inventory, tmp_path / "leeward.yaml", raw)


def test_a_large_plan_of_many_templates_is_checked_in_bounded_time(tmp_path: Path, inventory: Inventory) -> None:
    slow = "{% for i in range(9999) %}{% if range(9999)|sort|length %}{% endif %}{% endfor %}"
    steps = "".join(f"      - manual: step {n}\n        instructions: '{slow}'\n" for n in range(200))
    text = f"plan: p\ngroups:\n  - name: g\n    machines: [web]\n    after:\n{steps}"
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    started = time.monotonic()
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(LeewardError, match="rendering takes longer"),
    ):
        patch.setattr("plans.checking.MAX_CHECK_SECONDS", 1.0)
        patch.setattr("plans.sandbox.MAX_SECONDS", 0.3)
        load_plan(path, inventory)
    assert time.monotonic() - started < 4
