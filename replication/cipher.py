"""Encryption of replica data: a key for each machine, wrapped by the key of the site that keeps the replica.

AES-256-GCM throughout. A machine's key never encrypts anything itself: every stream of frames (a segment, the base
writes of one session) has a random salt, and the key derived with it numbers its nonces from 0. So no nonce is ever
used twice, however often a transfer is repeated. ``docs/formats.md`` has the bytes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import secrets
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from replication import files
from vault.domain import Value
from vault.errors import AuthenticationRefused, BadInput, InvalidState
from vault.secrets import resolve

KEY_BYTES = 32
SALT_BYTES = 16
NONCE_BYTES = 12
_FRAME_KEY = b"leeward frame key 1"


class WrappedKey(Value):
    """A machine's key as the replica's manifest keeps it: useless without the site's key. Fields are hexadecimal."""

    id: str
    site_key: str
    nonce: str
    wrapped: str


class Encryption(Value):
    """How a stream of frames is encrypted: by which machine key, and the salt of the key derived from it."""

    algorithm: Literal["AES-256-GCM"] = "AES-256-GCM"
    key: str
    salt: str


class FrameCipher:
    """Encrypts and decrypts the frames of one stream. Thread-safe.

    ``about`` is what a frame is bound to besides its number: in another place it does not decrypt.
    """

    def __init__(self, key: bytes, context: bytes) -> None:
        self._aead = AESGCM(key)
        self._context = context

    def encrypt(self, number: int, plain: bytes, about: bytes) -> bytes:
        return self._aead.encrypt(number.to_bytes(NONCE_BYTES, "big"), plain, self._context + about)

    def decrypt(self, number: int, stored: bytes | memoryview, about: bytes) -> bytes | None:
        """None when it was not encrypted with this key, at this place, or was changed since."""
        try:
            return self._aead.decrypt(number.to_bytes(NONCE_BYTES, "big"), stored, self._context + about)
        except InvalidTag:
            return None


class MachineKey:
    """A machine's key, unwrapped. Never written anywhere."""

    def __init__(self, machine: str, key_id: str, key: bytes) -> None:
        self.id = key_id
        self._machine = machine
        self._key = key

    def new_stream(self) -> Encryption:
        return Encryption(key=self.id, salt=secrets.token_hex(SALT_BYTES))

    def cipher(self, encryption: Encryption, disk: str) -> FrameCipher:
        """Raises ``AuthenticationRefused`` when the stream was encrypted with another key."""
        if encryption.key != self.id:
            raise AuthenticationRefused(
                f"the data is encrypted with key {encryption.key}, but the replica's key is {self.id}",
                where=f"{self._machine}/{disk}",
                remedy="both sites must use the same 'replica_key'; resynchronize the machine if its key was replaced",
            )
        salt = bytes.fromhex(encryption.salt)
        derived = HKDF(SHA256(), KEY_BYTES, salt=salt, info=_FRAME_KEY).derive(self._key)
        return FrameCipher(derived, f"{self._machine}/{disk}/".encode())


