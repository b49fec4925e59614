"""The protection lifecycle as a table (requirements §C): which job may start in which phase, and where it leads.

This table is the only place that knows. The machine's workflow validates requests with it, the command line explains
refusals with it, and the state machine in ``docs/architecture.md`` is derived from it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from vault.domain import Relationship


class Phase(StrEnum):
    """Where a machine is in its protection. The phases ending in -ing exist only while their job runs."""

    UNPROTECTED = "unprotected"
    ENABLING = "enabling"
    ENABLED = "enabled"
    REPLICATING_INITIALLY = "initial-replication"
    COPIED = "copied"
    FINALIZING = "finalizing"
    PROTECTED = "protected"
    RESYNC_REQUIRED = "resync-required"
    RESYNCHRONIZING = "resynchronizing"
    FAILING_OVER = "failing-over"
    COMMIT_PENDING = "commit-pending"
    COMMITTING = "committing"
    FAILED_OVER = "failed-over"
    REVERSING = "reversing"
    DISABLING = "disabling"


class JobKind(StrEnum):
    """One lifecycle step for one machine; each value is the name of a workflow type."""

    ENABLE = "EnableProtection"
    INITIAL_REPLICATION = "InitialReplication"
    FINALIZE = "FinalizeProtection"
    RESYNCHRONIZE = "Resynchronize"
    TEST_FAILOVER = "TestFailover"
    CLEANUP_TEST = "CleanupTestFailover"
    PLANNED_FAILOVER = "PlannedFailover"
    UNPLANNED_FAILOVER = "UnplannedFailover"
    COMMIT = "Commit"
    REVERSE = "ReverseReplication"
    DISABLE = "DisableProtection"


class Transition(NamedTuple):
    """A job's way through the phases. ``during``/``done`` None: the job does not change the phase.

    ``failed`` None: a failed job puts the machine back into the phase it came from.
    """

    starts_in: frozenset[Phase]
    during: Phase | None = None
    done: Phase | None = None
    failed: Phase | None = None


def _from(*phases: Phase) -> frozenset[Phase]:
    return frozenset(phases)


WITH_RECOVERY_POINTS = _from(Phase.PROTECTED, Phase.RESYNC_REQUIRED)
AT_TARGET = _from(Phase.COMMIT_PENDING, Phase.COMMITTING, Phase.FAILED_OVER, Phase.REVERSING)
"""The machine was failed over, and nothing replicates until the direction has changed."""
IDLE = frozenset(
    {
        Phase.UNPROTECTED,
        Phase.ENABLED,
        Phase.COPIED,
        Phase.PROTECTED,
        Phase.RESYNC_REQUIRED,
        Phase.COMMIT_PENDING,
        Phase.FAILED_OVER,
    }
)

LIFECYCLE: dict[JobKind, Transition] = {
    JobKind.ENABLE: Transition(_from(Phase.UNPROTECTED), Phase.ENABLING, Phase.ENABLED),
    JobKind.INITIAL_REPLICATION: Transition(_from(Phase.ENABLED), Phase.REPLICATING_INITIALLY, Phase.COPIED),
    JobKind.FINALIZE: Transition(_from(Phase.COPIED), Phase.FINALIZING, Phase.PROTECTED),
    JobKind.RESYNCHRONIZE: Transition(
        WITH_RECOVERY_POINTS, Phase.RESYNCHRONIZING, Phase.PROTECTED, failed=Phase.RESYNC_REQUIRED
    ),
    JobKind.TEST_FAILOVER: Transition(WITH_RECOVERY_POINTS),
    JobKind.CLEANUP_TEST: Transition(IDLE),
    JobKind.PLANNED_FAILOVER: Transition(_from(Phase.PROTECTED), Phase.FAILING_OVER, Phase.COMMIT_PENDING),
    JobKind.UNPLANNED_FAILOVER: Transition(WITH_RECOVERY_POINTS, Phase.FAILING_OVER, Phase.COMMIT_PENDING),
    JobKind.COMMIT: Transition(_from(Phase.COMMIT_PENDING), Phase.COMMITTING, Phase.FAILED_OVER),
    JobKind.REVERSE: Transition(_from(Phase.FAILED_OVER), Phase.REVERSING, Phase.PROTECTED),
    JobKind.DISABLE: Transition(IDLE - {Phase.UNPROTECTED, Phase.COMMIT_PENDING}, Phase.DISABLING, Phase.UNPROTECTED),
}

BESIDE_REPLICATION = frozenset({JobKind.TEST_FAILOVER, JobKind.CLEANUP_TEST})
"""Jobs that never stop replication nor change the phase."""

MAKES_A_MACHINE = frozenset({JobKind.TEST_FAILOVER, JobKind.PLANNED_FAILOVER, JobKind.UNPLANNED_FAILOVER})
"""Jobs that make a machine at the target."""
MOVES_ITS_GROUP = frozenset({JobKind.PLANNED_FAILOVER, JobKind.UNPLANNED_FAILOVER, JobKind.REVERSE, JobKind.DISABLE})
"""Jobs that change at which side a replication group is active, or whether it is mirrored: for all of its machines."""
MORE_THAN_MOVING = frozenset({JobKind.TEST_FAILOVER, JobKind.UNPLANNED_FAILOVER})
"""Jobs that need clones of volumes, or a target that is made active without its source."""
CLAIMS_ITS_GROUP = MOVES_ITS_GROUP | {
    JobKind.ENABLE,
    JobKind.INITIAL_REPLICATION,
    JobKind.FINALIZE,
    JobKind.RESYNCHRONIZE,
}
"""With those that make its mirror whole: several machines may do that side by side, but not while it moves."""

_NEXT_STEP: dict[Phase, str] = {
    Phase.UNPROTECTED: "protect the machine first: leeward protect {machine}",
    Phase.ENABLED: "finish the initial replication first: leeward protect {machine}",
    Phase.COPIED: "finish the initial replication first: leeward protect {machine}",
    Phase.PROTECTED: "the machine is protected and replicating; see leeward status {machine}",
    Phase.RESYNC_REQUIRED: "resynchronize first: leeward resync {machine}",
    Phase.COMMIT_PENDING: "commit the failover first: leeward plan commit PLAN",
    Phase.FAILED_OVER: "start reverse replication first: leeward plan reverse PLAN",
}


class Refusal(NamedTuple):
    what: str
    remedy: str


def refusal(machine: str, phase: Phase, job: JobKind) -> Refusal | None:
    """Why ``job`` may not start while the machine is in ``phase``; None when it may."""
    if phase in LIFECYCLE[job].starts_in:
        return None
    if phase not in IDLE:
        remedy = f"wait until it is done, or look at it: leeward jobs {machine}"
    else:
        remedy = _NEXT_STEP[phase].format(machine=machine)
    return Refusal(f"machine '{machine}' is {phase}; {job} is not possible now", remedy)


def refusal_of_target(relationship: Relationship, job: JobKind) -> Refusal | None:
    """Why ``job`` may not start, in any phase, because of where its machine is replicated to; None when it may."""
    if relationship.only_moves and job in MORE_THAN_MOVING:
        return Refusal(
            f"the array of site '{relationship.target_site}' is managed by Swordfish, by which leeward moves groups, "
            f"with both arrays at work, and no more: {job} is not possible",
            "manage it by SMI-S ('storage: {kind: smis, …}'), or do it with the array's own tools",
        )
    if relationship.recovers or job not in MAKES_A_MACHINE:
        return None
    return Refusal(
        f"site '{relationship.target_site}' keeps replicas, but leeward makes no virtual machines there yet: nothing "
        "can be tested or failed over to it",
        "replication goes on; to recover machines now, replicate them to a site of another fabric",
    )


def mermaid() -> str:
    """The lifecycle as a Mermaid state diagram; the picture in the architecture document is this text."""
    lines = ["stateDiagram-v2", f"    [*] --> {_node(Phase.UNPROTECTED)}"]
    for job, transition in LIFECYCLE.items():
        if transition.during is None or transition.done is None:
            continue
        for start in sorted(transition.starts_in):
            lines.append(f"    {_node(start)} --> {_node(transition.during)}: {job}")
        lines.append(f"    {_node(transition.during)} --> {_node(transition.done)}: done")
        if transition.failed is not None:
            lines.append(f"    {_node(transition.during)} --> {_node(transition.failed)}: failed")
    return "\n".join(lines)


def _node(phase: Phase) -> str:
    return phase.value.replace("-", "_")
