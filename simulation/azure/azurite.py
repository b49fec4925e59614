"""Azurite, Azure Storage's own simulator: a real HTTP server that the real client talks to, over TLS.

It is installed from npm by ``make``, exactly as ``node/package-lock.json`` says; nothing is downloaded when it starts.
"""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from adapters.lab.documents import read_document, write_document
from adapters.lab.guest_state import start_ticks
from simulation.free_ports import free_ports
from simulation.winrm.certificate import make_certificate
from vault.errors import InvalidState, NotFound

ACCOUNT = "leeward"
NODE = Path(__file__).parent / "node"
SCRIPT = NODE / "node_modules/azurite/dist/src/blob/main.js"
FORMAT, VERSION = "leeward-azurite-process", 1
STARTS_WITHIN_S = 60.0
LOOK_EVERY_S = 0.05


@dataclass(frozen=True)
class Azurite:
    """One account. ``folder`` has its data, certificate, key and log."""

    folder: Path

    @property
    def port(self) -> int:
        return int((self.folder / "port").read_text())

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}/{ACCOUNT}"

    @property
    def ca_file(self) -> Path:
        return self.folder / "server.pem"

    @property
    def key(self) -> str:
        return (self.folder / "account.key").read_text()

    @property
    def connection_string(self) -> str:
        return f"DefaultEndpointsProtocol=https;AccountName={ACCOUNT};AccountKey={self.key};BlobEndpoint={self.url};"

    @property
    def log(self) -> Path:
        return self.folder / "azurite.log"


def require_installed() -> str:
    """The path of Node.js.

    Raises ``NotFound`` when Node.js or Azurite is not installed, with what installs it."""
    node = shutil.which("node")
    if node is None:
        raise NotFound(
            "Node.js is not installed, and Azurite needs it",
            where="node",
            remedy="install it (on Debian: apt-get install nodejs npm), then: make demo SCENARIO=hyperv-azure",
        )
    if not SCRIPT.is_file():
        raise NotFound(
            "Azurite is not installed",
            where=str(NODE),
            remedy=f"make demo SCENARIO=hyperv-azure installs it, or: npm ci --ignore-scripts --prefix {NODE}",
        )
    return node


def prepare(folder: Path) -> Azurite:
    """A new account with a key and a self-signed certificate of its own, on a free port; nothing is started."""
    folder.mkdir(parents=True, exist_ok=True)
    make_certificate(folder)
    key = folder / "account.key"
    key.touch(mode=0o600)
    key.write_text(base64.b64encode(secrets.token_bytes(64)).decode())
    (folder / "port").write_text(str(free_ports(1)[0]))
    return Azurite(folder)


def start(folder: Path) -> None:
    """Start what was prepared in ``folder`` in the background, and wait until it listens. :func:`stop` ends it, from
    whatever process.

    Raises ``NotFound`` when it is not installed, ``InvalidState`` with the end of its log when it does not come up."""
    azurite = Azurite(folder)
    server = _launched(azurite)
    body = {"pid": server.pid, "start_ticks": start_ticks(server.pid)}
    write_document(folder / "process.json", FORMAT, VERSION, body)
    _wait_until_listening(azurite, server)


def stop(folder: Path) -> bool:
    """End the Azurite of ``folder`` and wait until it is gone; False when none runs."""
    try:
        told = read_document(folder / "process.json", FORMAT, VERSION)
    except NotFound:
        return False
    if told["start_ticks"] is None or start_ticks(told["pid"]) != told["start_ticks"]:
        return False
    os.kill(told["pid"], 9)
    while start_ticks(told["pid"]) == told["start_ticks"]:
        time.sleep(LOOK_EVERY_S)
    return True


@contextmanager
def running(folder: Path) -> Iterator[Azurite]:
    """A new account in ``folder`` that is served until the end; raises as :func:`start`."""
    azurite = prepare(folder)
    server = _launched(azurite)
    try:
        _wait_until_listening(azurite, server)
        yield azurite
    finally:
        server.kill()
        server.wait()


def _launched(azurite: Azurite) -> subprocess.Popen[bytes]:
    """The account's key goes through the environment: command lines are for everybody to read."""
    command = [
        *(require_installed(), str(SCRIPT), "--blobHost", "127.0.0.1", "--blobPort", str(azurite.port)),
        *("--location", str(azurite.folder / "data"), "--oauth", "basic"),
        *("--cert", str(azurite.ca_file), "--key", str(azurite.folder / "server.key")),
        *("--silent", "--disableTelemetry", "--skipApiVersionCheck", "--disableProductStyleUrl"),
    ]
    with azurite.log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={"PATH": os.environ["PATH"], "AZURITE_ACCOUNTS": f"{ACCOUNT}:{azurite.key}"},
            start_new_session=True,
        )


def _wait_until_listening(azurite: Azurite, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", azurite.port), 1).close()
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                server.kill()
                server.wait()
                said = azurite.log.read_text(errors="replace").strip().splitlines()[-1:]
                raise InvalidState(
                    f"Azurite did not start: {' '.join(said)}", where=str(azurite.log), remedy="read that log"
                ) from None
            time.sleep(LOOK_EVERY_S)
        else:
            return
