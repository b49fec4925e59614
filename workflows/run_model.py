"""What runs of plans are asked, keep and tell, and their operators' words. Import-light, all immutable values."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime

from plans.context import MachineInRun, RunContext
from plans.model import Plan
from plans.stages import Stage
from plans.steps import Direction, OnFailure, Scalar
from vault.access import Access
from vault.domain import LATEST, Finding, MachineName, Relationship, ReplicationSince, RunType, TargetSettings, Value
from vault.limits import FailoverLimits
from vault.notifications import Delivery, Webhook
from workflows.job_model import JobResult, Timings
from workflows.machine_model import MachineDescribed


class Steer(Value):
    """An operator's decision about one step of a plan run. ``step`` is the id of its row."""

    action: Literal["approve", "retry", "skip"]
    step: str
    by: str
    note: str = ""


class Cancel(Value):
    by: str
    note: str = ""


class GiveWay(Value):
    """A test or a clean-up ends at once, because a failover of the plan is wanted."""

    by: str
    run_type: RunType


class Pause(Value):
    """Begin no further step until resumed; what runs is finished."""

    by: str
    note: str = ""


class Decision(Value):
    """A steering that happened: who, when, what."""

    action: Literal["approve", "retry", "skip", "pause", "resume", "cancel", "leave out"]
    step: str | None = None
    machine: str | None = None
    """Of a machine that is left out of the run."""
    by: str
    at: AwareDatetime
    note: str = ""


StepState = Literal["pending", "running", "waiting", "failed", "done", "skipped", "cancelled", "refused"]


class StepRow(Value):
    """One line of a run's step table."""

    id: str
    """``<stage>/<step>``: what approve, retry and skip take."""
    kind: Literal["machine", "script", "manual", "check", "call", "wait", "readiness"]
    name: str
    state: StepState = "pending"
    waits: bool = False
    """It waits for an operator: to approve it, or to retry or skip it after a failure."""
    detail: str = ""
    started: AwareDatetime | None = None
    finished: AwareDatetime | None = None
    machine: str | None = None
    output: str = ""
    result: JobResult | None = None


class StageRow(Value):
    """One stage of a run: a group being shut down, recovered, committed …"""

    id: str
    title: str
    state: StepState = "pending"
    started: AwareDatetime | None = None
    finished: AwareDatetime | None = None
    steps: list[StepRow] = []


class PlanRequest(Value):
    """Start one run of a plan."""

    plan: Plan
    run_id: str
    run_type: RunType
    requested_by: str
    point: str = LATEST
    source_unreachable: bool = False
    timings: Timings = Timings()
    auto_approve: bool = False
    """Manual steps approve themselves: exercises that nobody watches."""
    access: Access | None = None
    """Who may start and steer the run; None: everybody."""
    webhooks: list[Webhook] = []
    limits: FailoverLimits = FailoverLimits()
    deliver: list[Delivery] = []
    """Where its report is brought."""
    of_run: str | None = None
    """Clean-up: only what this run made."""
    without: list[MachineName] = []
    """Machines that the run leaves out; ``note`` says why."""
    note: str = ""
    """What whoever started it has to say; kept with the run."""
    plan_text: str = ""
    """The plan's file, for the report; empty when it is too large to travel."""
    plan_sha256: str = ""


class RunFacts(Value):
    """What every stage of a run has to know about the run."""

    plan: str
    run_id: str
    run_type: RunType
    direction: Direction
    requested_by: str
    point: str
    source_unreachable: bool
    timings: Timings
    variables: dict[str, Scalar]
    auto_approve: bool = False
    of_run: str | None = None
    checked_at: AwareDatetime | None = None
    """When the run's readiness check found both sites ready for all of its machines."""
    left_out: dict[MachineName, str] = {}
    """By machine that the run passes over: why, as its rows say."""

    def context(self, group: str, machines: dict[str, MachineInRun]) -> RunContext:
        return RunContext(
            plan=self.plan,
            run_id=self.run_id,
            run_type=self.run_type,
            direction=self.direction,
            group=group,
            variables=self.variables,
            machines=machines,
            left_out=list(self.left_out),
        )


