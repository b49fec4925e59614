"""Private clouds of VMM: which one a machine belongs to at each of its sites, and mistakes about that by line."""

from __future__ import annotations

from collections.abc import Iterator

from vault.errors import BadInput
from vault.inventory import Inventory, Machine
from vault.yamlsource import YamlSource

Place = tuple[str | int, ...]


def cloud_of(inventory: Inventory, machine: str, site: str) -> str | None:
    """The cloud that the machine belongs to at ``site``: its own at home, the mapped one elsewhere.

    None when the site has no VMM server.

    Raises ``LookupError`` when its cloud is not mapped to ``site``."""
    described = inventory.machines[machine]
    if inventory.sites[site].vmm is None:
        return None
    home = home_cloud(inventory, described)
    if site == described.site:
        return home
    return mapped_cloud(inventory, described.site, home, site) if home else _own_cloud(inventory, site)


def home_cloud(inventory: Inventory, machine: Machine) -> str | None:
    """The cloud that the machine belongs to where it is protected from; None: a site without VMM."""
    named = machine.hyperv.cloud if machine.hyperv else None
    return (named or _own_cloud(inventory, machine.site)) if inventory.sites[machine.site].vmm else None


def mapped_cloud(inventory: Inventory, site: str, cloud: str, target: str) -> str:
    """The cloud at ``target`` that stands for ``cloud`` of ``site``. Raises ``LookupError``."""
    here = f"{site}/{cloud}"
    for mapping in inventory.cloud_mappings:
        for source, other in ((mapping.source, mapping.target), (mapping.target, mapping.source)):
            if source == here and other.startswith(f"{target}/"):
                return other.split("/", 1)[1]
    own = _own_cloud(inventory, target)
    if cloud == _own_cloud(inventory, site) and own is not None:
        return own
    raise LookupError(f"no cloud mapping leads from {here} to site '{target}'")


def _own_cloud(inventory: Inventory, site: str) -> str | None:
    vmm = inventory.sites[site].vmm
    return vmm.cloud if vmm else None


def _site(cloud: str) -> str:
    return cloud.split("/", 1)[0]


def check_clouds(inventory: Inventory, source: YamlSource) -> Iterator[BadInput]:
    """VMM servers, VM networks and cloud mappings that do not fit together, each at its place."""
    for name in inventory.sites:
        yield from _check_site(inventory, source, name)
    yield from _check_mappings(inventory, source)
    for name, machine in inventory.machines.items():
        if {machine.site, machine.target} <= set(inventory.sites):
            yield from _check_machine(inventory, source, name, machine)


def _check_site(inventory: Inventory, source: YamlSource, name: str) -> Iterator[BadInput]:
    site, place = inventory.sites[name], ("sites", name)
    if site.vmm is not None and site.fabric != "hyperv":
        yield source.error(
            (*place, "vmm"),
            f"site '{name}' has a VMM server, but its fabric is '{site.fabric}'",
            remedy="write 'fabric: hyperv', or remove it",
        )
    if site.hyperv is not None and not site.hyperv.hosts and site.vmm is None:
        yield source.error(
            (*place, "hyperv"),
            f"site '{name}' has neither 'hosts' nor a VMM server that knows them",
            remedy="add 'hosts' here, or 'vmm' to the site",
            key=True,
        )
    if site.vmm is not None:
        return
    for network, described in site.networks.items():
        if described.vm_network is not None:
            yield source.error(
                (*place, "networks", network, "vm_network"),
                f"'{network}' is a VM network, but site '{name}' has no VMM server",
                remedy="add 'vmm' to the site, or name the virtual switch: 'switch'",
            )


def _check_mappings(inventory: Inventory, source: YamlSource) -> Iterator[BadInput]:
    lines: dict[tuple[str, str], int] = {}
    for index, mapping in enumerate(inventory.cloud_mappings):
        place: Place = ("cloud_mappings", index)
        sites = {"source": _site(mapping.source), "target": _site(mapping.target)}
        for end, site in sites.items():
            yield from _check_end(inventory, source, (*place, end), site)
        if sites["source"] == sites["target"]:
            yield source.error(
                (*place, "target"), f"the mapping leads from site '{sites['source']}' to itself", remedy="name another"
            )
        line = source.position(place).line
        for cloud, other in ((mapping.source, sites["target"]), (mapping.target, sites["source"])):
            first = lines.setdefault((cloud, other), line)
            if first != line:
                yield source.error(
                    place,
                    f"cloud '{cloud}' is mapped to site '{other}' twice, first in line {first}",
                    remedy="keep one of the two mappings",
                )


def _check_end(inventory: Inventory, source: YamlSource, place: Place, site: str) -> Iterator[BadInput]:
    if site in inventory.sites and inventory.sites[site].vmm is None:
        yield source.error(place, f"site '{site}' has no VMM server, and so no clouds", remedy="add 'vmm' to the site")


def _check_machine(inventory: Inventory, source: YamlSource, name: str, machine: Machine) -> Iterator[BadInput]:
    place: Place = ("machines", name, "hyperv", "cloud")
    named = machine.hyperv.cloud if machine.hyperv else None
    if named and inventory.sites[machine.site].vmm is None:
        yield source.error(
            place, f"machine '{name}' is in a cloud, but site '{machine.site}' has no VMM server", remedy="remove it"
        )
        return
    try:
        cloud_of(inventory, name, machine.target)
    except LookupError as error:
        if any({_site(to.source), _site(to.target)} - inventory.sites.keys() for to in inventory.cloud_mappings):
            return  # the one that is missing may be there with the wrong name that is told
        yield source.error(
            place, str(error.args[0]), remedy=f"add one to 'cloud_mappings' with source '{machine.site}/{named}'"
        )
