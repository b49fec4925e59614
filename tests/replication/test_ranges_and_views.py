from __future__ import annotations

import itertools
import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replication import merging
from replication.base_image import BaseImage
from replication.checksums import BLOCK, checksum, is_zero, runs, zero_checksum
from replication.overwritten import Overwritten
from replication.ports import Extent
from replication.ranges import pieces, union
from replication.segment import SegmentFileWriter, SegmentHeader
from replication.segment_reader import SegmentReader
from replication.view import LayeredView, ViewChecksums, copy_sparse
from vault.errors import Damaged, InvalidState

pytestmark = pytest.mark.unit

RANGES = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=10).map(sorted)


@given(st.lists(RANGES, max_size=4))
def test_union_covers_exactly_what_its_parts_cover(parts: list[list[tuple[int, int]]]) -> None:
    joined = list(union(*(iter(part) for part in parts)))
    covered = {byte for part in parts for offset, length in part for byte in range(offset, offset + length)}
    assert {byte for offset, length in joined for byte in range(offset, offset + length)} == covered
    assert all(a + n < b for (a, n), (b, _) in itertools.pairwise(joined))


@given(RANGES, st.integers(1, 90))
def test_pieces_are_whole_units_within_the_disk(ranges: list[tuple[int, int]], size: int) -> None:
    inside = [(offset, min(length, size - offset)) for offset, length in ranges if offset < size]
    cut = list(pieces(iter(inside), size, unit=4, piece=12))
    covered = {byte for offset, length in inside for byte in range(offset, offset + length)}
    given_ = [byte for offset, length in cut for byte in range(offset, offset + length)]
    assert covered <= set(given_)
    assert len(given_) == len(set(given_))
    for offset, length in cut:
        assert offset % 4 == 0
        assert 0 < length <= 12
        assert length % 4 == 0 or offset + length == size


@given(st.binary(max_size=300), st.integers(0, 400))
def test_zero_detection(data: bytes, zeros: int) -> None:
    for candidate in (data, bytes(zeros), bytes(zeros) + data, data + bytes(zeros)):
        assert is_zero(candidate) == (not any(candidate))
        assert is_zero(memoryview(candidate)) == (not any(candidate))
        told = list(runs(10, candidate, piece=16))
        assert b"".join(bytes(part) for _, part, _ in told) == candidate
        assert all(zero == (not any(part)) for _, part, zero in told if len(part) <= 16)


def test_zero_detection_of_large_buffers() -> None:
    data = bytearray(3 << 20)
    assert is_zero(bytes(data))
    for position in (0, 1, 1 << 20, len(data) - 1):
        data[position] = 1
        assert not is_zero(bytes(data))
        data[position] = 0


class Disk:
    """A base image and layers on disk, with the bytes they stand for."""

    def __init__(self, folder: Path, size: int, seed: int) -> None:
        self.rng = random.Random(seed)
        self.size = size
        self.folder = folder
        self.expected = bytearray(size)
        self.layers: list[Path] = []
        self.image, self.sums = folder / "base.raw", folder / "base.sums"
        BaseImage.make(self.image, self.sums, size)
        base = BaseImage(self.image, self.sums, size, writable=True)
        for extent in self.random_extents(BLOCK // 2):
            base.write(extent)
        base.settle(0, size)
        base.close()

    def random_extents(self, longest: int) -> list[Extent]:
        extents, offset = [], self.rng.randrange(self.size)
        while offset < self.size:
            length = min(self.rng.randrange(1, longest), self.size - offset)
            data = bytes(length) if self.rng.random() < 0.3 else self.rng.randbytes(length)
            extents.append(Extent(offset, data))
            self.expected[offset : offset + length] = data
            offset += length + self.rng.choice([0, self.rng.randrange(1, self.size + 1)])
        return extents

    def add_layer(self) -> list[Extent]:
        extents = self.random_extents(self.rng.choice([600, 3 * BLOCK]))
        number = len(self.layers)
        self.layers.append(self.folder / f"{number}.seg")
        meta = SegmentHeader(machine="m", disk="d", disk_size=self.size, sequence=number, epoch="e", cut=number)
        writer = SegmentFileWriter(self.layers[-1], meta)
        for extent in extents:
            writer.add(extent)
        writer.close()
        return extents

    def view(self) -> LayeredView:
        return LayeredView(BaseImage(self.image, self.sums, self.size), [SegmentReader(path) for path in self.layers])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5 * BLOCK), st.integers(0, 6))