class StageInput(Value):
    facts: RunFacts
    stage: Stage
    row_id: str
    plan_on_failure: OnFailure
    group_on_failure: OnFailure | None = None
    machines: dict[str, MachineInRun] = {}
    """Machines that earlier stages recovered."""
    held: dict[str, str] = {}
    """Machines that hold their planned failover → request id."""
    paused: bool = False

    already: dict[str, str] = {}
    """By machine: that another run has done it already."""
    machines_at_once: int | None = None
    """The plan's own limit."""
    sites: dict[str, str] = {}
    """By machine: the site with a limit that it is failed over to."""
    failovers_at_once: dict[str, int] = {}
    """By site: its limit, shared with all other runs."""
    silent_sites: list[str] = []
    """Those whose workers took nothing in earlier stages."""


class StageResult(Value):
    row: StageRow
    machines: dict[str, MachineInRun] = {}
    held: dict[str, str] = {}
    already: dict[str, str] = {}
    """With those that another run did meanwhile."""
    silent_sites: list[str] = []
    """With those that were silent in this stage."""


class ReadinessInput(Value):
    facts: RunFacts
    machines: list[str]
    look_at_everything: bool = False
    """Ask the sites even when the machines' phases already speak against the run."""
    targets: dict[str, TargetSettings] = {}
    """By machine: how it is to be at its recovery site."""

    def shaped(self, described: MachineDescribed) -> Relationship:
        """The machine's relationship as this run wants it; on the way back machines are what they were."""
        target = None if described.reversed else self.targets.get(described.machine)
        return described.relationship.shaped(target, isolated=self.facts.run_type == "test")


class Readiness(Value):
    row: StageRow
    direction: Direction | None = None
    problems: list[str] = []
    findings: list[Finding] = []
    """Everything that was looked at, the good with the bad."""
    machines: dict[str, MachineInRun] = {}
    already: dict[str, str] = {}
    """By machine: that another run has done it already."""
    not_recovered: dict[str, str] = {}
    """By machine: that there is nothing to commit, reverse or clean up, because no run has recovered it."""
    replicating: list[Relationship] = []
    """A test and its clean-up: what replicates beside them …"""
    tested_since: AwareDatetime | None = None
    """… and since when the copies that are cleaned up have been there."""
    point: str | None = None
    """The one moment for all machines, when the run asked for the newest of a consistency group."""


class StageNews(Value):
    """What changed in a stage's table, sent to the run: ``row.steps`` has the changed rows only."""

    row: StageRow
    run_id: str = ""
    """Whose stage it is: another run of the plan may have begun meanwhile."""


RunState = Literal["running", "waiting", "paused", "completed", "failed", "refused", "cancelled"]


class RunStatus(Value):
    """The whole table of a plan run, for ``plan status``, ``plan watch`` and reports."""

    plan: str
    run_id: str
    run_type: RunType
    state: RunState
    direction: Direction
    requested_by: str
    started: AwareDatetime
    finished: AwareDatetime | None = None
    message: str = ""
    """How it ended; of a refused run one line for each of its ``problems``."""
    problems: list[str] = []
    way_out: str = ""
    """Of a refused run: how to recover the machines that nothing speaks against."""
    stages: list[StageRow] = []
    decisions: list[Decision] = []
    note: str = ""
    replication: list[ReplicationSince] = []
    """How production replicated beside a test, until its end or its clean-up."""

    report: str = ""
    """The report's HTML file on the control worker's host, or why there is none; empty until the run has ended."""

    @property
    def left_out(self) -> list[str]:
        """Machines that whoever started it left out."""
        return [one.machine for one in self.decisions if one.action == "leave out" and one.machine is not None]


class ExerciseRequest(Value):
    """A test failover that nobody watches, with its clean-up."""

    plan: Plan
    requested_by: str
    set_by: str = ""
    """Whose schedule it is: who has to have the roles for what it does."""
    access: Access | None = None
    """As in :class:`PlanRequest`: of the moment when the exercise was scheduled."""
    timings: Timings = Timings()
    auto_approve: bool = False
    clean_up: bool = True
    webhooks: list[Webhook] = []
    limits: FailoverLimits = FailoverLimits()
    deliver: list[Delivery] = []
    """Where both reports, of the test and of the clean-up, are brought."""
    plan_text: str = ""
    """As in :class:`PlanRequest`: of the file as it was when the exercise was scheduled."""
    plan_sha256: str = ""


class ExerciseResult(Value):
    test: RunStatus | None
    cleanup: RunStatus | None = None
