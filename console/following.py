"""Show a run until it ends, and what came of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import typer

from console.exits import Exit
from console.output import Output, seconds

if TYPE_CHECKING:
    from console.client import Leeward
    from workflows.model import RunStatus


async def follow(leeward: Leeward, plan: str, output: Output, *, auto_approve: bool = False) -> None:
    """Show a run to its end; the exit code says how it ended."""
    from console.holding import all_with_what_holds
    from console.watching import show_until_finished

    statuses = all_with_what_holds(leeward, leeward.watch(plan, auto_approve=auto_approve, lost=_lost))
    try:
        final = await show_until_finished(statuses, output)
    except asyncio.CancelledError:  # Ctrl-C
        _lost_sight_of(plan)
        raise
    output.document(final)
    _show_recoveries(final, output)
    output.say(f"{final.plan}: {final.run_type} run {final.state}{_in_lines(final.message)}")
    if final.way_out:
        output.say(final.way_out)
    if final.report:
        output.say(f"report: {final.report}")
    if final.state == "refused":
        raise typer.Exit(int(Exit.REFUSED))
    if final.state != "completed":
        raise typer.Exit(int(Exit.FAILED))


def _in_lines(message: str) -> str:
    """One sentence in the same line; several, each in its own."""
    lines = message.splitlines()
    return f": {message}" if len(lines) == 1 else "".join(f"\n  {line}" for line in lines)


def _lost_sight_of(plan: str) -> None:
    from console.exits import warn

    warn(f"the run goes on; watch it again with: leeward plan watch {plan}, end it with: leeward plan cancel {plan}")


def _lost(why: str) -> None:
    from console.exits import warn

    warn(f"{why}; what runs goes on when it is back, and so does the watching (Ctrl-C ends only that)")


def _show_recoveries(final: RunStatus, output: Output) -> None:
    rows = [
        [
            row.name,
            row.result.recovered.site,
            seconds((row.result.answered_at - row.result.outage_began).total_seconds())
            if row.result.answered_at and row.result.outage_began
            else "-",
            row.result.answering.address if row.result.answering else "does not answer",
        ]
        for stage in final.stages
        for row in stage.steps
        if row.result is not None and row.result.recovered is not None
    ]
    if rows:
        rows += [[machine, "left out", "-", "-"] for machine in final.left_out]
        output.table(["machine", "recovered at", "recovery time", "address"], rows)
