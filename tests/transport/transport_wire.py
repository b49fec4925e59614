"""Two sites with certificates, and a master target for one of them."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from replication.cipher import SiteKey
from replication.local import LocalReplicaStore
from replication.transport.connection import Connection, Throttle
from replication.transport.pki import Identity, Pki
from replication.transport.remote import RemoteReplicaStore
from replication.transport.server import MasterTarget, only_sites
from replication.transport.session import unlimited
from vault.errors import Busy

Result = TypeVar("Result")

SOURCE, TARGET = "primary", "recovery"
KEEPALIVE_MS = 2000


class Wire:
    """A master target of site ``recovery`` in this process, and the way to it from ``primary``."""

    def __init__(self, folder: Path, *, site_key: SiteKey | None = None) -> None:
        self.replicas = folder / "replicas"
        self.pki = Pki(folder / "pki")
        self.site_key = site_key
        self.evict_every_s = 600.0
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
            evict_every_s=self.evict_every_s,
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


class CuttingProxy:
    """A link that breaks after so many bytes of the next connection, counted both ways; None: it does not break.

    ``silent``: nothing arrives any more, and nobody is told: as when a router in between loses its power."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.cut_after: int | None = None
        self.silent = False
        self.carried = 0
        self._open: list[socket.socket] = []
        self._stopped = False
        self._counting = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._stopped = True
        self._listener.close()
        for end in self._open:
            end.close()

    def _accept(self) -> None:
        while not self._stopped:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._target)
            except OSError:
                near.close()
                continue
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open += [near, far]
            budget, self.cut_after = [self.cut_after], None
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(source, sink, budget), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, budget: list[int | None]) -> None:
        try:
            while data := source.recv(65536):
                with self._counting:
                    if budget[0] is not None:
                        data, budget[0] = data[: budget[0]], budget[0] - len(data[: budget[0]])
                if not (self.silent and budget[0] == 0):
                    sink.sendall(data)
                self.carried += len(data)
                if budget[0] == 0 and not self.silent:
                    break
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            end.close()


def until_free(operation: Callable[[], Result], within_s: float = 20.0) -> Result:
    """Try again while the lock of a session that was cut off is not free yet."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            return operation()
        except Busy:
            assert time.monotonic() < deadline, "the lock of a dead session is still held"
            time.sleep(0.01)
