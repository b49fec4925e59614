"""Virtual disks of qemu-img, and of our own writer where qemu-img has none, read back byte for byte."""

from __future__ import annotations

import importlib.util
import random
import shutil
import struct
import subprocess
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.hyperv.virtual_disks.layers import Layer, runs
from adapters.hyperv.virtual_disks.opening import open_virtual_disk
from adapters.hyperv.virtual_disks.vhdx import UNDEFINED, UNMAPPED, ZERO
from simulation.virtual_disks.vhdx import MIB, VhdxFile
from vault.errors import Damaged, NotFound

pytestmark = pytest.mark.unit

FIXTURES = Path(__file__).parent / "disks"
_spec = importlib.util.spec_from_file_location("make_disks", FIXTURES / "make.py")
assert _spec is not None
assert _spec.loader is not None
make_disks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make_disks)
needs_qemu = pytest.mark.skipif(
    not (shutil.which("qemu-img") and shutil.which("qemu-io")), reason="qemu-img and qemu-io are not installed"
)


def located(folder: Path) -> Callable[[str], Path]:
    return lambda path: folder / path.rpartition("\\")[2]


def opened(path: Path) -> Layer:
    return open_virtual_disk(f"D:\\VMs\\{path.name}", located(path.parent))


def whole(path: Path) -> bytes:
    with closing(opened(path)) as disk:
        return disk.read(0, disk.size)


def by_allocation(path: Path) -> bytes:
    """What is left when only what is said to be allocated is read."""
    with closing(opened(path)) as disk:
        raw = bytearray(disk.size)
        before = -1
        for offset, length in disk.allocated():
            assert offset > before
            before = offset + length
            assert before <= disk.size
            raw[offset : offset + length] = disk.read(offset, length)
        return bytes(raw)


@pytest.mark.parametrize("name", list(make_disks.DISKS))
def test_a_disk_of_qemu_is_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(zstandard.ZstdDecompressor().decompress((FIXTURES / f"{name}.zst").read_bytes()))
    assert whole(path) == by_allocation(path) == make_disks.content()


@needs_qemu
@pytest.mark.parametrize("name", list(make_disks.DISKS))
def test_a_disk_that_qemu_just_made_is_read(tmp_path: Path, name: str) -> None:
    path = make_disks.make(tmp_path, name)
    assert whole(path) == by_allocation(path) == make_disks.content()


def test_reads_may_begin_and_end_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "dynamic.vhd"
    path.write_bytes(zstandard.ZstdDecompressor().decompress((FIXTURES / "dynamic.vhd.zst").read_bytes()))
    content = make_disks.content()
    with closing(opened(path)) as disk:
        for offset, length in [(3, 7), (MIB - 4097, 9000), (MIB - 1, 2), (disk.size - 5, 100), (disk.size, 1)]:
            assert disk.read(offset, length) == content[offset : offset + length]


@needs_qemu
@pytest.mark.parametrize("fixed", [False, True])
def test_qemu_reads_what_the_writer_of_the_tests_wrote(tmp_path: Path, fixed: bool) -> None:
    """So the readers are not only held against a writer that has the same misunderstandings."""
    path, raw = tmp_path / "own.vhdx", tmp_path / "own.raw"
    with VhdxFile.create(path, 8 * MIB, fixed=fixed) as disk:
        for offset, length, byte in make_disks.WRITES:
            disk.write(offset, bytes([byte]) * length)
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(path), str(raw)], check=True, timeout=60)
    assert raw.read_bytes() == make_disks.content() == whole(path)


