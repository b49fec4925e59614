from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replication.ports import Extent
from replication.segment import FRAME_PLAIN, SegmentFileWriter, SegmentHeader
from replication.segment_reader import NO_PAYLOAD, SegmentReader
from vault.errors import Damaged, InvalidState, LeewardError, NoSpace

pytestmark = pytest.mark.unit

DISK = 64 << 20


def header(size: int = DISK) -> SegmentHeader:
    return SegmentHeader(machine="db", disk="os", disk_size=size, sequence=7, epoch="e", cut=3)


def write(path: Path, extents: list[Extent], size: int = DISK) -> Path:
    writer = SegmentFileWriter(path, header(size))
    for extent in extents:
        writer.add(extent)
    writer.close()
    return path


def contents(path: Path, size: int) -> bytes:
    disk = bytearray(b"\xaa" * size)
    reader = SegmentReader(path)
    try:
        for extents in reader.frames():
            for offset, data in extents:
                disk[offset : offset + len(data)] = data
    finally:
        reader.close()
    return bytes(disk)


@st.composite
def extent_lists(draw: st.DrawFn) -> tuple[int, list[Extent]]:
    """Ascending extents with gaps; random, repeated and zero bytes."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    extents, offset = [], 0
    for gap, length, kind in draw(
        st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 200_000), st.integers(0, 2)), max_size=8)
    ):
        data = (rng.randbytes(length), bytes(length), bytes([1 + length % 255]) * length)[kind]
        extents.append(Extent(offset + gap, data))
        offset += gap + length
    return offset + 1, extents


@settings(max_examples=40, deadline=None)
@given(extent_lists())
def test_what_was_written_is_read(tmp_path_factory: pytest.TempPathFactory, case: tuple[int, list[Extent]]) -> None:
    size, extents = case
    path = write(tmp_path_factory.mktemp("segment") / "s.seg", extents, size)
    expected = bytearray(b"\xaa" * size)
    for offset, data in extents:
        expected[offset : offset + len(data)] = data
    assert contents(path, size) == bytes(expected)
    reader = SegmentReader(path)
    assert reader.sealed.disk_bytes == sum(len(data) for _, data in extents)
    assert reader.header == header(size)
    assert list(reader.index.offset) == sorted(reader.index.offset)
    reader.close()


def test_zeros_cost_nothing_and_random_data_is_stored_raw(tmp_path: Path) -> None:
    rng = random.Random(1)
    zeros = write(tmp_path / "z.seg", [Extent(0, bytes(1 << 20)), Extent(1 << 20, bytes(1 << 20))])
    text = write(tmp_path / "t.seg", [Extent(0, b"all work and no play " * 40_000)])
    noise = write(tmp_path / "n.seg", [Extent(0, rng.randbytes(1 << 20))])
    assert zeros.stat().st_size < 400
    assert text.stat().st_size < 2000
    assert 1 << 20 < noise.stat().st_size < (1 << 20) + 500
    reader = SegmentReader(zeros)
    assert list(reader.index.position) == [NO_PAYLOAD]
    assert list(reader.index.length) == [2 << 20]
    reader.close()


def test_large_extents_are_cut_into_frames_that_a_reader_accepts(tmp_path: Path) -> None:
    data = random.Random(2).randbytes(9 * FRAME_PLAIN + 5)
    path = write(tmp_path / "s.seg", [Extent(3, data)])
    reader = SegmentReader(path)
    assert len(reader) == 10
    reader.verify()
    reader.close()
    assert contents(path, 3 + len(data))[3:] == data


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """One segment with every part the format has: raw, compressed and zero frames, several extents."""
    rng = random.Random(3)
    extents = [Extent(0, rng.randbytes(100)), Extent(4096, bytes(4096)), Extent(FRAME_PLAIN, b"x" * (FRAME_PLAIN - 50))]
    return write(tmp_path / "small.seg", [*extents, Extent(4 * FRAME_PLAIN, rng.randbytes(60))])


def read_all(path: Path) -> None:
    reader = SegmentReader(path)
    try:
        reader.verify()
    finally:
        reader.close()


def test_every_flipped_bit_is_detected(small: Path, tmp_path: Path) -> None:
    sound = small.read_bytes()
    rng = random.Random(4)
    for position in range(len(sound)):
        broken = bytearray(sound)
        broken[position] ^= 1 << rng.randrange(8)
        copy = tmp_path / "flipped.seg"
        copy.write_bytes(broken)
        with pytest.raises(Damaged, match="at byte") as caught:
            read_all(copy)
        assert caught.value.where == str(copy)


def test_every_truncation_is_detected(small: Path, tmp_path: Path) -> None:
    sound = small.read_bytes()
    copy = tmp_path / "short.seg"
    for length in range(len(sound)):
        copy.write_bytes(sound[:length])
        with pytest.raises(Damaged):
            read_all(copy)
    copy.write_bytes(sound + b"\0")
    with pytest.raises(Damaged):
        read_all(copy)


def test_a_newer_version_is_not_called_damage(small: Path) -> None:
    from replication.checksums import checksum64
    from replication.segment import CHECKSUM64, HEADER

    raw = bytearray(small.read_bytes())
    raw[8] = 2
    end = HEADER.size + int.from_bytes(raw[12:16], "little")
    raw[end : end + 8] = CHECKSUM64.pack(checksum64(bytes(raw[:end])))
    small.write_bytes(raw)
    with pytest.raises(InvalidState, match="version 2"):
        SegmentReader(small)


@pytest.mark.parametrize("extent", [Extent(99, b"xy"), Extent(DISK - 1, b"xy")])
def test_extents_out_of_order_or_beyond_the_disk_are_refused(tmp_path: Path, extent: Extent) -> None:
    writer = SegmentFileWriter(tmp_path / "s.seg", header())
    writer.add(Extent(0, bytes(100)))
    with pytest.raises(InvalidState):
        writer.add(extent)
    writer.abandon()
    writer.abandon()
    assert list(tmp_path.iterdir()) == []


def test_a_refused_reservation_stops_the_segment(tmp_path: Path) -> None:
    left = 100_000

    def reserve(length: int) -> None:
        nonlocal left
        left -= length
        if left < 0:
            raise NoSpace("the site is full")

    writer = SegmentFileWriter(tmp_path / "s.seg", header(), reserve=reserve)
    with pytest.raises(NoSpace):
        writer.add(Extent(0, random.Random(5).randbytes(200_000)))
        writer.close()
    writer.abandon()
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_a_leeward_error(tmp_path: Path) -> None:
    with pytest.raises(LeewardError, match=r"none\.seg"):
        SegmentReader(tmp_path / "none.seg")
