"""Files that do not hold together: one clear error with file and offset, never a crash, a loop or a read outside."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from uuid import UUID

import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from adapters.hyperv.virtual_disks import vhdx_head as head
from adapters.hyperv.virtual_disks import vhdx_metadata as metadata
from adapters.hyperv.virtual_disks.crc32c import crc32c
from adapters.hyperv.virtual_disks.opening import open_virtual_disk
from simulation.virtual_disks.vhdx import BAT_AT, METADATA_AT, MIB, VhdxFile, with_checksum
from vault.errors import Damaged, NotFound

pytestmark = pytest.mark.unit

FIXTURES = Path(__file__).parent / "disks"


def read_all(path: Path) -> None:
    disk = open_virtual_disk(f"D:\\{path.name}", lambda name: path.parent / name.rpartition("\\")[2])
    with closing(disk):
        for offset in range(0, min(disk.size, 8 * MIB), MIB):
            assert len(disk.read(offset, MIB)) == min(MIB, disk.size - offset)
        assert all(0 <= offset < offset + length <= disk.size for offset, length in islice(disk.allocated(), 1000))


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A differencing disk with a whole block, a part of one and nothing."""
    folder = tmp_path_factory.mktemp("disks")
    with VhdxFile.create(folder / "base.vhdx", 4 * MIB) as base:
        base.write(0, b"a" * MIB)
    with VhdxFile.create(folder / "child.avhdx", 4 * MIB, parent="base.vhdx") as disk:
        disk.write(0, b"b" * 4096)
        disk.write(MIB, b"c" * MIB)
    read_all(folder / "child.avhdx")
    return folder / "child.avhdx"


