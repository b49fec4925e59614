"""The ports: what a fabric must be able to do. Each docstring is the contract.

All calls block and are thread-safe; callers run them in threads. Every call may be repeated after a crash: doing
again what is done already succeeds. Errors are those of :mod:`vault.errors`; which class an error has decides
whether it is retried, so adapters map their system's errors with care.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol, runtime_checkable

from replication.media import SeedManifest
from replication.ports import ChangeSource, OwnReplicaStore, ReplicaStore, Report
from vault.domain import (
    Answering,
    CacheFill,
    ConsistencyKind,
    Finding,
    MachineDescription,
    PowerState,
    Progress,
    RecoveredMachine,
    RecoveryPoint,
    Relationship,
    ReplicaSpace,
    Value,
)

Beat = Callable[[str], None]
"""Called often by a call that waits, with what it waits for. It may raise to end the waiting."""


class ScriptResult(Value):
    exit_code: int
    output: str
    """stdout and stderr as they came, at most 64 KiB of the end."""


class Hypervisor(Protocol):
    """One site's fabric.

    Any call may raise ``Unreachable`` (recoverable: the host or service does not answer) or
    ``AuthenticationRefused`` / ``AuthorizationRefused`` (never retried).
    """

    site: str

    def check(self) -> list[Finding]:
        """Can the fabric be reached, are the credentials accepted, how much space is left? Never raises for a
        fabric that does not answer: that is a finding."""

    def discover(self) -> list[MachineDescription]: ...

    def describe(self, machine: str) -> MachineDescription:
        """Raises ``NotFound``."""

    def free_space(self) -> int:
        """Bytes that replicas and machines of this site may still use."""

    def start(self, machine: str) -> None:
        """Power on. Already running: nothing happens."""

    def shut_down(self, machine: str, timeout_s: float, beat: Beat) -> PowerState:
        """Ask the guest to stop, and power off when it has not after ``timeout_s``. Returns the state it *saw*
        afterwards: ``OFF`` is the proof a planned failover needs. Already off, or not there: ``OFF``.

        Raises ``Busy`` for a machine that is off, and that something may start again by itself."""

    def power_off(self, machine: str) -> None: ...

    def wait_until_answering(self, machine: str, timeout_s: float, beat: Beat) -> Answering:
        """Wait until a started machine's guest answers.

        Raises ``Unreachable`` after ``timeout_s``, ``InvalidState`` when the machine is off or its guest gave up
        (with what the guest said)."""

    def network_kind(self, network: str) -> str:
        """``production`` or ``isolated``. Raises ``NotFound`` naming the site's networks."""

    def remove(self, machine: str) -> None:
        """Power off and delete the machine with its disks. Not there: nothing happens."""

    def run_in_guest(
        self, machine: str, command: list[str], environment: dict[str, str], timeout_s: float, beat: Beat
    ) -> ScriptResult: ...


class StreamSource(Hypervisor, Protocol):
    """A fabric whose machines leeward replicates itself: it gives their changes."""

    def change_source(self, machine: str) -> ChangeSource:
        """The machine's tracked changes."""


class StreamTarget(Hypervisor, Protocol):
    """A fabric that keeps what leeward replicates, and makes machines out of replicas."""

    def create_from_replica(
        self, machine: str, like: str, store: ReplicaStore, point: RecoveryPoint, network: str, report: Report
    ) -> MachineDescription:
        """Make a powered-off machine whose disks are ``store`` at ``point``, connected to ``network``.

        ``like`` names the protected machine whose settings (guest load, sizes …) it takes. A half-made machine of
        an earlier try is replaced; a complete one made from the same point is kept. Raises ``InvalidState`` when a
        *different* machine has the name, ``NoSpace`` when it would not fit."""

    def made_from(self, machine: str) -> str | None:
        """The recovery point that a machine was made from; None: from none. Raises ``NotFound``."""

    def replica_store(self, machine: str) -> OwnReplicaStore:
        """Where this site keeps replicas that other sites send."""

    def retire_into_replica(self, machine: str, store: ReplicaStore, epoch: str) -> None:
        """Reverse replication: turn the powered-off old source's disks into an unseeded replica (``store.adopt``)
        and unregister the machine, so that it can never be started beside the new source.

        Without disks to adopt (the site lost them) the replica starts empty."""


class StreamFabric(StreamSource, StreamTarget, Protocol):
    """A fabric that is either end of leeward's own replication."""


@runtime_checkable
class JudgesReplicas(Protocol):
    """What a :class:`StreamTarget` has that knows better than by its networks and its free space whether it can keep a
    machine's replica, and what will become of it."""

    def judge(self, relationship: Relationship) -> list[Finding]:
        """[target] What speaks for and against it, and what cannot be checked."""


@runtime_checkable
class JudgesSources(Protocol):
    """What a :class:`StreamSource` has that knows more about a machine than that it is there."""

    def readiness(self, relationship: Relationship) -> list[Finding]:
        """[source] What speaks against replicating the machine from here."""


