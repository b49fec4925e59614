"""What a machine keeps about itself, and tells. Import-light, all immutable values."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AwareDatetime, Field, model_validator

from vault.access import Access
from vault.domain import Answering, MachineName, RecoveredMachine, RecoveryPoint, Relationship, Value
from vault.inventory import Policy
from vault.lifecycle import AT_TARGET, JobKind, Phase
from vault.notifications import Webhook
from workflows.job_model import CopyName, JobRecord, Timings


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
    jobs: list[JobRecord] = []
    """The newest ones, and all that are open; with the requests for them, so that a repeated one is known."""
    seen_requests: list[str] = []

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
        if self.phase in AT_TARGET:
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


class ChangedSettings(MachineSettings):
    """Settings that somebody brings to a machine that is there already."""

    by: str = ""


def refusal_of_sites(state: MachineState, settings: MachineSettings) -> str | None:
    """Why the settings may not be taken over; None when they may. A replica does not move with words."""
    has = f"{state.forward.source_site} and {state.forward.target_site}"
    wanted = f"{settings.forward.source_site} and {settings.forward.target_site}"
    if state.phase is Phase.UNPROTECTED or has == wanted:
        return None
    return (
        f"machine '{state.name}' is replicated between {has}, but the inventory says {wanted} — write its sites as "
        f"they were; to move it, then: leeward disable {state.name}, change them, leeward protect {state.name}"
    )


class Resume(Value):
    """Go on with replication.

    Attributes:
        try_now: replication that waits for its next try begins anew; only for one that waits, because it is stopped.
    """

    by: str
    try_now: bool = False


class AnswersNow(Value):
    """A recovered machine that did not answer when its job ended does now.

    Attributes:
        trouble: what the job said of it.
    """

    trouble: str
    answering: Answering


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
