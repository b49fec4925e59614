"""The links between sites, as the workers of one process use them: connections to master targets, and their limits."""

from __future__ import annotations

import threading
from collections.abc import Callable

from replication.cipher import SiteKey
from replication.ports import ReplicaStore
from replication.throttle import Throttle, by_schedule
from vault.errors import BadInput
from vault.inventory import Inventory

Guard = Callable[[int], None]


class Links:
    """Thread-safe: all machines of a process share one connection to a master target, and one limit for each site."""

    def __init__(self, inventory: Inventory) -> None:
        self._sites = inventory.sites
        self._lock = threading.Lock()
        self._throttles: dict[str, Throttle] = {}
        self._connections: dict[tuple[str, str], Callable[[str], ReplicaStore]] = {}

    def throttled(self, source_site: str, guard: Guard) -> Guard:
        """``guard``, after the limit that ``source_site`` has for what it sends."""
        throttle = self._throttle(source_site)
        if throttle is None:
            return guard

        def both(count: int) -> None:
            if count:
                throttle(count)
            guard(count)

        return both

    def remote_store(self, source_site: str, target_site: str, machine: str) -> ReplicaStore | None:
        """The machine's replica at the target's master target; None when the target site has none.

        Raises ``BadInput`` when the source site has no certificate, and what reading the site key raises."""
        if self._sites[target_site].master_target is None:
            return None
        with self._lock:
            way = (source_site, target_site)
            if way not in self._connections:
                self._connections[way] = self._connect(source_site, target_site)
            return self._connections[way](machine)

    def _connect(self, source_site: str, target_site: str) -> Callable[[str], ReplicaStore]:
        from replication.transport.connection import Connection
        from replication.transport.pki import Identity, Pki
        from replication.transport.remote import RemoteReplicaStore
        from replication.transport.session import unlimited

        target, pki = self._sites[target_site], self._sites[source_site].pki
        if pki is None:
            raise BadInput(
                f"site '{source_site}' has no certificate to show to the master target of '{target_site}'",
                where=f"sites.{source_site}",
                remedy="set its 'pki' in the inventory to the folder of: leeward pki issue",
            )
        connection = Connection(
            target.master_target or "",
            Identity(Pki.at(pki), source_site),
            target_site,
            throttle=self._throttle(source_site) or unlimited,
        )
        key = SiteKey.from_reference(target.replica_key) if target.replica_key else None
        return lambda machine: RemoteReplicaStore(connection, machine, site_key=key)

    def _throttle(self, site: str) -> Throttle | None:
        bandwidth = self._sites[site].bandwidth
        if bandwidth is None:
            return None
        return self._throttles.setdefault(site, by_schedule(bandwidth))