class SiteKey:
    """The key of a site, which wraps the keys of the machines whose replicas it keeps."""

    def __init__(self, key: bytes, where: str) -> None:
        if len(key) != KEY_BYTES:
            raise BadInput(
                f"a site's key has {KEY_BYTES} bytes, this one {len(key)}",
                where=where,
                remedy="make one with: leeward pki key FILE",
            )
        self._key = key
        self._where = where
        self.id = hashlib.sha256(b"leeward site key" + key).hexdigest()[:16]

    @classmethod
    def from_reference(cls, reference: str) -> SiteKey:
        """The key behind ``file:PATH`` or ``env:NAME``: 64 hexadecimal digits, or base64 of 32 bytes.

        Raises ``BadInput``, ``NotFound``, ``AuthorizationRefused``; none of them quotes the key."""
        text = resolve(reference).strip()
        try:
            key = bytes.fromhex(text) if len(text) == 2 * KEY_BYTES else base64.b64decode(text, validate=True)
        except (ValueError, binascii.Error):
            raise BadInput(
                "this is not a key in hexadecimal or base64",
                where=reference,
                remedy="make one with: leeward pki key FILE",
            ) from None
        return cls(key, reference)

    def new_machine_key(self, machine: str) -> WrappedKey:
        nonce, key_id = os.urandom(NONCE_BYTES), secrets.token_hex(8)
        key = AESGCM.generate_key(8 * KEY_BYTES)
        wrapped = AESGCM(self._key).encrypt(nonce, key, f"{machine}/{key_id}".encode())
        return WrappedKey(id=key_id, site_key=self.id, nonce=nonce.hex(), wrapped=wrapped.hex())

    def unwrap(self, machine: str, wrapped: WrappedKey) -> MachineKey:
        """Raises ``AuthenticationRefused`` when this key is not the one that wrapped it."""
        try:
            key = AESGCM(self._key).decrypt(
                bytes.fromhex(wrapped.nonce), bytes.fromhex(wrapped.wrapped), f"{machine}/{wrapped.id}".encode()
            )
        except (InvalidTag, ValueError):
            raise AuthenticationRefused(
                f"site key {self.id} does not open the key of '{machine}', which site key {wrapped.site_key} wrapped",
                where=self._where,
                remedy="give both sites the 'replica_key' that the replica was made with",
            ) from None
        return MachineKey(machine, wrapped.id, key)


class Keys:
    """What one end of a replication can open: the key of ``machine``, by way of the site's key.

    Args:
        site_key: None where replicas are not encrypted.
    """

    def __init__(self, machine: str, site_key: SiteKey | None) -> None:
        self._machine = machine
        self._site_key = site_key
        self._opened: tuple[WrappedKey, MachineKey] | None = None

    def make(self) -> WrappedKey | None:
        return self._site_key.new_machine_key(self._machine) if self._site_key else None

    def open(self, wrapped: WrappedKey | None) -> MachineKey | None:
        """The replica's key; None when the replica is not encrypted.

        Raises:
            AuthenticationRefused: another site key wrapped it, or none is known here.
            InvalidState: encryption is wanted here, but the replica was made without it.
        """
        if wrapped is None:
            if self._site_key is None:
                return None
            raise InvalidState(
                "the replica was made without encryption",
                where=f"replica of '{self._machine}'",
                remedy="disable the machine's protection and enable it again, or remove 'replica_key'",
            )
        if self._site_key is None:
            raise AuthenticationRefused(
                "the replica is encrypted, and no site key is configured here",
                where=f"replica of '{self._machine}'",
                remedy="set the target site's 'replica_key' in the inventory",
            )
        if self._opened is None or self._opened[0] != wrapped:
            self._opened = wrapped, self._site_key.unwrap(self._machine, wrapped)
        return self._opened[1]

    def cipher(self, wrapped: WrappedKey | None, encryption: Encryption | None, disk: str) -> FrameCipher | None:
        """What opens a stream of frames for a replica with this key.

        Raises ``AuthenticationRefused`` when the stream is not encrypted as the replica is."""
        key = self.open(wrapped)
        if key is None or encryption is None:
            if key or encryption:
                raise AuthenticationRefused(
                    f"the replica is {'encrypted' if key else 'not encrypted'}, but what was sent is not so",
                    where=f"{self._machine}/{disk}",
                    remedy="give both sites the same 'replica_key'",
                )
            return None
        return key.cipher(encryption, disk)


def write_new_key(path: Path) -> None:
    """A new site key in hexadecimal, readable by its owner only; durable when it returns.

    Raises ``InvalidState`` when the file exists."""
    with files.translated(path):
        try:
            fd = files.open_file(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            raise InvalidState(
                "exists already; nothing was written", where=str(path), remedy="choose another file"
            ) from None
        try:
            files.write_at(fd, f"{secrets.token_hex(KEY_BYTES)}\n".encode(), 0)
            files.sync(fd)
        except BaseException:
            files.delete(path)
            raise
        finally:
            os.close(fd)
        files.sync_folder(path.parent)
