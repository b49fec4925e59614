"""A person at a terminal is asked before production is moved; a script never is."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from console import confirming, starting
from console.confirming import Means, question
from console.exits import Exit
from console.main import app
from vault.domain import RunType
from vault.errors import InvalidState
from vault.inventory import Inventory, Policy
from vault.lifecycle import Phase
from vault.loading import load_inventory
from workflows.model import MachineState, Timings

pytestmark = pytest.mark.unit

EXAMPLES = Path(__file__).parents[2] / "examples"
INVENTORY = load_inventory(EXAMPLES / "leeward.yaml")


def machine(name: str, phase: Phase = Phase.PROTECTED, *, is_reversed: bool = False) -> MachineState:
    forward = INVENTORY.relationship(name)
    return MachineState(
        name=name,
        forward=forward,
        backward=forward.reversed("production", "isolated"),
        policy=Policy(frequency="60s"),
        timings=Timings(),
        phase=phase,
        reversed=is_reversed,
    )


@pytest.mark.parametrize(
    ("run_type", "machines", "says"),
    [
        (
            "planned",
            [machine("payment-db"), machine("web")],
            "shop: planned failover of 2 machines from primary to recovery. "
            "Not a test: production is shut down where it runs and started there. Go on?",
        ),
        (
            "unplanned",
            [machine("payment-db"), None],
            "shop: unplanned failover of 1 machine from primary to recovery (1 of the plan cannot or need not). "
            "Not a test: production goes on there, without proof that it is off where it ran, from recovery point "
            "'latest'; newer data is lost. Go on?",
        ),
        (
            "failback",
            [machine("payment-db", is_reversed=True)],
            "shop: failback of 1 machine from recovery to primary. "
            "Not a test: production is shut down where it runs and started there. Go on?",
        ),
        (
            "commit",
            [machine("payment-db", Phase.COMMIT_PENDING)],
            "shop: commit of 1 machine at recovery. "
            "Their other recovery points are dropped: no other one can be chosen afterwards. Go on?",
        ),
        ("planned", [machine("payment-db", Phase.FAILED_OVER), None], ""),
    ],
)
def test_the_question_says_what_will_happen(run_type: RunType, machines: list[Any], says: str) -> None:
    assert question("shop", run_type, machines, Means("latest", source_unreachable=True)) == says


def test_the_question_names_machines_that_are_left_out() -> None:
    asked = question("shop", "planned", [machine("payment-db")], Means(left_out=["web", "mail"]))
    assert asked.startswith(
        "shop: planned failover of 1 machine from primary to recovery, without web, mail. Not a test"
    )


class Engine:
    """As much of a client as starting a run asks for; the start itself is refused, so that the command ends there."""

    def __init__(self, inventory: Inventory) -> None:
        self.inventory = inventory

    async def find_machine(self, name: str) -> MachineState:
        return machine(name)

    async def start_run(self, *_: object, **__: object) -> str:
        raise InvalidState("it would have begun")


def run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *words: str, at_terminal: bool = True, answer: str = ""
) -> Result:
    for name in ("leeward.yaml", "payments.plan.yaml"):
        shutil.copy(EXAMPLES / name, tmp_path)
    monkeypatch.chdir(tmp_path)

    async def connected(_: object) -> Engine:
        return Engine(INVENTORY)

    monkeypatch.setattr(starting, "connected", connected)
    if at_terminal:
        monkeypatch.setattr(confirming, "is_terminal", lambda: True)
    return CliRunner().invoke(app, ["plan", *words], input=answer)


QUESTION = "planned failover of 4 machines from primary to recovery"


def test_no_is_no(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = run(monkeypatch, tmp_path, "failover", "payments", "--planned", answer="\n")
    assert (told.exit_code, QUESTION in told.stderr, "[y/N]" in told.stderr) == (Exit.FAILED, True, True)
    assert "it would have begun" not in told.stderr
    assert told.stdout.strip() == ""


@pytest.mark.parametrize(
    ("words", "at_terminal", "answer", "is_asked"),
    [
        (["failover", "payments", "--planned"], True, "y\n", True),
        (["failover", "payments", "--planned", "--yes"], True, "", False),
        (["failover", "payments", "--planned"], False, "", False),
        (["test", "payments"], True, "", False),
        (["reverse", "payments"], True, "", False),
    ],
)
def test_it_begins(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    words: list[str],
    at_terminal: bool,
    answer: str,
    is_asked: bool,
) -> None:
    told = run(monkeypatch, tmp_path, *words, at_terminal=at_terminal, answer=answer)
    assert (told.exit_code, "[y/N]" in told.stderr) == (Exit.REFUSED, is_asked)
    assert "it would have begun" in told.stderr