def test_a_view_is_the_base_with_its_layers_in_order(
    tmp_path_factory: pytest.TempPathFactory, seed: int, size: int, layers: int
) -> None:
    disk = Disk(tmp_path_factory.mktemp("view"), size, seed)
    for _ in range(layers):
        disk.add_layer()
    view = disk.view()
    assert view.read(0, size + 100) == disk.expected
    for _ in range(10):
        offset, length = disk.rng.randrange(size + 10), disk.rng.randrange(3 * BLOCK)
        assert view.read(offset, length) == disk.expected[offset : offset + length]
    outside = bytearray(disk.expected)
    for offset, length in view.allocated():
        outside[offset : offset + length] = bytes(length)
    assert not any(outside)
    sums = ViewChecksums(view).checksums(0, size)
    assert sums == [checksum(disk.expected[at : at + BLOCK]) for at in range(0, size, BLOCK)]
    done: list[int] = []
    copy_sparse(view, disk.folder / "copy", lambda length, _: done.append(length))
    assert (disk.folder / "copy").read_bytes() == disk.expected
    view.close()


QUARTER = BLOCK // 4


@given(st.lists(RANGES, max_size=4), st.integers(1, 90))
def test_what_a_merge_leaves_alone_is_what_no_range_covers(parts: list[list[tuple[int, int]]], quarters: int) -> None:
    inside = [[(start, min(n, quarters - start)) for start, n in part if start < quarters] for part in parts]
    covered = {at for part in inside for start, n in part for at in range(start, start + n)}
    size = quarters * QUARTER - QUARTER // 2
    ranges = ([(at * QUARTER, min(n * QUARTER, size - at * QUARTER)) for at, n in part] for part in inside)
    overwritten = Overwritten(size, *map(iter, ranges))
    touched = sorted({at // 4 for at in covered})
    rests = {block: {at for at in range(block * 4, block * 4 + 4) if at < quarters} - covered for block in touched}
    assert [block for block in range(quarters) if overwritten.touches(block)] == touched
    assert list(overwritten.blocks_in_part()) == [block for block, rest in rests.items() if rest]
    for block, rest in rests.items():
        beside = overwritten.beside(block)
        assert {at for start, end in beside for at in range(start // QUARTER, -(-end // QUARTER))} == rest
        assert all(end <= size for _, end in beside)


def merge(base: BaseImage, extents: list[Extent]) -> Damaged | None:
    overwritten = Overwritten(base.size, iter([(extent.offset, len(extent.data)) for extent in extents]))
    damage = merging.keep_rests(base, overwritten, begun=False, trusted=True)
    merging.write(base, overwritten, extents)
    return damage or merging.enter(base, overwritten)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5 * BLOCK))
def test_a_merge_leaves_a_base_that_verifies(tmp_path_factory: pytest.TempPathFactory, seed: int, size: int) -> None:
    disk = Disk(tmp_path_factory.mktemp("merge"), size, seed)
    base = BaseImage(disk.image, disk.sums, size, writable=True)
    for _ in range(3):
        assert merge(base, disk.add_layer()) is None
        assert base.read_verified(0, size) == disk.expected
    assert not base.is_hole(0, size) or not any(disk.expected)
    base.close()


def test_holes_are_recognised_without_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    BaseImage.make(tmp_path / "base", tmp_path / "sums", 4 * BLOCK)
    base = BaseImage(tmp_path / "base", tmp_path / "sums", 4 * BLOCK)
    monkeypatch.setattr(base, "read", None)
    assert ViewChecksums(LayeredView(base, [])).checksums(0, 4 * BLOCK) == [zero_checksum(BLOCK)] * 4
    base.close()


def test_a_base_that_lost_its_blocks_is_damaged_and_not_empty(tmp_path: Path) -> None:
    """As after a repair of the file system that found no extents for them any more."""
    size = 5000 * BLOCK + 700
    BaseImage.make(tmp_path / "base", tmp_path / "sums", size)
    base = BaseImage(tmp_path / "base", tmp_path / "sums", size, writable=True)
    written = [0, 1, 17, 4095, 4096, 4999, 5000]
    for block in written:
        base.fill(Extent(block * BLOCK, b"x" * min(BLOCK, size - block * BLOCK)))
    base.settle(0, size)
    os.truncate(tmp_path / "base", 0)
    os.truncate(tmp_path / "base", size)
    view = LayeredView(base, [])
    assert list(view.allocated()) == [
        (0, 2 * BLOCK),
        (17 * BLOCK, BLOCK),
        (4095 * BLOCK, 2 * BLOCK),
        (4999 * BLOCK, BLOCK + 700),
    ]
    found = ViewChecksums(view).checksums(0, size)
    assert [block for block, checksum in enumerate(found) if not checksum] == written
    with pytest.raises(Damaged):
        copy_sparse(view, tmp_path / "copy", lambda *_: None)
    base.close()


@pytest.mark.parametrize("table", [False, True])
def test_a_flipped_bit_in_base_or_table_is_damage_and_never_merged(tmp_path: Path, table: bool) -> None:
    disk = Disk(tmp_path, 3 * BLOCK, 2)
    base = BaseImage(disk.image, disk.sums, disk.size, writable=True)
    assert merge(base, [Extent(BLOCK, b"v" * BLOCK)]) is None
    with (disk.sums if table else disk.image).open("r+b") as file:
        file.seek(64 + 16 + 3 if table else BLOCK + 77)
        file.write(b"!")
    for offset, length in ((BLOCK, 1), (0, 3 * BLOCK)):
        with pytest.raises(Damaged, match=f"at {BLOCK}"):
            base.read_verified(offset, length)
    part = [Extent(BLOCK + 5, b"part of the block")]
    assert merge(base, part) is not None
    assert merge(base, part) is None, "it is known"
    assert ViewChecksums(LayeredView(base, [])).checksums(0, 3 * BLOCK)[1] == b""
    assert merge(base, [Extent(BLOCK, b"w" * BLOCK)]) is None
    assert base.read_verified(BLOCK, BLOCK) == b"w" * BLOCK
    base.close()


@pytest.mark.parametrize("entering", [False, True])
def test_an_entry_that_a_crash_left_half_written_is_no_damage(tmp_path: Path, entering: bool) -> None:
    disk = Disk(tmp_path, 3 * BLOCK, 2)
    base = BaseImage(disk.image, disk.sums, disk.size, writable=True)
    part = [Extent(BLOCK + 5, b"part of the block")]
    overwritten = Overwritten(base.size, iter([(BLOCK + 5, 17)]))
    at = 64 + 16
    whole = disk.sums.read_bytes()[at : at + 16]
    assert merging.keep_rests(base, overwritten, begun=False, trusted=True) is None
    rest = disk.sums.read_bytes()[at : at + 16]
    assert whole != rest
    if entering:
        merging.write(base, overwritten, part)
        assert merging.enter(base, overwritten) is None
        whole = disk.sums.read_bytes()[at : at + 16]
    reader = BaseImage(disk.image, disk.sums, disk.size, unsettled=overwritten)
    for cut in range(17):
        for torn in (whole[:cut] + rest[cut:], rest[:cut] + whole[cut:]):
            put(disk.sums, at, torn)
            reader.read_verified(BLOCK, BLOCK)
            assert merging.keep_rests(base, overwritten, begun=True, trusted=True) is None
            put(disk.sums, at, torn)
            assert merging.enter(base, overwritten) is None
            base.read_verified(0, base.size)
    put(disk.sums, at, rest[:4] + b"!!!!" + rest[8:])
    with pytest.raises(Damaged):
        reader.read_verified(BLOCK, BLOCK)
    assert merging.enter(base, overwritten) is not None
    reader.close()
    base.close()


def put(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_a_base_of_another_size_or_with_a_foreign_table_is_refused(tmp_path: Path) -> None:
    disk = Disk(tmp_path, 3 * BLOCK, 2)
    with pytest.raises(InvalidState, match=f"{3 * BLOCK} bytes, but the disk has {BLOCK}"):
        BaseImage(disk.image, disk.sums, BLOCK)
    raw = bytearray(disk.sums.read_bytes())
    raw[20] ^= 1
    disk.sums.write_bytes(raw)
    with pytest.raises(Damaged):
        BaseImage(disk.image, disk.sums, 3 * BLOCK)
