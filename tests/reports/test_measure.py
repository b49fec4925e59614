"""What follows from the facts of a run: times, losses, the verdict."""

from __future__ import annotations

from datetime import timedelta

import pytest
from samples import START, at, planned_report, planned_run, recovered, stage, step, test_run

from reports.measure import measure, report_of
from reports.model import PlanRecord, Report
from reports.trend import readiness
from vault.domain import Severity
from vault.words import seconds

pytestmark = pytest.mark.unit


def one_machine(run_type: str, result: dict[str, object], state: str = "completed", **more: object):
    rows = stage("recover g", 5, 50, step("machine", "db", 5, 50, result=result))
    return planned_run(run_type=run_type, state=state, stages=[rows], **more)


def test_the_plans_recovery_time_is_from_the_first_outage_to_the_end_of_the_last_groups_steps() -> None:
    measured = planned_report().measured
    assert measured.recovery_time_s == pytest.approx(240 - 2.1)
    assert measured.rto_met is True
    assert measured.verdict == "passed"
    assert {machine.machine: machine.recovery_time_s for machine in measured.machines} == {
        "payment-db": pytest.approx(57.5),
        "web": pytest.approx(91.9),
    }


def test_a_missed_objective_is_a_remark_that_says_both_times() -> None:
    measured = planned_report(rto_s=200).measured
    assert (measured.verdict, measured.rto_met) == ("remarks", False)
    assert measured.sentences == ["recovery took 3 min 58 s, the objective is 3 min 20 s"]


def test_the_age_of_a_recovery_point_is_measured_at_the_outage_and_never_negative() -> None:
    run = one_machine("unplanned", recovered("db", outage=20, answered=49, point=-7.5, lost=31))
    (machine,) = measure(run, PlanRecord()).machines
    assert (machine.recovery_point_age_s, machine.transactions_lost) == (27.5, 31)
    late = one_machine("planned", recovered("db", outage=20, answered=49, point=25))
    assert measure(late, PlanRecord()).machines[0].recovery_point_age_s == 0


@pytest.mark.parametrize(
    ("run_type", "verdict"), [("planned", "failed"), ("failback", "failed"), ("unplanned", "passed")]
)
def test_loss_fails_only_runs_that_promise_none(run_type: str, verdict: str) -> None:
    measured = measure(one_machine(run_type, recovered("db", 6, 40, point=0, lost=3)), PlanRecord())
    assert (measured.verdict, measured.transactions_lost) == (verdict, 3)


def test_a_test_loses_nothing_because_production_runs_on() -> None:
    report = test_run(0, 40)
    assert report.measured.transactions_lost is None
    assert report.measured.machines[0].transactions_held == 988


def test_damage_fails_every_run() -> None:
    measured = measure(one_machine("unplanned", recovered("db", 6, 40, point=0, damaged=2)), PlanRecord())
    assert measured.verdict == "failed"
    assert "2 damaged" in measured.sentences[0]


def test_a_machine_that_failed_leaves_the_plan_without_a_recovery_time() -> None:
    trouble = recovered("db", 6, None, point=0, trouble="it does not answer")
    rows = stage("recover g", 5, 50, step("machine", "db", 5, 50, result=trouble, state="skipped", detail="skipped"))
    measured = measure(planned_run(stages=[rows]), PlanRecord(rto_s=60))
    assert (measured.recovery_time_s, measured.rto_met, measured.verdict) == (None, None, "failed")


@pytest.mark.parametrize(
    ("state", "verdict"), [("failed", "failed"), ("cancelled", "cancelled"), ("refused", "refused")]
)
def test_a_run_that_did_not_complete_says_so_first(state: str, verdict: str) -> None:
    measured = measure(planned_run(state=state, message="stopped at 'recover web'"), PlanRecord())
    assert measured.verdict == verdict
    assert measured.sentences[0] == "stopped at 'recover web'"
    assert measured.recovery_time_s is None


