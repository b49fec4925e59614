"""What ``leeward status`` says of a machine in one line."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from activities.contracts import WATCH_OLD_COPY
from console.cmd_machines import WATCH, _facts, _now, _status_row
from console.machine_status import MachineStatus, PendingActivity
from vault.domain import RecoveryPoint, Relationship
from vault.inventory import Policy
from vault.lifecycle import JobKind, Phase
from workflows.model import Health, JobRecord, MachineState, OldCopy, Timings

pytestmark = pytest.mark.unit

FORWARD = Relationship(
    machine="db",
    source_site="primary",
    target_site="recovery",
    target_network="production",
    test_network="isolated",
    frequency_s=60,
)


def status(
    health: Health, *activities: PendingActivity, phase: Phase = Phase.COMMIT_PENDING, point_age_s: float | None = None
) -> MachineStatus:
    moment = datetime.now(UTC) - timedelta(seconds=point_age_s or 0)
    state = MachineState(
        name="db",
        forward=FORWARD,
        backward=FORWARD.reversed("production", "isolated"),
        policy=Policy(frequency="60s"),
        timings=Timings(),
        phase=phase,
        health=health,
        last_point=RecoveryPoint(id="p", sequence=1, time=moment) if point_age_s is not None else None,
        old_copy=OldCopy(site="primary", machine="db"),
    )
    return MachineStatus(state=state, activities=list(activities))


def test_a_dead_site_is_waited_for_on_purpose_and_said_so_after_worse_news() -> None:
    waits = PendingActivity(name=WATCH, attempt=1, waiting_for_worker=True)
    assert WATCH_OLD_COPY.name == WATCH
    assert _now(status(Health(), waits)) == "no worker at primary yet that keeps the old copy off"
    assert _now(status(Health(level="warning", reason="web does not answer"), waits)) == "web does not answer"
    assert _now(status(Health())) == "commit pending, not replicated: leeward plan commit PLAN"
    other = PendingActivity(name="commit", attempt=1, waiting_for_worker=True)
    assert _now(status(Health(), other)) == "commit waits for a worker"


def test_a_recovery_point_that_is_too_old_is_not_called_ok() -> None:
    late = status(Health(), phase=Phase.PROTECTED, point_age_s=126)
    assert late.health.level == "warning"
    assert re.fullmatch(
        r"the newest recovery point is 2 min \d+ s old; it should not be older than 2 min 5 s", _now(late)
    )
    assert _facts(late)["health"] == _status_row("db", late)[2] == "warning"

    assert status(Health(), phase=Phase.PROTECTED, point_age_s=120).health == Health()
    assert status(Health(), phase=Phase.COMMIT_PENDING, point_age_s=900).health == Health()
    assert status(Health(), phase=Phase.PROTECTED).health == Health()
    halted = Health(level="critical", reason="login refused")
    assert status(halted, phase=Phase.PROTECTED, point_age_s=900).health == halted


def test_after_a_failover_the_next_step_is_named() -> None:
    done = status(Health(), phase=Phase.FAILED_OVER)
    job = JobRecord(
        id="job/db/9-Commit",
        kind=JobKind.COMMIT,
        request_id="r",
        requested_by="ada",
        plan="shop",
        state="done",
        started=datetime.now(UTC),
    )
    by_plan = done.model_copy(update={"state": done.state.model_copy(update={"jobs": [job]})})
    assert _now(by_plan) == "not replicated: leeward plan reverse shop"
    assert _now(status(Health(), phase=Phase.PROTECTED)) == ""


def test_what_a_failover_has_left_behind_is_no_rpo() -> None:
    """The point that the workflow remembers may be an hour older than the newest one."""
    assert status(Health(), phase=Phase.FAILING_OVER, point_age_s=1300).rpo_s is None
    assert status(Health(), phase=Phase.COMMIT_PENDING, point_age_s=1300).rpo_s == pytest.approx(1300, abs=30)
