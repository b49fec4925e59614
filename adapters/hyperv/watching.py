"""Watching what hosts do by themselves: polled, so that no connection is held, and a repeated call goes on watching."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal

from adapters.hyperv.discovery import RESYNC, go_on
from adapters.hyperv.facts import Measurement
from adapters.hyperv.hosts import Located
from adapters.hyperv.hypervisor import HyperVHypervisor
from adapters.hyperv.operation import Input, Operation, Output
from adapters.hyperv.operations import RESUME_REPLICATION, ResumeReplication
from adapters.hyperv.points import newest_point
from adapters.hyperv.states import ROLES, STATES, ReplicationState, Role, Standing
from adapters.ports import Beat
from replication.ports import Report
from vault.domain import Progress, RecoveryPoint
from vault.errors import InvalidState, LeewardError, ResynchronizationRequired, Unreachable
from vault.words import size

LOOK_AGAIN_S = 5.0
FRESH_S = 10.0
"""Machines of one host that are looked at within this time share one measurement."""
_MOVES_ON = frozenset({Standing.COPYING, Standing.RESYNCHRONIZING, Standing.REPLICATING, Standing.CHANGING})

Wanted = Literal[
    "protected from here",
    "exported",
    "made from the medium",
    "replicated",
    "prepared for a planned failover",
    "used as a replica",
    "failed over",
    "committed",
    "turned into a replica",
    "turned round",
    "deleted",
]
NEEDED: dict[Wanted, str] = {
    "protected from here": "not replicated, or failed over at this site",
    "exported": "the source, before its first copy (ReadyForInitialReplication)",
    "made from the medium": "a replica without contents (WaitingForInitialReplication)",
    "replicated": "the source, replicating",
    "prepared for a planned failover": "the source, off and replicating",
    "used as a replica": "a replica",
    "failed over": "a replica, off and replicating",
    "committed": "a replica that was failed over (FailedOverWaitingCompletion)",
    "turned into a replica": "the old source, off",
    "turned round": "a replica that was failed over, and its old source off",
    "deleted": "a replica, off",
}
"""What a machine is before each of what is done with it: Hyper-V Replica's cmdlets, and leeward's own order."""


def place(there: Located) -> tuple[Role, Standing]:
    if there.vm.replication is None:
        return Role.NONE, Standing.NOT_REPLICATED
    return ROLES[there.vm.replication.mode], STATES[there.vm.replication.state].standing


def waits_for_its_first_copy(there: Located) -> bool:
    replication = there.vm.replication
    return replication is not None and replication.state is ReplicationState.WAITING_FOR_INITIAL_REPLICATION


def standing_of(measured: Measurement) -> Standing:
    return STATES[measured.state].standing


def details(measured: Measurement) -> str:
    """Why the host thinks as it does, in its words."""
    return " / ".join(measured.health_details) or f"health {measured.health}"


def achieve(
    fabric: HyperVHypervisor,
    machine: str,
    operation: Operation[Input, Output],
    given: Input,
    *,
    to: Wanted,
    reached: Callable[[Located], bool],
    beat: Beat,
    within_s: float,
) -> Located:
    """Run a job on the machine's host until the machine is *seen* where it shall be.

    A job's answer may be that of an earlier try, whose effect was undone since: then it runs once more. And a host that
    refuses may have come there meanwhile, by what an earlier try began.

    Args:
        to: what it is brought to, for the error.

    Raises ``InvalidState`` when the job ends well and the machine is not there nevertheless."""
    there = fabric.find(machine)
    for _ in range(2):
        refused: InvalidState | None = None
        try:
            fabric.hosts.run_job(there.host, operation, given, beat, within_s)
        except InvalidState as error:
            refused = error
        there = fabric.find(machine)
        if reached(there):
            return there
        if refused is not None:
            raise refused
    raise unexpected(there, to)


def unexpected(there: Located, wanted: Wanted) -> InvalidState:
    role, standing = place(there)
    return InvalidState(
        f"'{there.vm.name}' cannot be {wanted}: it is {there.vm.state}, {role}, {standing}",
        where=f"host {there.host}",
        remedy=f"bring it into the state that this needs: {NEEDED[wanted]}",
    )


def until_replicating(fabric: HyperVHypervisor, machine: str, doing: str, report: Report) -> RecoveryPoint:
    """Wait until a first copy or a resynchronization is over; the point from which deltas go on.

    Raises ``Unreachable`` when an error stopped it: whoever asks again has it go on. ``InvalidState`` when somebody
    ended it."""
    there = fabric.find(machine)
    total = sum(disk.size for disk in there.vm.disks)
    while True:
        measured = fabric.hosts.measure(there)
        standing = standing_of(measured)
        if standing is Standing.REPLICATING and measured.last_replication is not None:
            return newest_point(measured, measured.last_replication)
        if standing not in _MOVES_ON:
            raise _ended(there, measured, doing)
        done = total * (measured.percent or 0) // 100
        report(Progress(doing=f"{doing} by {there.host}", bytes_done=done, bytes_total=total))
        fabric.pause(LOOK_AGAIN_S)


def _ended(there: Located, measured: Measurement, doing: str) -> LeewardError:
    standing, name, where = standing_of(measured), there.vm.name, f"host {there.host}"
    if standing in (Standing.BROKEN, Standing.RESYNC_REQUIRED):
        return Unreachable(
            f"{doing} of '{name}' stopped: {standing}; {details(measured)}",
            where=where,
            remedy="correct the cause, see Measure-VMReplication on the host; the next try resumes it",
        )
    remedy = "see its replication health on the host, correct the cause, then try again"
    if standing is Standing.PAUSED:
        remedy = f"{go_on(name)}, then try again"
    return InvalidState(f"{doing} of '{name}' ended: {standing}; {details(measured)}", where=where, remedy=remedy)


def until_next_point(fabric: HyperVHypervisor, there: Located, frequency_s: float, report: Report) -> RecoveryPoint:
    """The newest point, when it is not older than a cycle; else wait up to a cycle for the next.

    Raises ``ResynchronizationRequired``; ``Unreachable`` when no point came for two cycles, or the host had stopped
    replicating and was told to go on; ``InvalidState`` when somebody has to decide."""
    began = datetime.now(UTC)
    while True:
        measured = fabric.hosts.measure(there, not_older_than_s=min(FRESH_S, frequency_s / 3))
        require_deltas(fabric, there, measured)
        now, newest = datetime.now(UTC), measured.last_replication
        age_s = (now - newest).total_seconds() if newest else float("inf")
        report(Progress(doing=f"newest point {age_s:.0f} s old, {size(measured.pending_bytes)} to be sent"))
        has_waited = (now - began).total_seconds() >= frequency_s
        if newest is not None and age_s <= (2 * frequency_s if has_waited else frequency_s):
            return newest_point(measured, newest)
        if has_waited:
            raise Unreachable(
                f"no recovery point of '{there.vm.name}' for {age_s:.0f} s: {details(measured)}",
                where=f"host {there.host}",
                remedy="see its replication health on the host: Measure-VMReplication",
            )
        fabric.pause(min(LOOK_AGAIN_S, frequency_s / 3))


def require_deltas(fabric: HyperVHypervisor, there: Located, measured: Measurement) -> None:
    """Deltas go on, or why not, in the product's classes (requirements §C.4)."""
    standing, where = standing_of(measured), f"host {there.host}"
    if standing in (Standing.REPLICATING, Standing.CHANGING):
        return
    if standing in (Standing.RESYNC_REQUIRED, Standing.RESYNCHRONIZING):
        raise ResynchronizationRequired(
            f"Hyper-V asks for a resynchronization of '{there.vm.name}': {details(measured)}",
            where=where,
            remedy=RESYNC,
        )
    if standing is Standing.BROKEN:
        resume(fabric, there, resynchronize=False)
        raise Unreachable(
            f"replication of '{there.vm.name}' had stopped: {details(measured)}; it was resumed",
            where=where,
            remedy="when it stops again, see its replication health on the host: Measure-VMReplication",
        )
    if standing is Standing.PAUSED:
        raise InvalidState(
            f"somebody paused the replication of '{there.vm.name}'",
            where=where,
            remedy=f"{go_on(there.vm.name)}, then resume it in leeward",
        )
    raise unexpected(there, "replicated")


def resume(fabric: HyperVHypervisor, there: Located, *, resynchronize: bool) -> None:
    given = ResumeReplication(vm_id=there.vm.id, resynchronize=resynchronize)
    fabric.hosts.run(there.host, RESUME_REPLICATION, given)