class GroupRhythm(Value):
    """How often the machines of a consistency group are cut together, in seconds."""

    frequency_s: float
    app_consistent_every_s: float | None = None


@runtime_checkable
class CutsTogether(Protocol):
    """What a fabric has that can cut several of its machines at one moment (a :class:`Hypervisor` may be one)."""

    def cut_together(self, group: str, machines: list[str], rhythm: GroupRhythm, kind: ConsistencyKind) -> str:
        """Make a moment of the group when one is due: a cut of the same time in every machine, which each machine's
        own replication sends. Whoever finds it due makes it; however many ask, it is made once.

        ``kind`` is what the caller would like; a moment is app-consistent when that is due by the rhythm.

        Returns an empty text, or why the group cannot be cut now: then each machine has to be cut on its own."""


@runtime_checkable
class MakesTestNetworks(Protocol):
    """What a fabric has that can make isolated networks (a :class:`Hypervisor` may be one): then the copies of one test
    reach each other, and nothing of another test that runs at the same time."""

    def make_test_network(self, like: str, run_id: str, copy: str) -> str:
        """Make the run's own network like the isolated network ``like`` for the test copy of that name, which need not
        be there yet; the network's name. There already: the copy joins it.

        Raises ``NotFound`` when there is no network ``like``, ``InvalidState`` when it is not isolated."""

    def leave_test_networks(self, run_id: str, copy: str) -> None:
        """The copy, which is gone, needs the run's networks no more: those that no copy needs are removed. There are
        none: nothing happens."""


@runtime_checkable
class TellsRoom(Protocol):
    """What a fabric has that knows what its machines take of its space (a :class:`Hypervisor` may be one)."""

    def free_space_without(self, machines: Collection[str]) -> int:
        """Bytes that will be free once these machines are removed; half-made ones count, one that is not there does
        not."""


@runtime_checkable
class NeedsRoom(Protocol):
    """What a kind of replication has whose recovered machines are copies in the target's space (a
    :class:`ReplicationProvider` may be one)."""

    def room_needed(self, relationship: Relationship) -> int:
        """[target] Bytes that a machine made from the replica takes, at most; 0: there is no replica yet, or no machine
        is made of it there."""


@runtime_checkable
class OpensPoints(Protocol):
    """What a kind of replication has that finds out whether a recovery point's files are there and sound (a
    :class:`ReplicationProvider` may be one)."""

    def open_point(self, relationship: Relationship, point: RecoveryPoint, beat: Beat, read_for_s: float) -> int:
        """[target] Open what a machine is made from at that point, and read the changes that wait over its base image,
        the newest first, for about ``read_for_s``; nothing is changed. Nothing happens where no machine is made of it.

        Returns the bytes of changes that were not read.

        Raises ``Damaged`` when a file of it is missing, is not the whole one, or does not match its checksums."""


@runtime_checkable
class PlacesReplicas(Protocol):
    """What a kind of replication has whose target may choose the host for a replica (a :class:`ReplicationProvider` may
    be one)."""

    def place_replica(self, relationship: Relationship) -> str:
        """[target] The name by which the source reaches the host, or what stands for several of them; empty: there is
        nothing to choose. Changes nothing; a replica that is there already stays where it is.

        Raises ``InvalidState`` naming each host and why it cannot take the replica."""


@runtime_checkable
class AdoptsReplicas(Protocol):
    """What a kind of replication has whose first copy may begin with a machine that exists at the target (a
    :class:`ReplicationProvider` may be one). Asked where ``relationship.existing_replica``."""

    def identity(self, relationship: Relationship) -> str:
        """[source] By what its fabric knows the machine, wherever it is restored. The target's check gets it in
        ``relationship.identity``."""

    def check_adoption(self, relationship: Relationship) -> list[Finding]:
        """[target] Can the machine of that name become the replica? One that became it, and waits for its first copy,
        can."""

    def adopt_replica(self, relationship: Relationship) -> None:
        """[target] Make the machine of that name a replica that waits for its source. Before :meth:`enable`; may be
        repeated.

        Raises ``InvalidState`` when the machine is not there, runs, or replicates already."""


@runtime_checkable
class SizesReplicas(Protocol):
    """What a kind of replication has whose replicas take space of a target that only the source can tell (a
    :class:`ReplicationProvider` may be one)."""

    def replica_space(self, relationship: Relationship) -> ReplicaSpace | None:
        """[source] What replicas will take that protecting the machine makes; None: it makes none. The target's check
        gets it in ``relationship.replica_space``."""


class Capabilities(Value):
    """What a kind of replication can do, as data: plans are checked against it before a run."""

    commits_by_itself: bool = False
    """SAN: the commit is automatic (requirements §C.5)."""
    several_test_copies: bool = True
    """A machine may have more than one test copy at a time."""
    target_settings: frozenset[str] = frozenset({"network"})
    """Which of :class:`~vault.domain.TargetSettings`, in ``relationship.target``, recovered machines get."""


