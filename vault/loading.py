"""Read ``leeward.yaml``: the models of :mod:`vault.inventory`, and whether its parts refer to each other rightly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vault.azure_networks import check_azure
from vault.clouds import check_clouds
from vault.domain import NetworkKind
from vault.errors import BadInput, NotFound
from vault.fabrics import check_fabrics
from vault.inventory import Inventory, Machine
from vault.validation import Loaded, did_you_mean, in_order_of_the_file, load_model
from vault.yamlsource import YamlSource

WHERE_IT_COMES_FROM = "name it with --vault or LEEWARD_VAULT, or write one: leeward init --lab"
_MAPPING_ENDS = (
    ("source", NetworkKind.PRODUCTION),
    ("target", NetworkKind.PRODUCTION),
    ("test", NetworkKind.ISOLATED),
    ("source_test", NetworkKind.ISOLATED),
)


def load_inventory(path: Path) -> Inventory:
    """The inventory, every reference in it checked.

    Raises:
        InputErrors: with everything that is wrong, each as ``file:line:column: what — what to do``.
        BadInput, NotFound, AuthorizationRefused: when the file cannot be read as YAML at all.
    """
    return load_inventory_source(path).model


def load_inventory_source(path: Path) -> Loaded[Inventory]:
    """As :func:`load_inventory`, with the positions of everything in the file."""
    try:
        loaded = load_model(path, Inventory)
    except NotFound as error:
        raise NotFound("there is no inventory", where=str(path), remedy=WHERE_IT_COMES_FROM) from error
    checks = (_check_mappings, _check_machines, _check_groups, check_fabrics, check_clouds, check_azure)
    errors = [error for check in checks for error in check(loaded.model, loaded.source)]
    if errors:
        raise in_order_of_the_file(errors)
    return loaded


def _check_mappings(inventory: Inventory, source: YamlSource) -> Iterator[BadInput]:
    lines: dict[tuple[str, str], int] = {}
    for index, mapping in enumerate(inventory.network_mappings):
        place: tuple[str | int, ...] = ("network_mappings", index)
        for end, kind in _MAPPING_ENDS:
            yield from _check_network(inventory, source, (*place, end), getattr(mapping, end), kind)
        yield from _check_same_site(source, (*place, "test"), mapping.test, mapping.target, "target")
        yield from _check_same_site(source, (*place, "source_test"), mapping.source_test, mapping.source, "source")
        source_site, target_site = _site(mapping.source), _site(mapping.target)
        if source_site == target_site:
            yield source.error(
                (*place, "target"), f"the mapping leads from site '{source_site}' to itself", remedy="name another site"
            )
        for network, other_site in ((mapping.source, target_site), (mapping.target, source_site)):
            line = lines.setdefault((network, other_site), source.position(place).line)
            if line != source.position(place).line:
                yield source.error(
                    place,
                    f"network '{network}' is mapped to site '{other_site}' twice, first in line {line}",
                    remedy="keep one of the two mappings",
                )


def _site(network: str) -> str:
    return network.split("/", 1)[0]


def _check_network(
    inventory: Inventory, source: YamlSource, place: tuple[str | int, ...], value: str, kind: NetworkKind
) -> Iterator[BadInput]:
    site, network = value.split("/", 1)
    if site not in inventory.sites:
        yield source.error(place, f"unknown site '{site}'", remedy=did_you_mean(site, inventory.sites))
        return
    networks = inventory.sites[site].networks
    if network not in networks:
        yield source.error(place, f"site '{site}' has no network '{network}'", remedy=did_you_mean(network, networks))
    elif networks[network].kind is not kind:
        remedy = (
            "a test failover must not touch production: name a network of kind 'isolated'"
            if kind is NetworkKind.ISOLATED
            else "recovered machines serve production: name a network of kind 'production'"
        )
        yield source.error(
            place,
            f"'{place[-1]}' must be a network of kind '{kind}', but '{value}' is '{networks[network].kind}'",
            remedy=remedy,
        )


def _check_same_site(
    source: YamlSource, place: tuple[str | int, ...], test: str, production: str, end: str
) -> Iterator[BadInput]:
    if _site(test) != _site(production):
        yield source.error(
            place,
            f"the test network '{test}' is not at site '{_site(production)}', where '{end}' is",
            remedy=f"name an isolated network of site '{_site(production)}'",
        )


def _check_machines(inventory: Inventory, source: YamlSource) -> Iterator[BadInput]:
    for name, machine in inventory.machines.items():
        place = ("machines", name)
        sites_known = True
        for end, site in (("site", machine.site), ("target", machine.target)):
            if site not in inventory.sites:
                sites_known = False
                yield source.error((*place, end), f"unknown site '{site}'", remedy=did_you_mean(site, inventory.sites))
        if machine.policy not in inventory.policies:
            yield source.error(
                (*place, "policy"),
                f"unknown policy '{machine.policy}'",
                remedy=did_you_mean(machine.policy, inventory.policies),
            )
        if machine.site == machine.target:
            yield source.error(
                (*place, "target"),
                f"machine '{name}' has site '{machine.target}' both as its own and as its target",
                remedy="name the site where it shall be recovered",
            )
        elif sites_known:
            yield from _check_machine_network(inventory, source, place, machine)
            yield from _check_lab(inventory, source, place, machine)


def _check_machine_network(
    inventory: Inventory, source: YamlSource, place: tuple[str, str], machine: Machine
) -> Iterator[BadInput]:
    before = list(
        _check_network(
            inventory, source, (*place, "network"), f"{machine.site}/{machine.network}", NetworkKind.PRODUCTION
        )
    )
    yield from before
    if before:
        return
    try:
        inventory.mapped_networks(machine.site, machine.network, machine.target)
    except LookupError as error:
        yield source.error(
            (*place, "network"),
            str(error.args[0]),
            remedy=f"add one to 'network_mappings' with source '{machine.site}/{machine.network}'",
        )


def _check_lab(
    inventory: Inventory, source: YamlSource, place: tuple[str, str], machine: Machine
) -> Iterator[BadInput]:
    if inventory.sites[machine.site].fabric == "lab" and machine.lab is None:
        yield source.error(
            place,
            f"machine '{place[1]}' is at the lab site '{machine.site}' but has no 'lab' settings",
            remedy="add 'lab:' with its disks",
            key=True,
        )
    if machine.lab is not None:
        names = [disk.name for disk in machine.lab.disks]
        for index, disk in enumerate(names):
            if disk in names[:index]:
                yield source.error(
                    (*place, "lab", "disks", index, "name"), f"disk '{disk}' is there twice", remedy="rename one"
                )


def _check_groups(inventory: Inventory, source: YamlSource) -> Iterator[BadInput]:
    """All machines of a group are cut at one moment, so one fabric has them all, and they have one rhythm."""
    group_of: dict[str, str] = {}
    for group, members in inventory.consistency_groups.items():
        if len(members) < 2:
            yield source.error(
                ("consistency_groups", group),
                f"consistency group '{group}' has {len(members)} machines",
                remedy="name at least two, or remove the group",
            )
            continue
        first = inventory.machines.get(members[0])
        for index, name in enumerate(members):
            place: tuple[str | int, ...] = ("consistency_groups", group, index)
            machine = inventory.machines.get(name)
            if machine is None:
                yield source.error(place, f"unknown machine '{name}'", remedy=did_you_mean(name, inventory.machines))
                continue
            if name in group_of:
                yield source.error(
                    place,
                    f"machine '{name}' is in consistency group '{group_of[name]}' already",
                    remedy="a machine can be in one group, once",
                )
            group_of[name] = group
            for key in ("site", "target", "policy") if first is not None else ():
                its, theirs = getattr(machine, key), getattr(first, key)
                if its != theirs:
                    yield source.error(
                        place,
                        f"machine '{name}' has {key} '{its}', but '{members[0]}' of its group has '{theirs}'",
                        remedy=f"machines of a consistency group have one {key}",
                    )