@pytest.mark.parametrize("sector", [512, 4096])
def test_a_differencing_disk_leans_on_its_parents(tmp_path: Path, sector: int) -> None:
    with VhdxFile.create(tmp_path / "base.vhdx", 4 * MIB, sector=sector) as base:
        base.write(0, b"a" * 3 * MIB)
    with VhdxFile.create(tmp_path / "middle.avhdx", 4 * MIB, sector=sector, parent="base.vhdx") as middle:
        middle.write(sector, b"b" * sector)
        middle.write(MIB, b"c" * MIB)
        middle.discard(2, ZERO)
    with VhdxFile.create(tmp_path / "top.avhdx", 4 * MIB, sector=sector, parent="middle.avhdx") as top:
        top.write(2 * MIB + 4096, b"d" * 4096)
    expected = bytearray(b"a" * MIB + b"c" * MIB + bytes(2 * MIB))
    expected[sector : 2 * sector] = b"b" * sector
    expected[2 * MIB + 4096 : 2 * MIB + 8192] = b"d" * 4096
    assert whole(tmp_path / "top.avhdx") == by_allocation(tmp_path / "top.avhdx") == bytes(expected)
    with closing(opened(tmp_path / "top.avhdx")) as disk:
        assert disk.read(sector - 3, sector + 6) == bytes(expected[sector - 3 : 2 * sector + 3])


@pytest.mark.parametrize("state", [ZERO, UNMAPPED, UNDEFINED])
def test_a_discarded_block_hides_the_parents(tmp_path: Path, state: int) -> None:
    with VhdxFile.create(tmp_path / "base.vhdx", 2 * MIB) as base:
        base.write(0, b"a" * 2 * MIB)
    with VhdxFile.create(tmp_path / "top.avhdx", 2 * MIB, parent="base.vhdx") as top:
        top.discard(0, state)
    assert whole(tmp_path / "top.avhdx") == bytes(MIB) + b"a" * MIB


def test_a_disk_may_be_larger_than_its_parent(tmp_path: Path) -> None:
    with VhdxFile.create(tmp_path / "base.vhdx", MIB) as base:
        base.write(0, b"a" * MIB)
    VhdxFile.create(tmp_path / "top.avhdx", 3 * MIB, parent="base.vhdx").close()
    assert whole(tmp_path / "top.avhdx") == by_allocation(tmp_path / "top.avhdx") == b"a" * MIB + bytes(2 * MIB)


def test_a_parent_that_was_written_to_is_refused(tmp_path: Path) -> None:
    VhdxFile.create(tmp_path / "base.vhdx", MIB).close()
    VhdxFile.create(tmp_path / "top.avhdx", MIB, parent="base.vhdx").close()
    with VhdxFile(tmp_path / "base.vhdx") as base:
        base.write(0, b"x" * 512)
    with pytest.raises(Damaged, match="does not belong to its parent"):
        opened(tmp_path / "top.avhdx")


def test_a_missing_parent_is_named(tmp_path: Path) -> None:
    VhdxFile.create(tmp_path / "base.vhdx", MIB).close()
    VhdxFile.create(tmp_path / "top.avhdx", MIB, parent="base.vhdx").close()
    (tmp_path / "base.vhdx").unlink()
    with pytest.raises(NotFound, match="parent") as caught:
        opened(tmp_path / "top.avhdx")
    assert "D:\\VMs\\base.vhdx" in caught.value.remedy


def test_a_disk_that_leans_on_itself_is_refused(tmp_path: Path) -> None:
    VhdxFile.create(tmp_path / "base.vhdx", MIB).close()
    with VhdxFile.create(tmp_path / "top.avhdx", MIB, parent="base.vhdx") as top:
        top.set_parent("top.avhdx")
    with pytest.raises(Damaged, match="lean on each other"):
        opened(tmp_path / "top.avhdx")


