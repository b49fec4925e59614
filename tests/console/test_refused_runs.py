"""A run that is refused for many machines tells each in a line of its own, once."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import pytest
import typer
from rich.console import Console

from console.exits import Exit
from console.following import follow
from console.output import Output
from console.watching import run_tree
from workflows.model import RunStatus

pytestmark = pytest.mark.unit

NOW = datetime(2026, 3, 14, tzinfo=UTC)


def refused(problems: Sequence[str]) -> RunStatus:
    row = {"id": "readiness/check", "kind": "readiness", "name": "check readiness", "state": "refused"}
    stage = {"id": "readiness", "title": "check readiness", "state": "refused"}
    return RunStatus.model_validate(
        {
            "plan": "shop",
            "run_id": "r",
            "run_type": "planned",
            "state": "refused",
            "direction": "primary-to-recovery",
            "requested_by": "ada",
            "started": NOW,
            "finished": NOW,
            "message": "\n".join(problems),
            "problems": problems,
            "stages": [{**stage, "steps": [{**row, "detail": "\n".join(problems)}]}],
        }
    )


class Engine:
    """As much of a client as following a run asks for."""

    def __init__(self, problems: Sequence[str]) -> None:
        self._status = refused(problems)

    async def watch(self, plan: str, *, auto_approve: bool, lost: object) -> AsyncIterator[RunStatus]:
        yield self._status


@pytest.mark.parametrize(
    ("problems", "says"),
    [
        (["db: is enabled"], ["shop: planned run refused: db: is enabled"]),
        (["db: is enabled", "web: gone"], ["shop: planned run refused", "  db: is enabled", "  web: gone"]),
    ],
)
async def test_each_reason_has_its_line(
    problems: list[str], says: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as end:
        await follow(Engine(problems), "shop", Output())  # type: ignore[arg-type]
    assert end.value.exit_code == Exit.REFUSED
    assert capsys.readouterr().out.splitlines() == ["check readiness / check readiness: refused", *says]


def test_the_tree_tells_each_reason_once() -> None:
    printer = Console(file=io.StringIO(), width=80)
    printer.print(run_tree(refused(["db: is enabled", "web: gone"])))
    shown = printer.file.getvalue()  # type: ignore[attr-defined]
    assert shown.count("db: is enabled") == shown.count("web: gone") == 1
