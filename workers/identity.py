"""Whose name the commands of a connection carry, when the connection shows one to Temporal."""

from __future__ import annotations

import base64
import json
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID
from temporalio.client import Client

CLAIMS = ("email", "preferred_username", "sub")
"""Of an API key that is a JSON Web Token: the first that is there."""


def authenticated_identity(client: Client) -> str | None:
    """The name in what Temporal authenticates: the common name of the client certificate, else a claim of the API key.

    Not verified here: Temporal does that, or lets nobody in. None when the connection names nobody.
    """
    shown = client.service_client.config
    certificate = getattr(shown.tls, "client_cert", None)
    return (_common_name(certificate) if certificate else None) or _claim(shown.api_key or "")


def _common_name(pem: bytes) -> str | None:
    try:
        subject = x509.load_pem_x509_certificate(pem).subject
    except ValueError:  # Temporal's client says better what is wrong with it
        return None
    names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value).strip() or None if names else None


def _claim(token: str) -> str | None:
    """An API key may be any text; only a token names somebody."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims: Any = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return None
    if not isinstance(claims, dict):
        return None
    named = [claims[name] for name in CLAIMS if isinstance(claims.get(name), str) and claims[name].strip()]
    return str(named[0]).strip() if named else None