class Changed:
    """A file with changes that are undone afterwards."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._undo: list[tuple[int, bytes]] = []
        self._size = path.stat().st_size

    def get(self, offset: int, length: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def put(self, offset: int, data: bytes) -> None:
        self._undo.append((offset, self.get(offset, len(data))))
        with self.path.open("r+b") as file:
            file.seek(offset)
            file.write(data)

    def sum_again(self, offset: int, length: int) -> None:
        raw = self.get(offset, length)
        self.put(offset, with_checksum(raw[:4] + bytes(4) + raw[8:]))

    def cut_off(self, size: int) -> None:
        if size < self._size:
            self._undo.append((size, self.get(size, self._size - size)))
            os.truncate(self.path, size)

    def undo(self) -> None:
        os.truncate(self.path, self._size)
        for offset, data in reversed(self._undo):
            with self.path.open("r+b") as file:
                file.seek(offset)
                file.write(data)


@pytest.fixture
def changed(child: Path) -> Iterator[Changed]:
    change = Changed(child)
    yield change
    change.undo()


REGIONS = head.REGION_TABLES_AT[0]


def both_headers(change: Changed, at: int, data: bytes) -> None:
    for header in head.HEADERS_AT:
        change.put(header + at, data)
        change.sum_again(header, head.HEADER_SIZE)


def regions(change: Changed, at: int, data: bytes) -> None:
    change.put(REGIONS + at, data)
    change.sum_again(REGIONS, head.REGION_TABLE_SIZE)


def item(change: Changed, guid: UUID, data: bytes) -> None:
    table = change.get(METADATA_AT, 4096)
    entry = table.index(guid.bytes_le)
    (offset,) = struct.unpack_from("<I", table, entry + 16)
    change.put(METADATA_AT + offset, data)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda f: f.put(0, b"vhdx????"), "footer does not match"),
        (lambda f: [f.put(at + 100, b"x") for at in head.HEADERS_AT], "neither of the VHDX file's two headers"),
        (lambda f: both_headers(f, 66, b"\2\0"), "VHDX version 2"),
        (lambda f: [f.put(at, b"x") for at in head.REGION_TABLES_AT], "neither of the VHDX file's two region tables"),
        (lambda f: regions(f, 8, b"\xff\xff\0\0"), "65535 entries"),
        (lambda f: regions(f, 16 + 16, struct.pack("<Q", 1 << 50)), "cannot be 1048576 bytes at"),
        (lambda f: regions(f, 16, b"x" * 16), "without region"),
        (lambda f: regions(f, 8, b"\1\0\0\0"), "lists no metadata"),
        (lambda f: f.put(METADATA_AT, b"x"), "not a VHDX metadata table"),
        (lambda f: f.put(METADATA_AT + 32, b"x" * 16), "without metadata"),
        (lambda f: f.put(METADATA_AT + 32 + 16, struct.pack("<I", 1)), "cannot be 8 bytes at 1"),
        (lambda f: item(f, metadata.FILE_PARAMETERS, struct.pack("<I", 3 * MIB)), "block size cannot be 3145728"),
        (lambda f: item(f, metadata.LOGICAL_SECTOR, struct.pack("<I", 520)), "sector size cannot be 520"),
        (lambda f: item(f, metadata.DISK_SIZE, struct.pack("<Q", 1 << 60)), "size cannot be 1152921504606846976"),
        (lambda f: item(f, metadata.DISK_SIZE, struct.pack("<Q", 1 << 45)), "no room for"),
        (lambda f: item(f, metadata.PARENT_LOCATOR, bytes(16)), "parent of type"),
        (lambda f: item(f, metadata.PARENT_LOCATOR, metadata.VHDX_LOCATOR.bytes_le + b"\0\0\xff\xff"), "no room for"),
        (lambda f: f.put(BAT_AT, b"\4"), "state of a block of this disk cannot be 4"),
        (lambda f: f.put(BAT_AT, struct.pack("<Q", 1 << 60 | 7)), "is not in the data of a file"),
        (lambda f: f.put(BAT_AT, struct.pack("<Q", 6)), "is not in the data of a file"),
        (lambda f: f.put(BAT_AT, f.get(BAT_AT + 8, 8)), "cannot be in the same place"),
        (lambda f: f.put(BAT_AT + 8 * 4096, bytes(8)), "sector bitmap that says which part is not there"),
        (lambda f: f.cut_off(BAT_AT + 100), "cannot be 1048576 bytes at"),
        (lambda f: f.cut_off(1000), "VHDX file's|not in a file of 1000"),
        (lambda f: f.cut_off(10), "not in a file of 10"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_offset(
    changed: Changed, change: Callable[[Changed], object], complaint: str
) -> None:
    change(changed)
    with pytest.raises(Damaged, match=complaint) as caught:
        read_all(changed.path)
    assert caught.value.where.startswith("D:\\child.avhdx, offset ")
    assert caught.value.remedy


def test_one_whole_header_is_enough(changed: Changed) -> None:
    changed.put(head.HEADERS_AT[0] + 100, b"x")
    changed.put(head.REGION_TABLES_AT[0] + 100, b"x")
    read_all(changed.path)


def survives(path: Path) -> None:
    try:
        read_all(path)
    except (Damaged, NotFound) as error:
        assert error.where.startswith("D:\\")


STRUCTURES = [
    (head.HEADERS_AT[0], 80),
    (head.HEADERS_AT[1], 80),
    (REGIONS, 80),
    (METADATA_AT, 256),
    (METADATA_AT + metadata.TABLE_SIZE, 400),
    (BAT_AT, 64),
    (BAT_AT + 8 * 4096, 8),
]
CHANGE = st.tuples(st.sampled_from(STRUCTURES), st.integers(0, 399), st.binary(min_size=1, max_size=8))


@settings(max_examples=60, deadline=None)
@given(st.lists(CHANGE, min_size=1, max_size=3), st.booleans(), st.none() | st.integers(0, 8 * MIB))
def test_a_hostile_vhdx_does_no_harm(
    child: Path, changes: list[tuple[tuple[int, int], int, bytes]], sum_again: bool, size: int | None
) -> None:
    change = Changed(child)
    try:
        for (start, length), at, data in changes:
            change.put(start + at % length, data)
        if sum_again:
            for header in head.HEADERS_AT:
                change.sum_again(header, head.HEADER_SIZE)
            change.sum_again(REGIONS, head.REGION_TABLE_SIZE)
        if size is not None:
            change.cut_off(size)
        survives(child)
    finally:
        change.undo()


@pytest.fixture(scope="module")
def vhd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vhd") / "disk.vhd"
    path.write_bytes(zstandard.ZstdDecompressor().decompress((FIXTURES / "dynamic.vhd.zst").read_bytes()))
    return path


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1600), st.binary(min_size=1, max_size=8)), min_size=1, max_size=3),
    st.booleans(),
    st.none() | st.integers(0, 9 * MIB),
)
@example([(60, b"\0\0\0\4")], True, None)
@example([(512 + 28, b"\xff\xff\xff\xff")], True, None)
@example([(512 + 32, b"\0\0\0\0")], True, None)
@example([(512 + 16, b"\xff" * 8)], True, None)
def test_a_hostile_vhd_does_no_harm(
    vhd: Path, changes: list[tuple[int, bytes]], sum_again: bool, size: int | None
) -> None:
    change = Changed(vhd)
    try:
        change.put(vhd.stat().st_size - 512, bytes(8))  # so that the copy at the front counts
        for at, data in changes:
            change.put(at, data)
        for at, length, checksum in ((0, 512, 64), (512, 1024, 36)) if sum_again else ():
            raw = change.get(at, length)
            raw = raw[:checksum] + bytes(4) + raw[checksum + 4 :]
            change.put(at + checksum, struct.pack(">I", ~sum(raw) & 0xFFFFFFFF))
        if size is not None:
            change.cut_off(size)
        survives(vhd)
    finally:
        change.undo()


def test_the_checksum_is_castagnolis() -> None:
    """RFC 3720, appendix B.4."""
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
