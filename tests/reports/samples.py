"""Runs as the workflow's table tells them, made up for the tests of reports."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from reports.measure import report_of
from reports.model import PlanRecord, Report, RunRecord

START = datetime(2026, 3, 14, 2, 0, tzinfo=UTC)
PLAN_TEXT = "plan: payments\nrto: 5m\ngroups:\n  - name: database\n    machines: [payment-db]\n"


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def step(kind: str, name: str, began: float | None, ended: float | None, **more: Any) -> dict[str, Any]:
    return {
        "id": f"stage/{name}",
        "kind": kind,
        "name": name,
        "state": "done",
        "started": at(began) if began is not None else None,
        "finished": at(ended) if ended is not None else None,
        "machine": name if kind == "machine" else None,
        **more,
    }


def recovered(
    machine: str, outage: float, answered: float | None, *, point: float, lost: int = 0, damaged: int = 0, **more: Any
) -> dict[str, Any]:
    """The result of a machine's job; times are seconds from the run's start."""
    made_from = {"id": f"{machine}-9", "sequence": 9, "time": at(point), "kind": "app-consistent", "bytes": 4096}
    transactions = {
        "first": 1,
        "last": 1000 - lost,
        "damaged": damaged,
        "held_at_boot": 1000 - lost,
        "acknowledged_at_boot": 1000,
    }
    answering = {
        "name": machine,
        "site": "recovery",
        "address": "192.0.2.7:7000",
        "waited_s": 2.0,
        "transactions": transactions,
    }
    return {
        "sentences": [f"{machine} made", f"{machine} answers"],
        "point": made_from,
        "recovered": {"name": machine, "site": "recovery", "network": "production", "point": made_from},
        "answering": answering if answered is not None else None,
        "outage_began": at(outage),
        "answered_at": at(answered) if answered is not None else None,
        "bytes_sent": 3 * 2**20,
        "source_proven_off": True,
        **more,
    }


def stage(title: str, began: float | None, ended: float | None, *steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    for row in steps:
        row["id"] = f"{title}/{row['name']}"
    return {
        "id": title,
        "title": title,
        "state": "done" if ended is not None else "pending",
        "started": at(began) if began is not None else None,
        "finished": at(ended) if ended is not None else None,
        "steps": list(steps),
        **more,
    }


def planned_run(**changes: Any) -> RunRecord:
    """A planned failover of three machines: 4 minutes, one approval."""
    facts: dict[str, Any] = {
        "plan": "payments",
        "run_id": "20260314T020000-ab12",
        "run_type": "planned",
        "state": "completed",
        "direction": "primary-to-recovery",
        "requested_by": "ada",
        "started": at(0),
        "finished": at(242),
        "message": "commit pending — leeward plan commit payments",
        "stages": [
            stage("check readiness", 0, 2.1, step("readiness", "check readiness", 0, 2.1)),
            stage("shut down web", 2.1, 12, step("machine", "web", 2.1, 12)),
            stage("shut down database", 12, 31, step("machine", "payment-db", 12, 31)),
            stage(
                "recover database",
                31,
                78,
                step("script", "Note the start in the run log", 31, 32.4, output="2026-03-14 planned run begins\n"),
                step("machine", "payment-db", 32.4, 70, result=recovered("payment-db", 12, 69.5, point=30, lost=0)),
                step("check", "The database answers", 70, 78, detail="192.0.2.7:7000 answered after 0.1 s"),
            ),
            stage(
                "recover web",
                78,
                240,
                step("machine", "web", 78, 95, result=recovered("web", 2.1, 94, point=11)),
                step("check", "The shop answers", 95, 97, detail="http://192.0.2.7:7000/health answered 200"),
                step("manual", "Confirm that DNS was switched", 97, 240, detail="approved by ada: ticket 4711"),
            ),
        ],
        "decisions": [
            {
                "action": "approve",
                "step": "recover web/Confirm that DNS was switched",
                "by": "ada",
                "at": at(240),
                "note": "ticket 4711",
            }
        ],
        **changes,
    }
    return RunRecord.model_validate(facts)


def planned_report(rto_s: float | None = 300.0, **changes: Any) -> Report:
    return report_of(planned_run(**changes), PlanRecord(sha256="ab" * 32, text=PLAN_TEXT, rto_s=rto_s))


def test_run(number: int, took: float, *, rto_s: float | None = 60.0, **changes: Any) -> Report:
    """A test failover of one machine, ``number`` days after the first, that took so many seconds."""
    began = 86400.0 * number
    run = RunRecord.model_validate(
        {
            "plan": "payments",
            "run_id": f"test-{number:03}",
            "run_type": "test",
            "state": "completed",
            "direction": "primary-to-recovery",
            "requested_by": "schedule",
            "started": at(began),
            "finished": at(began + took + 1),
            "stages": [
                stage(
                    "recover database",
                    began,
                    began + took,
                    step(
                        "machine",
                        "payment-db",
                        began,
                        began + took,
                        result=recovered("payment-db", began, began + took - 1, point=began - 4, lost=12),
                    ),
                )
            ],
            **changes,
        }
    )
    return report_of(run, PlanRecord(rto_s=rto_s))


test_run.__test__ = False  # type: ignore[attr-defined]
