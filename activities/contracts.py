"""What activities are called, what goes in and what comes out. Workflows import this and nothing else of activities.

Import-light on purpose: this module is loaded inside the workflow sandbox.
"""

from __future__ import annotations

from typing import Generic, Literal, NamedTuple, TypeVar

from pydantic import AwareDatetime, JsonValue

from plans.context import MachineInRun, RunContext
from plans.steps import CallStep, CheckStep, ManualStep, ScriptStep
from plans.timetables import Timetable
from reports.model import PlanRecord, RunRecord, StageRecord
from vault.domain import (
    LATEST,
    Answering,
    CacheFill,
    Finding,
    PowerState,
    Progress,
    RecoveredMachine,
    RecoveryPoint,
    Relationship,
    ReplicaSpace,
    ReplicationSince,
    RunType,
    Value,
)
from vault.notifications import Delivery, Occasion, Webhook

Input = TypeVar("Input", bound=Value)
Output = TypeVar("Output", bound=Value)

CONTROL_QUEUE = "control"
WORKER_LEAVING = "WorkerLeaving"
"""The type of the failure with which a worker that shuts down gives a running activity back."""


def site_queue(site: str) -> str:
    """Adapters, near the fabric, with that site's credentials."""
    return f"site.{site}"


def replication_queue(site: str) -> str:
    """The data plane at a site; add worker processes to scale out."""
    return f"replication.{site}"


class ActivityCall(NamedTuple, Generic[Input, Output]):
    """The typed name of an activity."""

    name: str
    takes: type[Input]
    gives: type[Output]


class Done(Value):
    """Nothing to say but that it is done."""


class Ended(Value):
    """``left``: what stays or goes on all the same, and why."""

    left: str | None = None


class OfRelationship(Value):
    relationship: Relationship


class Findings(Value):
    findings: list[Finding]
    replica_servers: dict[str, str] = {}
    """Where the target's fabric places the replicas of the machines that nothing stands in the way of, when it chooses
    that itself."""
    replica_space: dict[str, ReplicaSpace] = {}
    """What replicas of the machines will take at the target, where the source has to say it."""
    identities: dict[str, str] = {}
    """By what the source's fabric knows the machines whose copies at the target become their replicas."""


class ReadinessQuestion(Value):
    """Ask one site about many machines at once. ``side`` says which end of each relationship the site is.

    ``point``: the recovery point that is going to be chosen; the target says whether each machine has it.
    """

    site: str
    side: Literal["source", "target"]
    relationships: list[Relationship]
    point: str = LATEST
    recovering: bool = False
    """Machines are about to be made from that point, also when it is the newest."""
    tested: list[str] = []
    """Machines that are going to be tested and have a test copy already."""
    leaving: list[str] = []
    """Test copies at the site that are removed before the run needs their room."""
    moving: list[str] = []
    """All machines of the run that is going to move them; empty: nothing is moved, or no run asks."""
    left_out: list[str] = []
    """Machines of the plan that this run leaves out."""
    protecting: bool = False
    """They are going to be protected: nothing is replicated yet."""


class Replicate(Value):
    """Steady-state replication: cycles until asked to stop, until a resync is needed or for ``run_for_s``."""

    relationship: Relationship
    run_for_s: float = 3600


class ReplicationStopped(Value):
    reason: Literal["time-is-up", "asked", "resync-required"]
    detail: str = ""
    last_point: RecoveryPoint | None = None
    cycles: int = 0
    bytes_sent: int = 0


class Waiting(Value):
    """The target does not take changes: they wait at the source, and sending is tried again by the retry schedule."""

    reason: str
    failures: int
    next_try: AwareDatetime
    cut_at: AwareDatetime
    """When the last cut was kept, or refused because the cache was full."""
    cache: CacheFill


class ReplicationPulse(Value):
    """Heartbeat of steady-state replication: what ``leeward status`` shows, and what a resumed try starts from."""

    last_point: RecoveryPoint | None = None
    last_app_consistent: AwareDatetime | None = None
    cycles: int = 0
    bytes_sent: int = 0
    progress: Progress | None = None
    waiting: Waiting | None = None
    healthy_at_attempt: int = 1
    """The attempt in which the last cycle succeeded: failures in a row are counted from there."""


class PointMade(Value):
    point: RecoveryPoint
    bytes_sent: int = 0


