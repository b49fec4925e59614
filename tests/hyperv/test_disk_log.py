"""VHDX files that were not closed cleanly: what their log holds is read as if a host had replayed it."""

from __future__ import annotations

import shutil
import struct
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.hyperv.virtual_disks import vhdx_head as head
from adapters.hyperv.virtual_disks.files import DiskFile
from adapters.hyperv.virtual_disks.opening import open_virtual_disk
from adapters.hyperv.virtual_disks.vhdx_head import Header, read_header
from adapters.hyperv.virtual_disks.vhdx_log import LONGEST_LOG, SECTOR, ReplayedFile
from simulation.virtual_disks.vhdx import MIB, with_checksum
from vault.errors import Damaged

pytestmark = pytest.mark.unit

DYNAMIC = Path(__file__).parent / "disks" / "dynamic.vhdx.zst"
ENTRY = struct.Struct("<4sIIIQII16sQQ")
DESCRIPTOR = struct.Struct("<4sIQQQ")
LOG_AT = MIB


def whole(path: Path) -> bytes:
    with closing(open_virtual_disk(f"D:\\{path.name}", lambda name: path)) as disk:
        return disk.read(0, disk.size)


def set_log(path: Path, log: UUID) -> None:
    """The header says that the log ``log`` waits to be replayed."""
    with path.open("r+b") as file:
        for at in head.HEADERS_AT:
            file.seek(at)
            raw = bytearray(file.read(head.HEADER_SIZE))
            raw[48:64] = log.bytes_le
            raw[4:8] = bytes(4)
            file.seek(at)
            file.write(with_checksum(bytes(raw)))


def make_dirty(path: Path) -> int:
    """As if the writer had died after its newest log entry was written, and before any of it reached its place."""
    raw = path.read_bytes()
    entries = [at for at in range(LOG_AT, 2 * MIB, SECTOR) if raw[at : at + 4] == b"loge"]
    newest = max(entries, key=lambda at: ENTRY.unpack_from(raw, at)[4])
    _, _, _, _, _, count, _, log, _, _ = ENTRY.unpack_from(raw, newest)
    with path.open("r+b") as file:
        for index in range(count):
            signature, _, _, offset, _ = DESCRIPTOR.unpack_from(raw, newest + ENTRY.size + index * DESCRIPTOR.size)
            assert signature == b"desc"
            file.seek(offset)
            file.write(b"\xee" * SECTOR)
    set_log(path, UUID(bytes_le=log))
    return count


@pytest.fixture
def dynamic(tmp_path: Path) -> Path:
    path = tmp_path / "dynamic.vhdx"
    path.write_bytes(zstandard.ZstdDecompressor().decompress(DYNAMIC.read_bytes()))
    return path


def test_what_qemu_logged_is_read_from_the_log(dynamic: Path) -> None:
    content = whole(dynamic)
    assert make_dirty(dynamic) > 0
    before = dynamic.read_bytes()
    assert whole(dynamic) == content
    assert dynamic.read_bytes() == before


@pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is not installed")
def test_qemu_replays_the_same(dynamic: Path, tmp_path: Path) -> None:
    make_dirty(dynamic)
    ours, raw = whole(dynamic), tmp_path / "raw"
    subprocess.run(["qemu-img", "check", "-q", "-r", "all", str(dynamic)], check=True, timeout=60)
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(dynamic), str(raw)], check=True, timeout=60)
    assert raw.read_bytes() == ours


# --- logs of our own ------------------------------------------------------------------------------------------------

LOG = UUID("11111111-2222-3333-4444-555555555555")
SIZE, LOG_LENGTH = 4 * MIB, MIB
Change = tuple[int, bytes | int]
"""An offset, and a sector of data or how many zeros."""