def vhd_child(folder: Path, parent: Path, writes: dict[int, bytes]) -> Path:
    """A differencing VHD over ``parent`` with 512-byte ``writes``, made after the format's specification."""
    footer = parent.read_bytes()[-512:]
    size, identity = int.from_bytes(footer[48:56], "big"), footer[68:84]
    block, table_at = 2 * MIB, 2048
    blocks = -(-size // block)
    data_at = -(-(table_at + 4 * blocks) // 512) * 512
    path = "base.vhd".encode("utf-16-le")
    table, data, names_at = [0xFFFFFFFF] * blocks, b"", 1 << 20
    for number in sorted({offset // block for offset in writes}):
        table[number] = (data_at + len(data)) // 512
        bitmap, content = bytearray(512), bytearray(b"?" * block)
        for offset, sector in writes.items():
            if offset // block == number:
                index = offset % block // 512
                bitmap[index // 8] |= 0x80 >> index % 8
                content[index * 512 : index * 512 + 512] = sector
        data += bytes(bitmap) + bytes(content)
    names_at = data_at + len(data)
    locator = struct.pack(">4sIIIQ", b"W2ru", 512, len(path), 0, names_at)
    header = struct.pack(">8sQQIIII16s", b"cxsparse", 2**64 - 1, table_at, 0x10000, blocks, block, 0, identity)
    header = header.ljust(576, b"\0") + locator.ljust(192, b"\0") + bytes(256)
    header = header[:36] + struct.pack(">I", ~sum(header) & 0xFFFFFFFF) + header[40:]
    own = bytearray(footer)
    own[16:24] = struct.pack(">Q", 512)
    own[60:64] = struct.pack(">I", 4)
    own[68:84] = uuid.uuid4().bytes
    own[64:68] = bytes(4)
    own[64:68] = struct.pack(">I", ~sum(own) & 0xFFFFFFFF)
    child = folder / "child.vhd"
    front = (bytes(own) + header).ljust(table_at, b"\0") + struct.pack(f">{blocks}I", *table)
    child.write_bytes(front.ljust(data_at, b"\0") + data + path.ljust(512, b"\0") + bytes(own))
    return child


@pytest.mark.parametrize("parent", ["dynamic.vhd", "fixed.vhd"])
def test_a_differencing_vhd_is_read(tmp_path: Path, parent: str) -> None:
    base = tmp_path / "base.vhd"
    base.write_bytes(zstandard.ZstdDecompressor().decompress((FIXTURES / f"{parent}.zst").read_bytes()))
    writes = {1024: b"n" * 512, 2048: b"m" * 512, 5 * MIB: b"o" * 512}
    child = vhd_child(tmp_path, base, writes)
    expected = bytearray(make_disks.content())
    for offset, sector in writes.items():
        expected[offset : offset + 512] = sector
    assert whole(child) == by_allocation(child) == bytes(expected)
    own = bytearray(base.read_bytes())
    own[-512 + 68] ^= 1
    own[-512 + 64 : -512 + 68] = bytes(4)
    own[-512 + 64 : -512 + 68] = struct.pack(">I", ~sum(own[-512:]) & 0xFFFFFFFF)
    base.write_bytes(own)
    with pytest.raises(Damaged, match="does not belong"):
        opened(child)


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=1, max_size=40), st.data())
def test_runs_are_the_bits(bitmap: bytes, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, 7))
    count = data.draw(st.integers(0, len(bitmap) * 8 - first))
    bits = [bool(bitmap[at // 8] >> at % 8 & 1) for at in range(first, first + count)]
    found = list(runs(bitmap, first, count))
    assert [is_set for _, length, is_set in found for _ in range(length)] == bits
    assert sum(length for _, length, _ in found) == count


def test_long_bitmaps_are_read_in_pieces() -> None:
    bitmap = random.Random(3).randbytes(3000)
    bits = [is_set for _, length, is_set in runs(bitmap, 5, 23_000) for _ in range(length)]
    assert bits == [bool(bitmap[at // 8] >> at % 8 & 1) for at in range(5, 23_005)]


SECTOR = 4096
Write = tuple[int, int, int]


@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 700), st.integers(1, 300), st.integers(1, 255)), max_size=4), max_size=4)
)
def test_any_chain_is_what_was_written(tmp_path_factory: pytest.TempPathFactory, layers: list[list[Write]]) -> None:
    folder = tmp_path_factory.mktemp("chain")
    size = 3 * MIB + SECTOR
    expected, parent = bytearray(size), ""
    for number, writes in enumerate(layers):
        with VhdxFile.create(folder / f"{number}.vhdx", size, parent=parent) as disk:
            for first, count, byte in writes:
                offset = first * SECTOR
                data = bytes([byte]) * (min(count * SECTOR, size - offset))
                disk.write(offset, data)
                expected[offset : offset + len(data)] = data
        parent = f"{number}.vhdx"
    if layers:
        assert whole(folder / parent) == by_allocation(folder / parent) == bytes(expected)
    shutil.rmtree(folder)
