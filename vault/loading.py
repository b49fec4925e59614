"""Read ``leeward.yaml``: the models of :mod:`vault.inventory`, and whether its parts refer to each other rightly.

Names that nothing has are told by :mod:`vault.names`; the checks here pass over them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from vault.azure_networks import check_azure
from vault.clouds import check_clouds
from vault.domain import NetworkKind
from vault.errors import BadInput, NotFound
from vault.fabrics import check_fabrics
from vault.inventory import Inventory, Machine
from vault.names import MAPPING_ENDS, unknown_names
from vault.pools import check_pools
from vault.validation import MAX_ERRORS, Loaded, in_order_of_the_file, validate_beside
from vault.words import counted
from vault.yamlsource import YamlSource, read_yaml

WHERE_IT_COMES_FROM = "name it with --vault or LEEWARD_VAULT, or write one: leeward init --lab"
_KINDS = (NetworkKind.PRODUCTION, NetworkKind.PRODUCTION, NetworkKind.ISOLATED, NetworkKind.ISOLATED)


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
        source = read_yaml(path)
    except NotFound as error:
        raise NotFound("there is no inventory", where=str(path), remedy=WHERE_IT_COMES_FROM) from error
    unknown = list(islice(unknown_names(source), MAX_ERRORS))
    loaded = validate_beside(source, Inventory, unknown)
    own = (_check_policies, _check_mappings, _check_machines, _check_groups)
    checks = (*own, check_fabrics, check_clouds, check_pools, check_azure)
    errors = [*unknown, *(error for check in checks for error in check(loaded.model, loaded.source))]
    if errors:
        raise in_order_of_the_file(errors)
    return loaded


def _check_policies(inventory: Inventory, source: YamlSource) -> Iterator[BadInput]:
    for name, policy in inventory.policies.items():
        window = policy.resync_window
        if policy.resync == "window" and window.start == window.until:
            yield source.error(
                ("policies", name, "resync_window", "from"),
                f"the window for resynchronizations of policy '{name}' ends at {window.until}, when it begins",
                remedy="write 'resync: at-once' for any time of the day, or another 'until'",
            )


def _check_mappings(inventory: Inventory, source: YamlSource) -> Iterator[BadInput]:
    lines: dict[tuple[str, str], int] = {}
    for index, mapping in enumerate(inventory.network_mappings):
        place: tuple[str | int, ...] = ("network_mappings", index)
        for end, kind in zip(MAPPING_ENDS, _KINDS, strict=True):
            yield from _check_network(inventory, source, (*place, end), getattr(mapping, end), kind)
        for test, end in (("test", "target"), ("source_test", "source")):
            names = getattr(mapping, test), getattr(mapping, end)
            yield from _check_same_site(inventory, source, (*place, test), *names, end)
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


def _is_known(inventory: Inventory, end: str) -> bool:
    site, network = end.split("/", 1)
    return site in inventory.sites and network in inventory.sites[site].networks


def _check_network(
    inventory: Inventory, source: YamlSource, place: tuple[str | int, ...], value: str, kind: NetworkKind
) -> Iterator[BadInput]:
    site, network = value.split("/", 1)
    networks = inventory.sites[site].networks if site in inventory.sites else {}
    if network in networks and networks[network].kind is not kind:
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
    inventory: Inventory, source: YamlSource, place: tuple[str | int, ...], test: str, production: str, end: str
) -> Iterator[BadInput]:
    if _site(production) in inventory.sites and _site(test) != _site(production):
        yield source.error(
            place,
            f"the test network '{test}' is not at site '{_site(production)}', where '{end}' is",
            remedy=f"name an isolated network of site '{_site(production)}'",
        )


def _check_machines(inventory: Inventory, source: YamlSource) -> Iterator[BadInput]:
    for name, machine in inventory.machines.items():
        place = ("machines", name)
        if machine.site == machine.target:
            yield source.error(
                (*place, "target"),
                f"machine '{name}' has site '{machine.target}' both as its own and as its target",
                remedy="name the site where it shall be recovered",
            )
        elif {machine.site, machine.target} <= inventory.sites.keys():
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
    if before or machine.network not in inventory.sites[machine.site].networks:
        return
    try:
        inventory.mapped_networks(machine.site, machine.network, machine.target)
    except LookupError as error:
        if not all(_is_known(inventory, end) for to in inventory.network_mappings for end in (to.source, to.target)):
            return  # the one that is missing may be there with the wrong name that is told
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
                f"consistency group '{group}' has {counted(len(members), 'machine')}",
                remedy="name at least two, or remove the group",
            )
            continue
        first = inventory.machines.get(members[0])
        for index, name in enumerate(members):
            place: tuple[str | int, ...] = ("consistency_groups", group, index)
            machine = inventory.machines.get(name)
            if machine is None:
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