class PointList(Value):
    points: list[RecoveryPoint]


class PointQuestion(Value):
    """Which of a machine's recovery points does ``choice`` mean?"""

    relationship: Relationship
    choice: str


class PointChosen(Value):
    """``choice`` means the same moment for every machine of the group, whenever it is resolved."""

    choice: str
    point: RecoveryPoint


class FailOver(Value):
    relationship: Relationship
    choice: str
    leaving: list[str] = []
    """Test copies that are being removed: their room is waited for."""


class StartTest(Value):
    """``run_id``: the copy gets isolated networks of this run's own where the fabric can make them; empty: never."""

    relationship: Relationship
    choice: str
    name: str
    run_id: str = ""


class EndTest(Value):
    relationship: Relationship
    name: str
    run_id: str = ""


class ReplicationQuestion(Value):
    """How did these machines, all replicated to ``site``, replicate between two moments?"""

    site: str
    relationships: list[Relationship]
    since: AwareDatetime
    until: AwareDatetime


class ReplicationAnswer(Value):
    machines: list[ReplicationSince]


class CommitPoint(Value):
    relationship: Relationship
    point_id: str


class ShutDown(Value):
    site: str
    machine: str
    timeout_s: float


class PowerSeen(Value):
    power: PowerState


class StartMachine(Value):
    """Power on and wait until the machine answers."""

    site: str
    machine: str
    timeout_s: float


class WatchOldCopy(Value):
    """Keep a copy that was failed over off production. ``every_s``: between two looks; ``run_for_s``: then end."""

    site: str
    machine: str
    every_s: float
    run_for_s: float


class OldCopyWatched(Value):
    """``stopped``: it ran and was powered off; None: its time was over and the copy was never seen running."""

    stopped: str | None = None
    """What was seen and done."""


class RunQuestion(Value):
    """Does this very run of a workflow go on? ``execution`` is Temporal's id of the run."""

    workflow_id: str
    execution: str


class WorkflowsQuestion(Value):
    """Ask each of these workflows the same query."""

    ids: list[str]
    query: str


class WorkflowsAnswers(Value):
    """The answers by workflow id, as JSON. Workflows that do not run have none."""

    answers: dict[str, JsonValue]


ScheduleVerb = Literal["set", "pause", "resume", "run-now", "delete"]


class ScheduleChange(Value):
    """Change the schedule by which a plan is exercised.

    Attributes:
        note: what the schedule itself says of its state from then on, in ``set``, ``pause`` and ``resume``.
        timetable, exercise, attributes: of ``set``; when, the input of the exercise's workflow as JSON, and how the
            Temporal UI finds schedule and exercises.
    """

    plan: str
    verb: ScheduleVerb
    note: str = ""
    timetable: Timetable | None = None
    exercise: dict[str, JsonValue] = {}
    attributes: dict[str, str] = {}


class RunFound(Value):
    goes_on: bool
    how: str
    """``was terminated``: what became of it."""


class RunScript(Value):
    """A plan's script. ``guest`` None: on the orchestrator; else where the machine it runs on is."""

    step: ScriptStep
    context: RunContext
    guest: MachineInRun | None = None


class ScriptDone(Value):
    output: str
    duration_s: float


class RunCheck(Value):
    """A plan's check. ``guest``: where its command runs; None: on the orchestrator."""

    step: CheckStep
    context: RunContext
    guest: MachineInRun | None = None


class CheckDone(Value):
    detail: str
    duration_s: float
    output: str = ""
    """What a command said."""


class SendCall(Value):
    """A plan's call of another system.

    ``row_id`` and ``round`` tell one request from others in its run: the round grows when an operator asks for a retry.
    """

    step: CallStep
    context: RunContext
    row_id: str
    round: int = 1


class CallDone(Value):
    """The answer. ``body``: at most its first 64 KiB, without the secrets that were sent."""

    status: int
    body: str
    tries: int
    duration_s: float


class RenderInstructions(Value):
    step: ManualStep
    context: RunContext


class Instructions(Value):
    text: str


class ReportPart(Value):
    """Some stages of a run that is too large for one payload; ``number`` counts from 0."""

    plan: str
    run_id: str
    number: int
    stages: list[StageRecord]


class WriteReport(Value):
    """A finished run. ``parts`` above 0: its stages came before, in so many parts."""

    run: RunRecord
    plan: PlanRecord
    parts: int = 0


