"""Signed digests: who wrote a report, when, and whether it is unchanged (format: docs/formats.md).

The signature is over a statement (format, version, digest, signer, time, key), so none of these can be swapped. A key
inside a report proves nothing by itself: it counts only when the verifier knows it already.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from pydantic import AwareDatetime, Field

from vault.domain import Value
from vault.errors import BadInput, Damaged, NotFound, NotRecoverable

KEY_FILE = "signing.key"
PUBLIC_FILE = "signing.pub"
TRUSTED_FOLDER = "trusted"


class NotTrusted(NotRecoverable):
    """Signed and unchanged, but with a key that nobody here vouches for: anybody can make a key."""


class Signature(Value):
    """Stands in every report. ``digest`` is the SHA-256 of what it signs, in hexadecimal."""

    format: Literal["leeward-signature"] = "leeward-signature"
    version: Literal[1] = 1
    algorithm: Literal["Ed25519"] = "Ed25519"
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    signed_by: str
    """``user@host`` of the process that wrote the report."""
    signed_at: AwareDatetime
    key: str
    """The public key: 32 bytes in base64."""
    signature: str

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(_decoded(self.key))


def canonical(value: Any) -> bytes:
    """The one spelling of a JSON value: keys sorted, no white space, ASCII only."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def fingerprint_of(key: bytes) -> str:
    """The first 16 bytes of the key's SHA-256, in groups that can be read out over the phone."""
    digits = hashlib.sha256(key).hexdigest()[:32]
    return ":".join(digits[index : index + 4] for index in range(0, 32, 4))


def sign(content: bytes, key: Ed25519PrivateKey, signed_by: str) -> Signature:
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    unsigned = Signature(
        digest=hashlib.sha256(content).hexdigest(),
        signed_by=signed_by,
        signed_at=datetime.now(UTC),
        key=base64.b64encode(public).decode(),
        signature="",
    )
    signature = base64.b64encode(key.sign(_statement(unsigned))).decode()
    return unsigned.model_copy(update={"signature": signature})


def verify(content: bytes, signature: Signature, trusted: dict[str, str], where: str) -> str:
    """Which trusted key signed ``content``.

    Args:
        trusted: fingerprint → what to call the key.

    Raises:
        Damaged: the content, or the signature itself, is not what was signed.
        NotTrusted: it is intact, but signed with a key that is not trusted here.
    """
    if hashlib.sha256(content).hexdigest() != signature.digest:
        raise Damaged("the report was changed after it was signed", where=where, remedy="get the original")
    try:
        key = Ed25519PublicKey.from_public_bytes(_decoded(signature.key))
        key.verify(_decoded(signature.signature), _statement(signature))
    except (InvalidSignature, ValueError) as error:
        raise Damaged("the signature does not belong to this report", where=where, remedy="get the original") from error
    if signature.fingerprint not in trusted:
        raise NotTrusted(
            f"the report is signed with a key that is not trusted here: {signature.fingerprint}",
            where=where,
            remedy="compare it with the fingerprint of the host that wrote it, then name that host's "
            f"{PUBLIC_FILE} with --key",
        )
    return trusted[signature.fingerprint]


def own_key(folder: Path) -> Ed25519PrivateKey:
    """The signing key of a reports folder, made on first use; several workers may come at once.

    Raises:
        BadInput: the key's file holds something else.
    """
    path = folder / KEY_FILE
    if not path.exists():
        _make_key(path)
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadInput(
            "this is not an Ed25519 key in PEM", where=str(path), remedy="restore it, or move it away for a new one"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BadInput("the key is not of the type Ed25519", where=str(path), remedy="move it away for a new one")
    public = folder / PUBLIC_FILE
    if not public.exists():
        pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        write_whole(public, pem, mode=0o644)
    return key


def _make_key(path: Path) -> None:
    """Whoever links its key first wins; a key is complete before it has its name."""
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    _write_synced(draft, pem)
    try:
        os.link(draft, path)
    except FileExistsError:
        return
    finally:
        draft.unlink()


def trusted_keys(folder: Path, named: list[Path]) -> dict[str, str]:
    """Fingerprint → origin of every public key that counts here: this folder's own, ``trusted/``, those named.

    Raises:
        NotFound, BadInput: a named key cannot be read.
    """
    own = folder / PUBLIC_FILE
    files = [*([own] if own.exists() else []), *sorted((folder / TRUSTED_FOLDER).glob("*.pub")), *named]
    return {fingerprint_of(_public_key(path)): str(path) for path in files}


def _public_key(path: Path) -> bytes:
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise NotFound(f"the key cannot be read: {error.strerror}", where=str(path)) from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadInput("this is not a public key in PEM", where=str(path), remedy=f"name a {PUBLIC_FILE}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise BadInput("the key is not of the type Ed25519", where=str(path), remedy=f"name a {PUBLIC_FILE}")
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def _statement(signature: Signature) -> bytes:
    return canonical(signature.model_dump(mode="json", exclude={"signature"}))


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def write_whole(path: Path, content: bytes, mode: int = 0o600) -> None:
    """All of the file or nothing, for its owner only unless ``mode`` says more, durable when this returns."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        _write_synced(draft, content, mode)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _write_synced(path: Path, content: bytes, mode: int = 0o600) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
