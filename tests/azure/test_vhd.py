"""The page blobs are fixed VHDs: read by a parser written from the specification, and by qemu-img where it is there."""

from __future__ import annotations

import random
import shutil
import subprocess
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest
from storage_account import Account

from adapters.azure import vhd
from replication.ports import Extent
from vault.domain import Disk
from vault.errors import BadInput

MIB = 1 << 20
MADE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def parse(footer: bytes) -> dict[str, int | bytes]:
    """Field by field from the specification's table, sharing nothing with the code under test."""

    def number(at: int, size: int) -> int:
        return int.from_bytes(footer[at : at + size], "big")

    assert len(footer) == 512
    total = sum(byte for at, byte in enumerate(footer) if not 64 <= at < 68)
    assert number(64, 4) == 0xFFFFFFFF - total, "the checksum is wrong"
    assert footer[85:] == bytes(427), "the reserved bytes are not zeros"
    return {
        "cookie": footer[0:8],
        "features": number(8, 4),
        "version": number(12, 4),
        "data offset": number(16, 8),
        "timestamp": number(24, 4),
        "original size": number(40, 8),
        "current size": number(48, 8),
        "cylinders": number(56, 2),
        "heads": number(58, 1),
        "sectors": number(59, 1),
        "type": number(60, 4),
        "id": footer[68:84],
        "saved state": number(84, 1),
    }


@pytest.mark.unit
@pytest.mark.parametrize(
    ("disk_size", "virtual_size"),
    [(1, MIB), (300_000, MIB), (MIB, MIB), (MIB + 1, 2 * MIB), (127 << 30, 127 << 30), (5 << 40, 5 << 40)],
)
def test_the_footer_is_that_of_a_fixed_disk(disk_size: int, virtual_size: int) -> None:
    identity = uuid.uuid4()
    found = parse(vhd.footer(disk_size, identity, MADE))
    assert found["cookie"] == b"conectix"
    assert (found["features"], found["version"], found["type"], found["saved state"]) == (2, 0x10000, 2, 0)
    assert found["data offset"] == 2**64 - 1
    assert found["original size"] == found["current size"] == virtual_size
    assert found["timestamp"] == int(MADE.timestamp()) - 946684800
    assert found["id"] == identity.bytes
    assert vhd.blob_size(disk_size) == virtual_size + 512


@pytest.mark.unit
@pytest.mark.parametrize(
    ("sectors", "geometry"),
    [
        (20_000, (294, 4, 17)),
        (1 << 21, (2080, 16, 63)),
        (65535 * 16 * 63 - 1, (65534, 16, 63)),
        (65535 * 16 * 63, (16191, 16, 255)),
        (1 << 33, (65535, 16, 255)),
    ],
)
def test_the_geometry_follows_the_specification(sectors: int, geometry: tuple[int, int, int]) -> None:
    assert vhd.geometry(sectors) == geometry
    assert geometry[0] * geometry[1] * geometry[2] <= sectors


@pytest.mark.unit
def test_a_disk_beyond_a_page_blob_is_refused() -> None:
    assert vhd.blob_size(vhd.MAX_DISK) <= 8 << 40
    with pytest.raises(BadInput, match="does not fit into a page blob"):
        vhd.require_fit(Disk(name="os", size=vhd.MAX_DISK + 1), "here")


@pytest.fixture
def blob(account: Account, tmp_path: Path) -> tuple[Path, bytes]:
    """A disk of an odd size with some noise, written through the store and downloaded as the file that Azure has."""
    content = bytearray(3 * MIB + 5 * 512)
    rng = random.Random(3)
    for offset in (0, MIB - 512, 3 * MIB):
        content[offset : offset + 2048] = rng.randbytes(2048)
    store = account.store()
    store.create([Disk(name="os", size=len(content))], "e")
    with store.lock():
        for offset in range(0, len(content), 65536):
            store.write_base("os", Extent(offset, bytes(content[offset : offset + 65536])))
        store.checkpoint_base("os", len(content))
    path = tmp_path / "os.vhd"
    path.write_bytes(account.container.get_blob_client("db/os.vhd").download_blob().readall())
    return path, bytes(content)


@pytest.mark.contract
def test_the_blob_is_the_disk_then_zeros_then_the_footer(blob: tuple[Path, bytes]) -> None:
    path, content = blob
    raw = path.read_bytes()
    assert len(raw) == 4 * MIB + 512
    assert raw[: len(content)] == content
    assert raw[len(content) : -512] == bytes(4 * MIB - len(content))
    assert parse(raw[-512:])["current size"] == 4 * MIB


@pytest.mark.contract
@pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is not installed (Debian: qemu-utils)")
def test_qemu_reads_the_blob_as_the_disk(blob: tuple[Path, bytes], tmp_path: Path) -> None:
    path, content = blob
    info = subprocess.run(["qemu-img", "info", "-f", "vpc", path], capture_output=True, text=True, check=True)
    assert "file format: vpc" in info.stdout
    assert f"({4 * MIB} bytes)" in info.stdout
    assert info.stderr == ""
    raw = tmp_path / "converted.raw"
    subprocess.run(["qemu-img", "convert", "-f", "vpc", "-O", "raw", path, raw], check=True)
    assert raw.read_bytes() == content + bytes(4 * MIB - len(content))
