"""The way to one site's master target: one channel for all its machines, and sessions over it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import grpc

from replication.transport import tls
from replication.transport.failures import at, done
from replication.transport.messages import Done, Message, decode, encode
from replication.transport.pki import Identity, server_name
from replication.transport.service import KEEPALIVE_MS, MACHINE_KEY, SERVICE, channel_options
from replication.transport.session import ANSWERS_WITHIN_S, Answers, Call, Session, Throttle, unlimited
from vault.errors import Busy, InvalidState, LeewardError, Unreachable

CONNECTS_WITHIN_S = 5.0


class Connection:
    """Thread-safe; connects when it is used, and again after it broke or a certificate was renewed. Sessions that are
    under way then keep the way they came.

    Args:
        address: ``host:port`` of the master target.
        identity: the certificate of the site that connects.
        site: the site that must answer: its certificate is checked by this name.
    """

    def __init__(
        self,
        address: str,
        identity: Identity,
        site: str,
        *,
        throttle: Throttle = unlimited,
        keepalive_ms: int = KEEPALIVE_MS,
    ) -> None:
        self.where = f"master target of site '{site}' at {address}"
        self.throttle = throttle
        self._address = address
        self._identity = identity
        self._site = site
        self._keepalive_ms = keepalive_ms
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._shown: tuple[bytes, bytes] | None = None
        """The certificate and the authority that the channel was made with."""

    def close(self) -> None:
        with self._lock:
            if self._channel is not None:
                self._channel.close()
                self._channel = None

    def ask(self, machine: str, question: Message) -> Done:
        """One question, one answer. Raises the error that the master target raised, or those of :meth:`explain`."""
        request = encode(question)
        for again in (False, True):
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._open().unary_unary(f"/{SERVICE}/Ask")
            try:
                raw = call(request, metadata=((MACHINE_KEY, machine),), timeout=ANSWERS_WITHIN_S)
            except grpc.RpcError as error:
                self._before_another_try(error, again)
            else:
                with at(self.where):
                    return done(decode(raw)[0])
        raise AssertionError("unreachable")

    def session(self, machine: str, method: str, first: Message) -> tuple[Session, Done]:
        """A session whose first message was answered. Raises as :meth:`ask`."""
        for again in (False, True):
            session = Session(self._call_of(machine, method), self.explain, self.throttle, self.where)
            try:
                return session, session.request(first)[0]
            except grpc.RpcError as error:
                session.drop()
                self._before_another_try(error, again)
            except BaseException:
                session.drop()
                raise
        raise AssertionError("unreachable")

    def _call_of(self, machine: str, method: str) -> Call:
        stub: grpc.StreamStreamMultiCallable[bytes, bytes] = self._open().stream_stream(f"/{SERVICE}/{method}")

        def call(requests: Iterator[bytes]) -> Answers:
            return stub(requests, metadata=((MACHINE_KEY, machine),))

        return call

    def explain(self, error: grpc.RpcError) -> LeewardError:
        """What gRPC says, in the product's classes."""
        code = error.code()
        said = (error.details() or code.name).lower()
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return Busy(
                f"the master target has no room for another session ({said})",
                where=self.where,
                remedy="it goes on by itself; spread machines over more master targets if it happens often",
            )
        if code is grpc.StatusCode.UNIMPLEMENTED:
            return InvalidState(
                f"the other side is no master target of this version ({said})",
                where=self.where,
                remedy="let both sites run the same release of leeward",
            )
        return Unreachable(
            f"the connection failed ({code.name.lower()}: {said})",
            where=self.where,
            remedy="check that the master target runs and that the link to it is up",
        )

    def _before_another_try(self, error: grpc.RpcError, again: bool) -> None:
        """A handshake by hand tells why nobody connects. When it succeeds, the connection was only an old one."""
        if error.code() is not grpc.StatusCode.UNAVAILABLE or again:
            raise self.explain(error) from error
        try:
            tls.diagnose(self._address, self._identity, self._site)
        except LeewardError as known:
            raise known from error
        try:
            grpc.channel_ready_future(self._open()).result(CONNECTS_WITHIN_S)
        except grpc.FutureTimeoutError:
            raise self.explain(error) from error

    def _open(self) -> grpc.Channel:
        shown = self._identity.pem, self._identity.authority
        with self._lock:
            if self._channel is None or self._shown != shown:
                self._shown = shown
                self._channel = grpc.secure_channel(
                    self._address,
                    tls.channel_credentials(self._identity),
                    options=[
                        *channel_options(self._keepalive_ms),
                        ("grpc.ssl_target_name_override", server_name(self._site)),
                        ("grpc.initial_reconnect_backoff_ms", 200),
                        ("grpc.min_reconnect_backoff_ms", 200),
                        ("grpc.max_reconnect_backoff_ms", 2000),
                        ("grpc.enable_retries", 0),
                    ],
                )
            return self._channel
