"""A second, tiny reader of replicas, written from ``docs/formats.md`` and nothing else of leeward's."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import xxhash
import zstandard
from model_source import ModelSource

from replication import seeding, stream
from replication.local import LocalReplicaStore
from vault.domain import ConsistencyKind, Retention

pytestmark = pytest.mark.unit

SIZES = {"os": 3 << 20, "data": 70_001}


def read_manifest(folder: Path) -> dict:
    document = json.loads((folder / "manifest.json").read_text())
    assert (document["magic"], document["version"]) == ("leeward-replica", 1)
    canonical = json.dumps(document["replica"], sort_keys=True, separators=(",", ":"))
    assert xxhash.xxh3_128_hexdigest(canonical.encode()) == document["checksum"]
    return document["replica"]


def read_base(folder: Path, disk: str, size: int) -> bytearray:
    image = (folder / f"base-{disk}.raw").read_bytes()
    table = (folder / f"base-{disk}.sums").read_bytes()
    assert struct.unpack("<8sHHIQ", table[:24]) == (b"LWBLKSUM", 1, 0, 65536, size)
    assert struct.pack("<Q", xxhash.xxh3_64_intdigest(table[:24])) == table[24:32]
    for block in range(0, size, 65536):
        data = image[block : block + 65536]
        entry = table[64 + block // 65536 * 16 :][:16].ljust(16, b"\0")
        assert entry == (xxhash.xxh3_128_digest(data) if any(data) else bytes(16))
    return bytearray(image)


def read_segment(path: Path, identity: str) -> Iterator[tuple[int, bytes]]:
    raw = path.read_bytes()
    footer, seal = raw[-80:-16], raw[-16:]
    assert seal == struct.pack("<Q", xxhash.xxh3_64_intdigest(footer)) + b"LWSEALED"
    assert xxhash.xxh3_128_hexdigest(footer) == identity
    index_offset, index_length, frames, extents, disk_bytes, index_sum, header_sum = struct.unpack("<QQQQQ16sQ", footer)
    magic, version, flags, length = struct.unpack_from("<8sHHI", raw)
    assert (magic, version, flags) == (b"LWSEGMNT", 1, 0)
    assert xxhash.xxh3_64_intdigest(raw[: 16 + length]) == header_sum
    assert json.loads(raw[16 : 16 + length])["disk"] in str(path)
    index = raw[index_offset:-80]
    assert len(index) == index_length
    assert xxhash.xxh3_128_digest(index) == index_sum
    at, seen_frames, seen_extents, seen_bytes = 16 + length + 8, 0, 0, 0
    while at < index_offset:
        magic, codec, _, _, count, plain_length, stored_length, plain_sum, stored_sum = struct.unpack_from(
            "<4sBBHIII16sQ", raw, at
        )
        assert magic == b"LWFR"
        table = raw[at + 44 : at + 44 + 16 * count]
        end = at + 44 + 16 * count
        assert struct.unpack_from("<Q", raw, end)[0] == xxhash.xxh3_64_intdigest(raw[at:end])
        stored = raw[end + 8 : end + 8 + stored_length]
        assert xxhash.xxh3_64_intdigest(stored) == stored_sum
        plain = zstandard.decompress(stored) if codec == 1 else stored
        assert len(plain) == plain_length
        assert xxhash.xxh3_128_digest(plain) == plain_sum
        whole = end + 8 + stored_length - at
        assert struct.pack("<QII", at, whole, count) + table == index[: 16 + 16 * count]
        index = index[16 + 16 * count :]
        position = 0
        for offset, size, kind in struct.iter_unpack("<QII", table):
            yield offset, bytes(size) if kind == 1 else plain[position : position + size]
            position += 0 if kind == 1 else size
            seen_bytes += size
        at += whole
        seen_frames, seen_extents = seen_frames + 1, seen_extents + count
    assert (seen_frames, seen_extents, seen_bytes) == (frames, extents, disk_bytes)


def test_the_formats_page_is_enough_to_read_a_replica(tmp_path: Path) -> None:
    rng = random.Random(5)
    source = ModelSource(SIZES)
    store = LocalReplicaStore(tmp_path / "replica", machine="dé")
    store.create(source.disks(), source.start_tracking())
    source.write("os", 1 << 20, rng.randbytes(300_000))
    stream.copy_initial(source, store, lambda _: None)
    for _ in range(4):
        source.write("os", 100_000, b"text " * 100_000)
        source.write("os", 2 << 20, bytes(100_000))
        source.write("os", rng.randrange(1 << 20), rng.randbytes(1_500_000))
        source.write("data", rng.randrange(60_000), rng.randbytes(9))
        stream.replicate_cut(source, store, ConsistencyKind.CRASH, lambda _: None)
    store.prune(Retention(count=3, hours=1e3), datetime(2026, 1, 1, tzinfo=UTC))

    folder = tmp_path / "replica"
    replica = read_manifest(folder)
    assert [point["sequence"] for point in replica["points"]] == [4, 5, 6]
    for point in replica["points"]:
        for disk in replica["disks"]:
            contents = read_base(folder, disk["name"], disk["size"])
            for layer in replica["layers"]:
                if layer["sequence"] <= point["sequence"]:
                    path = folder / "segments" / f"{layer['sequence']:010d}-{disk['name']}.seg"
                    for offset, data in read_segment(path, layer["segments"][disk["name"]]["identity"]):
                        contents[offset : offset + len(data)] = data
            assert contents == source.moments[datetime.fromisoformat(point["time"])][disk["name"]]


def test_the_formats_page_is_enough_to_read_a_seed(tmp_path: Path) -> None:
    rng = random.Random(6)
    source = ModelSource(SIZES)
    source.write("os", 70_000, rng.randbytes(1_000_000) + bytes(300_000) + b"text " * 100_000)
    source.write("data", 0, b"x")
    folder = tmp_path / "medium"
    seeding.export_seed(source, None, folder, lambda _: None, machine="dé", site="here", part_bytes=1 << 19)
    document = json.loads((folder / "leeward-seed.json").read_text())
    assert (document["magic"], document["version"]) == ("leeward-seed", 1)
    canonical = json.dumps(document["seed"], sort_keys=True, separators=(",", ":"))
    assert xxhash.xxh3_128_hexdigest(canonical.encode()) == document["checksum"]
    seed = document["seed"]
    assert (seed["machine"], seed["site"], seed["key"]) == ("dé", "here", None)
    for disk in seed["disks"]:
        contents, end = bytearray(disk["size"]), 0
        for number, part in enumerate(seed["parts"][disk["name"]]):
            assert part["offset"] == end
            end = part["end"]
            for offset, data in read_segment(folder / disk["name"] / f"{number:06d}.seg", part["identity"]):
                assert part["offset"] <= offset <= offset + len(data) <= end
                contents[offset : offset + len(data)] = data
        assert end == disk["size"]
        assert contents == source.moments[datetime.fromisoformat(seed["moment"])][disk["name"]]
