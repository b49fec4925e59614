"""How a master target fills a base from two threads: a later frame wins, and after an error nothing counts any more."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from replication.checksums import BLOCK
from replication.frames import Frame, FrameEncoder, plain_of
from replication.local import LocalReplicaStore
from replication.ports import Extent
from replication.transport.filling import Filling, Unpack
from vault.domain import ConsistencyKind, Disk
from vault.errors import Damaged, NoSpace

pytestmark = pytest.mark.unit

DISK = Disk(name="os", size=8 * BLOCK)
OVERTAKES_WITHIN_S = 0.2


def frame_of(*extents: Extent) -> Frame:
    frames: list[Frame] = []
    with closing(FrameEncoder(frames.append)) as encoder:
        for extent in extents:
            encoder.add(extent)
        encoder.flush()
    (frame,) = frames
    return frame


def unpacking(frame: Frame) -> Unpack:
    return lambda: plain_of(frame, lambda what, _: Damaged(what))


def blocks(first: int, count: int, seed: int) -> Extent:
    return Extent(first * BLOCK, random.Random(seed).randbytes(count * BLOCK))


@pytest.fixture
def store(tmp_path: Path) -> LocalReplicaStore:
    store = LocalReplicaStore(tmp_path / "replica", machine="db")
    store.create([DISK], "e")
    return store


@contextmanager
def filling(store: LocalReplicaStore) -> Iterator[Filling]:
    with store.lock(), closing(Filling(store)) as fills:
        yield fills


def completed(store: LocalReplicaStore) -> bytes:
    store.complete_seed(datetime(2026, 1, 1, tzinfo=UTC), ConsistencyKind.CRASH)
    with closing(store.view("os")) as view:
        return view.read(0, DISK.size)


@pytest.mark.parametrize(
    "later",
    [
        blocks(3, 1, 2),
        Extent(2 * BLOCK, bytes(BLOCK)),
        Extent(3 * BLOCK + 512, b"a part of a block"),
        Extent(0, bytes(DISK.size)),
    ],
    ids=["a block", "zeros", "a part of a block", "zeros over all"],
)
def test_of_two_frames_with_the_same_block_the_later_one_wins(store: LocalReplicaStore, later: Extent) -> None:
    earlier, overtaken = blocks(2, 2, 1), threading.Event()
    first, second = frame_of(earlier), frame_of(later)

    def held_up() -> bytes | memoryview:
        if overtaken.wait(OVERTAKES_WITHIN_S):
            time.sleep(OVERTAKES_WITHIN_S)
        return unpacking(first)()

    def overtaking() -> bytes | memoryview:
        overtaken.set()
        return unpacking(second)()

    with filling(store) as fills:
        fills.add("os", first, held_up)
        fills.add("os", second, overtaking)
        fills.checkpoint("os", DISK.size)
        fills.settle()
    expected = bytearray(DISK.size)
    for extent in (earlier, later):
        expected[extent.offset : extent.offset + len(extent.data)] = extent.data
    assert completed(store) == expected


def test_frames_of_other_blocks_and_disks_do_not_wait_for_each_other(tmp_path: Path) -> None:
    store = LocalReplicaStore(tmp_path / "replica", machine="db")
    store.create([DISK, Disk(name="data", size=DISK.size)], "e")
    meet = threading.Barrier(2, timeout=10)

    def meeting(frame: Frame) -> Unpack:
        def unpack() -> bytes | memoryview:
            meet.wait()
            return unpacking(frame)()

        return unpack

    with filling(store) as fills:
        for disk, number in (("os", 4), ("os", 5), ("data", 0), ("os", 6)):
            frame = frame_of(blocks(number, 1, number))
            fills.add(disk, frame, meeting(frame))
        fills.settle()


def test_after_a_frame_that_failed_no_checkpoint_counts(tmp_path: Path) -> None:
    """Whatever its sender asks then: the blocks of that frame are not there."""
    full = [True]

    def reserve(_: int) -> None:
        if full and full.pop():
            raise NoSpace("the disk was full for a moment")

    store = LocalReplicaStore(tmp_path / "replica", machine="db", reserve=reserve)
    store.create([DISK], "e")
    with filling(store) as fills:
        for number in range(3):
            frame = frame_of(blocks(number, 1, number))
            fills.add("os", frame, unpacking(frame))
        for _ in range(3):
            with pytest.raises(NoSpace):
                fills.settle()
        with pytest.raises(NoSpace):
            fills.checkpoint("os", DISK.size)
        with pytest.raises(NoSpace):
            fills.add("os", frame, unpacking(frame))
    assert store.state().seeded_bytes == {"os": 0}


def test_after_a_checkpoint_that_failed_no_other_one_counts(
    store: LocalReplicaStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a file system could not write once is not there because it says nothing the second time."""
    settling = store.settling

    def fails() -> None:
        raise NoSpace("the disk was full for a moment")

    with filling(store) as fills:
        monkeypatch.setattr(store, "settling", lambda *_: fails)
        fills.checkpoint("os", BLOCK)
        with pytest.raises(NoSpace):
            fills.settle()
        monkeypatch.setattr(store, "settling", settling)
        with pytest.raises(NoSpace):
            fills.checkpoint("os", DISK.size)
        with pytest.raises(NoSpace):
            fills.settle()
    assert store.state().seeded_bytes == {"os": 0}
