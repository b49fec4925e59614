"""What ``leeward status`` says of a machine in one line."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from temporalio.api.common.v1 import ActivityType
from temporalio.api.enums.v1 import PendingActivityState, TimeoutType
from temporalio.api.failure.v1 import ApplicationFailureInfo, Failure, TimeoutFailureInfo
from temporalio.api.workflow.v1 import PendingActivityInfo

from activities.contracts import WATCH_OLD_COPY, WORKER_LEAVING, ReplicationPulse
from console.cmd_machines import WATCH, _facts, _now, _show_details, _status_row
from console.machine_status import MachineStatus, PendingActivity, pending_activity
from console.output import Output
from vault.domain import RecoveredMachine, RecoveryPoint, Relationship
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


LEFT = Failure(message="leaves", application_failure_info=ApplicationFailureInfo(type=WORKER_LEAVING))
SILENT = TimeoutFailureInfo(timeout_type=TimeoutType.TIMEOUT_TYPE_HEARTBEAT)
DIED = Failure(message="activity Heartbeat timeout", timeout_failure_info=SILENT)
GONE = Failure(message="no answer", application_failure_info=ApplicationFailureInfo(type="Unreachable"))
RUNS, SCHEDULED = (
    PendingActivityState.PENDING_ACTIVITY_STATE_STARTED,
    PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED,
)
NOW = datetime(2026, 3, 14, tzinfo=UTC)


def known(failure: Failure, *, runs: bool = True, healthy_at: int = 1, next_try_s: float | None = None) -> str:
    """What holds a second try up, scheduled a minute ago."""
    raw = PendingActivityInfo(
        activity_type=ActivityType(name="replicate_deltas"),
        attempt=2,
        last_failure=failure,
        state=RUNS if runs else SCHEDULED,
    )
    raw.scheduled_time.FromDatetime(NOW - timedelta(minutes=1))
    if next_try_s is not None:
        raw.next_attempt_schedule_time.FromDatetime(NOW + timedelta(seconds=next_try_s))
    return pending_activity("machine/db", raw, ReplicationPulse(healthy_at_attempt=healthy_at), NOW).trouble


def test_what_failed_before_is_no_trouble_once_it_is_over() -> None:
    assert known(GONE) == "no answer (try 2)"
    assert known(GONE, healthy_at=2) == ""
    assert known(GONE, runs=False, healthy_at=2, next_try_s=60) == "no answer (try 2, next try at 00:01:00Z)"
    for lost in (LEFT, DIED):
        assert known(lost) == ""
        assert known(lost, runs=False) == "replicate_deltas waits for a worker"


def at_work(*, started_s: float, sign_s: float | None, given_up_after_s: float = 300) -> PendingActivity:
    """A turn of replication, begun and last heard of so many seconds ago."""
    raw = PendingActivityInfo(activity_type=ActivityType(name="replicate_deltas"), attempt=1, state=RUNS)
    raw.last_started_time.FromDatetime(NOW - timedelta(seconds=started_s))
    if sign_s is not None:
        raw.last_heartbeat_time.FromDatetime(NOW - timedelta(seconds=sign_s))
    raw.activity_options.heartbeat_timeout.FromTimedelta(timedelta(seconds=given_up_after_s))
    return pending_activity("machine/db", raw, ReplicationPulse(), NOW)


def test_a_worker_whose_sign_is_overdue_is_told_before_it_is_given_up() -> None:
    """With a policy of 15 minutes that takes five; until then the machine was called ok."""
    killed = at_work(started_s=3000, sign_s=130)
    told = status(Health(), killed, phase=Phase.PROTECTED, point_age_s=70)
    assert told.health.level == "warning"
    says = (
        "no sign of the worker of replicate_deltas for 2 min 10 s; when it is gone, another one goes on, 5 min after "
        "the last sign"
    )
    assert (_now(told), told.health.reason) == (says, says)
    for alive in (
        at_work(started_s=3000, sign_s=110),
        at_work(started_s=3, sign_s=130),  # a new try, of which nothing is known yet
        at_work(started_s=110, sign_s=None),
        at_work(started_s=3000, sign_s=130, given_up_after_s=0),  # Temporal does not tell
    ):
        assert status(Health(), alive, phase=Phase.PROTECTED, point_age_s=70).health == Health()
        assert alive.trouble == ""


@pytest.mark.parametrize(
    ("kind", "state", "phase", "waits"),
    [
        (JobKind.RESYNCHRONIZE, "running", Phase.PROTECTED, True),
        (JobKind.DISABLE, "running", Phase.PROTECTED, True),
        (JobKind.COMMIT, "running", Phase.COMMIT_PENDING, True),
        (JobKind.RESYNCHRONIZE, "running", Phase.RESYNCHRONIZING, False),
        (JobKind.RESYNCHRONIZE, "done", Phase.PROTECTED, False),
        (JobKind.TEST_FAILOVER, "running", Phase.PROTECTED, False),
    ],
)
def test_a_job_that_waits_for_the_end_of_replication_is_told(
    kind: JobKind, state: str, phase: Phase, waits: bool
) -> None:
    job = JobRecord.model_validate(
        {"id": "j", "kind": kind, "request_id": "r", "requested_by": "ada", "state": state, "started": NOW}
    )
    seen = status(Health(), at_work(started_s=3000, sign_s=10), phase=phase, point_age_s=10)
    seen = seen.model_copy(update={"state": seen.state.model_copy(update={"jobs": [job], "old_copy": None})})
    says = (
        f"{kind} begins when the running replication has come to its end; its worker hears of it within 1 min 15 s, "
        "a dead one is missed after 5 min"
    )
    assert seen.job_before_its_beginning == (says if waits else "")
    assert (_now(seen) == says) is waits
    idle = seen.model_copy(update={"activities": []})
    assert idle.job_before_its_beginning == ""


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


AT_RECOVERY = RecoveredMachine(
    name="db",
    site="recovery",
    network="production",
    point=RecoveryPoint(id="p", sequence=1, time=NOW),
    address="127.0.0.1:5000",
)


def recovered(as_it_was: RecoveredMachine, *, health: Health | None = None, phase: Phase) -> MachineStatus:
    over = status(health or Health(), phase=phase)
    return over.model_copy(update={"state": over.state.model_copy(update={"recovered": as_it_was, "old_copy": None})})


@pytest.mark.parametrize("phase", [Phase.COMMIT_PENDING, Phase.FAILED_OVER])
def test_a_recovered_machine_at_which_nobody_looks_any_more_is_not_called_ok(phase: Phase) -> None:
    """Powered off where it was recovered, it was ok until its replication was reversed."""
    over = recovered(AT_RECOVERY, phase=phase)
    assert (_status_row("db", over)[2], _facts(over)["health"]) == ("not known", "not known")
    assert "leeward plan" in _now(over)
    assert _status_row("db", status(Health(), phase=Phase.PROTECTED, point_age_s=1))[2] == "ok"


@pytest.mark.parametrize("phase", [Phase.COMMIT_PENDING, Phase.FAILED_OVER])
def test_a_machine_that_never_answered_where_it_was_recovered_is_warned_of(phase: Phase) -> None:
    """It stayed off, as the plan says; or a commit took the trouble of the failover from its health."""
    off = recovered(AT_RECOVERY.model_copy(update={"address": None}), phase=phase)
    assert (_status_row("db", off)[2], _facts(off)["health"]) == ("warning", "warning")
    assert off.health.reason == (
        "db has not answered since it was recovered: where it is still off, start it at recovery, and see that it "
        "answers"
    )
    assert _now(off).startswith(f"{off.health.reason}; ")
    assert "leeward plan" in _now(off)
    worse = Health(level="critical", reason="an old copy runs")
    assert recovered(off.state.recovered or AT_RECOVERY, health=worse, phase=phase).health == worse


def test_the_details_tell_since_when_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    _show_details(Output(), recovered(AT_RECOVERY, phase=Phase.FAILED_OVER))
    assert (
        "health not known: db answered at 127.0.0.1:5000 when it was recovered; from then on until replication is "
        "reversed nothing looks at it"
    ) in capsys.readouterr().out.replace("\n", " ")


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
    during = by_plan.model_copy(update={"plan_going_on": "shop"})
    assert _now(during) == "not replicated; a run of shop is going on: leeward plan watch shop"
    assert _now(status(Health(), phase=Phase.PROTECTED)) == ""


@pytest.mark.parametrize("phase", [Phase.COMMIT_PENDING, Phase.COMMITTING, Phase.FAILED_OVER, Phase.REVERSING])
def test_where_a_machine_was_failed_over_nothing_replicates_and_no_rpo_is_claimed(phase: Phase) -> None:
    over = status(Health(), phase=phase, point_age_s=1300)
    assert over.rpo_s is None
    assert not over.is_late
    assert _status_row("db", over)[5] == "not replicating"
    assert (_facts(over)["rpo_s"], _facts(over)["failed_over"]) == (None, True)


def test_while_a_failover_runs_the_rpo_is_not_known() -> None:
    """The point that the workflow remembers may be an hour older than the newest one."""
    failing = status(Health(), phase=Phase.FAILING_OVER, point_age_s=1300)
    assert failing.rpo_s is None
    assert _status_row("db", failing)[5] == "-"

    waiting = status(Health(), phase=Phase.RESYNC_REQUIRED, point_age_s=1300)
    assert waiting.rpo_s == pytest.approx(1300, abs=30)
    assert (_status_row("db", waiting)[5], _facts(waiting)["failed_over"]) == ("21 min 40 s", False)


@pytest.mark.parametrize(
    ("point_after_s", "says"),
    [
        (-90, "90 s before the failover began: what was written after that moment is not there"),
        (5, "made by the failover itself"),
    ],
)
def test_the_details_tell_the_point_that_was_used_and_what_it_lacks(
    point_after_s: float, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    began = datetime(2026, 3, 14, 9, 30, tzinfo=UTC)
    point = RecoveryPoint(id="p7", sequence=7, time=began + timedelta(seconds=point_after_s))
    failover = JobRecord(
        id="job/db/4-UnplannedFailover",
        kind=JobKind.UNPLANNED_FAILOVER,
        request_id="r",
        requested_by="ada",
        state="done",
        started=began,
    )
    over = status(Health(), phase=Phase.COMMIT_PENDING, point_age_s=1300)
    told = {"failed_over_to": point, "jobs": [failover]}
    _show_details(Output(), over.model_copy(update={"state": over.state.model_copy(update=told)}))
    shown = capsys.readouterr().out
    assert f"{failover.id}  completed  " in shown  # as `leeward jobs` calls it
    assert "newest recovery point" not in shown
    assert f"not replicating: recovered at recovery from p7, {point.time:%Y-%m-%d %H:%M:%S}Z, crash" in shown
    assert says.replace("90 s", "1 min 30 s") in shown
