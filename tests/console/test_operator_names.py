"""In whose name commands speak: who the connection to Temporal says, else the operating system's user."""

from __future__ import annotations

import base64
import getpass
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from lab_support import make_inventory
from temporalio.client import Client
from temporalio.service import TLSConfig

from console.client import Leeward
from workflows.model import Timings

pytestmark = pytest.mark.unit


def certificate(*names: x509.NameAttribute[str]) -> TLSConfig:
    key, subject, now = ec.generate_private_key(ec.SECP256R1()), x509.Name(names), datetime.now(UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), 1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    form, nothing = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return TLSConfig(client_cert=made.public_bytes(pem), client_private_key=key.private_bytes(pem, form, nothing))


def token(claims: Any) -> str:
    middle = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{middle}.c2lnbmF0dXJl"


async def operator(**shown: Any) -> str:
    client = await Client.connect("127.0.0.1:1", lazy=True, **shown)
    return Leeward(client, make_inventory(), Timings()).operator


async def test_a_client_certificate_names_the_operator() -> None:
    olga = x509.NameAttribute(NameOID.COMMON_NAME, "olga")
    assert await operator(tls=certificate(olga)) == "olga"
    assert await operator(tls=certificate(olga), api_key=token({"sub": "abel"})) == "olga"


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"sub": "4711"}, "4711"),
        ({"sub": "4711", "preferred_username": "olga"}, "olga"),
        ({"sub": "4711", "preferred_username": "olga", "email": "olga@example.com"}, "olga@example.com"),
        ({"sub": "4711", "email": " "}, "4711"),
    ],
)
async def test_an_api_key_that_is_a_token_names_the_operator(claims: dict[str, str], name: str) -> None:
    assert await operator(api_key=token(claims)) == name


async def test_who_is_not_named_by_the_connection_is_the_users_name() -> None:
    user = getpass.getuser()
    assert await operator() == user
    assert await operator(tls=True) == user
    assert await operator(tls=certificate(x509.NameAttribute(NameOID.ORGANIZATION_NAME, "shop"))) == user
    for key in ("a-plain-key", "a.b.c", "a.%%%.c", token([]), token({"sub": 5}), token({})):
        assert await operator(api_key=key) == user
