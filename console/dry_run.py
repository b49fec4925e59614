"""A dry run: what a run would do, step by step, and how long that took before. Nothing is started or asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from plans.model import Plan
from plans.stages import StageKind
from plans.tree import LEFT_OUT, TreeNode, run_tree
from reports.model import StepRecord
from reports.store import ReportStore
from vault.domain import RunType, Value
from vault.errors import LeewardError

RUNS_LOOKED_AT = 5
"""The newest completed runs of the same type; what was long ago says little about today."""


class DryRunStep(Value):
    stage: str
    kind: str
    name: str
    does: str
    expected_s: float | None
    """Median of what it took in past runs; None: never run before."""


class DryRun(Value):
    plan: str
    run_type: RunType
    steps: list[DryRunStep]
    expected_s: float | None
    """Median of whole past runs, waiting for people included."""
    past_runs: int


def dry_run(plan: Plan, run_type: RunType, reports: Path, without: Sequence[str] = ()) -> DryRun:
    """Read-only: the plan's stages in order, with the experience of its stored reports.

    ``without``: machines that the run would leave out."""
    past = [
        report
        for report in ReportStore(reports).reports(plan.name)
        if not isinstance(report, LeewardError) and report.run.run_type == run_type and report.run.state == "completed"
    ]
    past = sorted(past, key=lambda report: report.run.started)[-RUNS_LOOKED_AT:]
    took: dict[tuple[str, str], list[float]] = {}
    for report in past:
        for stage in report.run.stages:
            for step in stage.steps:
                duration = _duration(step)
                if duration is not None:
                    took.setdefault((stage.title, step.name), []).append(duration)
    steps = [
        DryRunStep(
            stage=stage.label,
            kind=step.kind,
            name=step.label,
            does="; ".join(filter(None, [_does(stage.label, run_type) if step.kind == "machine" else "", step.detail])),
            expected_s=None if step.kind == LEFT_OUT else _median(took.get((stage.label, step.label), [])),
        )
        for stage in run_tree(plan, run_type, without=without).children
        for step in _leaves(stage)
    ]
    whole = _median([report.run.duration_s for report in past])
    return DryRun(plan=plan.name, run_type=run_type, steps=steps, expected_s=whole, past_runs=len(past))


MACHINE_WORK = {
    StageKind.SHUT_DOWN: "shut down, send the last changes, make the replica machine",
    StageKind.RECOVER: "start the replica machine, wait until it answers",
    StageKind.CLEAN_UP: "remove the test copy",
    StageKind.COMMIT: "keep the recovery point in use, drop the others",
    StageKind.REVERSE: "protect in the other direction, send what differs",
}


def _does(stage: str, run_type: RunType) -> str:
    """What a stage does with each of its machines."""
    if run_type == "test" and stage.startswith(StageKind.RECOVER):
        return "make a copy on the isolated network, start it, wait until it answers"
    if run_type == "unplanned" and stage.startswith(StageKind.RECOVER):
        return "try to shut the source down, make the replica machine, start it, wait until it answers"
    return next((work for kind, work in MACHINE_WORK.items() if stage.startswith(kind)), "")


def _leaves(node: TreeNode) -> list[TreeNode]:
    return [leaf for child in node.children for leaf in (_leaves(child) if child.children else [child])]


def _duration(step: StepRecord) -> float | None:
    if step.started is None or step.finished is None or step.state != "done":
        return None
    return (step.finished - step.started).total_seconds()


def _median(values: list[float]) -> float | None:
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else None
