"""Test copies: clones of a replica's volumes, with a machine of their own on them."""

from __future__ import annotations

from collections.abc import Callable

from adapters.san import points
from adapters.san.places import Places
from adapters.san.ports import Group, GroupControl, SanFabric, Step, able_to
from adapters.san.registering import is_registered, point_of_earlier_try, register
from adapters.san.watching import until_settled
from replication.ports import Report
from vault.domain import Progress, RecoveredMachine, Relationship
from vault.errors import InvalidState


class Copies:
    def __init__(self, places: Places, fabric_of: Callable[[str], SanFabric]) -> None:
        self._places = places
        self._fabric_of = fabric_of

    def start(self, relationship: Relationship, choice: str, name: str, report: Report) -> RecoveredMachine:
        """A clone of the target's volumes, all of one moment; the mirror goes on."""
        machine, site = relationship.machine, relationship.target_site
        fabric, copies = self._fabric_of(site), self._names(machine, name)
        earlier = point_of_earlier_try(fabric, name)
        if earlier is not None:
            return RecoveredMachine(name=name, site=site, network=relationship.test_network, point=earlier)
        found, group = until_settled(self._places, machine, site, report)
        array, names = able_to(Step.CLONE, found), list(copies.values())
        self._require_still(group, array, machine, fabric)
        present = points.resolve(self._places, relationship, choice)
        report(Progress(doing=f"cloning the volumes of {machine} at {site}"))
        array.delete_volumes(names)
        moment = array.clone(self._places.own_volumes(machine, array, group), names)
        array.expose(array.volumes(names), self._places.storage(site).initiators)
        point = points.make(points.TEST, moment or present.time)
        report(Progress(doing=f"registering {name} at {site}"))  # a late try hears here that it is one
        register(fabric, relationship, name, copies, point, test=True)
        return RecoveredMachine(name=name, site=site, network=relationship.test_network, point=point)

    def end(self, relationship: Relationship, name: str) -> None:
        machine, site = relationship.machine, relationship.target_site
        copies = self._names(machine, name)
        self._fabric_of(site).remove(name)
        able_to(Step.CLONE, self._places.array_of(site)).delete_volumes(list(copies.values()))

    def _require_still(self, group: Group, array: GroupControl, machine: str, fabric: SanFabric) -> None:
        members = self._places.members(machine)
        moving = [member for member in members if is_registered(fabric, member)]
        if moving or group.is_active:
            raise InvalidState(
                f"group '{group.name}' is being failed over with {', '.join(moving or members)}",
                where=f"array {array.name}",
                remedy="wait until that is done and reversed; then test it",
            )

    def _names(self, machine: str, name: str) -> dict[str, str]:
        """Raises ``InvalidState`` when a machine has volumes of these names: a test's are deleted by name."""
        names = {disk: f"{name}-{disk}" for disk in self._places.settings(machine).volumes}
        for other, described in self._places.inventory.machines.items():
            taken = set(names.values()) & set(described.san.volumes.values() if described.san else [])
            if taken:
                raise InvalidState(
                    f"the volumes {', '.join(sorted(taken))} of a test copy of '{machine}' are those of machine "
                    f"'{other}'",
                    remedy=f"give the volumes of '{other}' other names on the array and in the inventory",
                )
        return names
