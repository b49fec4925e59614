"""How far a stage is: its table of rows, what operators said, what machines answered. Shared by all of its parts."""

from __future__ import annotations

from temporalio import workflow

from plans.context import RunContext
from workflows.model import JobEvent, StageInput, StageNews, StageRow, Steer, StepRow


class StepFailed(Exception):
    """A step did not do what it should; the sentence says why. Never leaves the workflow."""


class RunEnds(Exception):
    """The stage comes to its end early: cancelled by the operator, or stopped by ``on_failure: stop``."""


class StageProgress:
    """The state of one stage; its rows are changed through :meth:`set` only, so that every change is told."""

    def __init__(self, given: StageInput) -> None:
        self.given = given
        self.rows: dict[str, StepRow] = {}
        self.machines = dict(given.machines)
        """Where each machine is, as steps are told."""
        self.held: dict[str, str] = {}
        self.already = dict(given.already)
        self.silent_sites = list(given.silent_sites)
        self.events: dict[str, list[JobEvent]] = {}
        self.steered: dict[str, Steer] = {}
        self.cancelled = False
        self.gave_way = False
        """A failover of the plan is wanted: nothing is waited for."""
        self.paused = given.paused
        self.changed: set[str] = set()
        """Rows whose change the run was not told yet."""
        self.rounds: dict[str, int] = {}
        """How often a row's work was begun."""
        self.row = StageRow(id=given.row_id, title=given.stage.title, state="running", started=workflow.now())

    def row_id(self, name: str) -> str:
        return f"{self.given.row_id}/{name}"

    def add(self, kind: str, name: str) -> None:
        machine = name if kind == "machine" else None
        row_id = self.row_id(name)
        self.rows[row_id] = StepRow.model_validate({"id": row_id, "kind": kind, "name": name, "machine": machine})

    def set(self, row_id: str, **changes: object) -> None:
        self.rows[row_id] = self.rows[row_id].model_copy(update=changes)
        self.changed.add(row_id)

    @property
    def table(self) -> StageRow:
        return self.row.model_copy(update={"steps": list(self.rows.values())})

    def take_news(self) -> StageNews:
        """What changed since the last time."""
        steps = [row for row_id, row in self.rows.items() if row_id in self.changed]
        self.changed.clear()
        return StageNews(row=self.row.model_copy(update={"steps": steps}), run_id=self.given.facts.run_id)

    @property
    def context(self) -> RunContext:
        """What a step is told now."""
        return self.given.facts.context(self.given.stage.group, self.machines)

    def end_if_cancelled(self, row_id: str) -> None:
        if self.cancelled:
            if self.rows[row_id].state in {"pending", "running", "waiting"}:
                self.set(row_id, state="cancelled", finished=workflow.now())
            raise RunEnds("cancelled by the operator")

    def cancel_what_is_open(self) -> None:
        for row_id, row in self.rows.items():
            if row.state in {"pending", "running", "waiting"}:
                self.set(row_id, state="cancelled", waits=False, finished=workflow.now())

    async def pause(self, seconds: float, row_id: str, summary: str) -> None:
        """Let time pass; an operator's cancel ends it at once."""
        try:
            await workflow.wait_condition(lambda: self.cancelled, timeout=seconds, timeout_summary=summary)
        except TimeoutError:
            return
        self.end_if_cancelled(row_id)
