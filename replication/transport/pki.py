"""Certificates of sites: a small authority of leeward's own, kept in a folder.

::

    ca.pem                   the authority's certificate: what every site trusts
    ca.key                   its key; only where certificates are issued
    sites/<site>.pem         a site's certificate and key, in one file so that both are replaced at once
    issued/<site>-<serial>.pem  every certificate that may be used; deleting one revokes it

A site's host needs ``ca.pem``, its own ``sites/<site>.pem`` and, to refuse revoked certificates, ``issued/``. Peers are
known by the name of their site, not by the address they are found at.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from replication import files
from vault.domain import Value
from vault.errors import AuthenticationRefused, AuthorizationRefused, BadInput, InvalidState, NotFound
from vault.secrets import resolve

AUTHORITY_DAYS = 3650
SITE_DAYS = 397
RENEW_DAYS = 60
"""A certificate that is valid for less is renewed by ``issue``, and warned about."""
CLOCK_SKEW = timedelta(hours=1, minutes=10)
"""A certificate made just before its peer's clock was set back by an hour is still a valid one."""
_BRING = "bring the file again from where it was made: leeward pki init, leeward pki issue"
_SITE_URI = "spiffe://leeward/site/"
_SITE_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")


class Peer(Value):
    """Whom a certificate names, and until when."""

    site: str
    serial: str
    not_before: datetime
    not_after: datetime

    def days_left(self, now: datetime) -> int:
        return (self.not_after - now).days

    def state(self, now: datetime) -> str:
        """For people."""
        if now > self.not_after:
            return "expired"
        left = self.days_left(now)
        return f"renew it: {left} days left" if left <= RENEW_DAYS else "valid"

    def require_valid(self, now: datetime, where: str) -> None:
        """Raises ``AuthenticationRefused`` for a certificate that is not valid now."""
        if now > self.not_after:
            raise AuthenticationRefused(
                f"the certificate of site '{self.site}' expired on {self.not_after:%Y-%m-%d}",
                where=where,
                remedy=f"renew it: leeward pki issue {self.site}",
            )
        if now < self.not_before:
            raise AuthenticationRefused(
                f"the certificate of site '{self.site}' is valid only from {self.not_before:%Y-%m-%d %H:%M}Z on",
                where=where,
                remedy="correct the clock of this host",
            )


