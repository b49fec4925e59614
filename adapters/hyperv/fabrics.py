"""The Hyper-V sites of an inventory: each site's hosts and sessions, made when they are first needed."""

from __future__ import annotations

from collections.abc import Mapping

from adapters.hyperv import discovery
from adapters.hyperv.connection import HyperVHost
from adapters.hyperv.discovery import HostFound
from adapters.hyperv.hosts import HyperVHosts, Runs
from adapters.hyperv.hypervisor import HyperVHypervisor
from adapters.hyperv.provider import HyperVReplicaProvider
from adapters.hyperv.session import session_of
from adapters.vmm import discovery as vmm_discovery
from adapters.vmm.hosts import SessionsOfVmm, VmmHosts
from adapters.vmm.hypervisor import VmmHypervisor
from adapters.vmm.server import VmmServer
from vault.errors import BadInput, NotFound
from vault.hyperv import HyperVSite
from vault.inventory import Inventory, Site
from vault.vmm import VmmSite


class HyperVFabrics:
    """The packages of ``leeward[hyperv]`` are needed only when a host is really spoken to."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._hypervisors: dict[str, HyperVHypervisor] = {}
        self.provider = HyperVReplicaProvider(self.hypervisor, inventory)

    def hypervisor(self, site: str) -> HyperVHypervisor:
        if site not in self._hypervisors:
            self._hypervisors[site] = self._made(site)
        return self._hypervisors[site]

    def _made(self, name: str) -> HyperVHypervisor:
        site = self._inventory.sites[name]
        if site.vmm is None:
            return HyperVHypervisor(HyperVHosts(name, sessions(site)), self._inventory)
        server = VmmServer(site.vmm.server, session_of(_server_of(site, site.vmm)))
        return VmmHypervisor(VmmHosts(name, _sessions_with_vmm(site, server), server), self._inventory)

    def reached_by(self, site: str) -> list[HyperVHost]:
        """How each host of the site is reached. Asks VMM when the inventory names no hosts.

        Raises ``NotFound`` when VMM has none either."""
        described = self._inventory.sites[site]
        found = [_connection(described, host) for host in self.hypervisor(site).hosts.names]
        if not found:
            raise NotFound("VMM has no host in the site's cloud", where=f"site {site}", remedy="see the cloud in VMM")
        return found

    def discover(self, site: str) -> list[HostFound]:
        """What runs on the site's hosts, and what of it can be protected; from VMM when the site has it."""
        fabric = self.hypervisor(site)
        excluded = {
            machine.hyperv.name or name: machine.hyperv.excluded_disks
            for name, machine in self._inventory.machines.items()
            if machine.hyperv is not None and machine.site == site
        }
        if isinstance(fabric, VmmHypervisor):
            return vmm_discovery.discover(fabric.managed, excluded)
        return discovery.discover(fabric.hosts, excluded)


def sessions(site: Site) -> dict[str, Runs]:
    """A session for each host of a site, shared with everybody who uses equal settings.

    Raises ``BadInput`` when the site is not one of Hyper-V."""
    return {name: session_of(_connection(site, name)) for name in _settings(site).hosts}


def _sessions_with_vmm(site: Site, server: VmmServer) -> Mapping[str, Runs]:
    if _settings(site).hosts:
        return sessions(site)
    assert site.vmm is not None
    cloud = site.vmm.cloud
    return SessionsOfVmm(
        lambda: [host.name for host in server.hosts_of(cloud)], lambda host: session_of(_connection(site, host))
    )


def _server_of(site: Site, vmm: VmmSite) -> HyperVHost:
    login = {"user": vmm.user, "password": vmm.credentials, "ca": vmm.ca}
    return _connection(site, vmm.server, {key: value for key, value in login.items() if value is not None})


def _connection(site: Site, host: str, otherwise: dict[str, str] | None = None) -> HyperVHost:
    settings = _settings(site)
    address, port = _split(host)
    connection = {
        "address": address,
        "authentication": settings.authentication,
        "user": settings.user,
        "password": site.credentials,
        "certificate": settings.certificate,
        "certificate_key": settings.certificate_key,
        "ca": settings.ca,
    }
    return HyperVHost.model_validate(connection | (otherwise or {}) | ({"port": port} if port else {}))


def _settings(site: Site) -> HyperVSite:
    if site.hyperv is None:
        raise BadInput("the site has no 'hyperv' settings", remedy="check it: leeward vault check")
    return site.hyperv


def _split(host: str) -> tuple[str, int | None]:
    name, separator, port = host.rpartition(":")
    if host.startswith("[") and not port.endswith("]"):
        return name[1:-1], int(port)
    if host.startswith("["):
        return host[1:-1], None
    return (name, int(port)) if separator else (host, None)
