"""A real HTTP server for tests of what leeward sends: it remembers what came, and answers what it was told to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Answer(NamedTuple):
    status: int
    body: bytes = b""
    headers: dict[str, str] = {}


class Received(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Receiver(ThreadingHTTPServer):
    """
    Attributes:
        answers: to the next requests, in order; then it is ``usual``.
        hang_up: so many requests are not answered at all, first.
    """

    daemon_threads = True

    def __init__(self, usual: Answer) -> None:
        self.got: list[Received] = []
        self.usual = usual
        self.answers: list[Answer] = []
        self.hang_up = 0
        super().__init__(("127.0.0.1", 0), _Handler)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.got.append(Received(self.command, self.path, dict(self.headers), body))
        if self.server.hang_up:
            self.server.hang_up -= 1
            self.connection.close()
            return
        answer = self.server.answers.pop(0) if self.server.answers else self.server.usual
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.status != 204:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    do_GET = do_POST = do_PUT = do_DELETE = _answer

    def log_message(self, *_: Any) -> None:
        return


@contextmanager
def receiving(usual: Answer) -> Iterator[Receiver]:
    server = Receiver(usual)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
