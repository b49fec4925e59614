"""The master target's server: who calls, may they, and which store answers (``docs/decisions/``, "The transport")."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime

import grpc

from replication.local import LocalReplicaStore
from replication.transport import failures, tls
from replication.transport.eviction import LOOK_EVERY_S, Eviction
from replication.transport.messages import Done, Failed, Lock, decode, encode, expect
from replication.transport.pki import RENEW_DAYS, Identity
from replication.transport.service import KEEPALIVE_MS, MACHINE_KEY, SERVICE, channel_options
from replication.transport.serving import WritingSession, answer, open_reading
from vault.errors import AuthorizationRefused, InvalidState, LeewardError, Unreachable

CALLS_AT_ONCE = 512
"""A replicating machine holds one for its writes, and one while its blocks are compared."""
STOPS_WITHIN_S = 15.0

StoreOf = Callable[[str], LocalReplicaStore]
Authorise = Callable[[str, str], None]
"""``(site of the caller, machine)``; raises ``AuthorizationRefused``."""

log = logging.getLogger(__name__)


class MasterTarget:
    """Serves the replicas of one site to the process servers of others, until :meth:`stop`.

    Args:
        identity: this site's certificate and the authority it trusts.
        store_of: the replica store of a machine; called for each session.
        authorise: may a site touch a machine's replica here?
        listen: ``host:port``; port 0 chooses a free one.
        evict_every_s: how often it looks for sessions whose machine was failed over.
    """

    def __init__(
        self,
        identity: Identity,
        store_of: StoreOf,
        authorise: Authorise,
        listen: str,
        *,
        keepalive_ms: int = KEEPALIVE_MS,
        evict_every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._eviction = Eviction(evict_every_s)
        self._identity = identity
        self._store_of = store_of
        self._authorise = authorise
        self._listen = listen
        self._threads = ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="master-target")
        self._server = grpc.server(
            self._threads,
            options=[
                *channel_options(keepalive_ms),
                ("grpc.http2.min_ping_interval_without_data_ms", keepalive_ms // 2),
                ("grpc.http2.max_ping_strikes", 0),
                ("grpc.so_reuseport", 0),
            ],
            maximum_concurrent_rpcs=CALLS_AT_ONCE,
        )
        handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "Ask": grpc.unary_unary_rpc_method_handler(self._ask),
            "Write": grpc.stream_stream_rpc_method_handler(self._write),
            "Read": grpc.stream_stream_rpc_method_handler(self._read),
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    def start(self) -> str:
        """Returns the address it listens at.

        Raises:
            Unreachable: the address cannot be listened at.
            InvalidState: this build of gRPC would accept TLS 1.2.
            AuthenticationRefused: this site's own certificate expired.
        """
        now = datetime.now(UTC)
        self._identity.require_usable(now)
        days = self._identity.peer.days_left(now)
        if days < RENEW_DAYS:
            log.warning("the certificate of site '%s' expires in %d days: leeward pki issue", self._identity.site, days)
        try:
            port = self._server.add_secure_port(self._listen, tls.server_credentials(self._identity))
        except RuntimeError as error:
            raise Unreachable(
                "cannot listen there", where=self._listen, remedy="choose a free port of this host: --listen HOST:PORT"
            ) from error
        self._server.start()
        self._eviction.start()
        address = f"{self._listen.rpartition(':')[0]}:{port}"
        if tls.speaks_tls_1_2(address.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]"), self._identity):
            self.stop()
            raise InvalidState(
                "this build of gRPC still accepts TLS 1.2", remedy="install the release of grpcio in constraints.txt"
            )
        return address

    def stop(self, within_s: float = STOPS_WITHIN_S) -> None:
        """Let sessions end by themselves for so long, then end them: what they did not seal is not there."""
        self._server.stop(within_s).wait()
        self._eviction.stop()
        self._threads.shutdown(wait=True)

    def wait(self) -> None:
        self._server.wait_for_termination()

    # --- calls --------------------------------------------------------------------------------------------------

    def _ask(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            store = self._store(context)
            question, _ = decode(request)
            return encode(answer(store, question))
        except Exception as error:  # noqa: BLE001 - every error goes to the caller
            return encode(_failed(error))

    def _write(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """Hold the replica's lock as long as the call lasts, and do what comes.

        An error of a message whose sender waits is its answer; an error of another one ends the session."""
        try:
            store = self._store(context)
            first, _ = decode(next(requests))
            with store.lock(f"{expect(Lock, first).purpose}, for {context.peer()}"):
                yield encode(Done())
                with self._eviction.of(store, context.cancel), closing(WritingSession(store)) as session:
                    for request in requests:
                        message, payload = decode(request)
                        try:
                            for done in session.perform(message, payload):
                                yield encode(done)
                        except LeewardError as error:
                            if not message.waits:
                                raise
                            yield encode(_failed(error))
                    for done in session.finish():
                        yield encode(done)
        except (grpc.RpcError, StopIteration):
            log.info("a writing session of %s ended early", context.peer())
        except Exception as error:  # noqa: BLE001 - every error goes to the caller
            yield encode(_failed(error))

    def _read(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        try:
            store = self._store(context)
            first, _ = decode(next(requests))
            session, opened = open_reading(store, first)
            with closing(session):
                yield encode(opened)
                for request in requests:
                    message, _ = decode(request)
                    try:
                        done, blocks = session.perform(message)
                    except LeewardError as error:
                        yield encode(_failed(error))
                    else:
                        yield encode(done, blocks)
        except (grpc.RpcError, StopIteration):
            log.info("a reading session of %s ended early", context.peer())
        except Exception as error:  # noqa: BLE001 - every error goes to the caller
            yield encode(_failed(error))

    def _store(self, context: grpc.ServicerContext) -> LocalReplicaStore:
        """The store of the machine the call is about, when its caller may touch it."""
        peer = tls.peer_of(context)
        self._identity.pki.require_accepted(peer, datetime.now(UTC))
        machine = dict(context.invocation_metadata()).get(MACHINE_KEY, "")
        if isinstance(machine, bytes):
            machine = machine.decode()
        self._authorise(peer.site, machine)
        return self._store_of(machine)


def _failed(error: Exception) -> Failed:
    if isinstance(error, LeewardError):
        return failures.to_wire(error)
    log.error("unforeseen error", exc_info=error)
    return failures.unforeseen(error)


def only_sites(site: str, sites_of: Callable[[str], tuple[str, str] | None]) -> Authorise:
    """A machine's replica at ``site`` may be touched by the other of the two sites that the machine moves between.

    Args:
        sites_of: the machine's own site and its target; None when the vault does not know the machine."""

    def authorise(caller: str, machine: str) -> None:
        sites = sites_of(machine)
        if sites is None or set(sites) != {site, caller} or caller == site:
            raise AuthorizationRefused(
                f"site '{caller}' may not touch the replica of '{machine}' at site '{site}'",
                where=f"master target of site '{site}'",
                remedy="name these two as the machine's site and target in the master target's inventory",
            )

    return authorise
