"""A plan run ends with its report on disk, however it ends, and never because of its report."""

from __future__ import annotations

import asyncio
import json
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
from vault.errors import Unreachable
from vault.notifications import Delivery, Receiver
from workflows import reporting
from workflows.model import ExerciseRequest, ExerciseResult
from workflows.reporting import FINDINGS_SHOWN, cut

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
        return [*usual(world, runner), holder.keep_report_part, holder.write_report, holder.deliver_report]

    monkeypatch.setattr(harness, "activity_methods", with_reports)
    async with open_house(monkeypatch, time_scale=0.001) as opened:
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


async def test_a_worker_that_dies_over_a_report_is_missed_as_soon_as_over_anything_else(house: House) -> None:
    """It was a minute for every run whose control worker was killed in its last moment."""
    await house.replicating("web-1")
    plan = Plan.model_validate({"plan": "shop", "groups": [{"name": "web", "machines": ["web-1"]}]})
    handle = await house.plan(plan, "cleanup")
    await house.run_ends(handle)
    scheduled = [
        event.activity_task_scheduled_event_attributes
        for event in (await handle.fetch_history()).events
        if event.HasField("activity_task_scheduled_event_attributes")
    ]
    (report,) = [one for one in scheduled if one.activity_type.name == "write_report"]
    assert report.heartbeat_timeout.ToTimedelta().total_seconds() == house.timings.heartbeat_s


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


async def test_an_exercise_brings_its_reports_to_a_folder_and_to_a_webhook(
    reporting_house: House, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both runs' reports, with the plan as it was scheduled, and what was ready at the start; a dead webhook waits."""
    posted: list[tuple[str, dict[str, Any], dict[str, str]]] = []

    def receive(receiver: Receiver, body: bytes, headers: dict[str, str]) -> None:
        if not posted:
            posted.append(("refused once", {}, {}))
            raise Unreachable("the webhook answers 503")
        posted.append((receiver.url, json.loads(body), headers))

    monkeypatch.setattr("activities.reports.post", receive)
    house, evidence = reporting_house, tmp_path / "evidence"
    for name in PLAN.machines:
        await house.replicating(name)
    request = ExerciseRequest(
        plan=PLAN,
        requested_by="schedule",
        timings=house.timings,
        auto_approve=True,
        deliver=[Delivery(folder=str(evidence)), Delivery(webhook=Receiver(url="http://127.0.0.1:9/hook"))],
        plan_text="plan: shop\n",
        plan_sha256="ab" * 32,
    )
    handle = await house.client.start_workflow(
        "PlanExercise", request, id="exercise/shop", task_queue="control", result_type=ExerciseResult
    )
    house.roots.append(handle)
    result = await asyncio.wait_for(handle.result(), 120)
    runs = [result.test, result.cleanup]
    assert all(run is not None and run.state == "completed" for run in runs)
    await house.until(lambda: len(posted) == 3, "both reports are posted")
    assert {document["report"]["run"]["run_type"] for _, document, _ in posted[1:]} == {"test", "cleanup"}
    assert {headers["X-Leeward-Occasion"] for _, _, headers in posted[1:]} == {"report"}
    for run in runs:
        assert run is not None
        for suffix in ("json", "html"):
            delivered = evidence / f"shop-{run.run_id}.{suffix}"
            await house.until(delivered.is_file, f"{delivered.name} is delivered")
            verify_report(delivered, folder, [])
        report = ReportStore(folder).load("shop", run.run_id)
        assert (report.plan.text, report.plan.sha256) == ("plan: shop\n", "ab" * 32)
        assert "is protected" in {finding.what for finding in report.run.readiness}


async def test_a_large_runs_report_shows_the_worst_findings(reporting_house: House, folder: Path) -> None:
    warning = Finding(severity=Severity.WARN, subject="recovery", what="little room")
    plenty = [Finding(severity=Severity.PASS, subject=f"disk {n}", what="is there") for n in range(250)]
    reporting_house.world.findings["target", PLAN.machines[0]] = [*plenty, warning]
    for name in PLAN.machines:
        await reporting_house.replicating(name)
    handle = await reporting_house.plan(PLAN, "test", auto_approve=True)
    final = await reporting_house.run_ends(handle)
    run = ReportStore(folder).load("shop", final.run_id).run
    assert (len(run.readiness), run.readiness[0]) == (FINDINGS_SHOWN, warning)
    assert run.readiness_left_out > 50
    assert f"{run.readiness_left_out} more are not shown" in Path(final.report).read_text()
