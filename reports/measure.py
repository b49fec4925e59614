"""From the facts of a run to what was achieved: recovery times, data loss, and a verdict with its reasons."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import groupby

from reports.model import (
    RECOVERIES,
    LeftOut,
    MachineMeasured,
    Measured,
    PlanRecord,
    Report,
    RunRecord,
    StepRecord,
    Verdict,
)
from vault.words import seconds

NO_LOSS_ALLOWED = ("planned", "failback")


def report_of(run: RunRecord, plan: PlanRecord) -> Report:
    return Report(run=run, plan=plan, measured=measure(run, plan))


def measure(run: RunRecord, plan: PlanRecord) -> Measured:
    machines = [_machine(run, row) for row in _recoveries(run)]
    took = _recovery_time(run)
    rto_met = took <= plan.rto_s if took is not None and plan.rto_s is not None else None
    verdict, sentences = _verdict(run, plan, machines, took, rto_met)
    ages = [machine.recovery_point_age_s for machine in machines if machine.recovery_point_age_s is not None]
    losses = [machine.transactions_lost for machine in machines if machine.transactions_lost is not None]
    return Measured(
        verdict=verdict,
        sentences=sentences,
        recovery_time_s=took,
        rto_s=plan.rto_s,
        rto_met=rto_met,
        worst_point_age_s=max(ages, default=None),
        transactions_lost=sum(losses) if losses else None,
        machines=machines,
        left_out=left_out(run),
    )


def left_out(run: RunRecord) -> list[LeftOut]:
    """The machines that the run was started without."""
    return [
        LeftOut(machine=one.machine, by=one.by, at=one.at, note=one.note)
        for one in run.decisions
        if one.action == "leave out" and one.machine is not None
    ]


def _recoveries(run: RunRecord) -> list[StepRecord]:
    """The rows in which a machine was made from a recovery point."""
    return [
        row
        for stage in run.stages
        for row in stage.steps
        if row.machine is not None and row.result is not None and row.result.recovered is not None
    ]


def _machine(run: RunRecord, row: StepRecord) -> MachineMeasured:
    result = row.result
    assert result is not None and result.recovered is not None and row.machine is not None
    made, answering, point = result.recovered, result.answering, result.point or result.recovered.point
    found = answering.transactions if answering else None
    is_test = run.run_type == "test"
    return MachineMeasured(
        machine=row.machine,
        recovered_as=made.name,
        site=made.site,
        network=made.network,
        state=row.state,
        address=answering.address if answering else None,
        recovery_time_s=_between(result.outage_began, result.answered_at),
        recovery_point=point.time,
        recovery_point_kind=point.kind.value,
        # The last changes of a planned failover are sent after its outage began: then nothing is missing.
        recovery_point_age_s=None if (age := _between(point.time, result.outage_began)) is None else max(0.0, age),
        transactions_held=found.held_at_boot if found else None,
        transactions_lost=found.lost if found and not is_test else None,
        transactions_damaged=found.damaged if found else None,
        source_proven_off=result.source_proven_off,
        bytes_sent=result.bytes_sent,
        trouble=result.trouble or "",
    )


def _between(start: datetime | None, end: datetime | None) -> float | None:
    return (end - start).total_seconds() if start and end else None


def _recovery_time(run: RunRecord) -> float | None:
    """From the first outage to the end of the last stage that recovered machines, if the run came to its end."""
    rows = {row.id: row.result for row in _recoveries(run)}
    began = [result.outage_began for result in rows.values() if result and result.outage_began]
    recovering = [stage for stage in run.stages if any(row.id in rows for row in stage.steps)]
    ended = [stage.finished for stage in recovering if stage.finished]
    everything = all(row.state == "done" for stage in recovering for row in stage.steps if row.machine is not None)
    if run.state != "completed" or left_out(run) or not everything or not began or not ended:
        return None
    return (max(ended) - min(began)).total_seconds()


def _verdict(
    run: RunRecord, plan: PlanRecord, machines: list[MachineMeasured], took: float | None, rto_met: bool | None
) -> tuple[Verdict, list[str]]:
    problems = list(_problems(run, machines))
    if run.state in {"refused", "cancelled"}:
        verdict: Verdict = "refused" if run.state == "refused" else "cancelled"
        return verdict, [*(run.message.splitlines() or [f"the run was {run.state}"]), *problems]
    if run.state != "completed":
        return "failed", [run.message or f"the run {run.state}", *problems]
    remarks = list(dict.fromkeys(_remarks(run, plan, took, rto_met)))
    if problems:
        return "failed", [*problems, *remarks]
    if remarks:
        return "remarks", remarks
    return "passed", [_success(run, machines, took)]


def _problems(run: RunRecord, machines: list[MachineMeasured]) -> Iterator[str]:
    for machine in machines:
        if machine.transactions_damaged:
            yield f"{machine.machine}: {machine.transactions_damaged} damaged transactions on the recovered disks"
        if machine.transactions_lost and run.run_type in NO_LOSS_ALLOWED:
            yield f"{machine.machine}: {machine.transactions_lost} acknowledged transactions lost, none may be"
        if machine.trouble:
            yield f"{machine.machine}: {machine.trouble}"


def _remarks(run: RunRecord, plan: PlanRecord, took: float | None, rto_met: bool | None) -> Iterator[str]:
    gone = left_out(run)
    for words, same in groupby(gone, key=str):
        yield f"not recovered: {', '.join(one.machine for one in same)}, {words}"
    if gone and plan.rto_s is not None:
        yield f"the plan's recovery time, objective {seconds(plan.rto_s)}, is not told by a run without all machines"
    if rto_met is False and took is not None and plan.rto_s is not None:
        yield f"recovery took {seconds(took)}, the objective is {seconds(plan.rto_s)}"
    for one in run.replication:
        if one.worst_age_s is None:
            yield f"whether replication of {one.machine} was undisturbed is not known: {one.trouble}"
        elif one.was_late:
            yield (
                f"replication of {one.machine} was late beside the test: its newest recovery point was up to "
                f"{seconds(one.worst_age_s)} old, it should not be older than {seconds(one.late_after_s)}"
            )
    for stage in run.stages:
        for row in stage.steps:
            if row.kind == "machine" and row.machine in {one.machine for one in gone}:
                continue
            if row.state in {"failed", "skipped", "cancelled"}:
                how = "failed and the run went on" if row.state == "failed" else f"was {row.state}"
                yield f"'{row.name}' {how}" + (f": {row.detail.splitlines()[0][:200]}" if row.detail else "")


def _success(run: RunRecord, machines: list[MachineMeasured], took: float | None) -> str:
    if run.run_type not in RECOVERIES:
        return f"the {run.run_type} run completed, every step done{_undisturbed(run)}"
    objective = f" in {seconds(took)}" if took is not None else ""
    done = f"{len(machines)} machine{'s' if len(machines) != 1 else ''} recovered{objective}, every step done"
    return done + _undisturbed(run)


def _undisturbed(run: RunRecord) -> str:
    ages = [one.worst_age_s for one in run.replication if one.worst_age_s is not None]
    if not ages:
        return ""
    return f"; replication undisturbed: no newest recovery point was ever older than {seconds(max(ages))}"
