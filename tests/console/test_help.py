"""The help that an operator meets first."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version

import pytest
import typer
from typer.core import TyperGroup
from typer.testing import CliRunner

from console.main import app

pytestmark = pytest.mark.unit


def groups(group: TyperGroup, *path: str) -> Iterator[tuple[str, ...]]:
    yield path
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from groups(command, *path, name)


def all_groups() -> list[tuple[str, ...]]:
    whole = typer.main.get_command(app)
    assert isinstance(whole, TyperGroup)
    return list(groups(whole))


@pytest.mark.parametrize("path", all_groups(), ids=lambda path: " ".join(path) or "leeward")
def test_what_a_command_does_is_said_in_full(path: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "80"}).stdout
    commands = shown.partition("Commands:\n")[2].splitlines()
    assert commands
    assert [line for line in commands if line.endswith("...")] == []


def test_the_version() -> None:
    told = CliRunner().invoke(app, ["--version"])
    assert (told.exit_code, told.stdout) == (0, f"leeward {version('leeward')}\n")
