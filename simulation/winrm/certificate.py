"""A self-signed certificate, as an administrator makes one for a host's HTTPS listener or for a client's login."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


class ServerCertificate(NamedTuple):
    certificate: Path
    """PEM; a client that names it as its authority trusts the server."""
    key: Path

    def context(self, client_certificates: Sequence[Path] = ()) -> ssl.SSLContext:
        """For a server that takes these client certificates, and clients without one."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.certificate, self.key)
        for trusted in client_certificates:
            context.verify_mode = ssl.CERT_OPTIONAL
            context.load_verify_locations(trusted)
        return context

    def channel_binding(self) -> bytes:
        """``tls-server-end-point`` of RFC 5929: what a client that is bound to this certificate sends with NTLM."""
        certificate = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        return b"tls-server-end-point:" + certificate.fingerprint(hashes.SHA256())


def make_certificate(
    folder: Path, *, names: tuple[str, ...] = ("127.0.0.1", "localhost"), valid_until: datetime | None = None
) -> ServerCertificate:
    """Write ``server.pem`` and ``server.key`` into ``folder``; valid for a day, or until ``valid_until``."""
    until = valid_until or datetime.now(UTC) + timedelta(days=1)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(until - timedelta(days=2))
        .not_valid_after(until)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True)
    made = ServerCertificate(folder / "server.pem", folder / "server.key")
    made.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
    made.key.touch(mode=0o600)
    made.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return made


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