def test_steps_that_failed_or_were_skipped_are_named() -> None:
    rows = stage(
        "recover g",
        5,
        50,
        step("machine", "db", 5, 40, result=recovered("db", 5, 39, point=0)),
        step("script", "Warm the cache", 40, 50, state="failed", detail="exit code 3\nmore"),
    )
    measured = measure(planned_run(stages=[rows]), PlanRecord())
    assert measured.sentences == ["'Warm the cache' failed and the run went on: exit code 3"]
    assert measured.verdict == "remarks"


def test_readiness_is_a_pass_only_for_a_recent_good_test_within_its_objective() -> None:
    now, month = at(86400 * 20), timedelta(days=30)

    def standing(*runs):
        (plan,) = readiness(runs, now, month)
        return plan.standing, plan.why

    assert standing(test_run(0, 40))[0] is Severity.PASS
    assert standing(test_run(0, 70)) == (Severity.FAIL, "the last test missed the recovery time objective")
    assert standing(planned_report()) == (Severity.FAIL, "never tested with success")
    assert standing(test_run(0, 40), test_run(1, 40, state="failed")) == (
        Severity.FAIL,
        "the last test ended as failed",
    )
    (old,) = readiness([test_run(0, 40)], START + timedelta(days=31), month)
    assert (old.standing, old.why) == (Severity.WARN, "the last test is older than 30 d")


LEFT_OUT = {"action": "leave out", "machine": "payment-db", "by": "olga", "at": at(0), "note": "damaged, ticket 4711"}


def without_its_database(run_type: str) -> Report:
    """A run as good as it can be without one of its machines."""
    gone = step("machine", "payment-db", None, None, state="skipped", detail="left out by olga: damaged, ticket 4711")
    web = step("machine", "web", 5, 40, result=recovered("web", 5, 39, point=0))
    run = planned_run(
        run_type=run_type,
        decisions=[LEFT_OUT],
        stages=[stage("recover database", 2, 5, gone), stage("recover web", 5, 50, web)],
    )
    return report_of(run, PlanRecord(rto_s=300))


def test_a_run_without_one_of_its_machines_passes_with_remarks_and_tells_no_time_of_the_plan() -> None:
    measured = without_its_database("unplanned").measured
    assert (measured.verdict, measured.recovery_time_s, measured.rto_met) == ("remarks", None, None)
    assert measured.sentences == [
        "not recovered: payment-db, left out by olga: damaged, ticket 4711",
        "the plan's recovery time, objective 5 min, is not told by a run without all machines",
    ]
    assert [(one.machine, str(one)) for one in measured.left_out] == [
        ("payment-db", "left out by olga: damaged, ticket 4711")
    ]
    assert [one.recovery_time_s for one in measured.machines] == [34]


def test_a_test_without_one_of_its_machines_is_no_good_test_of_the_plan() -> None:
    def standing(*runs: Report) -> tuple[Severity, str]:
        (plan,) = readiness(runs, at(86400), timedelta(days=30))
        return plan.standing, plan.why

    partial = without_its_database("test")
    assert standing(partial) == (Severity.FAIL, "never tested with all of its machines")
    assert standing(test_run(-1, 40), partial) == (Severity.WARN, "the last test was one without payment-db")
    assert standing(test_run(-1, 70), partial)[0] is Severity.FAIL, "the good one missed its objective"


def test_the_trend_compares_the_newest_test_with_the_usual_one() -> None:
    def words(*times: float) -> str:
        runs = [test_run(number, took) for number, took in enumerate(times)]
        return readiness([planned_report(), *runs], at(0), timedelta(days=1))[0].trend_words

    assert words(40) == "-"
    assert words(40, 41) == "steady"
    assert words(40, 40, 50) == "25 % slower"
    assert words(40, 40, 30) == "25 % faster"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (4.24, "4.2 s"), (200, "3 min 20 s"), (300, "5 min"), (7500, "2 h 5 min"), (273600, "3 d 4 h")],
)
def test_time_spans_read_as_people_say_them(value: float | None, text: str) -> None:
    assert seconds(value) == text
