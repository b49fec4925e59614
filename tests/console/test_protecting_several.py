"""``leeward protect`` of several machines: one that fails keeps nobody from hearing of the others."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from lab_support import lab_machine, make_inventory
from typer.testing import CliRunner, Result

from console import cmd_machines
from console.asking import JobFailed
from console.exits import Exit
from console.main import app
from vault.errors import Unreachable
from vault.inventory import Inventory

pytestmark = pytest.mark.unit


class Engine:
    """As much of a client as protecting asks for."""

    def __init__(self, inventory: Inventory, failures: dict[str, Exception]) -> None:
        self.inventory = inventory
        self.failures = failures

    def settings(self, machine: str) -> None:
        assert machine in self.inventory.machines

    async def find_machine(self, machine: str) -> None:
        return None

    async def machine_status(self, machine: str) -> None:
        return None

    async def protect(self, machine: str) -> str:
        return f"job/{machine}/1"

    async def wait_until_protected(self, machine: str, first_job: str) -> None:
        assert first_job == f"job/{machine}/1"
        if machine in self.failures:
            raise self.failures[machine]


class Told(NamedTuple):
    code: int
    out: list[str]
    err: list[str]


def protect(monkeypatch: pytest.MonkeyPatch, failures: dict[str, Exception], *words: str) -> Told:
    async def connected(_: object) -> Engine:
        return Engine(make_inventory({name: lab_machine() for name in ("db", "app", "web")}), failures)

    monkeypatch.setattr(cmd_machines, "connected", connected)
    done: Result = CliRunner().invoke(app, ["protect", "--all", *words])
    return Told(done.exit_code, done.stdout.splitlines(), sorted(done.stderr.splitlines()))


def test_every_failure_is_told_and_the_others_are_protected(monkeypatch: pytest.MonkeyPatch) -> None:
    told = protect(monkeypatch, {"db": JobFailed("no space", where="db"), "web": JobFailed("no login", where="web")})
    assert told.code == Exit.FAILED
    assert told.err == ["error: db: no space", "error: web: no login"]
    assert "app: protected" in told.out
    assert "db: protected" not in told.out


def test_what_all_have_in_common_is_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    down = {name: Unreachable("no answer", where=name) for name in ("db", "app", "web")}
    assert protect(monkeypatch, down).code == Exit.UNREACHABLE
    assert protect(monkeypatch, {**down, "db": JobFailed("no space")}).code == Exit.FAILED
    del down["app"]
    assert protect(monkeypatch, down).code == Exit.FAILED


def test_a_name_beside_all_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that nothing has was passed over."""
    told = protect(monkeypatch, {}, "bd")
    assert told.code == Exit.BAD_INPUT
    assert told.err == ["error: leeward protect: machines are named beside --all — give one of the two"]


def test_none_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    assert protect(monkeypatch, {})[::2] == (Exit.OK, [])
