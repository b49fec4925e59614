"""Watching what hosts do by themselves: polled, so that no connection is held, and a repeated call goes on watching."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from adapters.hyperv.facts import Measurement
from adapters.hyperv.hosts import Located
from adapters.hyperv.hypervisor import HyperVHypervisor
from adapters.hyperv.operation import Input, Operation, Output
from adapters.hyperv.operations import RESUME_REPLICATION, ResumeReplication
from adapters.hyperv.points import newest_point
from adapters.hyperv.states import ROLES, STATES, Role, Standing
from adapters.ports import Beat
from replication.ports import Report
from vault.domain import Progress, RecoveryPoint
from vault.errors import InvalidState, ResynchronizationRequired, Unreachable

LOOK_AGAIN_S = 5.0
FRESH_S = 10.0
"""Machines of one host that are looked at within this time share one measurement."""
_MOVES_ON = frozenset({Standing.COPYING, Standing.RESYNCHRONIZING, Standing.REPLICATING, Standing.CHANGING})


def place(there: Located) -> tuple[Role, Standing]:
    if there.vm.replication is None:
        return Role.NONE, Standing.NOT_REPLICATED
    return ROLES[there.vm.replication.mode], STATES[there.vm.replication.state].standing


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
    to: str,
    reached: Callable[[Located], bool],
    beat: Beat,
    within_s: float,
) -> Located:
    """Run a job on the machine's host until the machine is *seen* where it shall be.

    A job's answer may be that of an earlier try, whose effect was undone since: then it runs once more.

    Args:
        to: what it is brought to, for the error: ``failed over``.

    Raises ``InvalidState`` when the job ends well and the machine is not there nevertheless."""
    there = fabric.find(machine)
    for _ in range(2):
        fabric.hosts.run_job(there.host, operation, given, beat, within_s)
        there = fabric.find(machine)
        if reached(there):
            return there
    raise unexpected(there, to)


def unexpected(there: Located, wanted: str) -> InvalidState:
    role, standing = place(there)
    return InvalidState(
        f"'{there.vm.name}' cannot be {wanted}: it is {there.vm.state}, {role}, {standing}",
        where=f"host {there.host}",
        remedy="bring it into the expected state on the host; docs/hyperv.md says which that is",
    )


def until_replicating(fabric: HyperVHypervisor, machine: str, doing: str, report: Report) -> RecoveryPoint:
    """Wait until a first copy or a resynchronization is over; the point from which deltas go on.

    Raises ``InvalidState`` when it ended otherwise, with what the host says."""
    there = fabric.find(machine)
    total = sum(disk.size for disk in there.vm.disks)
    while True:
        measured = fabric.hosts.measure(there)
        standing = standing_of(measured)
        if standing is Standing.REPLICATING and measured.last_replication is not None:
            return newest_point(measured, measured.last_replication)
        if standing not in _MOVES_ON:
            raise InvalidState(
                f"{doing} of '{machine}' ended: {standing}; {details(measured)}",
                where=f"host {there.host}",
                remedy="see its replication health on the host, correct the cause, then try again",
            )
        done = total * (measured.percent or 0) // 100
        report(Progress(doing=f"{doing} by {there.host}", bytes_done=done, bytes_total=total))
        fabric.pause(LOOK_AGAIN_S)


def until_next_point(fabric: HyperVHypervisor, there: Located, frequency_s: float, report: Report) -> RecoveryPoint:
    """The newest point, when it is not older than a cycle; else wait up to a cycle for the next.

    Raises ``ResynchronizationRequired``; ``Unreachable`` when no point came for two cycles, or the host had stopped
    replicating and was told to go on; ``InvalidState`` when somebody has to decide."""
    began = datetime.now(UTC)
    while True:
        measured = fabric.hosts.measure(there, not_older_than_s=min(FRESH_S, frequency_s / 3))
        _require_deltas(fabric, there, measured)
        now, newest = datetime.now(UTC), measured.last_replication
        age_s = (now - newest).total_seconds() if newest else float("inf")
        report(Progress(doing=f"newest point {age_s:.0f} s old, {measured.pending_bytes:,} bytes to be sent"))
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


def _require_deltas(fabric: HyperVHypervisor, there: Located, measured: Measurement) -> None:
    """Deltas go on, or why not, in the product's classes (requirements §C.4)."""
    standing, where = standing_of(measured), f"host {there.host}"
    if standing in (Standing.REPLICATING, Standing.CHANGING):
        return
    if standing in (Standing.RESYNC_REQUIRED, Standing.RESYNCHRONIZING):
        raise ResynchronizationRequired(
            f"Hyper-V asks for a resynchronization of '{there.vm.name}': {details(measured)}", where=where
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
            remedy=f"Resume-VMReplication -VMName '{there.vm.name}' on the host, then resume it in leeward",
        )
    raise unexpected(there, "replicated")


def resume(fabric: HyperVHypervisor, there: Located, *, resynchronize: bool) -> None:
    given = ResumeReplication(vm_id=there.vm.id, resynchronize=resynchronize)
    fabric.hosts.run(there.host, RESUME_REPLICATION, given)
