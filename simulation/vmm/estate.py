"""What an administrator has set up on a simulated VMM server: host groups, clouds and networks."""

from __future__ import annotations

from adapters.vmm.facts import BUILT_IN_PROFILE
from vault.domain import Value

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
