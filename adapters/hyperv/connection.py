"""How a Hyper-V host is reached: the settings of one WinRM connection, over HTTPS only."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from vault.domain import Value

HTTPS_PORT = 5986
"""WinRM's default port for HTTPS ("Installation and configuration for Windows Remote Management")."""


class Authentication(StrEnum):
    KERBEROS = "kerberos"
    """A domain account; the ticket comes from the ticket cache or keytab of the worker's Kerberos, not from
    ``password``. Does not pass the credentials on to the host."""
    NTLM = "ntlm"
    """A local or domain account, ``DOMAIN\\user`` or ``HOST\\user``, bound to the TLS channel."""
    CREDSSP = "credssp"
    """As NTLM, and passes the credentials on to the host, which scripts need that reach a third computer."""
    CERTIFICATE = "certificate"
    """A client certificate that the host maps to a local account."""
    BASIC = "basic"
    """A local account; the password itself goes through the TLS channel. Off by default on a host."""


NEEDS_PASSWORD = frozenset({Authentication.NTLM, Authentication.CREDSSP, Authentication.BASIC})


class HyperVHost(Value):
    """One host, and how to log in to it. Holds references to secrets, never a secret."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    address: str = Field(min_length=1)
    """A name that the host's certificate carries; for Kerberos, the host's full domain name."""
    port: int = Field(HTTPS_PORT, ge=1, le=65535)
    authentication: Authentication = Authentication.KERBEROS
    user: str | None = None
    password: str | None = None
    """``env:NAME`` or ``file:PATH``: see :func:`vault.secrets.resolve`."""
    certificate: Path | None = None
    """PEM, for ``certificate``."""
    certificate_key: Path | None = None
    ca: Path | None = None
    """PEM with the authorities (or the self-signed certificate) to trust; None: those of the certifi package."""
    verify: bool = True
    """Whether the host's certificate is checked. Off, anybody in between can read and change everything."""
    connect_timeout_s: int = Field(10, ge=1, le=300)
    operation_timeout_s: int = Field(20, ge=1, le=300)
    """How long the host holds a request that has nothing to answer yet; then it is asked again."""
    concurrency: int = Field(4, ge=1, le=25)
    """How many operations run on the host at once; each is one remote shell. A host allows a user 30 shells by default
    ("Quotas for remote shells": MaxShellsPerUser)."""

    @field_validator("password")
    @classmethod
    def _is_a_reference(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("env:", "file:")):
            raise ValueError("'password' is not a reference to a secret; write 'env:NAME' or 'file:PATH'")
        return value

    @model_validator(mode="after")
    def _has_what_the_authentication_needs(self) -> Self:
        if self.authentication in NEEDS_PASSWORD and not (self.user and self.password):
            raise ValueError(f"authentication '{self.authentication}' needs 'user' and 'password'")
        if self.authentication is Authentication.CERTIFICATE and not (self.certificate and self.certificate_key):
            raise ValueError("authentication 'certificate' needs 'certificate' and 'certificate_key'")
        return self

    @property
    def endpoint(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"https://{host}:{self.port}/wsman"

    @property
    def where(self) -> str:
        """How errors and logs name the host."""
        return self.address if self.port == HTTPS_PORT else f"{self.address}:{self.port}"
