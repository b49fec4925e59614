"""Who may log in to a simulated host: basic, client certificates, and NTLM and CredSSP by pyspnego's server side."""

from __future__ import annotations

import base64
import binascii
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import spnego
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from spnego.channel_bindings import GssChannelBindings
from spnego.exceptions import SpnegoError

_environment = threading.Lock()


class Account(NamedTuple):
    user: str
    """``DOMAIN\\user`` or ``user``."""
    password: str
    may_manage: bool = True
    """False: the login is accepted, every request is denied."""
    certificate: Path | None = None
    """PEM: a client certificate that is mapped to the account."""


class Denied(Exception):
    """The login is refused."""


class Accounts:
    """The accounts of one host, and the ways of logging in that it allows."""

    def __init__(self, accounts: Sequence[Account], folder: Path, channel_binding: bytes, *, basic: bool) -> None:
        self._accounts = {account.user.lower(): account for account in accounts}
        self._file = folder / "ntlm-accounts"
        self._file.touch(mode=0o600)
        self._file.write_text("".join(f"{_domain_and_user(a.user)}:{a.password}\n" for a in accounts))
        self.bind_to(channel_binding)
        self.basic_allowed = basic

    def close(self) -> None:
        """Passwords do not outlive their server."""
        self._file.unlink(missing_ok=True)

    def bind_to(self, channel_binding: bytes) -> None:
        """Accept NTLM only from a client that sees this channel."""
        self.binding = GssChannelBindings(application_data=channel_binding)

    @property
    def offered(self) -> list[str]:
        return ["Negotiate", "NTLM", "CredSSP", *(['Basic realm="WSMAN"'] if self.basic_allowed else [])]

    def by_basic(self, token: str) -> Account:
        if not self.basic_allowed:
            raise Denied("basic authentication is off")
        try:
            user, _, password = base64.b64decode(token, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise Denied("the token cannot be read") from None
        account = self._accounts.get(user.lower())
        if account is None or account.password != password:
            raise Denied("unknown user or wrong password")
        return account

    def by_certificate(self, der: bytes | None) -> Account:
        """As a host maps a client certificate to a local account."""
        for account in self._accounts.values():
            if der is not None and account.certificate is not None:
                known = x509.load_pem_x509_certificate(account.certificate.read_bytes())
                if known.public_bytes(Encoding.DER) == der:
                    return account
        raise Denied("no account has this certificate")

    @property
    def client_certificates(self) -> list[Path]:
        return [account.certificate for account in self._accounts.values() if account.certificate is not None]

    @contextmanager
    def known_to_spnego(self) -> Iterator[None]:
        """pyspnego's NTLM server finds its accounts by the variable NTLM_USER_FILE only, which is the process's."""
        with _environment:
            before = os.environ.get("NTLM_USER_FILE")
            os.environ["NTLM_USER_FILE"] = str(self._file)
            try:
                yield
            finally:
                if before is None:
                    del os.environ["NTLM_USER_FILE"]
                else:
                    os.environ["NTLM_USER_FILE"] = before

    def named(self, principal: str) -> Account:
        account = self._accounts.get(principal.lower()) or self._accounts.get(principal.rpartition("\\")[2].lower())
        if account is None:
            raise Denied("unknown user")
        return account


class TokenLogin:
    """One connection's login by exchanged tokens: NTLM bound to the TLS channel ([MS-NLMP]), or CredSSP ([MS-CSSP])."""

    def __init__(self, accounts: Accounts, scheme: str) -> None:
        self._accounts = accounts
        is_credssp = scheme.lower() == "credssp"
        with accounts.known_to_spnego():
            self._context = (
                spnego.server(protocol="credssp")
                if is_credssp
                else spnego.server(protocol="ntlm", channel_bindings=accounts.binding)
            )

    def step(self, token: str) -> tuple[str | None, Account | None]:
        """What to answer to a token, or the account after the last. Raises ``Denied``."""
        try:
            with self._accounts.known_to_spnego():
                reply = self._context.step(base64.b64decode(token, validate=True))
        except (SpnegoError, ValueError) as error:
            raise Denied(type(error).__name__) from None
        if not self._context.complete:
            return base64.b64encode(reply or b"").decode(), None
        return None, self._accounts.named(self._context.client_principal or "")


def _domain_and_user(user: str) -> str:
    domain, _, name = user.rpartition("\\")
    return f"{domain}:{name}"
