"""The Hyper-V sites of an inventory: each site's hosts and sessions, made when they are first needed."""

from __future__ import annotations

from pathlib import Path

from adapters.hyperv.connection import HyperVHost
from adapters.hyperv.hosts import HyperVHosts, Runs
from adapters.hyperv.hypervisor import HyperVHypervisor
from adapters.hyperv.provider import HyperVReplicaProvider
from adapters.hyperv.session import session_of
from vault.errors import BadInput
from vault.hyperv import HyperVSite
from vault.inventory import Inventory, Site


class HyperVFabrics:
    """The packages of ``leeward[hyperv]`` are needed only when a host is really spoken to."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._hypervisors: dict[str, HyperVHypervisor] = {}
        self.provider = HyperVReplicaProvider(self.hypervisor, inventory)

    def hypervisor(self, site: str) -> HyperVHypervisor:
        if site not in self._hypervisors:
            described = self._inventory.sites[site]
            if described.hyperv is None:
                raise BadInput(f"site '{site}' has no 'hyperv' settings", remedy="check it: leeward vault check")
            hosts = HyperVHosts(site, sessions(described, described.hyperv))
            self._hypervisors[site] = HyperVHypervisor(hosts, self._inventory)
        return self._hypervisors[site]


def sessions(site: Site, settings: HyperVSite) -> dict[str, Runs]:
    """A session for each host of a site, shared with everybody who uses equal settings."""
    found: dict[str, Runs] = {}
    for host in settings.hosts:
        address, port = _split(host)
        connection = {
            "address": address,
            "authentication": settings.authentication,
            "user": settings.user,
            "password": site.credentials,
            "certificate": Path(settings.certificate) if settings.certificate else None,
            "certificate_key": Path(settings.certificate_key) if settings.certificate_key else None,
            "ca": Path(settings.ca) if settings.ca else None,
        }
        found[host] = session_of(HyperVHost.model_validate(connection | ({"port": port} if port else {})))
    return found


def _split(host: str) -> tuple[str, int | None]:
    name, separator, port = host.rpartition(":")
    if host.startswith("[") and not port.endswith("]"):
        return name[1:-1], int(port)
    if host.startswith("["):
        return host[1:-1], None
    return (name, int(port)) if separator else (host, None)
