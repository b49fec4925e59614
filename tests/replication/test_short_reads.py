"""A disk that gives fewer bytes than were asked for, as after its file was cut short, becomes no recovery point."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from model_source import ModelSource

from replication import stream
from replication.bitmap import BitmapChangeSource
from replication.blockmap import MapCut, MapState
from replication.checksums import BLOCK
from replication.compare import compare
from replication.local import LocalReplicaStore
from replication.ports import BlockReader
from replication.seeding import export_seed
from replication.view import copy_sparse
from vault.domain import Disk, Progress
from vault.errors import Damaged

pytestmark = pytest.mark.unit

SIZE = 6 * BLOCK


def quiet(_: Progress) -> None: ...


class CutShort:
    """A disk of :data:`SIZE` bytes whose file ends in its fourth block."""

    size = SIZE

    def read(self, offset: int, length: int) -> bytes:
        return b"x" * max(0, min(length, 3 * BLOCK + 5 - offset))

    def allocated(self) -> Iterator[tuple[int, int]]:
        yield 0, SIZE

    def close(self) -> None: ...


class FewChecksums:
    def allocated(self) -> Iterator[tuple[int, int]]:
        yield 0, SIZE

    def checksums(self, offset: int, length: int, block: int) -> list[bytes]:
        return [b""] * (length // block - 1)

    def close(self) -> None: ...


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> ModelSource:
    found = ModelSource({"os": SIZE})

    def open_snapshot(_: str) -> BlockReader:
        return CutShort()

    monkeypatch.setattr(found, "open_snapshot", open_snapshot)
    return found


def test_it_is_no_seed(source: ModelSource, tmp_path: Path) -> None:
    store = LocalReplicaStore(tmp_path / "replica", machine="db")
    store.create(source.disks(), source.start_tracking())
    with pytest.raises(Damaged, match="bytes at 0 were asked for"):
        stream.copy_initial(source, store, quiet)
    assert not store.state().seeded


def test_it_is_no_medium(source: ModelSource, tmp_path: Path) -> None:
    with pytest.raises(Damaged, match="bytes at 0 were asked for"):
        export_seed(source, None, tmp_path / "medium", quiet, machine="db", site="east")


def test_it_is_no_delta() -> None:
    cut = MapCut(1, 1, "frozen", 0, "crash-consistent")

    class Device:
        def __getattr__(self, name: str) -> Any:
            return {
                "disks": lambda: [Disk(name="os", size=SIZE)],
                "load": lambda: MapState(epoch="e", active=True, cuts=(cut,), snapshots=("frozen",)),
                "changed": lambda *_: iter([(2 * BLOCK, 3 * BLOCK)]),
                "open_frozen": lambda *_: CutShort(),
            }[name]

    source = BitmapChangeSource(Device())
    with pytest.raises(Damaged, match=f"bytes at {2 * BLOCK} were asked for"):
        list(source.extents(source.pending()[0], "os"))


def test_it_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(Damaged, match="bytes at 0 were asked for"):
        copy_sparse(CutShort(), tmp_path / "image", lambda *_: None)


def test_blocks_without_a_checksum_are_not_taken_for_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = CutShort()
    monkeypatch.setattr(whole, "read", lambda offset, length: b"x" * length)
    with closing(whole), pytest.raises(Damaged, match="5 checksums came for 6 blocks"):
        list(compare(whole, FewChecksums(), SIZE))
