"""``leeward disable``: also of a machine that was taken out of the inventory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lab_support import lab_machine, make_inventory
from typer.testing import CliRunner, Result

from console import cmd_machines
from console.exits import Exit
from console.machine_status import JobLine
from console.machines import Machines
from console.main import app
from vault.lifecycle import JobKind
from workflows.model import JobResult, Timings

pytestmark = pytest.mark.unit


class Engine:
    """As much of a client as disabling asks for; 'old' is protected and not in the inventory."""

    settings = Machines.settings
    is_left_over = Machines.is_left_over

    def __init__(self) -> None:
        self.inventory = make_inventory({"db": lab_machine()})
        self.timings = Timings()
        self.asked: list[tuple[str, JobKind, dict[str, bool]]] = []

    async def find_machine(self, machine: str) -> str | None:
        return machine if machine in {"db", "old"} else None

    async def machine_status(self, machine: str) -> None:
        return None

    async def why_not_protected(self, machine: str) -> str:
        return ""

    async def jobs(self, machine: str | None, plan: str | None, limit: int) -> list[JobLine]:
        return []

    async def request(self, machine: str, kind: JobKind, **options: bool) -> str:
        self.asked.append((machine, kind, options))
        return f"job/{machine}/1"

    async def job_result(self, job: str) -> JobResult:
        return JobResult(sentences=["not cleaned up at west: look there"], trouble="not cleaned up at west: look there")


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    engine = Engine()

    async def connected(_: object) -> Engine:
        return engine

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cmd_machines, "connected", connected)
    assert leeward("init", "--lab").exit_code == Exit.OK
    return engine


def leeward(*words: str, answer: str = "") -> Result:
    return CliRunner().invoke(app, list(words), input=answer)


def test_one_out_of_the_inventory_is_confirmed_as_such_and_disabled(engine: Engine) -> None:
    done = leeward("disable", "old", answer="y\n")
    assert done.exit_code == Exit.OK
    assert "'old' is not in the inventory. End what protects it all the same, and delete" in done.stderr
    assert "old: not cleaned up at west: look there" in done.stdout + done.stderr
    assert engine.asked == [("old", JobKind.DISABLE, {"source_unreachable": False, "not_in_inventory": True})]

    assert leeward("disable", "old", answer="n\n").exit_code != Exit.OK
    assert len(engine.asked) == 1


def test_without_anybody_to_ask_it_is_refused(engine: Engine) -> None:
    """It ended with 1, *the operation failed*, and said *Aborted*."""
    refused = leeward("disable", "db")
    assert (refused.exit_code, refused.stderr.splitlines()[-1]) == (
        Exit.REFUSED,
        "error: nobody answered the question; nothing was changed — say yes beforehand with --yes",
    )
    assert engine.asked == []


def test_jobs_of_what_nobody_knows_are_refused(engine: Engine) -> None:
    of_nobody = leeward("jobs", "bd")
    assert (of_nobody.exit_code, of_nobody.stderr) == (
        Exit.REFUSED,
        "error: machine 'bd' is not in the inventory — known machines: db\n",
    )
    of_no_plan = leeward("jobs", "--plan", "paymnets")
    assert of_no_plan.exit_code == Exit.REFUSED
    assert of_no_plan.stderr.startswith("error: no plan 'paymnets' — ")
    assert (leeward("jobs", "db").exit_code, leeward("jobs", "db").stdout) == (Exit.OK, "no jobs\n")
    assert leeward("jobs", "--plan", "payments").exit_code == Exit.OK


def test_one_of_the_inventory_is_disabled_as_ever(engine: Engine) -> None:
    assert leeward("disable", "db", "--yes").exit_code == Exit.OK
    assert engine.asked == [("db", JobKind.DISABLE, {"source_unreachable": False})]


def test_a_name_that_nothing_has_is_refused_with_the_known_ones(engine: Engine) -> None:
    done = leeward("disable", "bd", "--yes")
    assert done.exit_code == Exit.REFUSED
    assert done.stderr == "error: machine 'bd' is not in the inventory — known machines: db\n"


def test_nothing_else_is_asked_of_one_out_of_the_inventory(engine: Engine) -> None:
    assert leeward("resync", "old").exit_code == Exit.REFUSED
    assert engine.asked == []


def test_its_status_is_shown(engine: Engine) -> None:
    assert json.loads(leeward("status", "old", "--json").stdout) == {"old": None}
