"""Writing past the page cache: readers see it, and where it is not to be had, nothing is different."""

from __future__ import annotations

import errno
import random
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from replication import files
from replication.base_image import BaseImage
from replication.checksums import BLOCK
from replication.ports import Extent

pytestmark = pytest.mark.unit
MIB = 1 << 20
SIZE = 40 * BLOCK + 5000


@contextmanager
def opened(folder: Path, size: int = SIZE) -> Iterator[BaseImage]:
    base = BaseImage(folder / "image", folder / "sums", size, writable=True)
    try:
        yield base
    finally:
        base.close()


def refuse_direct(monkeypatch: pytest.MonkeyPatch) -> None:
    real = files.open_file

    def open_file(path: Path, flags: int) -> int:
        if flags & files.os.O_DIRECT:
            raise OSError(errno.EINVAL, "invalid argument")
        return real(path, flags)

    monkeypatch.setattr(files, "open_file", open_file)


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "buffered"])
@pytest.mark.parametrize("seed", range(12))
def test_a_filled_base_holds_what_was_written_and_its_table_knows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, direct: bool, seed: int
) -> None:
    if not direct:
        refuse_direct(monkeypatch)
    dice, model = random.Random(seed), bytearray(SIZE)
    BaseImage.make(tmp_path / "image", tmp_path / "sums", SIZE)
    with opened(tmp_path) as base:
        for _ in range(40):
            offset = dice.randrange(0, SIZE, dice.choice([1, 512, BLOCK]))
            length = min(SIZE - offset, dice.choice([1, 4096, BLOCK, 3 * BLOCK, 20 * BLOCK]))
            data = bytes(length) if dice.random() < 0.2 else dice.randbytes(length)
            model[offset : offset + length] = data
            (base.write if dice.random() < 0.3 else base.fill)(Extent(offset, memoryview(data)))
            if dice.random() < 0.1:
                base.settle(0, SIZE)
        base.settle(0, SIZE)
        base.sync()
    with opened(tmp_path) as base:
        assert base.read_verified(0, SIZE) == bytes(model)


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "buffered"])
@pytest.mark.parametrize("seed", range(2))
def test_two_threads_may_fill_other_blocks_while_a_third_one_settles(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, direct: bool, seed: int
) -> None:
    """What a master target does. The first round leaves entries behind that the second one has to replace."""
    if not direct:
        refuse_direct(monkeypatch)
    dice, size = random.Random(seed), 400 * BLOCK + 5000
    BaseImage.make(tmp_path / "image", tmp_path / "sums", size)
    model = bytearray(size)
    for _ in range(2):
        base = BaseImage(tmp_path / "image", tmp_path / "sums", size, writable=True)
        with closing(base), ThreadPoolExecutor(2) as fillers, ThreadPoolExecutor(1) as settler:
            at = settled = 0
            while at < size:
                filling = []
                for _ in range(20):
                    length = min(size - at, dice.choice([1, 2, 16]) * BLOCK)
                    if length and dice.random() < 0.8:
                        data = bytes(length) if dice.random() < 0.3 else dice.randbytes(length)
                        model[at : at + length] = data
                        filling.append(fillers.submit(base.fill, Extent(at, data)))
                    at += length
                for one in filling:
                    one.result()
                settler.submit(base.settle, settled, at - settled)
                settled = at
        with opened(tmp_path, size) as base:
            assert base.read_verified(0, size) == bytes(model)


def test_what_was_filled_is_found_damaged_when_it_changes(tmp_path: Path) -> None:
    BaseImage.make(tmp_path / "image", tmp_path / "sums", SIZE)
    with opened(tmp_path) as base:
        base.fill(Extent(0, memoryview(random.Random(1).randbytes(2 * MIB))))
        base.settle(0, 2 * MIB)
        with (tmp_path / "image").open("r+b") as image:
            image.seek(BLOCK + 7)
            image.write(b"!")
        with pytest.raises(files.LeewardError, match=str(BLOCK)):
            base.read_verified(0, 2 * MIB)


def test_where_the_file_system_refuses_there_is_no_direct_writing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    refuse_direct(monkeypatch)
    assert files.open_direct(tmp_path / "image") is None


def test_settling_a_huge_disk_takes_no_memory_for_each_of_its_blocks(tmp_path: Path) -> None:
    size = 16 << 30
    BaseImage.make(tmp_path / "image", tmp_path / "sums", size)
    base = BaseImage(tmp_path / "image", tmp_path / "sums", size, writable=True)
    try:
        base.fill(Extent(5 * BLOCK, memoryview(random.Random(1).randbytes(MIB))))
        tracemalloc.start()
        base.settle(0, size)
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB
        assert base.read_verified(5 * BLOCK, MIB) == random.Random(1).randbytes(MIB)
    finally:
        tracemalloc.stop()
        base.close()
