"""The facts of a run as a report keeps them. Import-light: workflows send these values to the activity that writes.

They have the names of the workflow's own table but are a format of their own: a field that the workflow adds later is
ignored here until the report shows it, and a stored report stays readable when the workflow's table changes.
"""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from vault.domain import (
    Answering,
    Finding,
    MachineName,
    RecoveredMachine,
    RecoveryPoint,
    ReplicationSince,
    RunType,
    Value,
)

RECOVERIES: tuple[RunType, ...] = ("test", "planned", "unplanned", "failback")
"""Runs that recover machines; the others clean up, commit or reverse."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class RecoveryRecord(_Record):
    """What one machine's job measured."""

    sentences: list[str] = []
    point: RecoveryPoint | None = None
    recovered: RecoveredMachine | None = None
    answering: Answering | None = None
    trouble: str | None = None
    source_proven_off: bool | None = None
    outage_began: AwareDatetime | None = None
    answered_at: AwareDatetime | None = None
    bytes_sent: int = 0


class StepRecord(_Record):
    id: str
    kind: str
    name: str
    state: str
    detail: str = ""
    started: AwareDatetime | None = None
    finished: AwareDatetime | None = None
    machine: str | None = None
    output: str = ""
    result: RecoveryRecord | None = None


class StageRecord(_Record):
    id: str
    title: str
    state: str
    started: AwareDatetime | None = None
    finished: AwareDatetime | None = None
    steps: list[StepRecord] = []


class DecisionRecord(_Record):
    """What an operator decided: who, when, what, why."""

    action: str
    step: str | None = None
    machine: str | None = None
    by: str
    at: AwareDatetime
    note: str = ""

    @property
    def about(self) -> str:
        return self.machine or self.step or "the run"

    @property
    def said(self) -> str:
        """``skip of recover web/web``, ``leave out payment-db``."""
        return f"{self.action} {self.machine}" if self.machine else f"{self.action} of {self.about}"


class RunRecord(_Record):
    """One finished run. ``stages[0]`` is the check of readiness at its start."""

    plan: MachineName
    run_id: str
    run_type: RunType
    state: str
    direction: str
    requested_by: str
    started: AwareDatetime
    finished: AwareDatetime
    message: str = ""
    stages: list[StageRecord] = []
    decisions: list[DecisionRecord] = []
    note: str = ""
    readiness: list[Finding] = []
    """What the check at the start found, the worst first …"""
    readiness_left_out: int = 0
    """… and how many findings more there were."""
    replication: list[ReplicationSince] = []
    """How production replicated beside a test, until its end or its clean-up."""

    @property
    def duration_s(self) -> float:
        return (self.finished - self.started).total_seconds()


class PlanRecord(Value):
    """The plan as it ran.

    Attributes:
        sha256: of the file's bytes, hexadecimal; empty when the run was started without the file.
        text: the file; empty when it was too large to travel with the run.
        rto_s: the plan's recovery time objective.
    """

    sha256: str = ""
    text: str = ""
    rto_s: float | None = None


class MachineMeasured(Value):
    """One machine's recovery. Times are seconds; None: there is no such thing, or nobody could measure it.

    Attributes:
        recovery_time_s: from the beginning of its outage (or of the test) until it answered.
        recovery_point_age_s: how old the recovery point was at that beginning: the RPO that was achieved.
        transactions_lost: acknowledged before the outage, not on the recovered disks. Not for tests, where production
            runs on and loses nothing.
    """

    machine: MachineName
    recovered_as: str
    site: str
    network: str
    state: str
    address: str | None = None
    recovery_time_s: float | None = None
    recovery_point: AwareDatetime | None = None
    recovery_point_kind: str = ""
    recovery_point_age_s: float | None = None
    transactions_held: int | None = None
    transactions_lost: int | None = None
    transactions_damaged: int | None = None
    source_proven_off: bool | None = None
    bytes_sent: int = 0
    trouble: str = ""


class LeftOut(Value):
    """A machine that whoever started the run left out of it, and why."""

    machine: MachineName
    by: str
    at: AwareDatetime
    note: str = ""

    def __str__(self) -> str:
        return f"left out by {self.by}" + (f": {self.note}" if self.note else "")


Verdict = Literal["passed", "remarks", "failed", "refused", "cancelled"]


class Measured(Value):
    """What follows from the facts.

    Attributes:
        verdict: ``passed``, or ``remarks`` when it completed but something has to be looked at, or how it ended.
        sentences: why; the first is the headline.
        recovery_time_s: from the first machine's outage until the last group and the steps after it were done. None
            when the run recovered nothing, or not everything.
        left_out: machines of the plan that the run was to leave out: it says nothing about them.
        rto_met: None without an objective, or when there is no recovery to hold against it.
    """

    verdict: Verdict
    sentences: list[str]
    recovery_time_s: float | None = None
    rto_s: float | None = None
    rto_met: bool | None = None
    worst_point_age_s: float | None = None
    transactions_lost: int | None = None
    machines: list[MachineMeasured] = []
    left_out: list[LeftOut] = []


class Report(Value):
    """A whole report: the run, the plan it ran, and what was measured."""

    run: RunRecord
    plan: PlanRecord
    measured: Measured
