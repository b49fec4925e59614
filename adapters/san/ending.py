"""Ending a protection: the mirror, and the replica's volumes. What stays is told, and why."""

from __future__ import annotations

from collections.abc import Callable

from adapters.san.places import Places
from adapters.san.ports import Array, Group, GroupControl, GroupState, SanFabric, Step
from adapters.san.registering import is_registered
from vault.domain import Relationship
from vault.errors import InvalidState, PeerUnreachable


class Ending:
    """Each call returns what stays, None when nothing does."""

    def __init__(self, places: Places, fabric_of: Callable[[str], SanFabric]) -> None:
        self._places = places
        self._fabric_of = fabric_of

    def at_source(self, relationship: Relationship) -> str | None:
        """The mirror ends with a group of one machine. That of several goes on: it protects the others."""
        machine = relationship.machine
        array, group = self._places.find(machine, relationship.source_site)
        if group is None:
            return None
        if not isinstance(array, Array) or self._others(machine):
            return self._why_it_goes_on(machine, array, group)
        if group.state is not GroupState.LOCAL:
            self._detach(array, group, machine)
        array.delete_group(group)
        return None

    def _detach(self, array: Array, group: Group, machine: str) -> None:
        if group.state is GroupState.FAILED_OVER:
            raise InvalidState(
                f"group '{group.name}' is {group.state}: both sides' volumes would be active ones",
                where=f"array {array.name}",
                remedy=f"reverse or fail back '{machine}' first; then: leeward disable {machine}",
            )
        if Step.DETACH not in array.supports(asynchronous=group.asynchronous):
            raise InvalidState(
                "it cannot detach groups",
                where=f"array {array.name}",
                remedy=f"detach group '{group.name}' on the array, then: leeward disable {machine}",
            )
        try:
            array.detach(group)
        except PeerUnreachable as silent:
            raise PeerUnreachable(
                silent.what,
                where=silent.where,
                remedy=f"repair the link between the arrays, or detach group '{group.name}' on the array, then: "
                f"leeward disable {machine}",
            ) from silent

    def at_target(self, relationship: Relationship) -> str | None:
        """The group goes last: while it is there, a repeated call knows that the volumes are a replica's."""
        machine, site = relationship.machine, relationship.target_site
        array, group = self._places.find(machine, site)
        if group is None:
            is_told = self._tells_replicas(array, machine)
            return None if is_told else f"the replica's volume stays at array {array.name}: delete it"
        if not isinstance(array, Array) or self._others(machine):
            return self._why_it_goes_on(machine, array, group)
        registered = is_registered(self._fabric_of(site), machine)
        if group.state is not GroupState.LOCAL:
            use = f": '{machine}' is registered on its volumes" if registered else ""
            return (
                f"group '{group.name}' and its volumes stay at array {array.name}, {group.state}{use}; end the mirror "
                "on both arrays once the other one answers"
            )
        if registered:
            raise InvalidState(
                f"'{machine}' is registered at {site} on the volumes of group '{group.name}': they are no replica",
                where=f"array {array.name}",
                remedy="remove the machine there first, if its volumes are to be deleted; else delete the group on the "
                "array",
            )
        self._delete(array, group, machine)
        return None

    def _delete(self, array: Array, group: Group, machine: str) -> None:
        names = self._places.volume_names(machine)
        if group.volumes:
            array.volumes(names)  # they are deleted by name: refuses what is ambiguous
        array.empty_group(group)
        array.delete_volumes(names)
        array.delete_group(group)

    def _why_it_goes_on(self, machine: str, array: GroupControl, group: Group) -> str:
        others = self._others(machine)
        why = f"it protects {', '.join(others)}" if others else "the array's own tools made it"
        return f"the mirror of group '{group.name}' at array {array.name} goes on: {why}"

    def _others(self, machine: str) -> list[str]:
        return [one for one in self._places.members(machine) if one != machine]

    def _tells_replicas(self, array: GroupControl, machine: str) -> bool:
        """An array that mirrors each volume for itself does not, once the mirror has ended."""
        supported = array.supports(asynchronous=self._places.settings(machine).mode == "asynchronous")
        return Step.MIRROR_TOGETHER in supported or supported.isdisjoint({Step.MIRROR, Step.MIRROR_ASYNCHRONOUSLY})
