"""Which volumes and which group a machine has, at one site's array; what must be so before anything is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from adapters.san.ports import Group, GroupControl, GroupState, Volume
from vault.errors import BadInput, InvalidState, NotFound
from vault.inventory import Inventory
from vault.san import SanMachine, SmisStorage, Storage

ArrayOf = Callable[[str], GroupControl]
"""The array of a site."""


class Place(NamedTuple):
    """A machine's group and volumes at one site. ``group`` None: the array has no such group yet."""

    array: GroupControl
    group: Group | None
    volumes: list[Volume]


class Places:
    """Answers from the inventory and the arrays."""

    def __init__(self, inventory: Inventory, array_of: ArrayOf) -> None:
        self.inventory = inventory
        self.array_of = array_of

    def settings(self, machine: str) -> SanMachine:
        """Raises ``BadInput`` for a machine that is not on an array."""
        found = self.inventory.machines[machine].san if machine in self.inventory.machines else None
        if found is None:
            raise BadInput(
                f"machine '{machine}' has no 'san' settings", remedy="correct the inventory: leeward vault check"
            )
        return found

    def storage(self, site: str) -> Storage:
        found = self.inventory.sites[site].storage
        if found is None:
            raise BadInput(f"site '{site}' has no 'storage'", remedy="correct the inventory: leeward vault check")
        return found

    def mirrored_by(self, site: str) -> SmisStorage:
        """Raises ``InvalidState`` for an array on which leeward cannot make mirrors."""
        found = self.storage(site)
        if not isinstance(found, SmisStorage):
            raise InvalidState(
                "leeward cannot mirror a group on an array that is managed by Swordfish",
                where=f"array {found.array}",
                remedy="mirror it with the array's own tools",
            )
        return found

    def members(self, machine: str) -> list[str]:
        """All machines of the machine's group, itself included, by name: they move together."""
        group = self.settings(machine).group
        machines = self.inventory.machines.items()
        return sorted(name for name, one in machines if one.san is not None and one.san.group == group)

    def volume_names(self, machine: str) -> list[str]:
        return list(self.settings(machine).volumes.values())

    def group_volume_names(self, machine: str) -> list[str]:
        """The volumes of all members, in the members' order."""
        names = [name for member in self.members(machine) for name in self.volume_names(member)]
        return list(dict.fromkeys(names))

    def at(self, machine: str, site: str) -> Place:
        """Looks at the array.

        Raises ``InvalidState`` when the machine's volumes are in other groups than its own, ``NotFound`` when a volume
        of it is not there."""
        array, wanted = self.array_of(site), self.settings(machine).group
        groups = [self._named(group, machine) for group in array.groups()]
        members = {volume.name: volume for group in groups if group.name == wanted for volume in group.volumes}
        others = [name for name in self.volume_names(machine) if name not in members]
        elsewhere = {volume.name: volume for volume in array.volumes(others)} if others else {}
        volumes = [members.get(name) or elsewhere[name] for name in dict.fromkeys(self.volume_names(machine))]
        inside = {volume.id: _groups_with(groups, volume) for volume in volumes}
        self._require_one_group(machine, wanted, array, volumes, inside)
        named = [group for group in groups if group.name == wanted]
        group = min(named, key=lambda group: group.state is GroupState.LOCAL, default=None)
        missing = [volume.name for volume in volumes if group is not None and not inside[volume.id]]
        if missing:
            raise InvalidState(
                f"group '{wanted}' does not have the volumes {', '.join(missing)} of '{machine}'",
                where=f"array {array.name}",
                remedy="add them to the group on the array, or correct 'san' in the inventory",
            )
        return Place(array, group, volumes)

    def group_at(self, machine: str, site: str) -> tuple[GroupControl, Group]:
        """Only the group, with fewer questions. Raises ``NotFound`` when it is not replicated."""
        array, group = self.find(machine, site)
        if group is not None and group.state is not GroupState.LOCAL:
            return array, group
        raise NotFound(
            f"there is no replicated group '{self.settings(machine).group}'",
            where=f"array {array.name}",
            remedy=f"protect its machines: leeward protect {machine}",
        )

    def find(self, machine: str, site: str) -> tuple[GroupControl, Group | None]:
        """The group, replicated or not. Of several with its name the replicated one is meant."""
        array, wanted = self.array_of(site), self.settings(machine).group
        named = [self._named(group, machine) for group in array.groups(wanted)]
        found = [group for group in named if group.name == wanted]
        return array, min(found, key=lambda group: group.state is GroupState.LOCAL, default=None)

    def _named(self, group: Group, machine: str) -> Group:
        """A volume that is mirrored for itself stands for the group that consists of it."""
        if group.name:
            return group
        volumes = [volume.name for volume in group.volumes]
        is_the_group = volumes == self.group_volume_names(machine)
        return group.model_copy(update={"name": self.settings(machine).group if is_the_group else volumes[0]})

    def own_volumes(self, machine: str, array: GroupControl, group: Group) -> list[Volume]:
        """The machine's volumes of the group: others of the array may have the same names. Raises ``NotFound``."""
        found = {volume.name: volume for volume in group.volumes}
        missing = [name for name in self.volume_names(machine) if name not in found]
        if missing:
            raise NotFound(
                f"group '{group.name}' has no volumes {', '.join(missing)}; its are {', '.join(found)}",
                where=f"array {array.name}",
                remedy="give each replica on the array the name of its source: by that leeward finds it",
            )
        return [found[name] for name in dict.fromkeys(self.volume_names(machine))]

    def strangers(self, machine: str, group: Group) -> list[str]:
        """Volumes of the group that no machine of the inventory has: something else would move with it."""
        known = self.group_volume_names(machine)
        return sorted(volume.name for volume in group.volumes if volume.name not in known)

    @staticmethod
    def _require_one_group(
        machine: str, wanted: str, array: GroupControl, volumes: list[Volume], inside: dict[str, list[str]]
    ) -> None:
        found = sorted({name for names in inside.values() for name in names})
        if not found or found == [wanted]:
            return
        where = "; ".join(f"{volume.name} in {', '.join(inside[volume.id]) or 'none'}" for volume in volumes)
        raise InvalidState(
            f"the volumes of '{machine}' are not in the one group '{wanted}': {where}",
            where=f"array {array.name}",
            remedy="a machine's volumes have to be in one group, or its disks would be of different moments: "
            "put them into one on the array",
        )


def _groups_with(groups: list[Group], volume: Volume) -> list[str]:
    return [group.name for group in groups if any(member.id == volume.id for member in group.volumes)]
