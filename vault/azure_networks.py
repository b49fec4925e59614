"""Sites in Azure, and the networks there that the inventory maps others to: mistakes by line, and what they are."""

from __future__ import annotations

from collections.abc import Iterator

from vault.azure import AzureSettings, Subnet
from vault.domain import NetworkKind
from vault.errors import BadInput
from vault.inventory import Inventory, Network, Site
from vault.yamlsource import YamlSource

Place = tuple[str | int, ...]


def subnet_of(site: Site, network: str) -> Subnet:
    """The subnet that a network of an Azure site is; the inventory was checked."""
    described = site.networks[network].azure
    assert described is not None, "check_azure refuses an Azure site with a network that is nowhere"
    return described.resolved(site.azure or AzureSettings())


def described_network(site: Site, network: str) -> str:
    """The network as its own fabric knows it: the switch, the VM network or the subnet behind its name; else empty."""
    described = site.networks[network]
    if site.fabric == "azure":
        return str(subnet_of(site, network))
    if site.vmm is not None:
        return f"VM network '{described.vm_network or network}'"
    if site.hyperv is not None and (described.switch or described.kind is NetworkKind.PRODUCTION):
        return f"switch '{described.switch or network}'"
    return ""


def check_azure(inventory: Inventory, source: YamlSource) -> Iterator[BadInput]:
    """What is missing or contradicts itself in sites in Azure, each at its place."""
    for name, site in inventory.sites.items():
        place: Place = ("sites", name)
        if site.fabric == "azure":
            yield from _check_site(source, place, name, site)
            continue
        if site.azure is not None:
            yield source.error(
                (*place, "azure"),
                f"site '{name}' has 'azure' settings, but its fabric is '{site.fabric}'",
                remedy="write 'fabric: azure', or remove them",
            )
        for network, described in site.networks.items():
            if described.azure is not None:
                yield source.error(
                    (*place, "networks", network, "azure"),
                    f"'{network}' is a network in Azure, but the fabric of site '{name}' is '{site.fabric}'",
                    remedy="move it to a site of fabric 'azure', and map this site's network to it",
                )


def _check_site(source: YamlSource, place: Place, name: str, site: Site) -> Iterator[BadInput]:
    if site.replica_store is None:
        yield source.error(
            place, f"site '{name}' has no 'replica_store'", remedy="name the storage account: docs/azure.md", key=True
        )
    for key, value in (("master_target", site.master_target), ("storage", site.storage), ("capacity", site.capacity)):
        if value is not None:
            yield source.error(
                (*place, key),
                f"site '{name}' is in Azure, where leeward uses no '{key}'",
                remedy="remove it: replicas are in the storage account that 'replica_store' names",
            )
    subnets: dict[str, Subnet] = {}
    for network, described in site.networks.items():
        here = (*place, "networks", network)
        errors = list(_check_network(source, here, name, network, described, site.azure or AzureSettings()))
        yield from errors
        if not errors:
            subnets[network] = subnet_of(site, network)
    yield from _check_isolation(source, place, site, subnets)


def _check_network(
    source: YamlSource, place: Place, site: str, network: str, described: Network, settings: AzureSettings
) -> Iterator[BadInput]:
    for key, value in (("switch", described.switch), ("vm_network", described.vm_network)):
        if value is not None:
            yield source.error(
                (*place, key),
                f"network '{network}' has a '{key}', but site '{site}' is in Azure",
                remedy="say 'azure: {virtual_network: …, subnet: …}' instead",
            )
    if described.azure is None:
        yield source.error(
            place,
            f"network '{network}' of site '{site}' does not say which subnet in Azure it is",
            remedy="add 'azure: {virtual_network: …, subnet: …}', or 'azure: {id: …}'",
            key=True,
        )
        return
    try:
        described.azure.resolved(settings)
    except LookupError as missing:
        part = missing.args[0]
        yield source.error(
            (*place, "azure"),
            f"the {part.replace('_', ' ')} of network '{network}' is not said",
            remedy=f"add '{part}' here, or below 'azure' of site '{site}' for all of its networks",
        )


def _check_isolation(source: YamlSource, place: Place, site: Site, subnets: dict[str, Subnet]) -> Iterator[BadInput]:
    """Subnets of one virtual network reach each other by Azure's own routes."""
    kinds = {network: site.networks[network].kind for network in subnets}
    production = {
        subnets[network].virtual_network_id.casefold(): network
        for network, kind in kinds.items()
        if kind is NetworkKind.PRODUCTION
    }
    for network, kind in kinds.items():
        shared = production.get(subnets[network].virtual_network_id.casefold())
        if kind is NetworkKind.ISOLATED and shared is not None:
            yield source.error(
                (*place, "networks", network, "azure"),
                f"network '{network}' is not isolated: it is in the virtual network of '{shared}', whose subnets reach "
                "each other",
                remedy="name a subnet of a virtual network of its own, without peering",
            )