@runtime_checkable
class MovesTogether(Protocol):
    """What a :class:`ReplicationProvider` has whose machines cannot be failed over one by one."""

    def moves_with(self, relationship: Relationship) -> list[str]:
        """The machines that any failover of this one moves, itself included. From the inventory alone."""


class ReplicationProvider(Protocol):
    """How one machine's bytes get to where it can be recovered (design §5): fabric, array or stream replication.

    ``relationship.source_site`` is the side that runs now. Calls marked [source] run at a worker of the source site,
    [target] at the target site: a dead site's calls simply find no worker.
    """

    capabilities: Capabilities

    def check_source(self, relationship: Relationship) -> list[Finding]:
        """[source] Can the machine be protected, or failed over, from here?"""

    def check_target(self, relationship: Relationship) -> list[Finding]:
        """[target] Can the machine be protected to, or recovered, here? Checks network and login; its room
        is judged for all machines at once, see :class:`NeedsRoom`."""

    def enable(self, relationship: Relationship) -> None:
        """[source] Create the relationship: start tracking, make the (unseeded) replica.

        A replica that is there already, from media or from an earlier life, is kept: what it has is not sent again."""

    def export_seed(
        self, relationship: Relationship, folder: Path, report: Report, *, restart: bool = False
    ) -> SeedManifest:
        """[source] Write the machine's disks onto a medium. See :func:`replication.seeding.export_seed`."""

    def import_seed(self, relationship: Relationship, folder: Path, report: Report) -> RecoveryPoint:
        """[target] Make a medium the base of the replica. See :func:`replication.seeding.import_seed`."""

    def seed_missing(self, relationship: Relationship) -> Progress | None:
        """[target] What is missing until the replica is complete, with how far an import is; None when it is."""

    def copy_initial(self, relationship: Relationship, report: Report) -> RecoveryPoint:
        """[source] Copy snapshot of all disks, one after another, then the changes logged meanwhile.

        Resumes where an earlier try ended; a replica that is complete already gets only what it does not have.
        Returns the first recovery point after which deltas can go on."""

    def finalize(self, relationship: Relationship) -> None:
        """[source] Delete the initial snapshot and check that the replica is complete."""

    def replicate_once(self, relationship: Relationship, report: Report, *, app_consistent: bool) -> RecoveryPoint:
        """[source] One delta cycle: a new recovery point at the target; prunes by the retention.

        Raises ``ResynchronizationRequired``."""

    def keep_changes(self, relationship: Relationship, report: Report, *, app_consistent: bool) -> CacheFill | None:
        """[source] The delta cycle while the target does not take changes: a cut of now is kept at the source, and
        becomes a recovery point later. Nothing is sent. None: this kind of replication, or this site, keeps nothing.

        When the cache is full (:attr:`CacheFill.full`) newer changes stay where the machine logs them.
        Raises ``ResynchronizationRequired``."""

    def resynchronize(self, relationship: Relationship, report: Report) -> RecoveryPoint:
        """[source] Compare source and replica and send only what differs; existing recovery points stay."""

    def send_last_changes(self, relationship: Relationship, report: Report) -> RecoveryPoint:
        """[source] After the source was shut down: everything it ever acknowledged is in the returned point.

        Raises ``InvalidState`` while the source runs."""

    def recovery_points(self, relationship: Relationship) -> list[RecoveryPoint]:
        """[target] Oldest first."""

    def resolve_point(self, relationship: Relationship, choice: str) -> RecoveryPoint:
        """[target] The machine's recovery point that ``choice`` means. See :func:`replication.groups.choose`."""

    def fail_over(self, relationship: Relationship, choice: str, report: Report) -> RecoveredMachine:
        """[target] Make the powered-off replica machine from the chosen point, on the mapped network.

        All recovery points stay until :meth:`commit`."""

    def cancel_failover(self, relationship: Relationship) -> None:
        """[target] Remove what :meth:`fail_over` made; the recovery points are as before."""

    def start_test(self, relationship: Relationship, choice: str, name: str, report: Report) -> RecoveredMachine:
        """[target] Make ``name``, a powered-off copy on the isolated test network; replication goes on."""

    def end_test(self, relationship: Relationship, name: str) -> None:
        """[target] Remove the test machine. Idempotent."""

    def commit(self, relationship: Relationship, point_id: str) -> None:
        """[target] The failover is final: drop the replica's other recovery points."""

    def prepare_reverse(self, reversed_relationship: Relationship) -> None:
        """[target of the reversed relationship] Retire the old source into the base of a replica."""

    def retire_replica(self, relationship: Relationship) -> None:
        """[target] After reverse replication is complete: the forward replica is not needed any more."""

    def disable_source(self, relationship: Relationship) -> str | None:
        """[source] Stop tracking. Idempotent. Returns what goes on all the same, and why."""

    def disable_target(self, relationship: Relationship) -> str | None:
        """[target] Delete the replica. Idempotent. Returns what stays all the same, and why."""
