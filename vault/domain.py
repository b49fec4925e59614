"""The domain types that every package shares (design §3). No behaviour beyond what the words mean."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from vault.errors import LeewardError

MachineName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
"""A machine's name in the vault: safe as a file name and in a workflow id."""


class Value(BaseModel):
    """An immutable value; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PowerState(StrEnum):
    OFF = "off"
    RUNNING = "running"


class NetworkKind(StrEnum):
    PRODUCTION = "production"
    ISOLATED = "isolated"


class Severity(StrEnum):
    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"


WORST_FIRST = (Severity.FAIL, Severity.WARN, Severity.PASS)


class Finding(Value):
    """One line of a check: what was looked at, how it went, what to do."""

    severity: Severity
    subject: str
    what: str
    remedy: str = ""

    @classmethod
    def passed(cls, subject: str, what: str) -> Self:
        return cls(severity=Severity.PASS, subject=subject, what=what)

    @classmethod
    def warned(cls, subject: str, what: str, remedy: str) -> Self:
        return cls(severity=Severity.WARN, subject=subject, what=what, remedy=remedy)

    @classmethod
    def failed(cls, subject: str, what: str, remedy: str) -> Self:
        return cls(severity=Severity.FAIL, subject=subject, what=what, remedy=remedy)

    @classmethod
    def of_error(cls, subject: str, error: LeewardError) -> Self:
        """What the check ran into."""
        return cls.failed(subject, error.what, error.remedy)

    def at_most_warned(self) -> Self:
        """Told, but in nobody's way."""
        is_failure = self.severity is Severity.FAIL
        return self.model_copy(update={"severity": Severity.WARN}) if is_failure else self

    def __str__(self) -> str:
        remedy = f" — {self.remedy}" if self.remedy else ""
        return f"{self.subject}: {self.what}{remedy}"


class Disk(Value):
    """A virtual disk as the fabric describes it. ``size`` is in bytes."""

    name: str
    size: int = Field(gt=0)


class ConsistencyKind(StrEnum):
    CRASH = "crash-consistent"
    APPLICATION = "app-consistent"


class RecoveryPoint(Value):
    """A moment to which a machine can be recovered.

    Attributes:
        id: opaque, unique for the machine.
        sequence: grows by one per point; a higher number is a later moment.
        time: the moment on the source, UTC: every write acknowledged before it is in, none begun after it is.
        bytes: bytes of changed blocks this point added (before compression).
        group: the consistency group whose common moment this is; empty: the machine's own. All members of the group
            have a point of the same ``group`` and ``time``.
    """

    id: str
    sequence: int
    time: AwareDatetime
    kind: ConsistencyKind = ConsistencyKind.CRASH
    bytes: int = 0
    group: str = ""


LATEST = "latest"
LATEST_PROCESSED = "latest-processed"
LATEST_APP_CONSISTENT = "latest-app-consistent"
LATEST_CONSISTENT = "latest-consistent:"
"""Followed by a consistency group: the newest moment that all of its machines have."""


class Retention(Value):
    """Keep at most ``count`` recovery points and none older than ``hours``. The newest is always kept; the newest that
    is app-consistent is kept beyond ``count``."""

    count: int = Field(default=24, ge=1, le=2880)
    hours: float = Field(default=24, gt=0, le=24 * 366)


class TargetSettings(Value):
    """How a recovered machine is to be, beyond what it was; None: as it was, or as the mapping says.

    Whoever cannot give a machine one of these says so in its capabilities; nothing is left out silently.

    Attributes:
        address: the IP address its guest is to have.
        cpus: virtual processors.
        memory: bytes.
    """

    network: str | None = None
    address: str | None = None
    cpus: int | None = None
    memory: int | None = None

    @property
    def wanted(self) -> list[str]:
        """Names of the settings that are set."""
        return [name for name in type(self).model_fields if getattr(self, name) is not None]


LOOKS_OF_A_MEMBER = 4


class ReplicaSpace(Value):
    """What replicas take that have to be made: the target array's pool, and bytes in it."""

    pool: str
    """Empty: the target has none."""
    size: int


