"""Names in the inventory that nothing has: looked for in what was read, so that they are told with what else is wrong.

The models exist only once the file's structure is sound. A name is unknown whether it is or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vault.access import OF_GROUP
from vault.errors import BadInput
from vault.validation import did_you_mean
from vault.yamlsource import YamlSource, shorten

Place = tuple[str | int, ...]
MAPPING_ENDS = ("source", "target", "test", "source_test")
_MAPPINGS_OF_SITES = ("storage_mappings", "cloud_mappings")
"""What an end names behind its site, a pool or a cloud, only the site itself knows."""


def unknown_names(source: YamlSource) -> Iterator[BadInput]:
    """What refers to a site, network, policy, machine or group that the file does not have.

    A part of the file that is missing, or no mapping, is told by the models; nothing is unknown then.
    """
    file = source.data if isinstance(source.data, dict) else {}
    sites = file.get("sites")
    for index, mapping in enumerate(_list(file.get("network_mappings"))):
        for end in MAPPING_ENDS:
            value = _dict(mapping).get(end)
            if isinstance(value, str) and "/" in value:
                yield from _of_network(source, ("network_mappings", index, end), sites, *value.split("/", 1))
    for part in _MAPPINGS_OF_SITES:
        for index, mapping in enumerate(_list(file.get(part))):
            for end in ("source", "target"):
                value = _dict(mapping).get(end)
                if isinstance(value, str) and "/" in value:
                    yield from unknown(source, (part, index, end), "site", value.split("/", 1)[0], sites)
    for name, machine in _dict(file.get("machines")).items():
        place, facts = ("machines", name), _dict(machine)
        for end in ("site", "target"):
            yield from unknown(source, (*place, end), "site", facts.get(end), sites)
        yield from unknown(source, (*place, "policy"), "policy", facts.get("policy"), file.get("policies"))
        network, site = facts.get("network"), facts.get("site")
        if isinstance(network, str) and isinstance(site, str) and site in _dict(sites):
            yield from _of_network(source, (*place, "network"), sites, site, network)
    for group, members in _dict(file.get("consistency_groups")).items():
        for index, member in enumerate(_list(members)):
            yield from unknown(source, ("consistency_groups", group, index), "machine", member, file.get("machines"))
    yield from _unknown_groups_of_people(source, _dict(file.get("access")))


def unknown(source: YamlSource, place: Place, what: str, name: object, known: object) -> Iterator[BadInput]:
    """Whether ``name`` is none of the keys of ``known``; nothing is said of what is no name, or no mapping."""
    if isinstance(name, str) and isinstance(known, dict) and name not in known:
        remedy = did_you_mean(name, map(str, known))
        yield source.error(place, f"unknown {what} '{shorten(name)}'", remedy=remedy)


def _unknown_groups_of_people(source: YamlSource, access: dict[Any, Any]) -> Iterator[BadInput]:
    groups = _dict(access.get("groups"))
    for role, names in access.items():
        for index, name in enumerate(_list(names)):
            if isinstance(name, str) and name.startswith(OF_GROUP) and name[len(OF_GROUP) :] not in groups:
                what = f"unknown group '{shorten(name)}'"
                add = "add it to 'groups' of 'access'"
                remedy = did_you_mean(name, [f"{OF_GROUP}{group}" for group in groups]) or add
                yield source.error(("access", role, index), what, remedy=remedy)


def _of_network(source: YamlSource, place: Place, sites: object, site: str, network: str) -> Iterator[BadInput]:
    yield from unknown(source, place, "site", site, sites)
    networks = _dict(_dict(sites).get(site)).get("networks")
    if isinstance(networks, dict) and network not in networks:
        what = f"site '{shorten(site)}' has no network '{shorten(network)}'"
        yield source.error(place, what, remedy=did_you_mean(network, map(str, networks)))


def _dict(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
