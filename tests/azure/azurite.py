"""Azurite, Azure Storage's own simulator: a real HTTP server that the real client talks to, over TLS."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ACCOUNT = "leewardtests"
SCRIPT = Path(__file__).parent / "node/node_modules/azurite/dist/src/blob/main.js"
STARTS_WITHIN_S = 30


@dataclass(frozen=True)
class Azurite:
    url: str
    key: str
    ca_file: Path

    @property
    def connection_string(self) -> str:
        return f"DefaultEndpointsProtocol=https;AccountName={ACCOUNT};AccountKey={self.key};BlobEndpoint={self.url};"


@contextmanager
def running(folder: Path) -> Iterator[Azurite]:
    """Azurite on a free port with its data, its certificate and its log in ``folder``; gone afterwards."""
    node = shutil.which("node")
    assert node, "the tests of adapters/azure need Node.js; install it (on Debian: apt-get install nodejs npm)"
    assert SCRIPT.is_file(), "Azurite is not installed; run: npm ci --prefix tests/azure/node (make setup does)"
    certificate, key_file = make_certificate(folder)
    key = base64.b64encode(secrets.token_bytes(64)).decode()
    port = free_port()
    command = [
        *(node, str(SCRIPT), "--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(folder / "data")),
        *("--cert", str(certificate), "--key", str(key_file), "--oauth", "basic"),
        *("--silent", "--disableTelemetry", "--skipApiVersionCheck", "--disableProductStyleUrl"),
    ]
    log = folder / "azurite.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={"PATH": os.environ["PATH"], "AZURITE_ACCOUNTS": f"{ACCOUNT}:{key}"},
        )
    try:
        wait_until_listening(server, port, log)
        yield Azurite(f"https://127.0.0.1:{port}/{ACCOUNT}", key, certificate)
    finally:
        server.kill()
        server.wait()


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_listening(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_S
    while True:
        assert server.poll() is None, f"Azurite ended with {server.returncode}:\n{log.read_text()}"
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.monotonic() < deadline, f"Azurite does not listen after {STARTS_WITHIN_S} s:\n{log.read_text()}"
            time.sleep(0.05)
        else:
            return


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key, as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "azurite")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = folder / "azurite.crt", folder / "azurite.key"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.touch(mode=0o600)
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_file, key_file
