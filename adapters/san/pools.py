"""In which pool of the other array the replicas of a group's volumes are made (``storage_mappings``)."""

from __future__ import annotations

from typing import NamedTuple

from adapters.san.places import Place, Places
from adapters.san.ports import Volume
from vault.domain import Relationship
from vault.errors import InvalidState
from vault.pools import mapped_pool, pools_mapped_to
from vault.san import SmisStorage


class Placing(NamedTuple):
    """Where the replicas of a group that is not mirrored yet are made.

    ``volumes``: those of the whole group. ``sources``: the pools that they are in; empty where nothing is mapped,
    because nobody asks then. ``pool``: the one for their replicas; None: whoever mirrors the group chooses."""

    volumes: list[Volume]
    sources: list[str]
    pool: str | None

    @property
    def size(self) -> int:
        return sum(volume.size for volume in self.volumes)


def placing(places: Places, place: Place, relationship: Relationship) -> Placing:
    """``place`` is that of the machine at the source.

    Raises ``InvalidState`` when the replicas would go to several pools: an array makes all replicas of a group in one
    (``TargetPool`` of CreateGroupReplica). Also when it does not tell the pool of a volume."""
    machine, site, target = relationship.machine, relationship.source_site, relationship.target_site
    volumes = place.group.volumes if place.group else place.array.volumes(places.group_volume_names(machine))
    own = _own_pool(places, target)
    if not pools_mapped_to(places.inventory, target, site):
        return Placing(volumes, [], own)
    pools_of = place.array.pools_of(volumes)
    unknown = [name for name, pools in pools_of.items() if not pools]
    if unknown:
        raise InvalidState(
            f"the array does not tell in which pool the volumes {', '.join(unknown)} are",
            where=f"array {place.array.name}",
            remedy=f"remove the 'storage_mappings' between {site} and {target}",
        )
    wanted = {pool: mapped_pool(places.inventory, site, pool, target) or own for pool in _distinct(pools_of)}
    if len(set(wanted.values())) > 1:
        spread = "; ".join(
            f"{name} from {pool} to {wanted[pool]}" for name, pools in pools_of.items() for pool in pools
        )
        raise InvalidState(
            f"its replicas would go to several pools at {target}, but an array makes those of a group in one: {spread}",
            where=f"array {place.array.name}",
            remedy="map these pools to one in 'storage_mappings', or move the volumes into one pool on the array",
        )
    return Placing(volumes, list(wanted), next(iter(wanted.values()), own))


def pools_for_replicas(places: Places, site: str, source: str) -> list[str]:
    """All pools of ``site`` in which replicas of volumes of ``source`` may be made."""
    own = _own_pool(places, site)
    return list(dict.fromkeys([*pools_mapped_to(places.inventory, site, source), *([own] if own else [])]))


def where_they_are(places: Places, place: Place, site: str, other: str) -> str:
    """The pools of a machine's volumes, each with the one at ``other`` that it is mapped to; empty where nothing is."""
    if not pools_mapped_to(places.inventory, site, other):
        return ""
    found = []
    for pool in _distinct(place.array.pools_of(place.volumes)):
        mapped = mapped_pool(places.inventory, site, pool, other)
        found.append(f"{pool} (mapped to {mapped})" if mapped else pool)
    return ", ".join(found)


def _distinct(pools_of: dict[str, list[str]]) -> list[str]:
    return list(dict.fromkeys(pool for pools in pools_of.values() for pool in pools))


def _own_pool(places: Places, site: str) -> str | None:
    storage = places.storage(site)
    return storage.pool if isinstance(storage, SmisStorage) else None
