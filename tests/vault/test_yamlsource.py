"""Reading YAML with positions, and the limits that keep a hostile file from costing time or memory."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vault.errors import AuthorizationRefused, BadInput, LeewardError, NotFound
from vault.yamlsource import MAX_BYTES, parse_yaml, read_yaml

pytestmark = pytest.mark.unit


def complaint(text: str | bytes) -> BadInput:
    raw = text.encode() if isinstance(text, str) else text
    with pytest.raises(BadInput) as caught:
        parse_yaml(raw, "f.yaml")
    return caught.value


def test_yaml_1_2_scalars_become_plain_values() -> None:
    source = parse_yaml(
        b"{a: 1, b: -2.5, c: true, d: null, e: ~, f: 'yes', g: no, h: 2026-01-31, i: '1', j: 0x10, k: .inf, l: 1e999}",
        "f",
    )
    assert source.data == {
        "a": 1,
        "b": -2.5,
        "c": True,
        "d": None,
        "e": None,
        "f": "yes",
        "g": "no",
        "h": "2026-01-31",
        "i": "1",
        "j": "0x10",
        "k": ".inf",
        "l": "1e999",
    }


def test_positions_of_keys_and_values() -> None:
    source = parse_yaml(b"sites:\n  primary:\n    fabric: lab\nlist:\n  - one\n  - {two: 2}\n", "f.yaml")
    assert source.where(("sites", "primary", "fabric")) == "f.yaml:3:13"
    assert source.where(("sites", "primary", "fabric"), key=True) == "f.yaml:3:5"
    assert source.where(("list", 1, "two")) == "f.yaml:6:11"
    assert source.where(("list", 1, "two"), key=True) == "f.yaml:6:6"
    assert source.where(("list", 0)) == "f.yaml:5:5"


def test_position_of_something_missing_is_that_of_what_is_around_it() -> None:
    source = parse_yaml(b"a:\n  b: 1\n", "f")
    assert source.where(("a", "nowhere")) == "f:2:3"


def test_position_inside_a_block_text() -> None:
    source = parse_yaml(b"run: |\n  first\n  hello {{ wrold }}\nnext: '{{ x }}'\n", "f")
    assert source.where_in_text(("run",), 2, "wrold") == "f:3:12"
    assert source.where_in_text(("run",), 1) == "f:2:3"
    assert source.where_in_text(("next",), 1, "x") == "f:4:11"
    assert source.where_in_text(("run",), 99) == "f:1:6"


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "f.yaml:4:3", "twice, first in line 3"),
        ("a:\n\t- b\n", "f.yaml:2:1", "tab"),
        ("a:\n  - b\n c: 1\n", "f.yaml:3:2", "indentation"),
        ("a: b: c\n", "f.yaml:1:5", "':'"),
        ("a: 'never closed\n", "f.yaml", "never ends"),
        ("1: a\n", "f.yaml:1:1", "not text"),
        ("? [a]\n: 1\n", "f.yaml:1:3", "key must be text"),
        ("a: *gone\n", "f.yaml:1:4", "no such anchor"),
        ("a: &x [*x]\n", "f.yaml:1:8", "contains itself"),
        ("a: !!python/object:os.system x\n", "f.yaml:1:4", "tag"),
        ("a: !!binary x\n", "f.yaml:1:4", "tag"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2:1", "more than one document"),
        ("", "f.yaml", "empty"),
        ("# only a comment\n", "f.yaml", "empty"),
        ("a: \x01\n", "f.yaml:1:4", "not allowed"),
        (b"a: 1\nb: \xff\n", "f.yaml:2:4", "UTF-8"),
        ('a: "\\ud83d"\n', "f.yaml:1:4", "half of its escapes"),
        ('"\\ude00\\ud83d": 1\n', "f.yaml:1:1", "half of its escapes"),
        ("[" * 65 + "]" * 65, "f.yaml:1:65", "nested deeper"),
    ],
)
def test_unsound_yaml_is_refused_at_its_place(text: str | bytes, where: str, what: str) -> None:
    error = complaint(text)
    assert error.where.startswith(where)
    assert what in error.what
    assert error.remedy


def test_json_may_write_a_character_as_two_escapes() -> None:
    source = parse_yaml(b'{"caf\\u00e9 \\ud83d\\ude00": "\\ud83d\\ude00\\n"}', "f")
    assert source.data == {"caf\u00e9 \U0001f600": "\U0001f600\n"}


def test_aliases_are_written_out() -> None:
    source = parse_yaml(b"a: &x {k: [1, 2]}\nb: *x\n", "f")
    assert source.data["b"] == {"k": [1, 2]}


def test_alias_bomb_is_refused_quickly() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    started = time.monotonic()
    assert "aliases" in complaint("\n".join(lines)).what
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    "text",
    [
        "a: !" + "x" * 4_000_000,
        "a: !<" + "x" * 4_000_000 + ">",
        'a: {"b":!' + "x" * 4_000_000 + "}",
        "".join(f"%TAG !a{n}! x\n" for n in range(200_000)) + "---\nx",
        "[" * 4_000_000,
        "- " * 2_000_000,
        "---\n" * 1_000_000,
    ],
    ids=["tag", "verbatim tag", "tag in flow", "directives", "brackets", "dashes", "documents"],
)
def test_large_hostile_files_are_refused_quickly(text: str) -> None:
    started = time.monotonic()
    complaint(text)
    assert time.monotonic() - started < 30


def test_depth_counts_what_aliases_bring() -> None:
    deep = "a: &a " + "[" * 40 + "]" * 40 + "\nb: " + "[" * 40 + "*a" + "]" * 40
    assert "nested deeper" in complaint(deep).what


def test_file_errors(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file"):
        read_yaml(tmp_path / "gone.yaml")
    with pytest.raises(BadInput, match="not a file"):
        read_yaml(tmp_path)
    with pytest.raises(BadInput, match="cannot be read"):
        read_yaml(Path("with\0null"))
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(BadInput, match="larger than 4 MiB"):
        read_yaml(large)


def test_unreadable_file_is_an_authorization_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f.yaml"
    path.write_text("a: 1")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(AuthorizationRefused):
        read_yaml(path)


@settings(max_examples=300, deadline=2000)
@given(st.one_of(st.binary(max_size=200), st.text("[]{}:,-?&*!|>'\"%@`#ab1 \t\n\r~<=.", max_size=80).map(str.encode)))
def test_any_bytes_give_data_or_a_leeward_error(raw: bytes) -> None:
    try:
        parse_yaml(raw, "f")
    except LeewardError as error:
        assert error.what and error.where.startswith("f")
