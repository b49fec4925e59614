"""The guest's HTTP face: what a load balancer, a script and the hypervisor's tools in the guest would talk to.

``GET /`` and ``GET /health``: 200 while it serves. ``GET /transactions``: what it holds. Everything that changes
something (``POST /quiesce``, ``/resume``, ``/shutdown``, ``/exec``) needs the guest's token.
"""

from __future__ import annotations

import hmac
import json
import os
import select
import signal
import socket
import subprocess
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

LARGEST_OUTPUT = 64 * 1024
LARGEST_REQUEST = 1024 * 1024
TIMED_OUT = 124
"""The exit code of a command that was ended because its time was over (as of coreutils' ``timeout``)."""


class Served(Protocol):
    """What the HTTP face needs of a guest. Called from many threads."""

    def report(self) -> dict[str, Any]: ...

    def quiesce(self) -> int: ...

    def resume(self) -> bool: ...

    def shut_down(self) -> None: ...

    def command_folder(self) -> Path: ...

    def command_environment(self) -> dict[str, str]: ...


class GuestServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, guest: Served, token: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.guest = guest
        self.token = token

    def server_bind(self) -> None:
        # HTTPServer's own looks up the host's name, which can take seconds where there is no DNS.
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: GuestServer
    protocol_version = "HTTP/1.0"
    timeout = 30

    def do_GET(self) -> None:
        if self.path in ("/", "/health"):
            self._answer(200, {"healthy": True, **self.server.guest.report()})
        elif self.path == "/transactions":
            self._answer(200, self.server.guest.report())
        else:
            self._answer(404, {"error": f"there is no {self.path}; try /health or /transactions"})

    def do_POST(self) -> None:
        if not hmac.compare_digest(self.headers.get("X-Guest-Token", "").encode(), self.server.token.encode()):
            self._answer(403, {"error": "the guest's token is missing or wrong"})
            return
        guest = self.server.guest
        if self.path == "/quiesce":
            self._answer(200, {"held_until_monotonic_ns": guest.quiesce()})
        elif self.path == "/resume":
            self._answer(200, {"was_held": guest.resume()})
        elif self.path == "/shutdown":
            guest.shut_down()
            self._answer(202, {"shutting_down": True})
        elif self.path == "/exec":
            self._exec()
        else:
            self._answer(404, {"error": f"there is no {self.path}"})

    def _exec(self) -> None:
        try:
            length = int(self.headers.get("Content-Length", "0"))
            request = json.loads(self.rfile.read(min(length, LARGEST_REQUEST)))
            command = [str(word) for word in request["command"]]
            environment = {str(name): str(value) for name, value in request.get("environment", {}).items()}
            timeout_s = float(request["timeout_s"])
            folder = Path(request.get("cwd") or self.server.guest.command_folder())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._answer(400, {"error": f"the request is not understood: {error!r}"})
            return
        try:
            environment = {**self.server.guest.command_environment(), **environment}
            result = run_command(command, environment, folder, timeout_s, self.connection)
        except (OSError, ValueError) as error:
            self._answer(200, {"exit_code": 127, "output": f"the command could not be started: {error}\n"})
            return
        self._answer(200, result)

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged: health checks would fill the guest's log."""


def run_command(
    command: list[str], environment: dict[str, str], folder: Path, timeout_s: float, client: socket.socket
) -> dict[str, Any]:
    """Run a command to its end, to ``timeout_s``, or until ``client`` hangs up; the last 64 KiB of what it said.

    Raises ``OSError`` when it cannot be started."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        process_group=0,
    )
    assert process.stdout is not None
    deadline = time.monotonic() + timeout_s
    output, note = bytearray(), ""
    try:
        watched: list[Any] = [process.stdout, client]
        while not note:
            ready, _, _ = select.select(watched, [], [], max(0.0, min(0.2, deadline - time.monotonic())))
            if process.stdout in ready:
                chunk = os.read(process.stdout.fileno(), 65536)
                if not chunk:
                    break
                output += chunk
                del output[:-LARGEST_OUTPUT]
            elif process.poll() is not None:
                break
            if client in ready and not client.recv(1, socket.MSG_PEEK):
                note = "ended because the caller hung up"
            if time.monotonic() >= deadline:
                note = f"ended after {timeout_s:g} s"
        if not note:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                note = f"ended after {timeout_s:g} s"
    finally:
        process.stdout.close()
        _end_group(process)
    text = output.decode(errors="replace")
    if note:
        return {"exit_code": TIMED_OUT, "output": f"{text}[{note}]\n"}
    return {"exit_code": process.returncode, "output": text}


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End what is left of the command, unless it finished and left its children to run on (a daemon it started)."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
