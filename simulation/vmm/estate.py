"""What an administrator has set up on a simulated VMM server: host groups, clouds and networks."""

from __future__ import annotations

from collections.abc import Iterable

from adapters.vmm.facts import BUILT_IN_PROFILE
from vault.clouds import home_cloud
from vault.domain import Value
from vault.errors import BadInput
from vault.inventory import Inventory

GIB = 2**30


class HostSetup(Value):
    """A managed host, by the name that it has on the network."""

    group: str = "All Hosts"
    logical_networks: list[str] = []
    platform: str = "HyperV"
    state: str = "OK"
    responding: bool = True
    maintenance: bool = False
    available_for_placement: bool = True
    available_memory: int = 64 * GIB


class CloudSetup(Value):
    groups: list[str] = ["All Hosts"]
    logical_networks: list[str] = []
    capability_profiles: list[str] = [BUILT_IN_PROFILE]


class VmNetworkSetup(Value):
    logical_network: str
    switch: str
    """The virtual switch that carries it on every host that has the logical network."""


class Estate(Value):
    hosts: dict[str, HostSetup]
    clouds: dict[str, CloudSetup]
    vm_networks: dict[str, VmNetworkSetup]
    members: dict[str, str] = {}
    """Which cloud a machine is in, by the machine's name; set from then on by who moves it."""

    @property
    def logical_networks(self) -> list[str]:
        of_hosts = {name for host in self.hosts.values() for name in host.logical_networks}
        return sorted(of_hosts | {network.logical_network for network in self.vm_networks.values()})


def estate_of(inventory: Inventory, site: str, hosts: Iterable[str]) -> Estate:
    """What has to be set up at a site for its inventory to be right: its VM networks, each on a logical network of its
    own that all hosts carry, and its clouds, with the site's machines in them.

    Raises ``BadInput`` when the site has no VMM server."""
    described = inventory.sites[site]
    if described.vmm is None:
        raise BadInput(f"site '{site}' has no VMM server", remedy="add 'vmm' to it")
    networks = {
        network.vm_network or name: VmNetworkSetup(logical_network=f"{name} (logical)", switch=network.switch or name)
        for name, network in described.networks.items()
    }
    logical = [network.logical_network for network in networks.values()]
    ends = [end for mapping in inventory.cloud_mappings for end in (mapping.source, mapping.target)]
    mapped = [end.split("/", 1)[1] for end in ends if end.startswith(f"{site}/")]
    members = {}
    for name, machine in inventory.machines.items():
        if machine.site == site and (cloud := home_cloud(inventory, machine)):
            members[(machine.hyperv.name if machine.hyperv else None) or name] = cloud
    return Estate(
        hosts={host: HostSetup(logical_networks=logical) for host in hosts},
        clouds={name: CloudSetup(logical_networks=logical) for name in (described.vmm.cloud, *mapped)},
        vm_networks=networks,
        members=members,
    )
