"""Array replication (requirements A6): groups of volumes that arrays mirror, failed over as a whole.

Calls marked [source] speak only to the source site's array and hosts, those marked [target] only to the target's; the
arrays speak to each other. How groups fit the port, which is about one machine:
docs/decisions/008-groups-of-an-array.md.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeGuard

from adapters.ports import Capabilities
from adapters.san import points, pools, readiness
from adapters.san.copies import Copies
from adapters.san.ending import Ending
from adapters.san.places import ArrayOf, Place, Places
from adapters.san.ports import (
    Array,
    Group,
    GroupControl,
    GroupState,
    SanFabric,
    Step,
    Volume,
    Watch,
    able_to,
    unwatched,
)
from adapters.san.registering import is_registered, point_of_earlier_try, register, runs
from adapters.san.turns import Turns
from adapters.san.watching import telling, unreported, until_all_is_shipped, until_settled, until_synchronized
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
from vault.errors import InvalidState, PeerUnreachable, ResynchronizationRequired, Unreachable
from vault.inventory import Inventory

COPIES_BY_ITSELF = frozenset({GroupState.SYNCHRONIZED, GroupState.COPYING})


class ArrayProvider:
    """Implements :class:`adapters.ports.ReplicationProvider`, :class:`adapters.ports.MovesTogether` and
    :class:`adapters.ports.SizesReplicas`."""

    capabilities = Capabilities(commits_by_itself=True)

    def __init__(self, fabric_of: Callable[[str], SanFabric], array_of: ArrayOf, inventory: Inventory) -> None:
        self._fabric_of = fabric_of
        self._places = Places(inventory, array_of)
        self._copies = Copies(self._places, fabric_of)
        self._ending = Ending(self._places, fabric_of)
        self._turns = Turns()

    def moves_with(self, relationship: Relationship) -> list[str]:
        return self._places.members(relationship.machine)

    # --- protecting -------------------------------------------------------------------------------------------

    def check_source(self, relationship: Relationship) -> list[Finding]:
        return readiness.of_source(self._fabric_of(relationship.source_site), self._places, relationship)

    def check_target(self, relationship: Relationship) -> list[Finding]:
        return readiness.of_target(self._fabric_of(relationship.target_site), self._places, relationship)

    def enable(self, relationship: Relationship) -> None:
        """The first machine of a group makes it, with the volumes of all; after a failover it is turned round."""
        machine, site = relationship.machine, relationship.source_site
        with self._turn(machine, unreported):
            place = self._places.at(machine, site)
            if place.group is not None and place.group.changing:
                until_settled(self._places, machine, site, unreported)
                place = self._places.at(machine, site)
            array, group, _ = place
            if not _is_mirrored(group):
                self._mirror(able_to(Step.MIRROR, array), place, relationship)
            elif group.state is GroupState.FAILED_OVER and group.is_active:
                array.reverse(group, unwatched)
            elif not (group.is_source and group.is_active):
                raise self._active_elsewhere(group, array, machine)

    def _mirror(self, array: Array, place: Place, relationship: Relationship) -> None:
        places, settings = self._places, self._places.settings(relationship.machine)
        here, there = places.mirrored_by(relationship.source_site), places.mirrored_by(relationship.target_site)
        found, later = pools.placing(places, place, relationship), settings.mode == "asynchronous"
        group = place.group or self._group_of(array, relationship, found.volumes)
        hold, pool = here.when_link_is_lost == "wait" and not later, found.pool or there.pool
        try:
            array.mirror(group, there.array, pool, asynchronous=later, hold_writes=hold, watch=unwatched)
        except InvalidState:
            _, other = self._places.find(relationship.machine, relationship.source_site)
            if other is None or other.state not in COPIES_BY_ITSELF:
                raise
            if other.id != group.id:
                array.delete_group(group)

    def _group_of(self, array: Array, relationship: Relationship, volumes: list[Volume]) -> Group:
        """A new one, unless another worker of the site has been quicker: turns are those of one process."""
        machine, site = relationship.machine, relationship.source_site
        try:
            return array.create_group(self._places.settings(machine).group, volumes)
        except InvalidState:
            _, other = self._places.find(machine, site)
            if other is None:
                raise
            return other

    def replica_space(self, relationship: Relationship) -> ReplicaSpace | None:
        place = self._places.at(relationship.machine, relationship.source_site)
        if place.group is not None and place.group.state is not GroupState.LOCAL:
            return None
        found = pools.placing(self._places, place, relationship)
        return ReplicaSpace(pool=found.pool, size=found.size) if found.pool is not None else None

    def export_seed(
        self, relationship: Relationship, folder: Path, report: Report, *, restart: bool = False
    ) -> SeedManifest:
        raise _no_media(relationship)

    def import_seed(self, relationship: Relationship, folder: Path, report: Report) -> RecoveryPoint:
        raise _no_media(relationship)

    def seed_missing(self, relationship: Relationship) -> Progress | None:
        raise _no_media(relationship)

    def copy_initial(self, relationship: Relationship, report: Report) -> RecoveryPoint:
        """The array copies; this waits for it, and begins again what stopped."""
        machine, site = relationship.machine, relationship.source_site
        array, group = self._places.group_at(machine, site)
        if group.state not in COPIES_BY_ITSELF and group.is_source and group.is_active:
            self._resume(array, group, report)
        return points.present(until_synchronized(self._places, machine, site, report))

    def finalize(self, relationship: Relationship) -> None:
        array, group = self._places.group_at(relationship.machine, relationship.source_site)
        if group.state is not GroupState.SYNCHRONIZED:
            raise InvalidState(
                f"the copy of group '{group.name}' is not complete: {group.state}{readiness.progress(group)}",
                where=f"array {array.name}",
                remedy=f"run the initial replication again: leeward protect {relationship.machine}",
            )

    # --- replicating ------------------------------------------------------------------------------------------

    def replicate_once(self, relationship: Relationship, report: Report, *, app_consistent: bool) -> RecoveryPoint:
        """Looks whether both sides are equal, or of which moment an asynchronous target is. A link that was lost and is
        back is resumed; what a person suspended or split is not, that needs a resynchronization."""
        machine, site = relationship.machine, relationship.source_site
        array, group = self._places.group_at(machine, site)
        if group.state is GroupState.LINK_LOST and group.is_source:
            self._resume(array, group, report)
        elif group.state in (GroupState.SUSPENDED, GroupState.SPLIT):
            raise ResynchronizationRequired(
                f"group '{group.name}' is {group.state}; {readiness.since(group)}",
                where=f"array {array.name}",
                remedy=f"resume it: leeward resync {machine}",
            )
        if group.state is not GroupState.SYNCHRONIZED:
            group = until_synchronized(self._places, machine, site, report)
        return points.present(group)

    def keep_changes(self, relationship: Relationship, report: Report, *, app_consistent: bool) -> CacheFill | None:
        """Nothing: the array knows what the other one misses."""
        return None

    def resynchronize(self, relationship: Relationship, report: Report) -> RecoveryPoint:
        array, group = self._places.group_at(relationship.machine, relationship.source_site)
        if group.state is not GroupState.SYNCHRONIZED:
            self._resume(array, group, report)
        return points.present(until_synchronized(self._places, relationship.machine, relationship.source_site, report))

    def _resume(self, array: GroupControl, group: Group, report: Report) -> None:
        with self._turns.of(group.name, report):
            array.resume(group, telling(report))

    def send_last_changes(self, relationship: Relationship, report: Report) -> RecoveryPoint:
        """A synchronized target has all; that it is one is seen here. An asynchronous one is waited for."""
        machine, site = relationship.machine, relationship.source_site
        if self._fabric_of(site).describe(machine).power is not PowerState.OFF:
            raise InvalidState(
                f"machine '{machine}' still runs; its last changes are at the target only once it is off",
                where=f"site {site}",
                remedy="shut it down, then try again",
            )
        array, group = until_settled(self._places, machine, site, report)
        moved_before = group.state is GroupState.FAILED_OVER and not group.is_active
        if group.state is not GroupState.SYNCHRONIZED and not moved_before:
            remedy = readiness.remedy(group, machine)
            raise InvalidState(
                f"group '{group.name}' is {group.state}: not everything of '{machine}' is at "
                f"{relationship.target_site}; {readiness.since(group)}",
                where=f"array {array.name}",
                remedy=remedy,
            )
        if group.asynchronous and not moved_before:
            until_all_is_shipped(self._places, machine, site, report)
        return points.make(points.PLANNED, datetime.now(UTC))

    # --- recovery points --------------------------------------------------------------------------------------

    def recovery_points(self, relationship: Relationship) -> list[RecoveryPoint]:
        """The present one, if the target is the copy of a moment."""
        _, group = self._places.group_at(relationship.machine, relationship.target_site)
        return [points.present(group)] if group.is_whole else []

    def resolve_point(self, relationship: Relationship, choice: str) -> RecoveryPoint:
        return points.resolve(self._places, relationship, choice)

    # --- failing over -----------------------------------------------------------------------------------------

    def fail_over(self, relationship: Relationship, choice: str, report: Report) -> RecoveredMachine:
        """Register the machine on the target's volumes; the group moves with its last machine when the failover is
        planned (each was seen off before), else at once.

        Before each of these steps a late try hears that it is one: what it does after the failover was undone would
        take the volumes from under the machine that was started again."""
        machine, site = relationship.machine, relationship.target_site
        fabric, hosts = self._fabric_of(site), self._places.storage(site).initiators
        registering = Progress(doing=f"registering {machine} at {site}")
        with self._turn(machine, report):
            array, group, volumes = self._replica(machine, site, report)
            if points.is_planned(choice):
                point = points.read(choice)
                report(registering)
                _show(array, volumes, hosts)
                if point_of_earlier_try(fabric, machine) != point and not runs(fabric, machine):
                    fabric.remove(machine)  # what an earlier run left; its volumes stay
                register(fabric, relationship, machine, self._by_name(machine), point, test=False)
                if all(is_registered(fabric, member) for member in self._places.members(machine)):
                    report(_moving(group, site))
                    self._move(array, group, machine, telling(report))
            else:
                point = point_of_earlier_try(fabric, machine) or self.resolve_point(relationship, choice)
                report(_moving(group, site))
                self._promote(array, group, telling(report))
                report(registering)
                _show(array, volumes, hosts)
                point = point_of_earlier_try(fabric, machine) or point  # of one that goes on in another process
                register(fabric, relationship, machine, self._by_name(machine), point, test=False)
        return RecoveredMachine(name=machine, site=site, network=relationship.target_network, point=point)

    @staticmethod
    def _move(array: GroupControl, group: Group, machine: str, watch: Watch) -> None:
        """Each machine was seen off while the group was synchronized; what stopped it since is a person's decision.
        Without the other array nobody moves it: one that is cut off may do so, and both sides would take writes."""
        if group.is_active:
            return
        if group.state is GroupState.LINK_LOST:
            raise PeerUnreachable(
                f"group '{group.name}' is {group.state}; nobody knows whether the other array still takes writes",
                where=f"array {array.name}",
                remedy="repair the link between the arrays, or abandon the failover",
            )
        if group.state is not GroupState.SYNCHRONIZED:
            raise InvalidState(
                f"group '{group.name}' is {group.state}{readiness.progress(group)}; {readiness.since(group)}",
                where=f"array {array.name}",
                remedy=readiness.remedy(group, machine),
            )
        array.fail_over(group, watch)

    @staticmethod
    def _promote(array: GroupControl, group: Group, watch: Watch) -> None:
        """The source's array stops first. Only when it does not answer, or when the target is a copy of an earlier
        moment, the group is split and its target made active without it: the run's type and the operator's word that
        the source is down stand behind that."""
        if group.is_active:
            return
        if group.state is GroupState.SYNCHRONIZED:
            try:
                array.fail_over(group, watch)
                return
            except PeerUnreachable:
                watch(f"the other array of group '{group.name}' does not answer", 0)
        if group.state is not GroupState.SPLIT:
            able_to(Step.SPLIT, array).split(group)
        array.fail_over(group, watch, force=True)

    def cancel_failover(self, relationship: Relationship) -> None:
        """The group goes back when it has moved, as long as none of its machines runs here."""
        machine, site = relationship.machine, relationship.target_site
        fabric = self._fabric_of(site)
        with self._turn(machine, unreported):
            array, group, volumes = self._replica(machine, site, unreported)
            if group.is_active:
                running = [one for one in self._places.members(machine) if runs(fabric, one)]
                if running:
                    raise InvalidState(
                        f"group '{group.name}' stays at {site}, where {', '.join(running)} of it already runs",
                        where=f"array {array.name}",
                        remedy=f"'{machine}' cannot go back alone: fail it over too, then fail the plan back",
                    )
                array.fail_back(group, unwatched)
            fabric.remove(machine)
            _hide(array, volumes, self._places.storage(site).initiators)

    def start_test(self, relationship: Relationship, choice: str, name: str, report: Report) -> RecoveredMachine:
        with self._turn(relationship.machine, report):
            return self._copies.start(relationship, choice, name, report)

    def end_test(self, relationship: Relationship, name: str) -> None:
        self._copies.end(relationship, name)

    def commit(self, relationship: Relationship, point_id: str) -> None:
        """Automatic (requirements §C.5): there is no other recovery point that could be dropped."""

    # --- going the other way ----------------------------------------------------------------------------------

    def prepare_reverse(self, reversed_relationship: Relationship) -> None:
        """Unregister the old copy and take its volumes from its hosts; the old array has stopped by itself."""
        machine, site = reversed_relationship.machine, reversed_relationship.target_site
        array, group, volumes = self._replica(machine, site, unreported)
        if group.is_active:
            raise Unreachable(
                f"array {array.name} still takes writes to group '{group.name}': it has not heard of the failover",
                where=f"site {site}",
                remedy="repair the link between the arrays",
            )
        self._fabric_of(site).remove(machine)
        _hide(array, volumes, self._places.storage(site).initiators)

    def retire_replica(self, relationship: Relationship) -> None:
        """Nothing: the old target's volumes are what the machine runs on."""

    def disable_source(self, relationship: Relationship) -> str | None:
        return self._ending.at_source(relationship)

    def disable_target(self, relationship: Relationship) -> str | None:
        return self._ending.at_target(relationship)

    # --- parts ------------------------------------------------------------------------------------------------

    def _turn(self, machine: str, report: Report) -> AbstractContextManager[None]:
        """One call at a time changes a group."""
        return self._turns.of(self._places.settings(machine).group, report)

    def _replica(self, machine: str, site: str, report: Report) -> tuple[GroupControl, Group, list[Volume]]:
        array, group = until_settled(self._places, machine, site, report)
        return array, group, self._places.own_volumes(machine, array, group)

    def _by_name(self, machine: str) -> dict[str, str]:
        return dict(self._places.settings(machine).volumes)

    def _active_elsewhere(self, group: Group, array: GroupControl, machine: str) -> InvalidState:
        return InvalidState(
            f"group '{group.name}' is {group.state}, and array {array.name} is "
            f"{'the active' if group.is_active else 'not the active'} side: '{machine}' cannot be handled so now",
            where=f"array {array.name}",
            remedy=f"wait until the failover of {', '.join(self._places.members(machine))} is done, then reverse it",
        )


def _moving(group: Group, site: str) -> Progress:
    return Progress(doing=f"moving group {group.name} to {site}")


def _is_mirrored(group: Group | None) -> TypeGuard[Group]:
    return group is not None and group.state is not GroupState.LOCAL


def _show(array: GroupControl, volumes: list[Volume], hosts: list[str]) -> None:
    """Where leeward cannot, the hosts of both sites see the volumes always; the array lets one side write."""
    if isinstance(array, Array):
        array.expose(volumes, hosts)


def _hide(array: GroupControl, volumes: list[Volume], hosts: list[str]) -> None:
    if isinstance(array, Array):
        array.hide(volumes, hosts)


def _no_media(relationship: Relationship) -> InvalidState:
    return InvalidState(
        f"'{relationship.machine}' is replicated by arrays, whose first copy leeward does not carry on media",
        remedy="choose 'initial_replication: {method: network}' for its policy",
    )
