"""The replication link: each array listens for its peers and calls them."""

from __future__ import annotations

import contextlib
import socket
import socketserver
from collections.abc import Callable
from typing import Any

from adapters.smis.values import ReturnValue
from simulation.arrays.refusal import ArrayRefusal, LinkDown
from simulation.arrays.wire import Frame, receive, send
from simulation.listening import Listener
from vault.errors import Damaged, Unreachable

ANSWER_WITHIN_S = 5.0
Handler = Callable[[Frame], tuple[dict[str, Any], bytes]]
Guard = Callable[[], None]
"""Raises ``Unreachable`` while the link is cut."""


class Peer:
    """The other array, as it is called over the link. Thread-safe."""

    def __init__(self, address: tuple[str, int], guard: Guard) -> None:
        self._address = address
        self._guard = guard
        self._idle: list[socket.socket] = []

    def call(self, op: str, data: bytes = b"", **head: Any) -> Frame:
        """Raises ``LinkDown`` when the peer does not answer, ``ArrayRefusal`` when it refuses."""
        try:
            self._guard()
            connection = self._idle.pop() if self._idle else self._connect()
            try:
                send(connection, {"op": op, **head}, data)
                answer = receive(connection)
            except BaseException:
                connection.close()
                raise
        except (OSError, Damaged, Unreachable) as error:
            raise LinkDown(f"the other array does not answer: {error}") from error
        self._idle.append(connection)
        if "error" in answer.head:
            raise ArrayRefusal(answer.head["error"], ReturnValue(answer.head["code"]))
        return answer

    def _connect(self) -> socket.socket:
        connection = socket.create_connection(self._address, timeout=ANSWER_WITHIN_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()


class LinkListener(Listener):
    """Answers the peers; ends with :meth:`close`."""

    def __init__(self, port: int, handle: Handler, guard: Guard) -> None:
        self.handle = handle
        self.guard = guard
        super().__init__(port, _Connection, "array link")


class _Connection(socketserver.BaseRequestHandler):
    server: LinkListener

    def handle(self) -> None:
        connection: socket.socket = self.request
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self.server.open(connection), contextlib.suppress(OSError, Unreachable):
            while True:
                frame = receive(connection)
                self.server.guard()
                send(connection, *self._answer(frame))

    def _answer(self, frame: Frame) -> tuple[dict[str, Any], bytes]:
        try:
            return self.server.handle(frame)
        except ArrayRefusal as refusal:
            return {"error": refusal.what, "code": int(refusal.code)}, b""
