"""What goes into and comes out of workflows, updates, signals and queries. Import-light, all immutable values."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AwareDatetime, Field, model_validator

from plans.context import MachineInRun, RunContext
from plans.model import Plan
from plans.stages import Stage
from plans.steps import Direction, OnFailure, Scalar
from vault.access import Access
from vault.domain import (
    LATEST,
    Answering,
    Finding,
    MachineName,
    RecoveredMachine,
    RecoveryPoint,
    Relationship,
    ReplicationSince,
    RunType,
    TargetSettings,
    Value,
)
from vault.inventory import Policy
from vault.lifecycle import JobKind, Phase
from vault.limits import FailoverLimits
from vault.notifications import Delivery, Webhook


class Timings(Value):
    """How long things may take. Values are seconds; ``time_scale`` shortens waits between retries (lab only)."""

    time_scale: float = 1.0
    heartbeat_s: float = 30
    decision_s: float = 10
    """A control worker that dies while it decides what a workflow does next is missed after so long."""
    site_answer_s: float = 60
    """A site is unreachable when none of its workers takes a task for so long."""
    shut_down_s: float = 300
    boot_s: float = 600
    old_copy_s: float = 15
    """How often a worker of the old site looks whether a copy that was failed over has come back."""


class JobRequest(Value):
    """Ask a machine to run one lifecycle job.

    ``id`` makes the request idempotent: the same id never runs twice. ``reply_to`` names the workflow that gets
    :class:`JobEvent` signals.
    """

    id: str
    kind: JobKind
    requested_by: str
    plan: str | None = None
    run_type: RunType | None = None
    reply_to: str | None = None
    point: str = LATEST
    source_unreachable: bool = False
    checked: bool = False
    """Whoever asks has just checked both sites for this machine: the job need not do so again."""
    hold_before_start: bool = False
    """Planned failover: after the last changes were sent, wait until told to proceed (or to abandon)."""
    start: bool = True
    """False: the machine is made at the target and stays off."""
    target: TargetSettings | None = None
    """How the recovered machine is to be."""
    run_id: str = ""
    """The plan run that asks: a test copy is named after it."""
    execution: str = ""
    """Temporal's id of that run: a held failover looks whether it goes on."""
    of_run: str | None = None
    """Clean up what this run of the plan made; None: what any of its runs made, without a plan everything."""
    shut_down_timeout_s: float | None = None
    boot_timeout_s: float | None = None


class JobResult(Value):
    """What a job did, with the evidence."""

    sentences: list[str] = []
    """What was done, in an operator's words, in order."""
    point: RecoveryPoint | None = None
    recovered: RecoveredMachine | None = None
    answering: Answering | None = None
    trouble: str | None = None
    """Set when the job's point of no return was passed but something after it went wrong."""
    source_proven_off: bool | None = None
    outage_began: AwareDatetime | None = None
    answered_at: AwareDatetime | None = None
    bytes_sent: int = 0

    @property
    def recovered_at(self) -> RecoveredMachine | None:
        """The recovered machine with the address at which it answered."""
        if self.recovered is None or self.answering is None:
            return self.recovered
        return self.recovered.model_copy(update={"address": self.answering.address})


class CopyName(Value):
    """A test copy, and the run whose networks it is on."""

    machine: str
    run_id: str = ""


class JobInput(Value):
    """Input of every job workflow."""

    request: JobRequest
    relationship: Relationship
    reverse: Relationship
    """The relationship after the direction has changed."""
    policy: Policy
    timings: Timings
    failed_over_to: RecoveryPoint | None = None
    """What commit commits to."""
    copies: list[CopyName] = []
    """The test copies to clean up; for a test failover those that there are already, for another failover those that
    are removed beside it."""

    @model_validator(mode="before")
    @classmethod
    def _one_copy_of_old(cls, given: Any) -> Any:
        """Jobs begun before there could be several copies have the name of the one."""
        if isinstance(given, dict) and "test_machine" in given:
            machine = given["test_machine"]
            given = {key: value for key, value in given.items() if key != "test_machine"}
            return {**given, "copies": [{"machine": machine}] if machine else []}
        return given


class JobEvent(Value):
    """A machine's answer to a request that had ``reply_to``."""

    request_id: str
    machine: str
    kind: Literal["refused", "held", "finished", "failed"]
    message: str = ""
    phase: Phase
    result: JobResult | None = None


class JobRecord(Value):
    """A job as the machine remembers it."""

    id: str
    kind: JobKind
    request_id: str
    requested_by: str
    plan: str | None = None
    state: Literal["running", "held", "done", "failed"]
    started: AwareDatetime
    finished: AwareDatetime | None = None
    message: str = ""


class Health(Value):
    level: Literal["ok", "warning", "critical"] = "ok"
    reason: str = ""


class TestCopy(Value):
    """A test failover that has not been cleaned up yet."""

    __test__ = False

    machine: str
    site: str
    network: str
    point: RecoveryPoint
    plan: str | None = None
    run_id: str = ""
    made: AwareDatetime | None = None

    @property
    def name(self) -> CopyName:
        return CopyName(machine=self.machine, run_id=self.run_id)

    def is_of(self, plan: str | None, run_id: str | None) -> bool:
        """Whether a clean-up for a plan, or for one of its runs, means it."""
        if run_id is not None:
            return self.run_id == run_id
        return plan is None or self.plan is None or self.plan == plan


