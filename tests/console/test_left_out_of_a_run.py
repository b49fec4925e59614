"""``--without``: mistakes are told before anything is asked of Temporal; who left out what is shown."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import cast

import pytest
from rich.console import Console
from temporalio.client import Client, WorkflowExecution
from typer.testing import CliRunner, Result

from console.audit import _of_run
from console.exits import Exit
from console.main import app
from console.watching import run_tree
from workflows.model import RunStatus

pytestmark = pytest.mark.unit
NOW = datetime(2026, 3, 14, 2, 0, tzinfo=UTC)
WHY = "damaged, ticket 4711"


def leeward(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["failover", "payments", "--unplanned", "--without", "payment-bd", "--note", WHY],
            "--without: machine 'payment-bd' is not in plan payments — did you mean 'payment-db'?",
        ),
        (
            ["failback", "payments", "--without", "web"],
            "--without: a note is required, it is kept with the run — say why the machines are left out with --note",
        ),
        (
            ["test", "payments", "--dry-run", "--without", "webb"],
            "--without: machine 'webb' is not in plan payments — did you mean 'web'?",
        ),
        (
            ["check", "payments", "--without", "web"],
            "--without is for --ready: a plan's file is checked as a whole",
        ),
    ],
)
@pytest.mark.usefixtures("lab")
def test_mistakes_are_told_and_nothing_is_started(words: list[str], told: str) -> None:
    result = leeward("plan", *words)
    assert (result.exit_code, result.stderr) == (Exit.BAD_INPUT, f"error: {told}\n")


@pytest.mark.usefixtures("lab")
def test_a_dry_run_needs_no_reason() -> None:
    result = leeward("plan", "failover", "payments", "--unplanned", "--dry-run", "--without", "web")
    assert result.exit_code == Exit.OK
    assert ["recover", "web", "web", "left", "out", "stays", "as", "it", "is", "-"] in [
        line.split() for line in result.stdout.splitlines()
    ]


def status() -> RunStatus:
    word = {"action": "leave out", "machine": "db", "by": "olga", "at": NOW, "note": WHY}
    row = {"id": "recover data/db", "kind": "machine", "name": "db", "state": "skipped", "detail": f"left out: {WHY}"}
    stage = {"id": "recover data", "title": "recover data", "state": "done", "steps": [row]}
    return RunStatus.model_validate(
        {
            "plan": "shop",
            "run_id": "r1",
            "run_type": "unplanned",
            "state": "completed",
            "direction": "primary-to-recovery",
            "requested_by": "olga",
            "started": NOW,
            "note": WHY,
            "decisions": [word],
            "stages": [stage],
        }
    )


class Temporal:
    """As much of a client, of a run it knows, and of a handle as the audit asks for."""

    id, run_id = "plan/shop", "1"

    def get_workflow_handle(self, *_: object, **__: object) -> Temporal:
        return self

    async def query(self, *_: object, **__: object) -> RunStatus:
        return status()


async def test_who_left_out_what_and_why_is_shown() -> None:
    printer = Console(file=io.StringIO(), width=200)
    printer.print(run_tree(status()))
    shown = printer.file.getvalue()  # type: ignore[attr-defined]
    assert f"- db  left out: {WHY}" in shown
    assert f"02:00:00Z  olga: leave out 'db': {WHY}" in shown
    lines = await _of_run(cast(Client, Temporal()), cast(WorkflowExecution, Temporal()))
    assert [(line.who, line.what, line.on, line.note) for line in lines] == [
        ("olga", "start unplanned", "shop r1", WHY),
        ("olga", "leave out", "shop r1: db", WHY),
    ]
