"""Hyper-V Replica (requirements A5): hosts move the bytes, leeward decides and watches.

Calls marked [source] speak only to the source's hosts, those marked [target] only to the target's: a dead site keeps no
failover waiting. How Hyper-V Replica's order maps to the product's phases: docs/decisions/006-hyperv-replica.md.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from adapters.hyperv import existing, media, points, power_control, readiness, settings
from adapters.hyperv.discovery import end_extension
from adapters.hyperv.hosts import Located
from adapters.hyperv.hypervisor import HyperVHypervisor
from adapters.hyperv.operations import (
    CANCEL_FAILOVER,
    CHANGE_REPLICATION,
    COMPLETE_FAILOVER,
    DELETE_REPLICA,
    ENABLE_REPLICATION,
    MAKE_REPLICA,
    PREPARE_FAILOVER,
    REMOVE_REPLICATION,
    RENAME_VM,
    REVERSE_REPLICATION,
    START_FAILOVER,
    START_INITIAL_REPLICATION,
    START_TEST_FAILOVER,
    STOP_TEST_FAILOVER,
    DeleteReplica,
    OfVm,
    RenameVm,
    StartInitialReplication,
)
from adapters.hyperv.states import Role, Standing, power
from adapters.hyperv.watching import (
    achieve,
    place,
    require_deltas,
    resume,
    standing_of,
    unexpected,
    until_next_point,
    until_replicating,
)
from adapters.ports import Beat, Capabilities
from replication.media import SeedManifest
from replication.ports import Report
from vault.domain import (
    CacheFill,
    Finding,
    PowerState,
    Progress,
    RecoveredMachine,
    RecoveryPoint,
    Relationship,
    ReplicaSpace,
)
from vault.errors import InvalidState
from vault.inventory import Inventory

LAST_CHANGES_S = 6 * 3600.0
FAILOVER_S = 1800.0
COPIES_TRIED = 3
BEING_DELETED = "leeward: this replica is being deleted"


class HyperVReplicaProvider:
    """Implements :class:`adapters.ports.ReplicationProvider`. Every call looks at the state before it acts."""

    capabilities = Capabilities(several_test_copies=False)

    def __init__(self, fabric_of: Callable[[str], HyperVHypervisor], inventory: Inventory) -> None:
        self._fabric_of = fabric_of
        self._inventory = inventory

    # --- protecting -------------------------------------------------------------------------------------------

    def check_source(self, relationship: Relationship) -> list[Finding]:
        fabric = self._fabric_of(relationship.source_site)
        return [*readiness.of_source(fabric, relationship), *fabric.readiness(relationship)]

    def check_target(self, relationship: Relationship) -> list[Finding]:
        fabric = self._fabric_of(relationship.target_site)
        return [*readiness.of_target(fabric, self._inventory, relationship), *fabric.readiness(relationship)]

    def place_replica(self, relationship: Relationship) -> str:
        return self._fabric_of(relationship.target_site).place_replica(relationship)

    def replica_space(self, relationship: Relationship) -> ReplicaSpace | None:
        """What the files of the machine's disks take now."""
        fabric, there = self._source(relationship)
        if place(there)[0] is not Role.NONE or relationship.existing_replica:
            return None
        excluded = fabric.settings(relationship.machine).excluded_disks
        return ReplicaSpace(pool="", size=sum(disk.file_size for disk in there.vm.disks_without(excluded)))

    def identity(self, relationship: Relationship) -> str:
        return self._source(relationship)[1].vm.id

    def check_adoption(self, relationship: Relationship) -> list[Finding]:
        return existing.findings(self._fabric_of(relationship.target_site), relationship)

    def adopt_replica(self, relationship: Relationship) -> None:
        existing.adopt(self._fabric_of(relationship.target_site), relationship)

    def enable(self, relationship: Relationship) -> None:
        """After a failover the relationship is there already, and is turned round."""
        fabric, there = self._source(relationship)
        role, standing = place(there)
        if role is Role.SOURCE:
            return
        wanted = settings.of(self._inventory, relationship, there.vm, fabric.hosts.facts(there.host))
        if role is Role.NONE:
            names = fabric.settings(relationship.machine).excluded_disks
            excluded = [disk.path for disk in there.vm.disks if disk.is_among(names)]
            fabric.hosts.run(there.host, ENABLE_REPLICATION, settings.enabling(wanted, excluded))
        elif role is Role.TARGET and standing in (Standing.FAILED_OVER, Standing.COMMITTED):
            achieve(
                fabric,
                relationship.machine,
                REVERSE_REPLICATION,
                wanted,
                to="turned round",
                reached=lambda seen: place(seen)[0] is Role.SOURCE,
                beat=_silent,
                within_s=FAILOVER_S,
            )
        else:
            raise unexpected(there, "protected from here")

    def export_seed(
        self, relationship: Relationship, folder: Path, report: Report, *, restart: bool = False
    ) -> SeedManifest:
        fabric = self._fabric_of(relationship.source_site)
        return media.export(fabric, relationship, folder, report, restart=restart)

    def import_seed(self, relationship: Relationship, folder: Path, report: Report) -> RecoveryPoint:
        return media.take_in(self._fabric_of(relationship.target_site), relationship, folder, report)

    def seed_missing(self, relationship: Relationship) -> Progress | None:
        return media.missing(self._fabric_of(relationship.target_site), relationship)

    def copy_initial(self, relationship: Relationship, report: Report) -> RecoveryPoint:
        """The host copies, or sends what a medium or an existing machine did not have; a relationship that was turned
        round goes on from what both sides have."""
        fabric, there = self._source(relationship)
        standing = place(there)[1]
        if standing is Standing.READY:
            begin = StartInitialReplication(vm_id=there.vm.id, use_backup=relationship.existing_replica)
            fabric.hosts.run(there.host, START_INITIAL_REPLICATION, begin)
        elif standing in (Standing.RESYNC_REQUIRED, Standing.BROKEN):
            resume(fabric, there, resynchronize=standing is Standing.RESYNC_REQUIRED)
        return until_replicating(fabric, relationship.machine, "initial replication", report)

    def finalize(self, relationship: Relationship) -> None:
        fabric, there = self._source(relationship)
        measured = fabric.hosts.measure(there)
        if standing_of(measured) is not Standing.REPLICATING or measured.last_replication is None:
            raise InvalidState(
                f"the replica of '{relationship.machine}' is not complete: {standing_of(measured)}",
                where=f"host {there.host}",
                remedy=f"run the initial replication again: leeward protect {relationship.machine}",
            )

    # --- replicating ------------------------------------------------------------------------------------------

    def replicate_once(self, relationship: Relationship, report: Report, *, app_consistent: bool) -> RecoveryPoint:
        """Hyper-V cuts by its own rhythm, app-consistent ones too: this waits for the next point when one is due, and
        tells how old the newest is and how much it misses (:func:`adapters.hyperv.watching.until_next_point`).

        A policy that was changed meanwhile is brought to the host first."""
        fabric, there = self._source(relationship)
        wanted = settings.of_policy(relationship, there.vm)
        is_followed = there.vm.replication is None or settings.is_as_said(wanted, there.vm.replication)
        if place(there) == (Role.SOURCE, Standing.REPLICATING) and not is_followed:
            fabric.hosts.run(there.host, CHANGE_REPLICATION, wanted)
        return until_next_point(fabric, there, relationship.frequency_s, report)

    def keep_changes(self, relationship: Relationship, report: Report, *, app_consistent: bool) -> CacheFill | None:
        """Nothing: Hyper-V keeps its change logs beside the source's disks."""
        return None

    def resynchronize(self, relationship: Relationship, report: Report) -> RecoveryPoint:
        fabric, there = self._source(relationship)
        if place(there)[1] not in (Standing.REPLICATING, Standing.RESYNCHRONIZING):
            resume(fabric, there, resynchronize=True)
        return until_replicating(fabric, relationship.machine, "resynchronization", report)

    def send_last_changes(self, relationship: Relationship, report: Report) -> RecoveryPoint:
        fabric, there = self._source(relationship)
        role, standing = place(there)
        if power(there.vm.state) is not PowerState.OFF:
            raise InvalidState(
                f"machine '{relationship.machine}' still runs ({there.vm.state}); "
                "the last changes can only be sent once it is off",
                where=f"host {there.host}",
                remedy="shut it down, then try again",
            )
        if role is not Role.SOURCE:
            raise unexpected(there, "prepared for a planned failover")
        if standing is not Standing.PREPARED:
            require_deltas(fabric, there, fabric.hosts.measure(there))
            there = achieve(
                fabric,
                relationship.machine,
                PREPARE_FAILOVER,
                OfVm(vm_id=there.vm.id),
                to="prepared for a planned failover",
                reached=lambda seen: place(seen)[1] is Standing.PREPARED,
                beat=_telling(report),
                within_s=LAST_CHANGES_S,
            )
        moment = fabric.hosts.measure(there).last_replication
        return points.planned_point(moment or datetime.now(UTC))

    # --- recovery points --------------------------------------------------------------------------------------

    def recovery_points(self, relationship: Relationship) -> list[RecoveryPoint]:
        """Hourly points, and the newest: the replica's own disks."""
        fabric, there = self._replica(relationship)
        return points.points_of(fabric.hosts, there)

    def resolve_point(self, relationship: Relationship, choice: str) -> RecoveryPoint:
        fabric, there = self._replica(relationship)
        return points.choose(fabric.hosts, there, choice)

    # --- failing over -----------------------------------------------------------------------------------------

    def fail_over(self, relationship: Relationship, choice: str, report: Report) -> RecoveredMachine:
        """The host does not tell from which point a failed-over machine came, except for a planned failover's. What an
        earlier try left is therefore taken back and made anew, as long as it is off."""
        fabric, there = self._replica(relationship)
        standing = place(there)[1]
        if standing is Standing.COMMITTED or power(there.vm.state) is not PowerState.OFF:
            raise unexpected(there, "failed over")
        point = points.choose(fabric.hosts, there, choice)
        if standing is Standing.FAILED_OVER and not self._is_made_from(fabric, there, point):
            fabric.hosts.run(there.host, CANCEL_FAILOVER, OfVm(vm_id=there.vm.id))
            standing = Standing.REPLICATING
        if standing is not Standing.FAILED_OVER:
            there = achieve(
                fabric,
                relationship.machine,
                START_FAILOVER,
                points.failover_to(there, point),
                to="failed over",
                reached=lambda seen: place(seen)[1] is Standing.FAILED_OVER,
                beat=_telling(report),
                within_s=FAILOVER_S,
            )
            if not points.is_kept(point):
                # Nothing arrives any more: what is newest now is what was failed over to.
                point = points.newest_of(fabric.hosts, there)
        fabric.connect(there.host, there.vm.id, relationship, relationship.target_network)
        return RecoveredMachine(
            name=relationship.machine, site=fabric.site, network=relationship.target_network, point=point
        )

    def _is_made_from(self, fabric: HyperVHypervisor, there: Located, point: RecoveryPoint) -> bool:
        return points.is_planned(point) and fabric.hosts.measure(there).failed_over_planned

    def cancel_failover(self, relationship: Relationship) -> None:
        """Undoes it on the replica server; starting the source undoes the preparation there."""
        fabric = self._fabric_of(relationship.target_site)
        there = fabric.find_if_there(relationship.machine)
        if there is None or place(there) != (Role.TARGET, Standing.FAILED_OVER):
            return
        power_control.turned_off(fabric, relationship.machine)
        fabric.hosts.run(there.host, CANCEL_FAILOVER, OfVm(vm_id=there.vm.id))

    def start_test(self, relationship: Relationship, choice: str, name: str, report: Report) -> RecoveredMachine:
        """Hyper-V makes '<name> - Test', without a network; a copy that an earlier try left is replaced.

        The newest state moves on with every replication, and the host does not tell of which moment a copy is: it is
        made anew when something arrived meanwhile. When something always does, the moment before is told, which it
        holds in any case."""
        fabric, there = self._replica(relationship)
        for tries_left in reversed(range(COPIES_TRIED)):
            report(Progress(doing=f"making {name} on {there.host}"))
            fabric.hosts.run(there.host, STOP_TEST_FAILOVER, OfVm(vm_id=there.vm.id), FAILOVER_S)
            point = points.choose(fabric.hosts, there, choice)
            copy = fabric.hosts.run(there.host, START_TEST_FAILOVER, points.failover_to(there, point), FAILOVER_S)
            moves_on = tries_left and not points.is_kept(point)
            if not moves_on or points.newest_of(fabric.hosts, there).time == point.time:
                break
        fabric.hosts.run(there.host, RENAME_VM, RenameVm(vm_id=copy.vm_id, name=name))
        fabric.connect(there.host, copy.vm_id, relationship, relationship.test_network)
        return RecoveredMachine(name=name, site=fabric.site, network=relationship.test_network, point=point)

    def end_test(self, relationship: Relationship, name: str) -> None:
        fabric = self._fabric_of(relationship.target_site)
        there = fabric.find_if_there(relationship.machine)
        if there is not None and there.vm.replication is not None and there.vm.replication.test_vm_id:
            fabric.hosts.run(there.host, STOP_TEST_FAILOVER, OfVm(vm_id=there.vm.id), FAILOVER_S)

    def commit(self, relationship: Relationship, point_id: str) -> None:
        fabric, there = self._target(relationship)
        role, standing = place(there)
        if role is Role.SOURCE or (role is Role.TARGET and standing is Standing.COMMITTED):
            return
        if (role, standing) != (Role.TARGET, Standing.FAILED_OVER):
            raise unexpected(there, "committed")
        achieve(
            fabric,
            relationship.machine,
            COMPLETE_FAILOVER,
            OfVm(vm_id=there.vm.id),
            to="committed",
            reached=lambda seen: place(seen)[1] is Standing.COMMITTED,
            beat=_silent,
            within_s=FAILOVER_S,
        )

    # --- turning round and ending -----------------------------------------------------------------------------

    def prepare_reverse(self, reversed_relationship: Relationship) -> None:
        """After an unplanned failover the old primary has to be made a replica; after a planned one the reversal does
        that by itself. An old primary that is gone is made anew by the first copy."""
        fabric = self._fabric_of(reversed_relationship.target_site)
        there = fabric.find_if_there(reversed_relationship.machine)
        if there is None or place(there)[0] is Role.TARGET:
            return
        role, standing = place(there)
        if role is not Role.SOURCE or power(there.vm.state) is not PowerState.OFF:
            raise unexpected(there, "turned into a replica")
        if standing is not Standing.PREPARED:
            fabric.hosts.run(there.host, MAKE_REPLICA, OfVm(vm_id=there.vm.id))

    def retire_replica(self, relationship: Relationship) -> None:
        """Nothing: what was the replica is the machine now."""

    def disable_source(self, relationship: Relationship) -> None:
        fabric = self._fabric_of(relationship.source_site)
        there = fabric.find_if_there(relationship.machine)
        if there is not None and place(there)[0] is Role.SOURCE:
            fabric.hosts.run(there.host, REMOVE_REPLICATION, OfVm(vm_id=there.vm.id))

    def disable_target(self, relationship: Relationship) -> None:
        """A replica that was failed over to is the machine itself, and one that existed before is somebody's: they only
        leave their relationship."""
        fabric = self._fabric_of(relationship.target_site)
        there = fabric.find_if_there(relationship.machine)
        if there is None:
            return
        of_vm = OfVm(vm_id=there.vm.id)
        role, standing = place(there)
        if role is Role.TARGET and there.vm.replication is not None and there.vm.replication.extended_to:
            raise InvalidState(
                f"the replica of '{relationship.machine}' is replicated further, to {there.vm.replication.extended_to}",
                where=f"host {there.host}",
                remedy=f"{end_extension(there.vm.name)}, and see what becomes of the replica there",
            )
        if role is Role.TARGET and there.vm.replication is not None and there.vm.replication.test_vm_id:
            fabric.hosts.run(there.host, STOP_TEST_FAILOVER, of_vm, FAILOVER_S)
        stays = relationship.existing_replica or standing in (Standing.FAILED_OVER, Standing.COMMITTED)
        if role is Role.TARGET and stays:
            fabric.hosts.run(there.host, REMOVE_REPLICATION, of_vm)
        elif role is Role.TARGET or there.vm.notes == BEING_DELETED:
            doomed = DeleteReplica(vm_id=there.vm.id, note=BEING_DELETED)
            fabric.hosts.run_job(there.host, DELETE_REPLICA, doomed, _silent, FAILOVER_S)
            if fabric.find_if_there(relationship.machine) is not None:
                raise unexpected(there, "deleted")

    # --- shared -----------------------------------------------------------------------------------------------

    def _source(self, relationship: Relationship) -> tuple[HyperVHypervisor, Located]:
        fabric = self._fabric_of(relationship.source_site)
        return fabric, fabric.find(relationship.machine)

    def _target(self, relationship: Relationship) -> tuple[HyperVHypervisor, Located]:
        fabric = self._fabric_of(relationship.target_site)
        return fabric, fabric.find(relationship.machine)

    def _replica(self, relationship: Relationship) -> tuple[HyperVHypervisor, Located]:
        fabric, there = self._target(relationship)
        if place(there)[0] is not Role.TARGET:
            raise unexpected(there, "used as a replica")
        return fabric, there


def _telling(report: Report) -> Beat:
    def beat(doing: str) -> None:
        report(Progress(doing=doing))

    return beat


def _silent(_: str) -> None:
    """For calls that have nobody to tell how far they are."""