class ReportWritten(Value):
    """Where the report is, on the host of the control worker that wrote it."""

    json_file: str
    html_file: str


class ReportDelivery(Value):
    """Bring the report of a run to one place."""

    plan: str
    run_id: str
    delivery: Delivery


class Notification(Value):
    """One thing to tell one webhook. ``id`` stays the same over all tries of it.

    It is about a run of a plan, or about a ``machine`` outside of any: then the run's fields are empty.
    """

    webhook: Webhook
    id: str
    occasion: Occasion
    plan: str = ""
    run_id: str = ""
    run_type: RunType | None = None
    machine: str = ""
    state: str
    message: str
    step: str | None = None
    at: AwareDatetime


class FailureDetails(Value):
    """Travels in every activity failure, so that each layer can say what happened, where, and what to do."""

    error: str
    what: str
    where: str = ""
    remedy: str = ""
    recoverable: bool = False
    next_retry_s: float | None = None
    last_point: RecoveryPoint | None = None
    """The newest point of a replication that ends so: its heartbeats are gone with it."""


CHECK_READINESS = ActivityCall("check_readiness", ReadinessQuestion, Findings)
ENABLE = ActivityCall("enable_replication", OfRelationship, Done)
ADOPT_REPLICA = ActivityCall("adopt_replica", OfRelationship, Done)
AWAIT_SEED = ActivityCall("await_seed", OfRelationship, Done)
COPY_INITIAL = ActivityCall("copy_initial", OfRelationship, PointMade)
FINALIZE = ActivityCall("finalize_replication", OfRelationship, Done)
REPLICATE_DELTAS = ActivityCall("replicate_deltas", Replicate, ReplicationStopped)
MAKE_WAY = ActivityCall("make_way", OfRelationship, Done)
RESYNCHRONIZE = ActivityCall("resynchronize", OfRelationship, PointMade)
SEND_LAST_CHANGES = ActivityCall("send_last_changes", OfRelationship, PointMade)
RECOVERY_POINTS = ActivityCall("recovery_points", OfRelationship, PointList)
FIX_MOMENT = ActivityCall("fix_moment", PointQuestion, PointChosen)
FAIL_OVER = ActivityCall("fail_over", FailOver, RecoveredMachine)
CANCEL_FAILOVER = ActivityCall("cancel_failover", OfRelationship, Done)
START_TEST = ActivityCall("start_test", StartTest, RecoveredMachine)
MEASURE_REPLICATION = ActivityCall("measure_replication", ReplicationQuestion, ReplicationAnswer)
END_TEST = ActivityCall("end_test", EndTest, Done)
COMMIT = ActivityCall("commit", CommitPoint, Done)
PREPARE_REVERSE = ActivityCall("prepare_reverse", OfRelationship, Done)
RETIRE_REPLICA = ActivityCall("retire_replica", OfRelationship, Done)
DISABLE_SOURCE = ActivityCall("disable_source", OfRelationship, Ended)
DISABLE_TARGET = ActivityCall("disable_target", OfRelationship, Ended)
SHUT_DOWN = ActivityCall("shut_down", ShutDown, PowerSeen)
START_MACHINE = ActivityCall("start_machine", StartMachine, Answering)
WATCH_OLD_COPY = ActivityCall("watch_old_copy", WatchOldCopy, OldCopyWatched)
QUERY_WORKFLOWS = ActivityCall("query_workflows", WorkflowsQuestion, WorkflowsAnswers)
CHANGE_SCHEDULE = ActivityCall("change_schedule", ScheduleChange, Done)
FIND_RUN = ActivityCall("find_run", RunQuestion, RunFound)
RUN_SCRIPT = ActivityCall("run_script", RunScript, ScriptDone)
RUN_CHECK = ActivityCall("run_check", RunCheck, CheckDone)
SEND_CALL = ActivityCall("send_call", SendCall, CallDone)
RENDER_INSTRUCTIONS = ActivityCall("render_instructions", RenderInstructions, Instructions)
KEEP_REPORT_PART = ActivityCall("keep_report_part", ReportPart, Done)
WRITE_REPORT = ActivityCall("write_report", WriteReport, ReportWritten)
DELIVER_REPORT = ActivityCall("deliver_report", ReportDelivery, Done)
NOTIFY = ActivityCall("notify", Notification, Done)
