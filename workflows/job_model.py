"""What jobs of machines are asked, given, and answer. Import-light, all immutable values."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AwareDatetime, model_validator

from vault.domain import (
    LATEST,
    Answering,
    RecoveredMachine,
    RecoveryPoint,
    Relationship,
    RunType,
    TargetSettings,
    Value,
)
from vault.inventory import Policy
from vault.lifecycle import JobKind, Phase


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
    not_in_inventory: bool = False
    """Disable: whoever asks has no entry of the machine any more. What a site cannot clean up without one is told, and
    stands in nobody's way."""
    source_answer_s: float | None = None
    """The source's site was silent before in the same run: it is asked only so long again. None: as any other site."""
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
    silent_site: str = ""
    """The source's site, when none of its workers took what it was asked."""
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

    @property
    def is_open(self) -> bool:
        return self.state in {"running", "held"}
