"""Showing a plan run while it runs: a live tree on a terminal, a line for each change otherwise."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from console.output import STYLES, Output, seconds

if TYPE_CHECKING:
    from datetime import datetime

    from rich.text import Text
    from rich.tree import Tree

    from workflows.model import RunStatus, StageRow, StepRow

MARKS = {
    "pending": "·",
    "running": "▸",
    "waiting": "?",
    "failed": "✗",
    "refused": "✗",
    "done": "✓",
    "skipped": "-",
    "cancelled": "-",
}
ASKING = frozenset({"waiting", "failed", "refused"})
"""States whose whole detail is shown, because somebody has to decide."""


async def show_until_finished(statuses: AsyncIterator[RunStatus], output: Output) -> RunStatus:
    """Follow a run to its end and return the final status."""
    return await (_show_live(statuses, output) if output.is_live else _show_lines(statuses, output))


async def _show_live(statuses: AsyncIterator[RunStatus], output: Output) -> RunStatus:
    from rich.live import Live

    last: RunStatus | None = None
    with Live(console=output.console, refresh_per_second=8) as live:
        async for status in statuses:
            live.update(run_tree(status))
            last = status
    assert last is not None
    return last


async def _show_lines(statuses: AsyncIterator[RunStatus], output: Output) -> RunStatus:
    seen: dict[str, str] = {}
    last: RunStatus | None = None
    async for status in statuses:
        for stage in status.stages:
            _say_changes(status.plan, stage, seen, output)
        last = status
    assert last is not None
    return last


def _say_changes(plan: str, stage: StageRow, seen: dict[str, str], output: Output) -> None:
    for row in stage.steps:
        detail = row.detail if row.state in ASKING else _first_line(row.detail)
        news = f"{row.state}: {detail}" if row.kind == "machine" and row.state == "running" else row.state
        news += " and waits" if row.state == "failed" and row.waits else ""
        if (row.state == "pending" and not row.detail) or seen.get(row.id) == news:
            continue
        seen[row.id] = news
        if row.state == "refused":
            detail = ""  # the run's last sentence says it
        output.say(f"{stage.title} / {row.name}: {row.state}{': ' if detail else ''}{detail}")
        to_do = _what_to_do(plan, row)
        if to_do:
            output.say(f"    {to_do}")


def _what_to_do(plan: str, row: StepRow) -> str:
    """What an operator may say to a step that asks; empty: it asks nothing."""
    if row.state == "waiting":
        return f"leeward plan approve {plan} --step '{row.id}' --note WHY"
    if row.state == "failed" and row.waits:
        return f"leeward plan retry|skip {plan} --step '{row.id}' --note WHY, or: leeward plan cancel {plan} --note WHY"
    return ""


def run_tree(status: RunStatus) -> Tree:
    from rich.text import Text
    from rich.tree import Tree

    head = Text(f"{status.plan}  {status.run_type}  ", style="bold")
    head.append(status.state, style=STYLES.get(status.state, ""))
    head.append(f"  {seconds(_took(status.started, status.finished))}", style="dim")
    head.append(f"  run {status.run_id}, {status.direction}, asked by {status.requested_by}", style="dim")
    tree = Tree(head)
    for stage in status.stages:
        branch = tree.add(_line(stage.title, stage.state, _took(stage.started, stage.finished), ""))
        if stage.state != "pending":
            for row in stage.steps:
                shown = branch.add(_step_line(row))
                to_do = _what_to_do(status.plan, row) if status.finished is None else ""
                if to_do:
                    shown.add(Text(to_do, style="bold"))
    for decision in status.decisions:
        subject = decision.machine or decision.step
        about = f" '{subject}'" if subject else ""
        why = f": {decision.note}" if decision.note else ""
        tree.add(Text(f"{decision.at:%H:%M:%S}Z  {decision.by}: {decision.action}{about}{why}", style="dim"))
    for line in status.message.splitlines():
        tree.add(Text(line, style="bold"))
    if status.way_out:
        tree.add(Text(status.way_out))
    if status.report:
        tree.add(Text(f"report: {status.report}", style="dim"))
    return tree


def _step_line(row: StepRow) -> Text:
    detail = "" if row.state == "refused" else row.detail  # the run's last lines say it
    return _line(row.name, row.state, _took(row.started, row.finished), detail)


def _line(name: str, state: str, took: float | None, detail: str) -> Text:
    from rich.text import Text

    line = Text(f"{MARKS.get(state, ' ')} ", style=STYLES.get(state, ""))
    line.append(name, style=STYLES.get(state, ""))
    if took is not None:
        line.append(f"  {seconds(took)}", style="dim")
    if detail:
        line.append(f"  {detail if state in ASKING else _first_line(detail)}", style="dim")
    return line


def _took(started: datetime | None, finished: datetime | None) -> float | None:
    from datetime import UTC, datetime

    if started is None:
        return None
    return ((finished or datetime.now(UTC)) - started).total_seconds()


def _first_line(text: str) -> str:
    return text.splitlines()[0][:160] if text else ""
