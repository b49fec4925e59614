"""A Hyper-V site whose hosts a VMM server manages, as ``adapters.ports.Hypervisor``.

Hyper-V Replica is driven on the hosts, as without VMM. What only VMM knows comes from it: which host has a machine,
where a replica is placed, what a VM network is, which cloud a machine belongs to.
"""

from __future__ import annotations

import logging

from adapters.hyperv import settings
from adapters.hyperv.hypervisor import HyperVHypervisor
from adapters.vmm import readiness
from adapters.vmm.facts import ManagedMachine, VmNetwork
from adapters.vmm.hosts import VmmHosts
from adapters.vmm.operations import ConnectMachine
from adapters.vmm.placement import OnTheirWay
from vault.clouds import cloud_of
from vault.domain import Finding, MachineDescription, NetworkKind, Relationship
from vault.errors import InvalidState, LeewardError, NotFound
from vault.inventory import Inventory

logger = logging.getLogger(__name__)

NAME_THEM = "see that the VMM server runs, or name the hosts below 'hyperv' of the site"


class VmmHypervisor(HyperVHypervisor):
    """One site: the VMM server of ``hosts``, and its hosts."""

    def __init__(self, hosts: VmmHosts, inventory: Inventory) -> None:
        super().__init__(hosts, inventory)
        self.server = hosts.server
        self.managed = hosts
        self._on_their_way = OnTheirWay()

    # --- the fabric -------------------------------------------------------------------------------------------

    def check(self) -> list[Finding]:
        """What VMM says against the site is a warning here, whether the site is a source or a target now: what counts
        for a machine is in :meth:`readiness`."""
        try:
            of_hosts = super().check()
        except LeewardError as unknown:
            what = f"its hosts are not known: {unknown.what}"
            failed = Finding.failed(f"site {self.site}", what, NAME_THEM)
            of_hosts = [failed]
        return [*readiness.of_server(self), *of_hosts]

    def describe(self, machine: str) -> MachineDescription:
        """While VMM is away, or refuses, the network is told by its switch: an old copy that comes back without VMM
        must be seen."""
        there = self.find(machine)
        described = self._describe_found(there)
        try:
            managed = self.server.machines([there.vm.name])
        except LeewardError as away:
            logger.warning("site %s: VMM does not tell the network of '%s': %s", self.site, machine, away)
            return described
        known = next((one for one in managed if one.vm_id == there.vm.id), None)
        network = known and self.network_of(known)
        return described.model_copy(update={"network": network}) if network else described

    def network_of(self, machine: ManagedMachine) -> str | None:
        """The site's network that a machine is connected to by its first connected adapter; None: to none it names."""
        connected = next((adapter.vm_network for adapter in machine.adapters if adapter.vm_network), None)
        networks = self.inventory.sites[self.site].networks
        return next((name for name in networks if connected and self.vm_network_name(name) == connected), None)

    def vm_network_name(self, network: str) -> str:
        self.network_kind(network)
        return self.inventory.sites[self.site].networks[network].vm_network or network

    def vm_network(self, network: str) -> VmNetwork:
        """Raises ``NotFound`` when the inventory does not name the network, or VMM does not have it."""
        return self.server.vm_network(self.vm_network_name(network))

    def make_test_network(self, like: str, run_id: str, copy: str) -> str:
        """VMM connects copies to the VM network that the mapping names: what it isolates is VMM's to say."""
        if self.network_kind(like) != NetworkKind.ISOLATED:
            raise InvalidState(
                f"network '{like}' is not isolated", where=f"site {self.site}", remedy="correct the network mapping"
            )
        return like

    def leave_test_networks(self, run_id: str, copy: str) -> None:
        """None are made."""

    def required_switch(self, network: str) -> str | None:
        self.network_kind(network)
        return self.inventory.sites[self.site].networks[network].switch

    def cloud(self, machine: str) -> str:
        """The cloud that a machine, or its replica, belongs to at this site."""
        try:
            cloud = cloud_of(self.inventory, machine, self.site)
        except LookupError as unmapped:
            raise InvalidState(
                str(unmapped.args[0]), where=f"site {self.site}", remedy="add one to 'cloud_mappings'"
            ) from None
        assert cloud is not None, "the site has a VMM server"
        return cloud

    # --- replicas ---------------------------------------------------------------------------------------------

    def place_replica(self, relationship: Relationship) -> str:
        """The broker that the inventory names; else the host that has the machine already, as its replica, because it
        came from there or was restored there; else a host of its cloud (:mod:`adapters.vmm.placement`)."""
        site = settings.site(self.inventory, self.site)
        if site.replica.server:
            return site.replica.server
        hosts = self.server.hosts_of(self.cloud(relationship.machine))
        ours = [host for host in hosts if self.managed.called(host) is not None]
        there = self.find_if_there(relationship.machine)
        kept = there and next((host.name for host in ours if self.managed.called(host) == there.host), None)
        if kept:
            return kept
        name, network = self.vm_name(relationship.machine).casefold(), self.vm_network(relationship.target_network)
        needed = relationship.replica_space.size if relationship.replica_space else 0
        machines, where = self.server.machines(), self.server.where
        return self._on_their_way.place(name, ours, network, machines, where=where, needed=needed).name

    def replica_server(self, relationship: Relationship) -> str:
        return self.place_replica(relationship)

    def connect(self, host: str, vm_id: str, relationship: Relationship, network: str) -> None:
        """VMM connects the machine to the VM network and puts it into its cloud, once it has seen it on the host."""
        known = self.managed.known_to_vmm(host)
        if known is None:
            raise NotFound(f"VMM does not manage host '{host}'", where=self.server.where, remedy="add it to VMM")
        self.server.connect(
            ConnectMachine(
                host=known.name,
                vm_id=vm_id,
                vm_network_id=self.vm_network(network).id,
                switch=self.required_switch(network),
                cloud_id=self.server.cloud(self.cloud(relationship.machine)).id,
            )
        )

    def readiness(self, relationship: Relationship) -> list[Finding]:
        if relationship.source_site == self.site:
            return [*super().readiness(relationship), *readiness.of_source(self, relationship)]
        return readiness.of_target(self, relationship)
