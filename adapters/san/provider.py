"""Array replication (requirements A6): groups of volumes that arrays mirror, failed over as a whole.

Calls marked [source] speak only to the source site's array and hosts, those marked [target] only to the target's; the
arrays speak to each other. How groups fit the port, which is about one machine:
docs/decisions/008-groups-of-an-array.md.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from adapters.ports import Capabilities
from adapters.san import points, readiness
from adapters.san.places import ArrayOf, Places
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
from adapters.san.watching import telling, until_all_is_shipped, until_synchronized
from replication.media import SeedManifest
from replication.ports import Report
from vault.domain import CacheFill, Finding, PowerState, Progress, RecoveredMachine, RecoveryPoint, Relationship
from vault.errors import InvalidState, NotFound, ResynchronizationRequired, Unreachable
from vault.inventory import Inventory


class ArrayProvider:
    """Implements :class:`adapters.ports.ReplicationProvider` and :class:`adapters.ports.MovesTogether`."""

    capabilities = Capabilities(commits_by_itself=True)

    def __init__(self, fabric_of: Callable[[str], SanFabric], array_of: ArrayOf, inventory: Inventory) -> None:
        self._fabric_of = fabric_of
        self._places = Places(inventory, array_of)
        self._in_turn: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

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
        with self._turn(machine):
            array, group, _ = self._places.at(machine, site)
            if group is None:
                volumes = array.volumes(self._places.group_volume_names(machine))
                group = able_to(Step.MIRROR, array).create_group(self._places.settings(machine).group, volumes)
            if group.state is GroupState.LOCAL:
                self._mirror(able_to(Step.MIRROR, array), group, relationship)
            elif group.state is GroupState.FAILED_OVER and group.is_active:
                array.reverse(group, unwatched)
            elif not (group.is_source and group.is_active):
                raise self._active_elsewhere(group, array, machine)

    def _mirror(self, array: Array, group: Group, relationship: Relationship) -> None:
        places, later = self._places, self._places.settings(relationship.machine).mode == "asynchronous"
        here, there = places.mirrored_by(relationship.source_site), places.mirrored_by(relationship.target_site)
        hold = here.when_link_is_lost == "wait" and not later
        array.mirror(group, there.array, there.pool, asynchronous=later, hold_writes=hold, watch=unwatched)

    def export_seed(
        self, relationship: Relationship, folder: Path, report: Report, *, restart: bool = False
    ) -> SeedManifest:
        raise _no_media(relationship)

    def import_seed(self, relationship: Relationship, folder: Path, report: Report) -> RecoveryPoint:
        raise _no_media(relationship)

    def seed_missing(self, relationship: Relationship) -> Progress | None:
        raise _no_media(relationship)

    def copy_initial(self, relationship: Relationship, report: Report) -> RecoveryPoint:
        """The array copies; this waits for it."""
        return points.present(until_synchronized(self._places, relationship.machine, relationship.source_site, report))

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
        return self.copy_initial(relationship, report)

    def _resume(self, array: GroupControl, group: Group, report: Report) -> None:
        with self._in_turn[group.name]:
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
        array, group = self._places.group_at(machine, site)
        moved_before = group.state is GroupState.FAILED_OVER and not group.is_active
        if group.state is not GroupState.SYNCHRONIZED and not moved_before:
            remedy = readiness.REMEDIES.get(group.state, "look at the group on the array").format(machine=machine)
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
        return [points.present(group)] if group.whole_at is not None else []

    def resolve_point(self, relationship: Relationship, choice: str) -> RecoveryPoint:
        array, group = self._places.group_at(relationship.machine, relationship.target_site)
        if group.whole_at is None:
            raise NotFound(
                f"the copy of group '{group.name}' is between two moments: {group.state}",
                where=f"array {array.name}",
                remedy="wait until it is complete",
            )
        return points.choose(choice, points.present(group))

    # --- failing over -----------------------------------------------------------------------------------------

    def fail_over(self, relationship: Relationship, choice: str, report: Report) -> RecoveredMachine:
        """Register the machine on the target's volumes; the group moves with its last machine when the failover is
        planned (each was seen off before), else at once."""
        machine, site = relationship.machine, relationship.target_site
        fabric, hosts = self._fabric_of(site), self._places.storage(site).initiators
        with self._turn(machine):
            array, group, volumes = self._replica(machine, site)
            if points.is_planned(choice):
                point = points.read(choice)
                _show(array, volumes, hosts)
                if self._point_of_earlier_try(fabric, machine) != point and not _runs(fabric, machine):
                    fabric.remove(machine)  # what an earlier run left; its volumes stay
                self._register(fabric, relationship, machine, self._by_name(machine), point, test=False)
                if all(_is_registered(fabric, member) for member in self._places.members(machine)):
                    self._move(array, group, telling(report))
            else:
                point = self._point_of_earlier_try(fabric, machine) or self.resolve_point(relationship, choice)
                self._promote(array, group, telling(report))
                _show(array, volumes, hosts)
                self._register(fabric, relationship, machine, self._by_name(machine), point, test=False)
        return RecoveredMachine(name=machine, site=site, network=relationship.target_network, point=point)

    @staticmethod
    def _move(array: GroupControl, group: Group, watch: Watch) -> None:
        if not group.is_active:
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
            except Unreachable:
                watch(f"the other array of group '{group.name}' does not answer", 0)
        able_to(Step.SPLIT, array).split(group)
        array.fail_over(group, watch, force=True)

    def cancel_failover(self, relationship: Relationship) -> None:
        """The group goes back when it has moved, as long as none of its machines runs here."""
        machine, site = relationship.machine, relationship.target_site
        fabric = self._fabric_of(site)
        with self._turn(machine):
            array, group, volumes = self._replica(machine, site)
            if group.is_active:
                running = [one for one in self._places.members(machine) if _runs(fabric, one)]
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
        """A clone of the target's volumes, all of one moment; the mirror goes on."""
        machine, site = relationship.machine, relationship.target_site
        fabric = self._fabric_of(site)
        with self._turn(machine):
            earlier = self._point_of_earlier_try(fabric, name)
            if earlier is not None:
                return RecoveredMachine(name=name, site=site, network=relationship.test_network, point=earlier)
            found, group, volumes = self._replica(machine, site)
            array = able_to(Step.CLONE, found)
            moving = [member for member in self._places.members(machine) if _is_registered(fabric, member)]
            if moving or group.is_active:
                raise self._is_moving(group, array, moving or self._places.members(machine))
            self.resolve_point(relationship, choice)
            copies = self._clone_names(machine, name)
            array.delete_volumes(list(copies.values()))
            moment = array.clone(volumes, list(copies.values()))
            array.expose(array.volumes(list(copies.values())), self._places.storage(site).initiators)
            point = points.make(points.TEST, moment)
            self._register(fabric, relationship, name, copies, point, test=True)
        return RecoveredMachine(name=name, site=site, network=relationship.test_network, point=point)

    def end_test(self, relationship: Relationship, name: str) -> None:
        machine, site = relationship.machine, relationship.target_site
        self._fabric_of(site).remove(name)
        able_to(Step.CLONE, self._places.array_of(site)).delete_volumes(list(self._clone_names(machine, name).values()))

    def commit(self, relationship: Relationship, point_id: str) -> None:
        """Automatic (requirements §C.5): there is no other recovery point that could be dropped."""

    # --- going the other way ----------------------------------------------------------------------------------

    def prepare_reverse(self, reversed_relationship: Relationship) -> None:
        """Unregister the old copy and take its volumes from its hosts; the old array has stopped by itself."""
        machine, site = reversed_relationship.machine, reversed_relationship.target_site
        array, group = self._places.group_at(machine, site)
        if group.is_active:
            raise Unreachable(
                f"array {array.name} still takes writes to group '{group.name}': it has not heard of the failover",
                where=f"site {site}",
                remedy="repair the link between the arrays",
            )
        self._fabric_of(site).remove(machine)
        _hide(array, array.volumes(self._places.volume_names(machine)), self._places.storage(site).initiators)

    def retire_replica(self, relationship: Relationship) -> None:
        """Nothing: the old target's volumes are what the machine runs on."""

    def disable_source(self, relationship: Relationship) -> None:
        """The mirror ends with a group of one machine. That of several goes on: it protects the others."""
        machine, site = relationship.machine, relationship.source_site
        if len(self._places.members(machine)) > 1:
            return
        array, group, _ = self._places.at(machine, site)
        if group is None or not isinstance(array, Array):
            return  # a mirror that the array's own tools made goes on
        if group.state is not GroupState.LOCAL:
            if Step.DETACH not in array.supports():
                raise InvalidState(
                    f"array {array.name} cannot detach groups", remedy=f"detach group '{group.name}' on the array"
                )
            array.detach(group)
        array.delete_group(group)

    def disable_target(self, relationship: Relationship) -> None:
        machine, site = relationship.machine, relationship.target_site
        array = self._places.array_of(site)
        wanted = self._places.settings(machine).group
        group = next((one for one in array.groups() if one.name == wanted), None)
        is_over = group is not None and group.state is GroupState.LOCAL and len(self._places.members(machine)) == 1
        if group is not None and is_over and isinstance(array, Array):
            array.delete_group(group)
            array.delete_volumes(self._places.volume_names(machine))

    # --- parts ------------------------------------------------------------------------------------------------

    def _turn(self, machine: str) -> threading.Lock:
        """One call at a time changes a group."""
        return self._in_turn[self._places.settings(machine).group]

    def _replica(self, machine: str, site: str) -> tuple[GroupControl, Group, list[Volume]]:
        array, group = self._places.group_at(machine, site)
        return array, group, array.volumes(self._places.volume_names(machine))

    def _by_name(self, machine: str) -> dict[str, str]:
        return dict(self._places.settings(machine).volumes)

    def _clone_names(self, machine: str, name: str) -> dict[str, str]:
        return {disk: f"{name}-{disk}" for disk in self._places.settings(machine).volumes}

    @staticmethod
    def _register(
        fabric: SanFabric,
        relationship: Relationship,
        name: str,
        volumes: dict[str, str],
        point: RecoveryPoint,
        *,
        test: bool,
    ) -> None:
        network = relationship.test_network if test else relationship.target_network
        fabric.register_on_volumes(name, relationship.machine, volumes, network, point.id)

    @staticmethod
    def _point_of_earlier_try(fabric: SanFabric, name: str) -> RecoveryPoint | None:
        try:
            made_from = fabric.made_from(name)
        except NotFound:
            return None
        return points.read(made_from) if made_from else None

    @staticmethod
    def _is_moving(group: Group, array: GroupControl, moving: list[str]) -> InvalidState:
        return InvalidState(
            f"group '{group.name}' is being failed over with {', '.join(moving)}",
            where=f"array {array.name}",
            remedy="wait until that is done and reversed; then test it",
        )

    def _active_elsewhere(self, group: Group, array: GroupControl, machine: str) -> InvalidState:
        return InvalidState(
            f"group '{group.name}' is {group.state}, and array {array.name} is "
            f"{'the active' if group.is_active else 'not the active'} side: '{machine}' cannot be handled so now",
            where=f"array {array.name}",
            remedy=f"wait until the failover of {', '.join(self._places.members(machine))} is done, then reverse it",
        )


def _show(array: GroupControl, volumes: list[Volume], hosts: list[str]) -> None:
    """Where leeward cannot, the hosts of both sites see the volumes always; the array lets one side write."""
    if isinstance(array, Array):
        array.expose(volumes, hosts)


def _hide(array: GroupControl, volumes: list[Volume], hosts: list[str]) -> None:
    if isinstance(array, Array):
        array.hide(volumes, hosts)


def _is_registered(fabric: SanFabric, machine: str) -> bool:
    try:
        fabric.describe(machine)
    except NotFound:
        return False
    return True


def _runs(fabric: SanFabric, machine: str) -> bool:
    try:
        return fabric.describe(machine).power is PowerState.RUNNING
    except NotFound:
        return False


def _no_media(relationship: Relationship) -> InvalidState:
    return InvalidState(
        f"'{relationship.machine}' is replicated by arrays, whose first copy leeward does not carry on media",
        remedy="choose 'initial_replication: {method: network}' for its policy",
    )
