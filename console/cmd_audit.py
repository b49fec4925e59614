"""``leeward audit``: who did what, when and why."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from console.exits import run
from console.options import Data, Json, Vault, connected, settings_of
from console.output import Output, outcome


def register(app: typer.Typer) -> None:
    app.command()(audit)


def audit(
    plan: Annotated[str | None, typer.Option("--plan", help="Only this plan's runs, and its schedule.")] = None,
    since: Annotated[datetime | None, typer.Option("--since", help="UTC; only what happened then or later.")] = None,
    vault: Vault = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """List who did what, when and why. Runs of plans, decisions in them, changes of schedules, jobs and
    settings of single machines.

    Read from Temporal's own histories, for as long as the namespace keeps them.
    Example: leeward audit --plan payments --since 2026-01-31
    """

    async def work() -> None:
        from datetime import UTC

        from console.audit import audit as read_audit
        from console.plan_files import find_plan_file, plan_name
        from vault.domain import utc

        settings = settings_of(vault, data)
        leeward = await connected(settings)
        lines, unreadable = await read_audit(
            leeward, plan and plan_name(plan), since.replace(tzinfo=UTC) if since else None
        )
        if plan is not None and not lines and not unreadable:  # of a plan that was deleted there may be some
            find_plan_file(plan, settings)
        output = Output(json)
        output.document({"lines": lines, "unreadable": unreadable})
        output.table(
            ["when", "who", "what", "on", "outcome", "why"],
            [[utc(line.at), line.who, line.what, line.on, outcome(line.outcome), line.note] for line in lines],
            empty="nothing was done",
        )
        for one in unreadable:
            output.say(f"not readable: {one.workflow}: {one.why}")

    run(work)
