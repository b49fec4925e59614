"""A plan run ends with its report on disk, however it ends, and never because of its report."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import house as harness
import pytest
from house import House, open_house
from temporalio import workflow
from temporalio.worker import UnsandboxedWorkflowRunner

from activities.reports import ReportActivities
from activities.running import BlockingRunner
from plans.model import Plan
from reports.model import StageRecord
from reports.store import ReportStore, verify_report
from vault.domain import Finding, Severity
from workflows import reporting
from workflows.reporting import cut

pytestmark = pytest.mark.workflow

PLAN = Plan.model_validate(
    {
        "plan": "shop",
        "rto": "10m",
        "groups": [
            {
                "name": "web",
                "machines": ["web-1", "web-2"],
                "after": [
                    {"script": "Say hello", "run": "echo hello from the script"},
                    {"manual": "Look at it", "instructions": "Look."},
                ],
            }
        ],
    }
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "reports"


@pytest.fixture
async def reporting_house(monkeypatch: pytest.MonkeyPatch, folder: Path) -> AsyncIterator[House]:
    usual = harness.activity_methods

    def with_reports(world: Any, runner: BlockingRunner) -> list[Any]:
        holder = ReportActivities(folder, runner)
        return [*usual(world, runner), holder.keep_report_part, holder.write_report]

    monkeypatch.setattr(harness, "activity_methods", with_reports)
    async with open_house(monkeypatch) as opened:
        opened.world.now = lambda: datetime.now(UTC)
        yield opened


async def test_a_run_leaves_a_verified_report_of_what_it_did(reporting_house: House, folder: Path) -> None:
    for name in PLAN.machines:
        await reporting_house.replicating(name)
    handle = await reporting_house.plan(PLAN, "test", plan_text="plan: shop\n", plan_sha256="ab" * 32)
    await reporting_house.row(handle, "recover web/Look at it", "waiting")
    await reporting_house.steer(handle, "approve", "recover web/Look at it")
    final = await reporting_house.run_ends(handle)

    report = ReportStore(folder).load("shop", final.run_id)
    assert final.report == str(folder / "shop" / f"{final.run_id}.html")
    verify_report(Path(final.report), folder, [])
    assert report.measured.verdict == "passed"
    assert report.measured.rto_met is True
    assert {machine.recovered_as for machine in report.measured.machines} == {
        f"{name}-test-{final.run_id[-6:]}" for name in PLAN.machines
    }
    assert "replication undisturbed" in report.measured.sentences[0]
    assert [(decision.by, decision.action, decision.note) for decision in report.run.decisions] == [
        ("ada", "approve", "seen")
    ]
    outputs = [row.output for stage in report.run.stages for row in stage.steps if row.kind == "script"]
    assert outputs == ["hello from the script\n"]
    assert report.run.stages[0].steps[0].kind == "readiness"
    assert (report.plan.text, report.plan.rto_s) == ("plan: shop\n", 600)
    assert report.run.finished == final.finished


async def test_a_refused_run_leaves_one_too(reporting_house: House, folder: Path) -> None:
    for name in PLAN.machines:
        await reporting_house.replicating(name)
    reporting_house.world.findings["target", "web-2"] = [
        Finding(severity=Severity.FAIL, subject="web-2", what="no room at the target", remedy="make room")
    ]
    final = await reporting_house.run_ends(await reporting_house.plan(PLAN, "test"))
    report = ReportStore(folder).load("shop", final.run_id)
    assert report.measured.verdict == "refused"
    assert "no room at the target" in report.measured.sentences[0]


async def test_a_large_run_travels_in_parts(
    reporting_house: House, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in PLAN.machines:
        await reporting_house.replicating(name)
    handle = await reporting_house.plan(PLAN, "cleanup")
    small = await reporting_house.run_ends(handle)
    whole = ReportStore(folder).load("shop", small.run_id)

    runner = BlockingRunner(reporting_house.threads)
    store = ReportStore(folder)
    parts = list(cut(whole.run.stages, most=1))
    assert len(parts) == sum(len(stage.steps) for stage in whole.run.stages)
    for number, stages in enumerate(parts):
        store.keep_part("shop", small.run_id, number, stages)
    given = reporting.WriteReport(run=whole.run.model_copy(update={"stages": []}), plan=whole.plan, parts=len(parts))
    ReportActivities(folder, runner)._write(given)
    assert store.load("shop", small.run_id) == whole
    again = ReportActivities(folder, runner)._write(given)
    assert Path(again.html_file).is_file()


async def test_a_run_completes_though_its_report_cannot_be_written(
    reporting_house: House, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write_text("in the way")
    for name in PLAN.machines:
        await reporting_house.replicating(name)
    handle = await reporting_house.plan(PLAN, "cleanup")
    final = await handle.result()
    assert final.state == "completed"
    assert final.report.startswith("not written: ")
    assert "reports" in final.report


async def test_a_worker_that_knows_no_reports_holds_nothing_up(house: House) -> None:
    for name in PLAN.machines:
        await house.replicating(name)
    final = await house.run_ends(await house.plan(PLAN, "cleanup"))
    assert final.state == "completed"
    assert final.report.startswith("not written: ")


def test_cutting_keeps_every_row_once_and_in_order() -> None:
    def stage(name: str, rows: int) -> StageRecord:
        steps = [
            {"id": f"{name}/{number}", "kind": "machine", "name": f"m{number}", "state": "done"}
            for number in range(rows)
        ]
        return StageRecord.model_validate({"id": name, "title": name, "state": "done", "steps": steps})

    stages = [stage("a", 0), stage("b", 30), stage("c", 1), stage("d", 12)]
    for most in (1, 200, 5000, 10**6):
        parts = list(cut(stages, most))
        assert [row.id for part in parts for found in part for row in found.steps] == [
            row.id for found in stages for row in found.steps
        ]
        assert {found.id for part in parts for found in part} == {"a", "b", "c", "d"}
        assert all(sum(len(row.model_dump_json()) for f in part for row in f.steps) <= max(most, 200) for part in parts)
    assert len(list(cut(stages, 10**6))) == 1


async def test_runs_from_before_there_were_reports_still_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as before:
        before.setattr(workflow, "patched", lambda _: False)
        async with open_house(monkeypatch, runner=UnsandboxedWorkflowRunner()) as old:
            for name in PLAN.machines:
                await old.replicating(name)
            handle = await old.plan(PLAN, "cleanup")
            final = await old.run_ends(handle)
            history = await handle.fetch_history()
    assert final.report == ""
    assert "write_report" not in history.to_json()
    await harness.replay([history])
