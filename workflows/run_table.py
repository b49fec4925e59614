"""The table of a plan run: what it is going to do, how far it is, what was decided; shown in the Temporal UI."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from temporalio import workflow

from plans.model import default_direction
from plans.stages import Stage
from workflows.model import Decision, PlanRequest, RunState, RunStatus, StageRow, StepRow

MOST_ROWS_SHOWN = 200
"""Rows of the step table in the Temporal UI; larger plans show the stages only."""


class RunTable:
    """Holds the run's status; changed through :meth:`update`, so that the UI always shows the newest."""

    def __init__(self, given: PlanRequest, started: datetime) -> None:
        self.status = RunStatus(
            plan=given.plan.name,
            run_id=given.run_id,
            run_type=given.run_type,
            state="running",
            direction=default_direction(given.run_type),
            requested_by=given.requested_by,
            started=started,
            note=given.note,
        )

    def update(self, **changes: object) -> None:
        self.status = self.status.model_copy(update=changes)
        workflow.set_current_details(markdown(self.status))

    def outline(self, steps: Sequence[Stage]) -> None:
        """What the run is going to do, before it does it."""
        rows = [StageRow(id="readiness", title="check readiness")]
        rows += [StageRow(id=stage.title, title=stage.title) for stage in steps]
        self.update(stages=rows)

    def put(self, row: StageRow, *, paused: bool) -> None:
        """A stage's row, and the state of the run that follows from it."""
        known = {stage.id for stage in self.status.stages}
        rows = [row if stage.id == row.id else stage for stage in self.status.stages]
        if row.id not in known:
            rows.append(row)
        self.status = self.status.model_copy(update={"stages": rows})
        self.update(state=self.state(paused=paused))

    def merged(self, news: StageRow) -> StageRow:
        """The stage's row as it is after ``news``, which has the changed steps only."""
        known = next((stage.steps for stage in self.status.stages if stage.id == news.id), [])
        changed = {step.id: step for step in news.steps}
        steps = [changed.pop(step.id, step) for step in known] + list(changed.values())
        return news.model_copy(update={"steps": steps})

    def decide(self, decision: Decision) -> None:
        self.update(decisions=[*self.status.decisions, decision])

    def row(self, step: str) -> StepRow | None:
        return next((row for stage in self.status.stages for row in stage.steps if row.id == step), None)

    @property
    def waiting(self) -> list[StepRow]:
        """Steps that wait for an operator."""
        return [row for stage in self.status.stages for row in stage.steps if row.waits]

    @property
    def stays(self) -> str:
        """Which machines a failover that ends early leaves at their recovery site; empty: none."""
        if self.status.run_type not in {"planned", "unplanned", "failback"}:
            return ""
        results = [row.result for stage in self.status.stages for row in stage.steps if row.result is not None]
        recovered = [result.recovered for result in results if result.recovered is not None]
        pending = [machine.name for machine in recovered if not machine.committed]
        final = [machine.name for machine in recovered if machine.committed]
        return (f"; recovered, commit pending: {', '.join(pending)}" if pending else "") + (
            f"; recovered: {', '.join(final)}" if final else ""
        )

    def state(self, *, paused: bool) -> RunState:
        if paused:
            return "paused"
        return "waiting" if self.waiting else "running"


def markdown(status: RunStatus) -> str:
    """The step table that the Temporal UI shows with the run."""
    head = f"**{status.run_type}** of **{status.plan}**: {status.state} ({status.direction})"
    lines = [head, "", "| stage | step | state | detail |", "|---|---|---|---|"]
    many = sum(len(stage.steps) for stage in status.stages) > MOST_ROWS_SHOWN
    for stage in status.stages:
        lines.append(f"| **{stage.title}** | | {stage.state} | |")
        if not many:
            lines += [f"| | {row.name} | {row.state} | {_one_line(row.detail)} |" for row in stage.steps]
    return "\n".join(lines + (["", status.message.replace("\n", "\n\n")] if status.message else []))


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("|", "\\|")[:200]
