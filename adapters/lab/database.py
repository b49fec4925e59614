"""The small database on a guest's disks: numbered, checksummed transactions, and how it recovers.

Little-endian. The first disk has the commit records, the others the data; with one disk it has both::

    superblock  block 0 of every disk, 4096 bytes: magic "LWRDGDB\\0", version u32, disk index u32, disk count u32,
                slot size u32, slots u64, data offset u64, database id 16 bytes, CRC-32 of all before it u32, zeros
    commits     first disk, from 4096: one record of 64 bytes per slot: magic "GCOM", version u32, number u64,
                begin u64 (ns since 1970, UTC), data CRC-32 u32, zeros, CRC-32 of the 60 bytes before it u32
    data        slots of slot size: magic "GDAT", size u32, number u64, payload CRC-32 u32, CRC-32 of the 20 bytes
                before it u32, payload

Transaction n uses slot (n-1) modulo slots, so old ones are overwritten in turn. Its data is written first, then its
commit record: a commit whose data is missing, or data beyond the transaction in flight, shows that the disks are not
from one moment.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from adapters.lab.definition import DiskDefinition
from vault.errors import BadInput, Damaged

MAGIC, VERSION = b"LWRDGDB\0", 1
BLOCK = 4096
FEWEST_SLOTS = 16
SMALLEST_TRANSACTION = 256
_SUPERBLOCK = struct.Struct("<8sIIIIQQ16sI")
_COMMIT = struct.Struct("<4sIQQI32xI")
_DATA = struct.Struct("<4sIQII")
_COMMIT_MAGIC, _DATA_MAGIC = b"GCOM", b"GDAT"
_SCAN = 1024 * _COMMIT.size

Read = Callable[[int, int, int], bytes]
"""``(disk index, offset, length)``"""
Write = Callable[[int, int, bytes], None]
"""``(disk index, offset, data)``"""


@dataclass(frozen=True)
class Geometry:
    """Where transactions lie. ``data_disks`` are disk indexes."""

    slots: int
    slot_size: int
    data_disks: tuple[int, ...]
    data_offset: int

    @classmethod
    def plan(cls, disks: tuple[DiskDefinition, ...], transaction_size: int) -> Geometry:
        """Raises ``BadInput`` when the disks are too small for the transactions."""
        if transaction_size < SMALLEST_TRANSACTION:
            raise BadInput(f"a lab transaction has at least {SMALLEST_TRANSACTION} bytes, not {transaction_size}")
        first = disks[0].size - BLOCK
        if len(disks) == 1:
            slots = (first - BLOCK) // (_COMMIT.size + transaction_size)
            data_offset = BLOCK + -(-slots * _COMMIT.size // BLOCK) * BLOCK
            data_disks: tuple[int, ...] = (0,)
        else:
            data_disks = tuple(range(1, len(disks)))
            data_offset = BLOCK
            per_disk = (min(disk.size for disk in disks[1:]) - BLOCK) // transaction_size
            slots = min(first // _COMMIT.size, per_disk * len(data_disks))
            slots -= slots % len(data_disks)
        if slots < FEWEST_SLOTS:
            raise BadInput(
                f"the disks have room for {max(0, slots)} transactions of {transaction_size} bytes",
                remedy=f"make the disks larger or the transactions smaller: at least {FEWEST_SLOTS} have to fit",
            )
        return cls(slots, transaction_size, data_disks, data_offset)

    def commit_at(self, number: int) -> int:
        return BLOCK + (number - 1) % self.slots * _COMMIT.size

    def data_at(self, number: int) -> tuple[int, int]:
        """``(disk index, offset)``"""
        slot = (number - 1) % self.slots
        share = len(self.data_disks)
        return self.data_disks[slot % share], self.data_offset + slot // share * self.slot_size


class Recovered(NamedTuple):
    """What a scan found. ``last_begin_ns`` is when the last transaction began; all are 0 for an empty database."""

    first: int
    last: int
    damaged: int
    last_begin_ns: int


def format_disks(write: Write, disks: tuple[DiskDefinition, ...], transaction_size: int) -> None:
    """Write the superblocks of an empty database. Raises ``BadInput`` when the disks are too small."""
    geometry = Geometry.plan(disks, transaction_size)
    database_id = os.urandom(16)
    for index in range(len(disks)):
        fields = (VERSION, index, len(disks), geometry.slot_size, geometry.slots, geometry.data_offset, database_id)
        head = _SUPERBLOCK.pack(MAGIC, *fields, 0)[:-4]
        write(index, 0, head + zlib.crc32(head).to_bytes(4, "little"))


def read_geometry(read: Read, disk_count: int) -> Geometry:
    """Check all superblocks against each other.

    Raises ``Damaged``, naming the disk by its position from 1."""
    found = set()
    for index in range(disk_count):
        raw = read(index, 0, _SUPERBLOCK.size)
        place = f"disk {index + 1} of {disk_count}"
        if len(raw) < _SUPERBLOCK.size or zlib.crc32(raw[:-4]) != int.from_bytes(raw[-4:], "little"):
            raise Damaged("the superblock does not match its checksum", where=place)
        magic, version, own_index, count, slot_size, slots, data_offset, database_id, _ = _SUPERBLOCK.unpack(raw)
        if (magic, version) != (MAGIC, VERSION):
            raise Damaged(f"the superblock is not of a guest database of version {VERSION}", where=place)
        if (own_index, count) != (index, disk_count):
            raise Damaged(f"the superblock is that of disk {own_index + 1} of {count}", where=place)
        found.add((slot_size, slots, data_offset, database_id))
    if len(found) != 1:
        raise Damaged("the disks belong to different databases")
    slot_size, slots, data_offset, _ = found.pop()
    return Geometry(slots, slot_size, (0,) if disk_count == 1 else tuple(range(1, disk_count)), data_offset)


def payload(identity: str, number: int, size: int) -> bytes:
    """The content of a transaction: one half random-looking, one half well compressible, both from its number."""
    name = f"{identity}:{number}:".encode()
    noise = hashlib.shake_128(name).digest(size // 2)
    rest = size - len(noise)
    return noise + (name * (rest // len(name) + 1))[:rest]


def write_transaction(write: Write, geometry: Geometry, identity: str, number: int, begin_ns: int) -> None:
    """Data first, then the commit record."""
    content = payload(identity, number, geometry.slot_size - _DATA.size)
    checksum = zlib.crc32(content)
    head = _DATA.pack(_DATA_MAGIC, len(content), number, checksum, 0)[:-4]
    disk, offset = geometry.data_at(number)
    write(disk, offset, head + zlib.crc32(head).to_bytes(4, "little") + content)
    commit = _COMMIT.pack(_COMMIT_MAGIC, VERSION, number, begin_ns, checksum, 0)[:-4]
    write(0, geometry.commit_at(number), commit + zlib.crc32(commit).to_bytes(4, "little"))


def recover_database(read: Read, geometry: Geometry) -> Recovered:
    """Scan everything and find the last complete transaction.

    *Damaged* counts the transactions before it that should be there and are not whole, itself if its data is not, and
    data of transactions that no commit record can explain. A torn record of the transaction in flight is no damage."""
    commits = {number: (begin_ns, checksum) for number, begin_ns, checksum in _commits(read, geometry)}
    last = max(commits, default=0)
    first = max(1, last - geometry.slots + 2)
    damaged = 0
    for number in range(first, last + 1):
        if number not in commits or _data_checksum(read, geometry, number) != commits[number][1]:
            damaged += 1
    beyond = last + 2
    while beyond < last + geometry.slots and _data_checksum(read, geometry, beyond) is not None:
        damaged += 1
        beyond += 1
    return Recovered(first if last else 0, last, damaged, commits[last][0] if last else 0)


def _commits(read: Read, geometry: Geometry) -> Iterator[tuple[int, int, int]]:
    end = BLOCK + geometry.slots * _COMMIT.size
    empty = bytes(_SCAN)
    for offset in range(BLOCK, end, _SCAN):
        chunk = read(0, offset, min(_SCAN, end - offset))
        if chunk == empty[: len(chunk)]:
            continue
        for at in range(0, len(chunk), _COMMIT.size):
            raw = chunk[at : at + _COMMIT.size]
            magic, version, number, begin_ns, checksum, own = _COMMIT.unpack(raw)
            sound = (magic, version) == (_COMMIT_MAGIC, VERSION) and zlib.crc32(raw[:-4]) == own
            if sound and geometry.commit_at(number) == offset + at:
                yield number, begin_ns, checksum


def _data_checksum(read: Read, geometry: Geometry, number: int) -> int | None:
    """The checksum of a transaction's data when all of it is there, else None."""
    disk, offset = geometry.data_at(number)
    raw = read(disk, offset, geometry.slot_size)
    magic, size, found, checksum, own = _DATA.unpack_from(raw)
    if magic != _DATA_MAGIC or found != number or zlib.crc32(raw[: _DATA.size - 4]) != own:
        return None
    return checksum if zlib.crc32(raw[_DATA.size : _DATA.size + size]) == checksum else None


def scan_images(images: list[Path]) -> Recovered:
    """Scan raw images without a guest, in the machine's disk order. Raises ``Damaged``."""
    descriptors = [os.open(image, os.O_RDONLY | os.O_CLOEXEC) for image in images]
    try:

        def read(disk: int, offset: int, length: int) -> bytes:
            return os.pread(descriptors[disk], length, offset)

        return recover_database(read, read_geometry(read, len(descriptors)))
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
