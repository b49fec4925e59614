"""Listening at 127.0.0.1, as every simulated server does: plain or by TLS, with connections that can be cut."""

from __future__ import annotations

import base64
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar

POLLS_EVERY_S = 0.01


class Listener(socketserver.ThreadingTCPServer):
    """Serves each connection in a thread, from its making until :meth:`close`.

    Args:
        port: 0: a free one.
    """

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int, handler: type[socketserver.BaseRequestHandler], name: str) -> None:
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(POLLS_EVERY_S,), daemon=True, name=name)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @contextmanager
    def open(self, connection: socket.socket) -> Iterator[None]:
        """While a handler deals with the connection: it can be cut."""
        with self._lock:
            self._connections.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._connections.discard(connection)

    def cut_connections(self) -> None:
        with self._lock:
            connections, self._connections = self._connections, set()
        for connection in connections:
            drop(connection)

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        self.cut_connections()
        self._thread.join()


class TlsListener(Listener):
    """Shakes hands in the connection's thread: a client that is slow to, or refuses, stops no other."""

    def __init__(
        self, context: ssl.SSLContext, port: int, handler: type[socketserver.BaseRequestHandler], name: str
    ) -> None:
        self._tls = context
        super().__init__(port, handler, name)

    def finish_request(self, request: Any, client_address: Any) -> None:
        with (
            suppress(OSError),
            self._tls.wrap_socket(request, server_side=True) as connection,
            self.open(connection),
        ):
            super().finish_request(connection, client_address)


class HttpConnection(BaseHTTPRequestHandler):
    """One connection of HTTP, for any number of requests."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    """Headers and body leave in one piece: apart, Nagle's algorithm and delayed acknowledgement cost 40 ms."""
    content_type: ClassVar[str]

    def read_body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", "0")))

    def respond(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Type", self.content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: a test's or demonstration's output is not a web server's log."""


def drop(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def basic_login(user: str, password: str) -> str:
    """The ``Authorization`` header of a client that logs in with these."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
