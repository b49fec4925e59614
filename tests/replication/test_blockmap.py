"""The block map's file: what it promises, and what damage and half-done marks lead to."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replication import blockmap
from replication.blockmap import BLOCK, ENTRIES, PAGE, BlockMap, create_map
from vault.errors import Damaged, NotFound, ResynchronizationRequired

pytestmark = pytest.mark.unit

EPOCH = "0123456789abcdef" * 2
SIZE = 3 * ENTRIES * BLOCK + 1000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    create_map(tmp_path / "disk.map", EPOCH, SIZE)
    return tmp_path / "disk.map"


def blocks(found: BlockMap, since: int) -> set[int]:
    result: set[int] = set()
    end = -1
    for offset, length in found.changed(since):
        assert offset > end and offset % BLOCK == 0 and (length % BLOCK == 0 or offset + length == SIZE)
        end = offset + length
        result.update(range(offset // BLOCK, -(-end // BLOCK)))
    return result


marks = st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(1, 5 * BLOCK)), max_size=30)


@settings(deadline=None, max_examples=40)
@given(generations=st.lists(marks, min_size=1, max_size=6))
def test_it_knows_what_changed_since_any_generation(
    tmp_path_factory: pytest.TempPathFactory, generations: list[list[tuple[int, int]]]
) -> None:
    path = tmp_path_factory.mktemp("map") / "disk.map"
    create_map(path, EPOCH, SIZE)
    writer, reader = BlockMap(path, writable=True), BlockMap(path)
    last: dict[int, int] = {}
    for generation, writes in enumerate(generations, start=1):
        writer.begin_use(generation)
        for offset, wanted in writes:
            length = min(wanted, SIZE - offset)
            writer.mark(offset, length, generation)
            last.update(dict.fromkeys(range(offset // BLOCK, (offset + length - 1) // BLOCK + 1), generation))
        for since in range(generation + 1):
            assert blocks(reader, since) == {block for block, marked in last.items() if marked > since}
        if generation % 2:
            writer.end_use()
    writer.close()
    reader.close()


def test_the_formats_page_is_enough_to_read_a_map(path: Path) -> None:
    with_map = BlockMap(path, writable=True)
    with_map.begin_use(7)
    with_map.mark(0, 1, 7)
    with_map.mark((ENTRIES - 1) * BLOCK, BLOCK + 1, 8)
    with_map.end_use()
    with_map.close()
    raw = path.read_bytes()
    magic, version, flags, block, size, epoch, checksum = struct.unpack_from("<8sHHIQ16sI", raw)
    assert (magic, version, flags, block, size) == (b"LWBLKMAP", 1, 0, 65536, SIZE)
    assert (epoch.hex(), checksum) == (EPOCH, zlib.crc32(raw[:40]))
    in_use, _, checksum = struct.unpack_from("<I16sI", raw, 64)
    assert (in_use, checksum) == (0, zlib.crc32(raw[64:84]))
    assert len(raw) == 4096 * 5
    marked = {}
    for page in range(4):
        entries = struct.unpack_from("<1022I", raw, 4096 * (1 + page))
        (total,) = struct.unpack_from("<Q", raw, 4096 * (1 + page) + 4088)
        assert sum(entries) == total
        marked.update({page * 1022 + at: entry for at, entry in enumerate(entries) if entry})
    assert marked == {0: 7, 1021: 8, 1022: 8}


def test_a_page_that_does_not_match_its_sum_counts_as_changed(path: Path) -> None:
    writer = BlockMap(path, writable=True)
    writer.begin_use(1)
    writer.mark(0, SIZE, 1)
    writer.end_use()
    writer.close()
    rng = random.Random(4)
    for _ in range(40):
        raw = bytearray(path.read_bytes())
        page = rng.randrange(4)
        raw[PAGE * (1 + page) + rng.randrange(PAGE)] ^= 1 << rng.randrange(8)
        if page == 3 and blocks_differ(path.read_bytes(), raw, page):
            continue  # beyond the disk's last block nothing is read
        damaged = path.with_name("damaged.map")
        damaged.write_bytes(raw)
        found = BlockMap(damaged)
        first = page * ENTRIES
        assert blocks(found, 1) == set(range(first, min(first + ENTRIES, -(-SIZE // BLOCK))))
        found.close()


def blocks_differ(good: bytes, bad: bytes, page: int) -> bool:
    """Whether only entries without a block differ."""
    begin, used = PAGE * (1 + page), 4 * (-(-SIZE // BLOCK) - page * ENTRIES)
    return good[begin : begin + used] == bad[begin : begin + used] and good[-8:] == bad[-8:]


def test_a_writer_killed_between_sum_and_entry_costs_a_page_not_a_change(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = BlockMap(path, writable=True)
    writer.begin_use(3)
    writer.mark(5 * BLOCK, 1, 3)
    sums = writer._sums
    sums[PAGE // 8 + PAGE // 8 - 1] += 3  # killed here
    writer.close()
    again = BlockMap(path, writable=True)
    again.begin_use(4)
    assert blocks(again, 3) == set(range(ENTRIES))
    again.mark(ENTRIES * BLOCK, 1, 5)
    assert blocks(again, 4) == {ENTRIES}
    again.end_use()
    again.close()


def test_a_map_in_use_is_believed_in_the_same_life_of_the_host_only(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = BlockMap(path, writable=True)
    writer.begin_use(1)
    writer.mark(0, 1, 1)
    writer.close()
    found = BlockMap(path, writable=True)
    found.check_trust()
    for life in (b"another life 456", b""):
        monkeypatch.setattr(blockmap, "boot_id", lambda life=life: life)
        with pytest.raises(ResynchronizationRequired, match="went down"):
            found.begin_use(2)
    monkeypatch.undo()
    found.begin_use(2)
    found.end_use()
    monkeypatch.setattr(blockmap, "boot_id", lambda: b"another life 456")
    found.check_trust()
    assert blocks(found, 0) == {0}
    found.close()


def test_where_the_host_does_not_tell_its_lives_apart_a_killed_writer_means_resynchronization(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(blockmap, "_BOOT_ID", tmp_path / "none")
    assert blockmap.boot_id() == b""
    writer = BlockMap(path, writable=True)
    writer.begin_use(1)
    writer.close()
    with pytest.raises(ResynchronizationRequired):
        BlockMap(path).check_trust()


def test_other_files_are_refused(path: Path, tmp_path: Path) -> None:
    good = path.read_bytes()
    with pytest.raises(NotFound):
        BlockMap(tmp_path / "none")
    for at in range(44):
        raw = bytearray(good)
        raw[at] ^= 1
        path.write_bytes(raw)
        with pytest.raises(Damaged):
            BlockMap(path)
    for at in range(64, 88):
        raw = bytearray(good)
        raw[at] ^= 1
        path.write_bytes(raw)
        with pytest.raises(Damaged):
            BlockMap(path).check_trust()
    path.write_bytes(good[:-1])
    with pytest.raises(Damaged, match="bytes"):
        BlockMap(path)
    head = struct.pack("<8sHHIQ16s", b"LWBLKMAP", 2, 0, BLOCK, SIZE, bytes(16))
    path.write_bytes(head + zlib.crc32(head).to_bytes(4, "little") + good[44:])
    with pytest.raises(Damaged, match="version 1"):
        BlockMap(path)


def test_a_large_disks_map_is_sparse_and_looked_through_quickly(tmp_path: Path) -> None:
    path, size = tmp_path / "disk.map", 1 << 40
    create_map(path, EPOCH, size)
    writer = BlockMap(path, writable=True)
    writer.begin_use(1)
    for offset in range(0, size, size // 8):
        writer.mark(offset, 1, 1)
    assert len(list(writer.changed(0))) == 8
    writer.end_use()
    writer.close()
    assert path.stat().st_blocks * 512 <= 64 * PAGE