def entry(sequence: int, changes: list[Change], tail: int, *, log: UUID = LOG, last: int = SIZE) -> bytes:
    descriptors, sectors = b"", b""
    for offset, what in changes:
        if isinstance(what, int):
            descriptors += DESCRIPTOR.pack(b"zero", 0, what, offset, sequence)
        else:
            first, trailing = struct.unpack("<Q", what[:8])[0], struct.unpack("<I", what[-4:])[0]
            descriptors += DESCRIPTOR.pack(b"desc", trailing, first, offset, sequence)
            sectors += (
                b"data" + struct.pack("<I", sequence >> 32) + what[8:-4] + struct.pack("<I", sequence & 0xFFFFFFFF)
            )
    front = -(-(ENTRY.size + len(descriptors)) // SECTOR) * SECTOR
    length = front + len(sectors)
    header = ENTRY.pack(b"loge", 0, length, tail, sequence, len(changes), 0, log.bytes_le, SIZE, last)
    return with_checksum((header + descriptors).ljust(front, b"\0") + sectors)


def ring(entries: list[tuple[int, bytes]]) -> bytes:
    raw = bytearray(LOG_LENGTH)
    for at, packed in entries:
        for index in range(0, len(packed), SECTOR):
            place = (at + index) % LOG_LENGTH
            raw[place : place + SECTOR] = packed[index : index + SECTOR]
    return bytes(raw)


@pytest.fixture
def replayed(tmp_path: Path) -> Callable[..., ReplayedFile]:
    def make(log: bytes, *, size: int = SIZE, length: int = LOG_LENGTH, offset: int = LOG_AT) -> ReplayedFile:
        path = tmp_path / f"{uuid4()}.vhdx"
        path.write_bytes((bytes(LOG_AT) + log).ljust(2 * MIB, b"\0") + b"\xaa" * (size - 2 * MIB))
        return ReplayedFile(DiskFile(path, "D:\\disk.vhdx"), Header(1, uuid4(), LOG, offset, length))

    return make


AT = 3 * MIB


def test_entries_are_laid_over_the_file_in_their_order(replayed: Callable[..., ReplayedFile]) -> None:
    first = entry(7, [(AT, b"1" * SECTOR), (AT + SECTOR, b"2" * SECTOR)], 0)
    second = entry(8, [(AT, b"3" * SECTOR), (AT + 2 * SECTOR, 2 * SECTOR)], 0)
    with closing(replayed(ring([(0, first), (len(first), second)]))) as file:
        expected = b"3" * SECTOR + b"2" * SECTOR + bytes(2 * SECTOR) + b"\xaa" * SECTOR
        assert file.read(AT, 5 * SECTOR) == expected
        assert file.read(AT + 100, SECTOR) == expected[100 : SECTOR + 100]
        assert file.read(AT - 10, 20) == b"\xaa" * 10 + b"3" * 10


def test_a_log_goes_round(replayed: Callable[..., ReplayedFile]) -> None:
    first = entry(1 << 32, [(AT, b"1" * SECTOR)], LOG_LENGTH - SECTOR)
    second = entry((1 << 32) + 1, [(AT + SECTOR, b"2" * SECTOR)], LOG_LENGTH - SECTOR)
    with closing(replayed(ring([(LOG_LENGTH - SECTOR, first), (SECTOR, second)]))) as file:
        assert file.read(AT, 2 * SECTOR) == b"1" * SECTOR + b"2" * SECTOR


def test_what_is_before_the_tail_is_done_already(replayed: Callable[..., ReplayedFile]) -> None:
    first = entry(1, [(AT, b"1" * SECTOR)], 0)
    second = entry(2, [(AT + SECTOR, b"2" * SECTOR)], len(first))
    with closing(replayed(ring([(0, first), (len(first), second)]))) as file:
        assert file.read(AT, 2 * SECTOR) == b"\xaa" * SECTOR + b"2" * SECTOR


def test_only_the_newest_whole_sequence_of_this_log_counts(replayed: Callable[..., ReplayedFile]) -> None:
    old = entry(3, [(AT, b"o" * SECTOR)], 0)
    new = entry(9, [(AT, b"n" * SECTOR)], 16 * SECTOR)
    torn = bytearray(entry(10, [(AT, b"t" * SECTOR)], 16 * SECTOR))
    torn[-100] ^= 1
    other = entry(20, [(AT, b"x" * SECTOR)], 32 * SECTOR, log=uuid4())
    log = ring([(0, old), (16 * SECTOR, new), (16 * SECTOR + len(new), bytes(torn)), (32 * SECTOR, other)])
    with closing(replayed(log)) as file:
        assert file.read(AT, SECTOR) == b"n" * SECTOR


def test_a_file_may_be_shorter_than_its_log_knows(replayed: Callable[..., ReplayedFile]) -> None:
    log = ring([(0, entry(1, [(AT, b"1" * SECTOR)], 0, last=SIZE + MIB))])
    with closing(replayed(log)) as file:
        assert file.size == SIZE + MIB
        assert file.read(SIZE - 10, 20) == b"\xaa" * 10 + bytes(10)
        with pytest.raises(Damaged, match="are not in a file of"):
            file.read(SIZE + MIB - 1, 2)


@pytest.mark.parametrize(
    ("log", "options", "complaint"),
    [
        (bytes(LOG_LENGTH), {}, "no sequence of entries in its log is whole"),
        (ring([(0, entry(1, [], 5 * SECTOR))]), {}, "no sequence of entries"),
        (ring([(0, entry(0, [], 0))]), {}, "no sequence of entries"),
        (ring([(0, entry(1, [], 0))]), {"size": 3 * MIB}, "the file was cut off: its log knows of 4194304"),
        (ring([(0, entry(1, [], 0))]), {"length": 0}, "the log cannot be 0 bytes"),
        (ring([(0, entry(1, [], 0))]), {"length": LONGEST_LOG + MIB}, "the log cannot be"),
        (ring([(0, entry(1, [], 0))]), {"offset": MIB + 1}, "the log cannot be"),
        (ring([(0, entry(1, [], 0))]), {"offset": 4 * MIB}, "are not in a file of"),
        (ring([(0, entry(1, [(AT + 1, b"1" * SECTOR)], 0))]), {}, "does not belong to its entry"),
        (ring([(0, entry(1, [(AT, 1 << 40)], 0))]), {}, "the log cannot zero"),
    ],
)
def test_a_log_that_cannot_be_replayed_is_damaged(
    replayed: Callable[..., ReplayedFile], log: bytes, options: dict[str, int], complaint: str
) -> None:
    with pytest.raises(Damaged, match=complaint) as caught:
        replayed(log, **options)
    assert caught.value.where.startswith("D:\\disk.vhdx, offset ")


def test_a_log_full_of_overlapping_entries_does_not_take_forever(replayed: Callable[..., ReplayedFile]) -> None:
    header = ENTRY.pack(b"loge", 0, LOG_LENGTH, 0, 1, 0, 0, LOG.bytes_le, SIZE, SIZE)
    began = time.process_time()
    with pytest.raises(Damaged, match="entries that overlap"):
        replayed(header.ljust(SECTOR, b"\0") * (LOG_LENGTH // SECTOR))
    assert time.process_time() - began < 5


SECTORS = 16


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, SECTORS - 1), st.integers(1, 6) | st.binary(min_size=1, max_size=1)), max_size=12)
)
def test_any_log_is_what_it_wrote_in_order(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int | bytes]]
) -> None:
    expected, packed, at = bytearray(b"\xaa" * (SECTORS + 6) * SECTOR), [], 0
    for number, (sector, what) in enumerate(changes):
        data = bytes(what * SECTOR) if isinstance(what, int) else what * SECTOR
        expected[sector * SECTOR : sector * SECTOR + len(data)] = data
        change: Change = (AT + sector * SECTOR, len(data) if isinstance(what, int) else data)
        packed.append((at, entry(number + 1, [change], 0)))
        at += len(packed[-1][1])
    if not packed:
        return
    path = tmp_path_factory.mktemp("log") / "disk.vhdx"
    path.write_bytes((bytes(LOG_AT) + ring(packed)).ljust(2 * MIB, b"\0") + b"\xaa" * 2 * MIB)
    with closing(ReplayedFile(DiskFile(path, "disk"), Header(1, uuid4(), LOG, LOG_AT, LOG_LENGTH))) as file:
        assert file.read(AT, len(expected)) == expected
        for sector in range(SECTORS):
            assert (
                file.read(AT + sector * SECTOR + 7, SECTOR) == expected[sector * SECTOR + 7 : (sector + 1) * SECTOR + 7]
            )
    path.unlink()


def test_the_header_of_a_dirty_file_is_read(dynamic: Path) -> None:
    set_log(dynamic, LOG)
    with closing(DiskFile(dynamic, "disk")) as file:
        assert read_header(file).log == LOG
    with pytest.raises(Damaged, match="not closed cleanly"):
        whole(dynamic)
