"""The Hyper-V sites of an inventory: each site's hosts and sessions, made when they are first needed."""

from __future__ import annotations

from adapters.hyperv.connection import HyperVHost
from adapters.hyperv.hosts import HyperVHosts, Runs
from adapters.hyperv.hypervisor import HyperVHypervisor
from adapters.hyperv.provider import HyperVReplicaProvider
from adapters.hyperv.session import session_of
from vault.errors import BadInput
from vault.inventory import Inventory, Site


class HyperVFabrics:
    """The packages of ``leeward[hyperv]`` are needed only when a host is really spoken to."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._hypervisors: dict[str, HyperVHypervisor] = {}
        self.provider = HyperVReplicaProvider(self.hypervisor, inventory)

    def hypervisor(self, site: str) -> HyperVHypervisor:
        if site not in self._hypervisors:
            hosts = HyperVHosts(site, sessions(self._inventory.sites[site]))
            self._hypervisors[site] = HyperVHypervisor(hosts, self._inventory)
        return self._hypervisors[site]


def sessions(site: Site) -> dict[str, Runs]:
    """A session for each host of a site, shared with everybody who uses equal settings."""
    return {name: session_of(host) for name, host in connections(site).items()}


def connections(site: Site) -> dict[str, HyperVHost]:
    """How each host of a site is reached, by its name in the inventory.

    Raises ``BadInput`` when the site is not one of Hyper-V."""
    settings = site.hyperv
    if settings is None:
        raise BadInput("the site has no 'hyperv' settings", remedy="check it: leeward vault check")
    found = {}
    for host in settings.hosts:
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
        found[host] = HyperVHost.model_validate(connection | ({"port": port} if port else {}))
    return found


def _split(host: str) -> tuple[str, int | None]:
    name, separator, port = host.rpartition(":")
    if host.startswith("[") and not port.endswith("]"):
        return name[1:-1], int(port)
    if host.startswith("["):
        return host[1:-1], None
    return (name, int(port)) if separator else (host, None)
