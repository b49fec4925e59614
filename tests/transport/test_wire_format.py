"""Messages and encrypted frames, read by a second, tiny implementation written from docs/formats.md alone."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import xxhash
import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from model_source import ModelSource
from transport_wire import Wire

from replication import stream
from replication.transport import session
from replication.transport.messages import Message, Payload, encode
from vault.domain import ConsistencyKind

pytestmark = pytest.mark.contract

SITE_KEY = bytes(range(32))


def machine_key(manifest: Path, machine: str) -> bytes:
    wrapped = json.loads(manifest.read_text())["replica"]["key"]
    about = f"{machine}/{wrapped['id']}".encode()
    return AESGCM(SITE_KEY).decrypt(bytes.fromhex(wrapped["nonce"]), bytes.fromhex(wrapped["wrapped"]), about)


def read_frame(raw: bytes, key: bytes, number: int, place: str) -> tuple[dict[int, bytes], int]:
    """Extents of the frame that ``raw`` begins with, and its length."""
    magic, codec, flags, reserved, count, plain_length, stored_length, shown, _ = struct.unpack_from(
        "<4sBBHIII16sQ", raw
    )
    assert (magic, flags, reserved, shown) == (b"LWFR", 1, 0, bytes(16))
    begin = 44 + 16 * count
    table = raw[44:begin]
    assert struct.unpack_from("<Q", raw, begin)[0] == xxhash.xxh3_64_intdigest(raw[:begin])
    stored = raw[begin + 8 : begin + 8 + stored_length]
    about = place.encode() + bytes([codec]) + struct.pack("<I", plain_length) + table
    opened = AESGCM(key).decrypt(number.to_bytes(12, "big"), stored, about)
    plain = opened[16:] if codec == 0 else zstandard.ZstdDecompressor().decompress(opened[16:])
    assert (len(plain), xxhash.xxh3_128_digest(plain)) == (plain_length, opened[:16])
    extents, position = {}, 0
    for offset, length, kind in struct.iter_unpack("<QII", table):
        extents[offset] = bytes(length) if kind else plain[position : position + length]
        position += 0 if kind else length
    return extents, begin + 8 + stored_length


def stream_key(encryption: dict[str, str], key: bytes) -> bytes:
    salt = bytes.fromhex(encryption["salt"])
    return HKDF(SHA256(), 32, salt=salt, info=b"leeward frame key 1").derive(key)


def read_message(raw: bytes) -> tuple[int, dict[str, object], bytes]:
    magic, version, kind, length, of_payload = struct.unpack_from("<4sHHIQ", raw)
    end = 20 + length
    assert (magic, version) == (b"LWTM", 2)
    assert struct.unpack_from("<Q", raw, end)[0] == xxhash.xxh3_64_intdigest(raw[:end])
    payload = raw[end + 8 :]
    assert of_payload == xxhash.xxh3_64_intdigest(payload)
    return kind, json.loads(raw[20:end]), payload


def test_what_is_sent_and_what_is_stored_can_be_read_from_the_page(
    encrypted: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []

    def record(message: Message, *payload: Payload) -> bytes:
        sent.append(encode(message, *payload))
        return sent[-1]

    monkeypatch.setattr(session, "encode", record)
    source = ModelSource({"os": 300_000})
    source.write("os", 1000, b"first " * 1000)
    store = encrypted.remote()
    store.create(source.disks(), source.start_tracking())
    stream.copy_initial(source, store, lambda _: None)
    source.write("os", 5000, b"second " * 500)
    source.write("os", 131_072, bytes(65_536))
    stream.replicate_cut(source, store, ConsistencyKind.CRASH, lambda _: None)

    key = machine_key(encrypted.replicas / "db/manifest.json", "db")
    disk, kinds = bytearray(300_000), []
    writing: dict[str, object] = {}
    frames = 0
    for raw in sent:
        kind, document, payload = read_message(raw)
        kinds.append(kind)
        if kind == 22:
            writing, frames = document, 0
        if kind in (19, 23):
            encryption = document.get("encryption") or writing["encryption"]
            number = document.get("number", frames)
            extents, length = read_frame(payload, stream_key(encryption, key), number, "db/os/")  # type: ignore[arg-type]
            assert length == len(payload)
            for offset, data in extents.items():
                disk[offset : offset + len(data)] = data
            frames += kind == 23
    assert disk == source.images["os"]
    assert {16, 17, 18, 19, 20, 21, 22, 23, 24, 26} <= set(kinds)

    segment = (encrypted.replicas / "db/segments/0000000003-os.seg").read_bytes()
    magic, version, flags, length = struct.unpack_from("<8sHHI", segment)
    assert (magic, version, flags) == (b"LWSEGMNT", 1, 1)
    header = json.loads(segment[16 : 16 + length])
    extents, _ = read_frame(segment[16 + length + 8 :], stream_key(header["encryption"], key), 0, "db/os/")
    assert b"".join(extents.values())
    for offset, data in extents.items():
        assert source.images["os"][offset : offset + len(data)] == data
