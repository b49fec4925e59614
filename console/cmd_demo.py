"""``leeward demo``: the main job, end to end and measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from console.exits import Exit, fail, run


def register(app: typer.Typer) -> None:
    app.command()(demo)


def demo(
    scenario: Annotated[str, typer.Option("--scenario", help="Which deployment to show.")] = "lab",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the results to this file too.")] = None,
    report: Annotated[Path, typer.Option("--report", help="Where to write the HTML report.")] = Path(
        "demo-report.html"
    ),
    folder: Annotated[Path | None, typer.Option("--folder", help="Where it works; made anew.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave engine and machines running afterwards.")] = False,
) -> None:
    """Show the whole story, measured. A three-tier application is protected, tested, failed over and back.

    Example: leeward demo --scenario lab --json results.json
    """
    from console.demo.scenarios import SCENARIOS

    if scenario not in SCENARIOS:
        fail(f"unknown scenario '{scenario}' — there is: {', '.join(SCENARIOS)}", Exit.BAD_INPUT)

    async def work() -> int:
        from console.demo.runner import run_demo

        return await run_demo(SCENARIOS[scenario], folder, json_file, report, keep=keep)

    raise typer.Exit(run(work))
