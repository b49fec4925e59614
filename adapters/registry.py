"""Finds the adapter for a site or a relationship: the one place that knows which fabrics there are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from adapters.hyperv.fabrics import HyperVFabrics
from adapters.lab.faults import link_guard
from adapters.lab.hypervisor import LabHypervisor
from adapters.lab.link import over_link
from adapters.links import Links
from adapters.ports import Hypervisor, ReplicationProvider, StreamSource, StreamTarget
from adapters.san.ports import GroupControl
from adapters.san.provider import ArrayProvider
from adapters.stream import StreamProvider
from replication.cache import CutCache
from replication.cipher import SiteKey
from replication.local import LocalReplicaStore
from replication.ports import OwnReplicaStore, ReplicaStore
from vault.domain import Relationship
from vault.errors import BadInput, NotFound
from vault.fabrics import replicates
from vault.inventory import AzureReplicas, Inventory
from vault.san import SmisStorage, Storage, SwordfishStorage


class Adapters:
    """The adapters that one worker process can use.

    Args:
        inventory: the vault's inventory.
        data: leeward's data directory; the lab lives in ``data/lab``, what waits to be sent in ``data/cache``.
    """

    def __init__(self, inventory: Inventory, data: Path) -> None:
        self._inventory = inventory
        self._lab_root = data / "lab"
        self._caches = data / "cache"
        self._hypervisors: dict[str, LabHypervisor] = {}
        self._azure: dict[str, StreamTarget] = {}
        self._hyperv = HyperVFabrics(inventory)
        self._links = Links(inventory)
        self._arrays: dict[str, GroupControl] = {}
        self._san = ArrayProvider(self._lab, self.array, inventory)
        self._stream = StreamProvider(
            self._stream_source, self._stream_target, self.store_across, self._replica_key, self._cache
        )

    def hypervisor(self, site: str) -> Hypervisor:
        """Raises ``NotFound`` for a site that the inventory does not name."""
        return self._hyperv.hypervisor(site) if self._fabric(site) == "hyperv" else self._stream_target(site)

    def provider(self, relationship: Relationship) -> ReplicationProvider:
        """The kind of replication that this relationship uses: that of the arrays for machines on them, else Hyper-V
        Replica between Hyper-V sites, else leeward's own stream.

        Raises ``NotFound`` when this worker's inventory does not know the machine or one of its sites, ``BadInput``
        when nothing replicates between the two (an inventory that was changed since it was checked).
        """
        source, target = self._fabric(relationship.source_site), self._fabric(relationship.target_site)
        sites = self._inventory.sites
        if not replicates(sites[relationship.source_site], sites[relationship.target_site]):
            raise BadInput(
                f"'{relationship.machine}' cannot be replicated from a site of fabric '{source}' to one of '{target}'",
                remedy="correct the machine's sites: leeward vault check",
            )
        machine = self._inventory.machines.get(relationship.machine)
        if machine is None:
            raise NotFound(
                f"machine '{relationship.machine}' is protected, but this worker's inventory does not name it",
                remedy="write it there again and restart the workers; to end its protection: "
                f"leeward disable {relationship.machine}",
            )
        if machine.san is not None:
            return self._san
        return self._hyperv.provider if target == "hyperv" else self._stream

    def provider_to_end(self, relationship: Relationship, site: str) -> ReplicationProvider:
        """As :meth:`provider`, for what ends a protection at one of its sites: also that of a machine that was taken
        out of the inventory, where everything that belongs to its replication bears its name.

        Raises ``NotFound`` where it does not: another's machine or volumes could be taken for its own.
        """
        machine = relationship.machine
        if machine in self._inventory.machines:
            return self.provider(relationship)
        if relationship.replication_group:
            raise _remains(machine, site, "volumes they are", f"group '{relationship.replication_group}' on the array")
        if self._fabric(site) == "hyperv":
            raise _remains(machine, site, "virtual machine it is", "its replication and its replica in Hyper-V")
        return self._stream

    def array(self, site: str) -> GroupControl:
        """The array of a site. Raises ``BadInput`` when it has none."""
        self._fabric(site)
        if site not in self._arrays:
            self._arrays[site] = _array(site, self._inventory.sites[site].storage)
        return self._arrays[site]

    def master_target_store(self, site: str, machine: str) -> LocalReplicaStore:
        """The replica that the master target of ``site`` serves to process servers of other sites."""
        fabric = self._lab(site)
        fabric.faults.require_host()
        return fabric.store_in_files(machine)

    def _stream_source(self, site: str) -> StreamSource:
        return self._hyperv.hypervisor(site) if self._fabric(site) == "hyperv" else self._lab(site)

    def _stream_target(self, site: str) -> StreamTarget:
        if self._fabric(site) != "azure":
            return self._lab(site)
        if site not in self._azure:
            self._azure[site] = self._azure_site(site)
        return self._azure[site]

    def _azure_site(self, site: str) -> StreamTarget:
        settings = self._inventory.sites[site].replica_store
        if settings is None:
            raise BadInput(f"site '{site}' has no 'replica_store'", remedy="correct the inventory: leeward vault check")
        try:
            from adapters.azure.site import AzureSite
        except ImportError as error:
            raise _no_azure() from error
        stores = partial(_azure_store, settings, lambda: self._replica_key(site))
        return AzureSite(site, self._inventory, settings, stores)

    def _fabric(self, site: str) -> str:
        if site not in self._inventory.sites:
            known = ", ".join(sorted(self._inventory.sites))
            raise NotFound(f"unknown site '{site}'", remedy=f"the inventory of this worker knows: {known}")
        return self._inventory.sites[site].fabric

    def _lab(self, site: str) -> LabHypervisor:
        self._fabric(site)
        if site not in self._hypervisors:
            self._hypervisors[site] = self._lab_hypervisor(site)
        return self._hypervisors[site]

    def _lab_hypervisor(self, site: str) -> LabHypervisor:
        elsewhere = self._inventory.sites[site].replica_store
        stores = partial(_azure_store, elsewhere, lambda: self._replica_key(site)) if elsewhere else None
        return LabHypervisor(self._lab_root, site, self._inventory, replica_stores=stores)

    def _replica_key(self, site: str) -> SiteKey | None:
        reference = self._inventory.sites[site].replica_key
        return SiteKey.from_reference(reference) if reference else None

    def _cache(self, source_site: str, target_site: str, machine: str) -> CutCache:
        limit = self._inventory.sites[source_site].cache
        return CutCache(self._caches / source_site, machine, limit, site_key=self._replica_key(target_site))

    def store_across(self, source_site: str, target_site: str, machine: str) -> ReplicaStore:
        guard = link_guard(self._lab_root, source_site, target_site)
        remote = self._links.remote_store(source_site, target_site, machine)
        if remote is not None:
            return over_link(remote, guard)
        store = self._stream_target(target_site).replica_store(machine)
        return over_link(store, self._links.throttled(source_site, guard))


def _remains(machine: str, site: str, unknown: str, what: str) -> NotFound:
    return NotFound(
        f"this worker's inventory does not name machine '{machine}' any more, and so not which {unknown}: nothing was "
        "cleaned up",
        where=f"site {site}",
        remedy=f"look for what remains, {what}, and remove it by hand",
    )


def _array(site: str, storage: Storage | None) -> GroupControl:
    if storage is None:
        raise BadInput(f"site '{site}' has no 'storage'", remedy="correct the inventory: leeward vault check")
    return _smis(storage) if isinstance(storage, SmisStorage) else _swordfish(storage)


def _smis(storage: SmisStorage) -> GroupControl:
    try:
        from adapters.smis.array import SmisArray
    except ImportError as error:
        raise BadInput("the packages for SMI-S are not installed", remedy="install leeward[smis]") from error
    return SmisArray(storage)


def _swordfish(storage: SwordfishStorage) -> GroupControl:
    try:
        from adapters.swordfish.array import SwordfishArray
        from adapters.swordfish.client import SwordfishClient, SwordfishEndpoint
    except ImportError as error:
        raise BadInput("the packages for Swordfish are not installed", remedy="install leeward[swordfish]") from error
    endpoint = SwordfishEndpoint(url=storage.url, user=storage.user, password=storage.password, ca=storage.ca)
    return SwordfishArray(storage.array, SwordfishClient(endpoint))


def _no_azure() -> BadInput:
    return BadInput("the packages for Azure are not installed", remedy="install leeward[azure]")


def _azure_store(settings: AzureReplicas, site_key: Callable[[], SiteKey | None], machine: str) -> OwnReplicaStore:
    try:
        from adapters.azure.store import AzureReplicaStore
    except ImportError as error:
        raise _no_azure() from error
    return AzureReplicaStore.open(settings, machine, site_key())