class Pki:
    """The folder. Reading raises ``NotFound``, ``AuthorizationRefused`` or ``BadInput``, naming the file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = folder / "ca.pem"
        self.authority_key = folder / "ca.key"
        self.issued = folder / "issued"

    @classmethod
    def at(cls, reference: str) -> Pki:
        """The folder behind ``file:PATH``, or behind the path in the variable of ``env:NAME``."""
        kind, _, name = reference.partition(":")
        path = resolve(reference) if kind == "env" else name
        return cls(Path(path).expanduser())

    def site(self, site: str) -> Path:
        return self.folder / "sites" / f"{site}.pem"

    # --- issuing ----------------------------------------------------------------------------------------------

    def init(self, now: datetime, days: int = AUTHORITY_DAYS) -> None:
        """Make the authority. Raises ``InvalidState`` when there is one: its certificates would all be void."""
        if self.authority.exists() or self.authority_key.exists():
            raise InvalidState(
                "there is an authority already; nothing was written",
                where=str(self.folder),
                remedy="issue certificates with it: leeward pki issue SITE; or name another folder",
            )
        key = ec.generate_private_key(ec.SECP256R1())
        name = _common_name("leeward certificate authority")
        certificate = (
            _builder(name, name, key.public_key(), now, days)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(certificate_sign=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, SHA256())
        )
        self._make_folders()
        with files.translated(self.folder):
            files.replace_contents(self.authority_key, _key_pem(key))
            files.replace_contents(self.authority, certificate.public_bytes(Encoding.PEM))

    def issue(self, site: str, now: datetime, days: int = SITE_DAYS, *, renew: bool = False) -> Peer:
        """A certificate and key for ``site``; a valid one with more than 60 days left stays unless ``renew``.

        The certificates that the site had before stay accepted until they are deleted from ``issued/``."""
        if not _SITE_NAME.match(site):
            raise BadInput(f"'{site[:70]}' is not a site's name", remedy="use the name of the inventory")
        if self.site(site).exists() and not renew:
            present = Identity(self, site).peer
            if present.days_left(now) > RENEW_DAYS:
                return present
        authority = self._authority_certificate()
        signer = self._authority_key()
        key = ec.generate_private_key(ec.SECP256R1())
        until = min(now + timedelta(days=days), authority.not_valid_after_utc)
        certificate = (
            _builder(_common_name(site), authority.subject, key.public_key(), now, days, until)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(certificate_sign=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(
                x509.SubjectAlternativeName(
                    [x509.DNSName(server_name(site)), x509.UniformResourceIdentifier(_SITE_URI + site)]
                ),
                critical=False,
            )
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
            .sign(signer, SHA256())
        )
        pem = certificate.public_bytes(Encoding.PEM)
        peer = peer_in(pem)
        self._make_folders()
        with files.translated(self.folder):
            files.replace_contents(self.issued / f"{site}-{peer.serial}.pem", pem)
            files.replace_contents(self.site(site), pem + _key_pem(key))
        return peer

    def accepted(self) -> list[Peer]:
        """The certificates in ``issued/``, by site and age."""
        if not self.issued.is_dir():
            return []
        with files.translated(self.issued):
            found = [peer_in(path.read_bytes(), str(path)) for path in self.issued.glob("*.pem")]
        return sorted(found, key=lambda peer: (peer.site, peer.not_after))

    def authority_until(self) -> datetime:
        return self._authority_certificate().not_valid_after_utc

    # --- checking ---------------------------------------------------------------------------------------------

    def require_accepted(self, peer: Peer, now: datetime) -> None:
        """Raises ``AuthenticationRefused`` when the peer's certificate expired meanwhile, or was revoked.

        Without a folder ``issued/`` nothing is known about revocation: every certificate of the authority counts."""
        where = f"certificate {peer.serial} of site '{peer.site}'"
        peer.require_valid(now, where)
        if self.issued.is_dir() and not (self.issued / f"{peer.site}-{peer.serial}.pem").is_file():
            raise AuthenticationRefused(
                "the certificate was revoked: it is not among the issued ones",
                where=where,
                remedy=f"issue a new one and bring its public part to '{self.issued.name}/' of the master target: "
                f"leeward pki issue {peer.site} --renew",
            )

    # --- inside -----------------------------------------------------------------------------------------------

    def _make_folders(self) -> None:
        for folder in (self.folder, self.folder / "sites", self.issued):
            with files.translated(folder):
                files.make_folder(folder)
        with files.translated(self.folder):
            self.folder.chmod(0o700)

    def _authority_certificate(self) -> x509.Certificate:
        return _certificate(_read(self.authority, "make an authority: leeward pki init"), str(self.authority))

    def _authority_key(self) -> ec.EllipticCurvePrivateKey:
        pem = _read(self.authority_key, "certificates are issued where the authority's key is kept")
        require_private(self.authority_key)
        return _private_key(pem, str(self.authority_key))


class Identity:
    """What one site proves itself with. Read anew each time, so that a renewed certificate is used at once."""

    def __init__(self, pki: Pki, site: str) -> None:
        self.pki = pki
        self.site = site
        self.path = pki.site(site)

    @property
    def authority(self) -> bytes:
        """PEM of the certificates this site trusts."""
        return _read(self.pki.authority, "make an authority: leeward pki init")

    @property
    def pem(self) -> bytes:
        """PEM of the site's certificate and its key."""
        found = _read(self.path, f"issue a certificate: leeward pki issue {self.site}")
        require_private(self.path)
        return found

    @property
    def peer(self) -> Peer:
        """Raises ``BadInput`` when the file holds another site's certificate."""
        found = peer_in(self.pem, str(self.path))
        if found.site != self.site:
            raise BadInput(
                f"this is the certificate of site '{found.site}', not '{self.site}'",
                where=str(self.path),
                remedy=f"bring the file here that this makes: leeward pki issue {self.site}",
            )
        return found

    def require_usable(self, now: datetime) -> None:
        """Raises ``AuthenticationRefused`` for a certificate that is of no use: expired, or of another authority."""
        self.peer.require_valid(now, str(self.path))
        certificate = _certificate(self.pem, str(self.path))
        for authority in _certificates(self.authority, str(self.pki.authority)):
            with suppress(ValueError, TypeError, InvalidSignature):
                certificate.verify_directly_issued_by(authority)
                return
        raise AuthenticationRefused(
            f"the certificate of site '{self.site}' is not of the authority in {self.pki.authority.name}",
            where=str(self.path),
            remedy=f"issue it where the authority's key is: leeward pki issue {self.site} --renew",
        )

    def key_and_certificate(self) -> tuple[bytes, bytes]:
        """Both as PEM."""
        pem = self.pem
        certificate = _certificate(pem, str(self.path)).public_bytes(Encoding.PEM)
        return _key_pem(_private_key(pem[len(certificate) :], str(self.path))), certificate


def server_name(site: str) -> str:
    """The name TLS checks a site's server by: a digest, because host names know no case and fewer characters."""
    return f"{hashlib.sha256(site.encode()).hexdigest()[:32]}.site.leeward.internal"


@lru_cache(maxsize=256)
def peer_in(pem: bytes, where: str = "") -> Peer:
    """Whom the certificate names. Raises ``AuthenticationRefused`` when it is not a site's."""
    certificate = _certificate(pem, where)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        uris = []
    sites = [uri.removeprefix(_SITE_URI) for uri in uris if uri.startswith(_SITE_URI)]
    if len(sites) != 1 or not _SITE_NAME.match(sites[0]):
        raise AuthenticationRefused(
            "the certificate does not name a site", where=where, remedy="use one made by: leeward pki issue SITE"
        )
    return Peer(
        site=sites[0],
        serial=f"{certificate.serial_number:040x}",
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )


def require_private(path: Path) -> None:
    """Raises ``AuthorizationRefused`` for a key that others than its owner may read."""
    with files.translated(path):
        mode = path.stat().st_mode
    if mode & 0o077:
        raise AuthorizationRefused(
            f"the private key may be read by others (mode {mode & 0o777:03o})",
            where=str(path),
            remedy=f"chmod 600 {path}",
        )


def _read(path: Path, remedy: str) -> bytes:
    try:
        with files.translated(path):
            return path.read_bytes()
    except NotFound as error:
        raise NotFound(error.what, where=error.where, remedy=remedy) from None


def _certificate(pem: bytes, where: str) -> x509.Certificate:
    return _certificates(pem, where)[0]


def _certificates(pem: bytes, where: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise BadInput("this is not a certificate", where=where, remedy=_BRING) from None


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime,
    days: int,
    until: datetime | None = None,
) -> x509.CertificateBuilder:
    now = now.astimezone(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(until or now + timedelta(days=days))
    )


def _key_usage(*, certificate_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificate_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificate_sign,
        crl_sign=certificate_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _private_key(pem: bytes, where: str) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError):
        raise BadInput("there is no private key in the file", where=where, remedy=_BRING) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BadInput("the private key is not one on an elliptic curve", where=where, remedy=_BRING)
    return key


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
