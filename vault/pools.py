"""Storage pools of arrays: which one at another site stands for which, and mistakes about that by line."""

from __future__ import annotations

from collections.abc import Iterator

from vault.errors import BadInput
from vault.inventory import Inventory
from vault.yamlsource import YamlSource


def mapped_pool(inventory: Inventory, site: str, pool: str, target: str) -> str | None:
    """The pool at ``target`` for replicas of volumes in ``pool`` of ``site``; None: no mapping says it.

    A mapping from the pool decides, else the one to it; of several to it none does."""
    here = f"{site}/{pool}"
    ahead = [mapping.target for mapping in inventory.storage_mappings if mapping.source == here]
    back = [mapping.source for mapping in inventory.storage_mappings if mapping.target == here]
    found = _at(target, ahead) or _at(target, back)
    return found[0] if len(found) == 1 else None


def pools_mapped_to(inventory: Inventory, site: str, source: str) -> list[str]:
    """The pools of ``site`` that a mapping with the site ``source`` names, in the order of the file."""
    ends = [
        other
        for mapping in inventory.storage_mappings
        for one, other in ((mapping.source, mapping.target), (mapping.target, mapping.source))
        if _site(one) == source
    ]
    return list(dict.fromkeys(_at(site, ends)))


def _at(site: str, pools: list[str]) -> list[str]:
    return [pool.split("/", 1)[1] for pool in pools if _site(pool) == site]


def _site(pool: str) -> str:
    return pool.split("/", 1)[0]


def check_pools(inventory: Inventory, source: YamlSource) -> Iterator[BadInput]:
    """Storage mappings that name sites without an array, or contradict each other, each at its place."""
    seen: dict[tuple[str, str], tuple[int, str]] = {}
    for index, mapping in enumerate(inventory.storage_mappings):
        place: tuple[str | int, ...] = ("storage_mappings", index)
        here, there = _site(mapping.source), _site(mapping.target)
        for end, site in (("source", here), ("target", there)):
            yield from _check_end(inventory, source, (*place, end), site)
        if here == there:
            yield source.error(
                (*place, "target"), f"the mapping leads from site '{here}' to itself", remedy="name another site"
            )
        line, target = seen.setdefault((mapping.source, there), (index, mapping.target))
        if line != index:
            first = source.position(("storage_mappings", line)).line
            yield source.error(
                place,
                f"pool '{mapping.source}' is mapped to site '{there}' twice, first to '{target}' in line {first}",
                remedy="keep one of the two mappings: all replicas of a pool's volumes are made in one pool of a site",
            )


def _check_end(inventory: Inventory, source: YamlSource, place: tuple[str | int, ...], site: str) -> Iterator[BadInput]:
    if site in inventory.sites and inventory.sites[site].storage is None:
        yield source.error(
            place, f"site '{site}' has no array, and so no storage pools", remedy="add 'storage' to the site"
        )
