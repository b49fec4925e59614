"""A dry run says everything a run would do, in the run's own order, and starts nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from console.dry_run import dry_run
from plans.model import Plan
from plans.template import LAB_PLAN
from reports.measure import report_of
from reports.model import PlanRecord, RunRecord
from reports.store import ReportStore
from vault.yamlsource import parse_yaml

pytestmark = pytest.mark.unit
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def plan() -> Plan:
    return Plan.model_validate(parse_yaml(LAB_PLAN.encode(), "payments").data)


def past_run(number: int, *, took_s: float, state: str = "completed", run_type: str = "planned") -> RunRecord:
    began = BEGAN + timedelta(days=number)
    step = {
        "id": "recover web/web",
        "kind": "machine",
        "name": "web",
        "state": "done",
        "started": began,
        "finished": began + timedelta(seconds=took_s),
        "machine": "web",
    }
    return RunRecord.model_validate(
        {
            "plan": "payments",
            "run_id": f"run-{number}",
            "run_type": run_type,
            "state": state,
            "direction": "primary-to-recovery",
            "requested_by": "ada",
            "started": began,
            "finished": began + timedelta(seconds=2 * took_s),
            "stages": [{"id": "recover web", "title": "recover web", "state": "done", "steps": [step]}],
        }
    )


def test_the_steps_are_the_runs_own_in_its_order(plan: Plan, tmp_path: Path) -> None:
    found = dry_run(plan, "planned", tmp_path)
    machines = [(step.stage.split(" ")[0], step.name) for step in found.steps if step.kind == "machine"]
    assert machines == [
        ("shut", "web"),
        ("shut", "payment-app-1"),
        ("shut", "payment-app-2"),
        ("shut", "payment-db"),
        ("recover", "payment-db"),
        ("recover", "payment-app-1"),
        ("recover", "payment-app-2"),
        ("recover", "web"),
    ]
    assert all(step.does for step in found.steps)
    assert (found.expected_s, found.past_runs) == (None, 0)


def test_what_is_expected_is_the_median_of_completed_runs_of_the_same_type(plan: Plan, tmp_path: Path) -> None:
    store = ReportStore(tmp_path)
    runs = [past_run(number, took_s=took) for number, took in enumerate((4, 90, 6), start=1)]
    runs += [past_run(8, took_s=500, state="failed"), past_run(9, took_s=700, run_type="test")]
    for run in runs:
        store.save(report_of(run, PlanRecord()))
    found = dry_run(plan, "planned", tmp_path)
    assert found.past_runs == 3
    assert found.expected_s == 12
    web = next(step for step in found.steps if step.stage == "recover web" and step.name == "web")
    assert web.expected_s == 6


def test_machines_left_out_stay_as_they_are(plan: Plan, tmp_path: Path) -> None:
    ReportStore(tmp_path).save(report_of(past_run(1, took_s=4), PlanRecord()))
    steps = dry_run(plan, "planned", tmp_path, ["web"]).steps
    assert [(step.stage, step.name, step.does, step.expected_s) for step in steps if step.kind == "left out"] == [
        ("shut down web", "web", "stays as it is", None),
        ("recover web", "web", "stays as it is", None),
        ("recover web", "The shop answers", "skipped: it is about web, which is left out", None),
    ]


def test_a_test_run_says_that_it_makes_copies(plan: Plan, tmp_path: Path) -> None:
    machines = [step for step in dry_run(plan, "test", tmp_path).steps if step.kind == "machine"]
    assert machines
    assert all("isolated network" in step.does for step in machines)
