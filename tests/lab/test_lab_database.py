"""The guest's database: what a scan finds after crashes, damage, and disks from different moments."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from adapters.lab.database import (
    BLOCK,
    Geometry,
    format_disks,
    payload,
    read_geometry,
    recover_database,
    write_transaction,
)
from adapters.lab.definition import DiskDefinition
from vault.errors import BadInput, Damaged

pytestmark = pytest.mark.unit

SIZE = 1024


class Memory:
    """Disks in memory, with a log of writes to stop at."""

    def __init__(self, sizes: dict[str, int]) -> None:
        self.disks = tuple(DiskDefinition(name, size) for name, size in sizes.items())
        self.images = [bytearray(disk.size) for disk in self.disks]
        format_disks(self.write, self.disks, SIZE)
        self.geometry = read_geometry(self.read, len(self.disks))

    def read(self, disk: int, offset: int, length: int) -> bytes:
        return bytes(self.images[disk][offset : offset + length])

    def write(self, disk: int, offset: int, data: bytes) -> None:
        self.images[disk][offset : offset + len(data)] = data

    def run(self, first: int, last: int, write: Callable[[int, int, bytes], None] | None = None) -> None:
        for number in range(first, last + 1):
            write_transaction(write or self.write, self.geometry, "db", number, 1000 + number)


@pytest.fixture(params=[{"only": 60_000}, {"system": 9000, "data": 60_000}, {"s": 9000, "d1": 40_000, "d2": 30_000}])
def memory(request: pytest.FixtureRequest) -> Memory:
    return Memory(request.param)


def scan(memory: Memory) -> tuple[int, int, int]:
    found = recover_database(memory.read, memory.geometry)
    return found.first, found.last, found.damaged


def test_an_empty_database_holds_nothing(memory: Memory) -> None:
    assert scan(memory) == (0, 0, 0)


@pytest.mark.parametrize("last", [1, 5, 16, 100, 333])
def test_it_finds_the_last_transaction_also_after_the_slots_went_round(memory: Memory, last: int) -> None:
    memory.run(1, last)
    first = max(1, last - memory.geometry.slots + 2)
    assert scan(memory) == (first, last, 0)
    assert recover_database(memory.read, memory.geometry).last_begin_ns == 1000 + last


@pytest.mark.parametrize("done", [3, 200])
@pytest.mark.parametrize("stop_after", [0, 1])
@pytest.mark.parametrize("torn", [0, 7, 40, 63])
def test_the_transaction_in_flight_is_no_damage(memory: Memory, done: int, stop_after: int, torn: int) -> None:
    memory.run(1, done)
    writes = 0

    def until_killed(disk: int, offset: int, data: bytes) -> None:
        nonlocal writes
        if writes == stop_after:
            memory.write(disk, offset, data[:torn])
        elif writes < stop_after:
            memory.write(disk, offset, data)
        writes += 1

    memory.run(done + 1, done + 1, until_killed)
    assert scan(memory)[1:] == (done, 0)
    memory.run(done + 1, done + 50)
    assert scan(memory)[1:] == (done + 50, 0)


@pytest.mark.parametrize("done", [10, 200])
def test_damage_in_the_middle_is_counted(memory: Memory, done: int) -> None:
    memory.run(1, done)
    disk, offset = memory.geometry.data_at(done - 3)
    memory.images[disk][offset + 500] ^= 1
    memory.images[0][memory.geometry.commit_at(done - 5) + 20] ^= 1
    assert scan(memory)[1:] == (done, 2)


@pytest.mark.parametrize("done", [10, 200])
def test_disks_from_different_moments_show_as_damage(done: int) -> None:
    memory = Memory({"system": 9000, "data": 60_000})
    memory.run(1, done)
    early = [bytearray(image) for image in memory.images]
    memory.run(done + 1, done + 4)
    late = memory.images
    memory.images = [late[0], early[1]]
    assert scan(memory)[2] == 4
    memory.images = [early[0], late[1]]
    assert scan(memory)[2] >= 3
    memory.images = early
    assert scan(memory)[1:] == (done, 0)


def test_superblocks_are_checked_against_each_other(memory: Memory) -> None:
    other = Memory({disk.name: disk.size for disk in memory.disks})
    count = len(memory.disks)
    if count > 1:
        mixed = [*memory.images[:-1], other.images[-1]]
        with pytest.raises(Damaged, match="different databases"):
            read_geometry(lambda d, o, n: bytes(mixed[d][o : o + n]), count)
        with pytest.raises(Damaged, match=f"disk 2 of {count}"):
            read_geometry(lambda d, o, n: memory.read(0 if d == 1 else 1 - d, o, n), count)
    memory.images[0][9] ^= 1
    with pytest.raises(Damaged, match="checksum"):
        read_geometry(memory.read, count)


def test_disks_too_small_are_refused_before_anything_is_written() -> None:
    with pytest.raises(BadInput, match="room for"):
        Geometry.plan((DiskDefinition("d", 20_000),), 4096)
    with pytest.raises(BadInput, match="room for 0"):
        Geometry.plan((DiskDefinition("d", 100),), 4096)
    with pytest.raises(BadInput, match="at least 256"):
        Geometry.plan((DiskDefinition("d", 2**20),), 100)


def test_transactions_never_share_bytes(memory: Memory) -> None:
    geometry = memory.geometry
    taken: set[tuple[int, int]] = set()
    for number in range(1, geometry.slots + 1):
        disk, offset = geometry.data_at(number)
        assert offset >= BLOCK and offset + geometry.slot_size <= memory.disks[disk].size
        commit = geometry.commit_at(number)
        for place in ((disk, at) for at in range(offset, offset + geometry.slot_size, 64)):
            assert place not in taken
            taken.add(place)
        assert (0, commit) not in taken
        taken.add((0, commit))


def test_a_payload_comes_from_its_number_and_is_half_compressible() -> None:
    import zlib

    content = payload("db", 17, 4072)
    assert len(content) == 4072 and content == payload("db", 17, 4072) != payload("db", 18, 4072)
    assert 0.45 < len(zlib.compress(content)) / len(content) < 0.6
