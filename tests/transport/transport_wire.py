"""Two sites with certificates, and a master target for one of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from replication.cipher import SiteKey
from replication.local import LocalReplicaStore
from replication.transport.connection import Connection, Throttle
from replication.transport.pki import Identity, Pki
from replication.transport.remote import RemoteReplicaStore
from replication.transport.server import MasterTarget, only_sites
from replication.transport.session import unlimited

SOURCE, TARGET = "primary", "recovery"
KEEPALIVE_MS = 2000


class Wire:
    """A master target of site ``recovery`` in this process, and the way to it from ``primary``."""

    def __init__(self, folder: Path, *, site_key: SiteKey | None = None) -> None:
        self.replicas = folder / "replicas"
        self.pki = Pki(folder / "pki")
        self.site_key = site_key
        self.machines: dict[str, tuple[str, str]] = {}
        self.store_of: Callable[[str], LocalReplicaStore] = self.local
        self._open = ExitStack()
        now = datetime.now(UTC)
        self.pki.init(now)
        for site in (SOURCE, TARGET):
            self.pki.issue(site, now)
        self.address = ""

    def _store(self, machine: str) -> LocalReplicaStore:
        return self.store_of(machine)

    def local(self, machine: str = "db") -> LocalReplicaStore:
        return LocalReplicaStore(self.replicas / machine, machine=machine, site_key=self.site_key)

    def start(self, listen: str = "127.0.0.1:0") -> MasterTarget:
        server = MasterTarget(
            Identity(self.pki, TARGET),
            self._store,
            only_sites(TARGET, lambda machine: self.machines.get(machine, (SOURCE, TARGET))),
            listen,
            keepalive_ms=KEEPALIVE_MS,
        )
        self.address = server.start()
        self._open.callback(server.stop, 0.5)
        return server

    def connection(
        self,
        *,
        pki: Pki | None = None,
        source: str = SOURCE,
        target: str = TARGET,
        address: str | None = None,
        throttle: Throttle = unlimited,
    ) -> Connection:
        connection = Connection(
            address or self.address,
            Identity(pki or self.pki, source),
            target,
            throttle=throttle,
            keepalive_ms=KEEPALIVE_MS,
        )
        self._open.callback(connection.close)
        return connection

    def remote(self, machine: str = "db", **how: object) -> RemoteReplicaStore:
        return RemoteReplicaStore(self.connection(**how), machine, site_key=self.site_key)  # type: ignore[arg-type]

    def close(self) -> None:
        self._open.close()
