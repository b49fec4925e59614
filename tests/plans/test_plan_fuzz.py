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
SECRET = "Zq7Xk2Vw9Tn4"
"""What no error may tell."""
HERE = "<the secret>"
WRITTEN = [
    *(
        f"{sign}{SECRET}"
        for sign in ("", "!", "!!", "!a!", "!<", "*", "&", "&a *", "@", "%", "`", "'", '"', "{", "[", "|", "- ", "x: ")
    ),
    *(f"{SECRET}{rest}" for rest in (": x", " #", "\t:", "' x", SECRET)),
    f'"\\{SECRET}"',
    f"[{SECRET}]",
    f"{{a: {SECRET}}}",
    f"\n  {SECRET}",
    f"https://user:{SECRET}@host/?q",
    f"htp:/host/{SECRET}",
    "4711Zq7Xk2Vw9Tn4",
    "471147114711",
    "true",
]
"""A secret as people put it where a reference belongs, and what YAML may take it for."""
INVENTORY_OF_SECRETS = {
    "version": 1,
    "sites": {
        "a": {
            "fabric": "hyperv",
            "credentials": HERE,
            "pki": HERE,
            "replica_key": HERE,
            "hyperv": {"hosts": ["h"], "authentication": "basic", "user": "u", "certificate_key": HERE},
            "vmm": {"server": "s", "cloud": "c", "credentials": HERE},
            "storage": {"kind": "smis", "url": HERE, "user": "u", "password": HERE, "array": "x", "pool": "p"},
        },
        "b": {"fabric": "azure", "replica_store": {"account_url": HERE, "credential": HERE}},
    },
    "policies": {"gold": {"frequency": "30s"}},
    "machines": {"m": {"site": "a", "target": "b", "policy": "gold", "hyperv": {"guest_password": HERE}}},
    "notifications": [{"url": HERE, "secret": HERE}],
}
PLAN_OF_SECRETS = {
    "plan": "p",
    "groups": [
        {
            "name": "g",
            "machines": ["web"],
            "before": [{"include": "secret"}],
            "after": [
                {"script": "s", "run": "true", "environment": {"P": HERE}, "secrets": {"A": HERE}},
                {"check": "c", "command": {"run": "true", "environment": {"P": HERE}, "secrets": {"A": HERE}}},
                {"check": "h", "http": {"url": HERE}},
                {"call": "t", "url": HERE, "headers": {"A": HERE}, "secrets": {"T": HERE}, "body": HERE},
            ],
        }
    ],
}
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


def in_block_style(data: Any, indent: int = 0) -> str:
    """YAML as people write it, where a value that is put in unquoted can become anything."""
    if isinstance(data, dict) and data:
        lines = (f"{'  ' * indent}{json.dumps(key)}:{in_block_style(value, indent + 1)}" for key, value in data.items())
    elif isinstance(data, list) and data:
        lines = (f"{'  ' * indent}-{in_block_style(value, indent + 1)}" for value in data)
    else:
        return f" {json.dumps(data)}\n"
    return "\n" + "".join(lines)


@st.composite
def around_secrets(draw: st.DrawFn, data: Any, folder: str) -> bytes:
    """A damaged file. Its secrets are what references point to, or stand in it, one of them or all."""
    broken = json.loads(draw(broken_data(data)))
    text = in_block_style(broken).lstrip("\n")
    written = draw(st.sampled_from(WRITTEN))
    places = text.count(json.dumps(HERE))
    inline = draw(st.sets(st.integers(0, max(places - 1, 0)), min_size=0, max_size=3))
    for place in range(places):
        reference = draw(st.sampled_from(["env:SECRET", f"file:{folder}/secret", "env:", "file:/", "env:NONE"]))
        text = text.replace(json.dumps(HERE), written if place in inline else json.dumps(reference), 1)
    return text.encode("utf-8", "surrogatepass") if inline else draw(broken_text(text))


def only_leeward_errors(load: Callable[[Path], object], path: Path, raw: bytes) -> None:
    path.write_bytes(raw)
    started = time.monotonic()
    try:
        load(path)
    except LeewardError as error:
        assert str(error)
    assert time.monotonic() - started < 30


@quick
@given(raw=st.one_of(broken_text(PLAN_TEXT), broken_data(PLAN_DATA), st.binary(max_size=100)))
def test_any_plan(tmp_path: Path, inventory: Inventory, raw: bytes) -> None:
    (tmp_path / "more.yaml").write_text("steps: [{manual: More}]")
    only_leeward_errors(lambda path: load_plan(path, inventory), tmp_path / "plan.yaml", raw)


@quick
@given(raw=st.one_of(broken_text(LAB_INVENTORY), broken_data(INVENTORY_DATA), st.binary(max_size=100)))
def test_any_inventory(tmp_path: Path, raw: bytes) -> None:
    only_leeward_errors(load_inventory, tmp_path / "leeward.yaml", raw)


@pytest.mark.parametrize("kind", ["plan", "inventory"])
def test_no_error_tells_a_secret(
    kind: str, tmp_path: Path, inventory: Inventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither one that a reference points to, nor one that somebody has put where the reference belongs."""
    monkeypatch.setenv("SECRET", SECRET)
    told: list[str] = []

    @settings(quick, max_examples=150)
    @given(data=st.data())
    def tells(data: st.DataObject) -> None:
        (tmp_path / "secret").write_text(data.draw(st.sampled_from([SECRET, f"!{SECRET}", f"*{SECRET}"])))
        of = PLAN_OF_SECRETS if kind == "plan" else INVENTORY_OF_SECRETS
        path = tmp_path / "file.yaml"
        path.write_bytes(data.draw(around_secrets(of, str(tmp_path))))
        try:
            load_plan(path, inventory) if kind == "plan" else load_inventory(path)
        except LeewardError as error:
            told.append(str(error))
            assert SECRET not in str(error)
            assert "471147114711" not in str(error)

    tells()
    assert told, "some of the files are refused"


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
    assert time.monotonic() - started < 30