class Relationship(Value):
    """The replication of one machine from where it runs to where it can be recovered.

    ``source_site`` is always the side that runs now: reverse replication swaps the two.
    """

    machine: MachineName
    source_site: str
    target_site: str
    target_network: str
    test_network: str
    frequency_s: float = Field(gt=0)
    retention: Retention = Retention()
    app_consistent_every_s: float | None = None
    group: str = ""
    """The consistency group that the machine belongs to; empty: none."""
    group_members: list[MachineName] = []
    replication_group: str = ""
    """The array's group that the machine's disks are in, moved as a whole; empty: the machine moves alone."""
    only_moves: bool = False
    """Its arrays' language moves groups, and no more: no test, and no recovery without the source's array."""
    replica_server: str = ""
    """The target's host that takes the replica, under the name by which the source reaches it, when the target's fabric
    chose it (:class:`adapters.ports.PlacesReplicas`); empty: the inventory says it."""
    replica_space: ReplicaSpace | None = None
    """What the replica will take at the target, once the source was asked (:class:`adapters.ports.SizesReplicas`)."""
    recovers: bool = True
    """Machines can be made at the target; False: it only keeps replicas."""
    existing_replica: bool = False
    """Its first copy begins with a machine that somebody restored at the target, and that is theirs: it stays when the
    protection ends. Never so in the reversed direction."""
    identity: str = ""
    """What the source's fabric calls the machine by, once the source was asked
    (:class:`adapters.ports.AdoptsReplicas`): a restored machine has the same."""
    target: TargetSettings = TargetSettings()
    """What the run at hand wants of the recovered machine; the two networks above are already as it says."""

    def shaped(self, target: TargetSettings | None, *, isolated: bool) -> Relationship:
        """As one run wants its recovered machine. ``isolated``: a test copy, whose network is the test network."""
        if target is None:
            return self
        networks = {"test_network" if isolated else "target_network": target.network} if target.network else {}
        return self.model_copy(update={"target": target, **networks})

    @property
    def pace_s(self) -> float:
        """Seconds between two looks at what there is to replicate: a member of a group looks more often than it cuts,
        because another member may have cut for it."""
        return self.frequency_s / LOOKS_OF_A_MEMBER if self.group else self.frequency_s

    @property
    def late_after_s(self) -> float:
        """Older than this the newest recovery point should never be: two turns, and the time that a turn takes."""
        return 2 * self.frequency_s + 5

    def reversed(self, target_network: str, test_network: str) -> Relationship:
        return self.model_copy(
            update={
                "source_site": self.target_site,
                "target_site": self.source_site,
                "target_network": target_network,
                "test_network": test_network,
                "existing_replica": False,
            }
        )


class Progress(Value):
    """How far a long transfer is. Bytes are bytes of disk, ``bytes_sent`` are bytes on the wire."""

    doing: str
    bytes_done: int = 0
    bytes_total: int = 0
    bytes_sent: int = 0
    bytes_per_second: float = 0.0

    @property
    def eta_s(self) -> float | None:
        if self.bytes_per_second <= 0 or self.bytes_total <= 0:
            return None
        return max(0, self.bytes_total - self.bytes_done) / self.bytes_per_second


class CacheFill(Value):
    """What waits in a process server's cache because the target does not take it. Bytes are as stored.

    ``full``: newer changes do not fit and stay in the machine's own change log.
    """

    cuts: int = 0
    bytes: int = 0
    oldest: AwareDatetime | None = None
    """The moment of the first cut that waits."""
    site_bytes: int = 0
    """What all machines of the site have in it …"""
    site_limit: int = 0
    """… and may have."""
    full: bool = False


class GuestTransactions(Value):
    """What a lab guest says about the transactions on its disks (design §7).

    ``held_at_boot`` is the last complete transaction found when it booted, before it wrote any of its own.
    ``acknowledged_at_boot`` is the last one acknowledged to the outside world by any copy before that boot.
    """

    first: int
    last: int
    damaged: int
    held_at_boot: int
    acknowledged_at_boot: int

    @property
    def lost(self) -> int:
        return max(0, self.acknowledged_at_boot - self.held_at_boot)


class MachineDescription(Value):
    """What a fabric says about one machine at one site."""

    name: str
    site: str
    power: PowerState
    disks: list[Disk]
    network: str | None
    address: str | None = None
    """``host:port`` where the machine answers, when it runs."""


class RecoveredMachine(Value):
    """A machine made from a recovery point. ``name`` is its name at the target site.

    ``address``: ``host:port`` where it answered when it was started; None before, and of one that stays off.
    """

    name: str
    site: str
    network: str
    point: RecoveryPoint
    address: str | None = None
    committed: bool = False
    """The failover is final already: this kind of replication commits by itself (requirements §C.5)."""


class ReplicationSince(Value):
    """How replication went while something else did.

    Attributes:
        worst_age_s: the oldest that the newest recovery point ever was, in seconds, without the time that a point took
            to be sent; None when it could not be measured.
        late_after_s: what it should not exceed.
        trouble: why it could not be measured.
    """

    machine: MachineName
    worst_age_s: float | None = None
    late_after_s: float
    trouble: str = ""

    @property
    def was_late(self) -> bool:
        return self.worst_age_s is None or self.worst_age_s > self.late_after_s


class Answering(Value):
    """A machine that was started and answers."""

    name: str
    site: str
    address: str
    waited_s: float
    transactions: GuestTransactions | None = None


RunType = Literal["test", "cleanup", "planned", "unplanned", "failback", "commit", "reverse"]
"""What a plan run does. ``failback`` is a planned failover in the other direction."""


def utc(moment: datetime) -> str:
    """The one way leeward prints a moment to people: ``2026-01-31 03:04:05Z``."""
    from datetime import UTC

    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
