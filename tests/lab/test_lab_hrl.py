"""The replication log: its format, and which write of each byte wins."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.lab import hrl
from vault.errors import Damaged

pytestmark = pytest.mark.unit

EPOCH = "00112233445566778899aabbccddeeff"
DISK = 4096

writes_of_a_small_disk = st.lists(
    st.tuples(st.integers(0, DISK - 1), st.integers(1, 700), st.integers(1, 255)).map(
        lambda w: (w[0], bytes([w[2]]) * min(w[1], DISK - w[0]))
    ),
    max_size=60,
)


def make_log(path: Path, writes: list[tuple[int, bytes]]) -> Path:
    hrl.create_log(path, EPOCH, 7, DISK)
    writer = hrl.LogWriter.at_end_of(path)
    for offset, data in writes:
        writer.append(offset, data)
    writer.close()
    return path


@given(writes=writes_of_a_small_disk)
def test_extents_are_what_the_last_write_of_each_byte_left(
    tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[int, bytes]]
) -> None:
    path = make_log(tmp_path_factory.mktemp("log") / "d.hrl", writes)
    image, touched = bytearray(DISK), bytearray(DISK)
    for offset, data in writes:
        image[offset : offset + len(data)] = data
        touched[offset : offset + len(data)] = b"\1" * len(data)
    with hrl.LogReader(path) as log:
        extents = list(log.extents(hrl.resolve(log.records())))
    seen, got, end = bytearray(DISK), bytearray(DISK), 0
    for offset, data in extents:
        assert data and offset >= end
        end = offset + len(data)
        got[offset:end] = data
        seen[offset:end] = b"\1" * len(data)
    assert got == image
    assert seen == touched


def test_neighbours_are_joined_up_to_a_mebibyte(tmp_path: Path) -> None:
    path = tmp_path / "d.hrl"
    hrl.create_log(path, EPOCH, 1, 4 * 2**20)
    writer = hrl.LogWriter.at_end_of(path)
    for block in reversed(range(300)):
        writer.append(block * 8192, b"x" * 8192)
    writer.close()
    with hrl.LogReader(path) as log:
        sizes = [(offset, len(data)) for offset, data in log.extents(hrl.resolve(log.records()))]
    assert sizes == [(0, 2**20), (2**20, 2**20), (2 * 2**20, 300 * 8192 - 2 * 2**20)]


def test_header_says_where_the_log_belongs(tmp_path: Path) -> None:
    with hrl.LogReader(make_log(tmp_path / "d.hrl", [])) as log:
        assert log.header == hrl.LogHeader(EPOCH, 7, DISK)


@pytest.mark.parametrize("cut", range(1, hrl.RECORD_OVERHEAD + 10))
def test_a_torn_last_record_is_not_there_and_is_no_damage(tmp_path: Path, cut: int) -> None:
    path = make_log(tmp_path / "d.hrl", [(0, b"first"), (9, b"0123456789")])
    size = path.stat().st_size
    with path.open("r+b") as stream:
        stream.truncate(size - cut)
    with hrl.LogReader(path) as log:
        records = list(log.records())
        assert [record.offset for record in records] == [0]
        log.check_tail(hrl.end_of(records))


def test_a_damaged_record_in_the_middle_is_told_from_a_torn_one(tmp_path: Path) -> None:
    path = make_log(tmp_path / "d.hrl", [(0, b"first"), (9, b"second"), (99, b"third")])
    raw = bytearray(path.read_bytes())
    second = raw.index(b"HREC", hrl.HEADER_SIZE + 1)
    raw[second + 5] ^= 1
    path.write_bytes(raw)
    with hrl.LogReader(path) as log:
        records = list(log.records())
        assert len(records) == 1
        with pytest.raises(Damaged, match="damaged at byte"):
            log.check_tail(hrl.end_of(records))


def test_damaged_data_and_header_are_refused(tmp_path: Path) -> None:
    path = make_log(tmp_path / "d.hrl", [(0, b"first")])
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with hrl.LogReader(path) as log, pytest.raises(Damaged, match="record 0"):
        list(log.extents(hrl.resolve(log.records())))
    raw[9] ^= 1
    path.write_bytes(raw)
    with pytest.raises(Damaged, match="header"):
        hrl.LogReader(path)


def test_a_failed_append_leaves_the_log_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_log(tmp_path / "d.hrl", [(0, b"first")])
    before = path.read_bytes()
    writer = hrl.LogWriter.at_end_of(path)

    def half(descriptor: int, data: bytes, offset: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hrl.os, "pwritev", lambda fd, parts, at: hrl.os.pwrite(fd, parts[0], at))
    monkeypatch.setattr(hrl, "write_fully", half)
    with pytest.raises(OSError, match="No space"):
        writer.append(50, b"second")
    writer.close()
    assert path.read_bytes() == before