def _as_list_of_copies(given: Any) -> Any:
    """Values of before there could be several test copies have ``test``: the one, or none."""
    if isinstance(given, dict) and "test" in given:
        one = given["test"]
        given = {key: value for key, value in given.items() if key != "test"}
        return {**given, "tests": [one] if one is not None else []}
    return given


class OldCopy(Value):
    """The copy at the old site that nobody saw off when its machine was failed over: its host may come back with it.

    Attributes:
        machine: its name at that site.
        stopped: how often it ran again and was powered off.
    """

    site: str
    machine: str
    stopped: int = 0
    last_stopped: AwareDatetime | None = None


class StoryLine(Value):
    """Something that happened to a machine outside of its jobs."""

    at: AwareDatetime
    what: str


class MachineState(Value):
    """Everything that the machine's workflow knows; it survives continue-as-new as this one value."""

    name: MachineName
    forward: Relationship
    backward: Relationship
    policy: Policy
    timings: Timings
    access: Access | None = None
    """Who may ask this machine for jobs; None: everybody."""
    phase: Phase = Phase.UNPROTECTED
    reversed: bool = False
    """False: it runs at its home site and replicates forward. True: the other way round."""
    health: Health = Health()
    halted: bool = False
    """Replication stopped by an error that is not recoverable; waits for the operator."""
    tests: list[TestCopy] = []
    last_point: RecoveryPoint | None = None
    failed_over_to: RecoveryPoint | None = None
    recovered: RecoveredMachine | None = None
    old_copy: OldCopy | None = None
    """It is watched from the commit pending on, until reverse replication takes it over."""
    story: list[StoryLine] = Field(default=[], max_length=20)
    webhooks: list[Webhook] = []
    jobs_started: int = 0
    jobs: list[JobRecord] = Field(default=[], max_length=20)
    seen_requests: list[str] = Field(default=[], max_length=50)

    _load_old = model_validator(mode="before")(_as_list_of_copies)

    @property
    def relationship(self) -> Relationship:
        return self.backward if self.reversed else self.forward

    @property
    def reverse_relationship(self) -> Relationship:
        return self.forward if self.reversed else self.backward

    @property
    def active_site(self) -> str:
        """Where the machine's production copy is (or should be) running."""
        if self.phase in {Phase.COMMIT_PENDING, Phase.COMMITTING, Phase.FAILED_OVER, Phase.REVERSING}:
            return self.relationship.target_site
        return self.relationship.source_site

    @property
    def recovered_by(self) -> str:
        """Who asked for the failover that brought it to where it is; empty when that is not known any more."""
        kinds = {JobKind.PLANNED_FAILOVER, JobKind.UNPLANNED_FAILOVER}
        asked = [job.requested_by for job in self.jobs if job.kind in kinds and job.state == "done"]
        return asked[-1] if asked else ""


class MachineSettings(Value):
    """What the inventory says about a machine, as the machine's workflow takes it over."""

    name: MachineName
    forward: Relationship
    backward: Relationship
    policy: Policy
    timings: Timings
    access: Access | None = None
    webhooks: list[Webhook] = []


class JobAccepted(Value):
    job_id: str
    """The id of the job's workflow."""


class HeldJob(Value):
    """Tells a held job to go on, or to undo what it did."""

    request_id: str
    reply_to: str | None = None
    reason: str = ""


class DescribeTo(Value):
    """Ask a machine to signal its description to a workflow."""

    reply_to: str


class MachineDescribed(Value):
    machine: str
    phase: Phase
    reversed: bool
    relationship: Relationship
    tests: list[TestCopy] = []
    tests_in_making: list[str] = []
    """Names of test copies that are being made, or removed again because that failed."""
    recovered: RecoveredMachine | None = None
    health: Health
    recovered_by: str = ""

    _load_old = model_validator(mode="before")(_as_list_of_copies)

    @property
    def copies(self) -> set[str]:
        """Names of all test copies that take room at the target."""
        return {copy.machine for copy in self.tests} | set(self.tests_in_making)

    @property
    def active_site(self) -> str:
        """Where its production copy is."""
        return self.recovered.site if self.recovered is not None else self.relationship.source_site


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

    action: Literal["approve", "retry", "skip", "pause", "resume", "cancel"]
    step: str | None = None
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
    """Who may steer the run; None: everybody."""
    webhooks: list[Webhook] = []
    limits: FailoverLimits = FailoverLimits()
    deliver: list[Delivery] = []
    """Where its report is brought."""
    of_run: str | None = None
    """Clean-up: only what this run made."""
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

    def context(self, group: str, machines: dict[str, MachineInRun]) -> RunContext:
        return RunContext(
            plan=self.plan,
            run_id=self.run_id,
            run_type=self.run_type,
            direction=self.direction,
            group=group,
            variables=self.variables,
            machines=machines,
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


class StageResult(Value):
    row: StageRow
    machines: dict[str, MachineInRun] = {}
    held: dict[str, str] = {}
    already: dict[str, str] = {}
    """With those that another run did meanwhile."""


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
    stages: list[StageRow] = []
    decisions: list[Decision] = []
    note: str = ""
    replication: list[ReplicationSince] = []
    """How production replicated beside a test, until its end or its clean-up."""
    report: str = ""
    """The report's HTML file on the control worker's host, or why there is none; empty until the run has ended."""


class ExerciseRequest(Value):
    """A test failover that nobody watches, with its clean-up."""

    plan: Plan
    requested_by: str
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
