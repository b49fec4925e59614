from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from model_source import ModelSource

from replication import files, stream
from replication.local import LocalReplicaStore
from replication.ports import Extent
from vault.domain import ConsistencyKind, Disk, Progress, RecoveryPoint, Retention
from vault.errors import (
    BadInput,
    Busy,
    Damaged,
    InvalidState,
    NoSpace,
    NotFound,
    Recoverable,
    ResynchronizationRequired,
)

pytestmark = pytest.mark.unit

CRASH = ConsistencyKind.CRASH
T0 = datetime(2026, 1, 1, tzinfo=UTC)
SIZES = {"os": 300_000, "data": 200_000}
DISKS = [Disk(name=name, size=size) for name, size in SIZES.items()]
KEEP_ONE = Retention(count=1, hours=1000)


def quiet(_: Progress) -> None: ...


class Pair:
    """A model source and a local store with ``points`` recovery points."""

    def __init__(self, root: Path, points: int) -> None:
        self.rng = random.Random(7)
        self.source = ModelSource(SIZES)
        self.root = root / "replica"
        self.out = root / "out"
        self.store = LocalReplicaStore(self.root, machine="db")
        self.write(20)
        self.store.create(self.source.disks(), self.source.start_tracking())
        stream.copy_initial(self.source, self.store, quiet)
        for _ in range(points - 2):
            self.write(3)
            stream.replicate_cut(self.source, self.store, CRASH, quiet)

    def write(self, times: int) -> None:
        for _ in range(times):
            disk = self.rng.choice(list(SIZES))
            length = self.rng.randrange(1, 20_000)
            data = bytes(length) if self.rng.random() < 0.2 else self.rng.randbytes(length)
            self.source.write(disk, self.rng.randrange(SIZES[disk] - length), data)

    def points(self) -> list[RecoveryPoint]:
        return self.store.state().points

    def check_every_point(self) -> None:
        for point in self.points():
            for path in self.store.materialise(point, self.out, quiet):
                assert path.read_bytes() == self.source.moments[point.time][path.stem], point


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path, 5)


def test_every_point_can_be_materialised(pair: Pair) -> None:
    assert [point.sequence for point in pair.points()] == [1, 2, 3, 4, 5]
    assert len({point.id for point in pair.points()}) == 5
    pair.check_every_point()
    assert sorted(path.name for path in pair.out.iterdir()) == ["data.raw", "os.raw"]
    assert pair.store.resolve("latest") == pair.points()[-1]


def test_pruning_merges_the_oldest_and_skips_points_in_use(pair: Pair) -> None:
    p1, p2, p3, p4, p5 = pair.points()
    dropped = pair.store.prune(KEEP_ONE, pair.source.now(), in_use=frozenset({p2.id, p4.id}))
    assert dropped == [p1.id, p3.id]
    assert pair.points() == [p2, p4, p5]
    assert len(list((pair.root / "segments").iterdir())) == 2 * 3
    pair.check_every_point()
    assert pair.store.prune(KEEP_ONE, pair.source.now()) == [p2.id, p4.id]
    assert list((pair.root / "segments").iterdir()) == []
    pair.check_every_point()
    pair.write(3)
    stream.replicate_cut(pair.source, pair.store, CRASH, quiet)
    pair.check_every_point()


def test_an_open_reader_postpones_the_merge_and_sees_its_point_unchanged(pair: Pair) -> None:
    oldest = pair.points()[0]
    reader = pair.store.view("os", oldest)
    pair.store.prune(KEEP_ONE, pair.source.now())
    assert reader.read(0, SIZES["os"]) == pair.source.moments[oldest.time]["os"]
    with pytest.raises(Busy):
        pair.store.keep_only(pair.points()[0])
    reader.close()
    assert list((pair.root / "segments").iterdir()) != []
    pair.store.prune(KEEP_ONE, pair.source.now())
    assert list((pair.root / "segments").iterdir()) == []
    pair.check_every_point()
    with pytest.raises(NotFound):
        pair.store.view("os", oldest)


def test_commit_to_an_older_point_ends_the_deltas(pair: Pair) -> None:
    chosen = pair.points()[2]
    pair.store.keep_only(chosen)
    pair.store.keep_only(chosen)
    assert pair.points() == [chosen]
    pair.check_every_point()
    with pytest.raises(ResynchronizationRequired):
        stream.replicate_cut(pair.source, pair.store, CRASH, quiet)
    stream.resynchronize(pair.source, pair.store, quiet)
    pair.check_every_point()


def test_commit_to_the_newest_point_lets_deltas_go_on(pair: Pair) -> None:
    pair.store.keep_only(pair.points()[-1])
    pair.write(3)
    stream.replicate_cut(pair.source, pair.store, CRASH, quiet)
    assert len(pair.points()) == 2
    pair.check_every_point()


def test_sealing_twice_gives_the_same_point_and_a_gap_is_refused(pair: Pair) -> None:
    last = pair.points()[-1]
    cut = pair.store.state().last_cut
    with pair.store.lock():
        assert pair.store.seal(cut, T0, CRASH) == last
        assert pair.store.seal(cut - 1, T0, CRASH) == pair.points()[-2]
        with pytest.raises(InvalidState, match="'os'"):
            pair.store.seal(cut + 1, T0, CRASH)
        for wrong in (cut, cut + 2, 0):
            with pytest.raises(ResynchronizationRequired):
                pair.store.open_segment("os", wrong)
    with pytest.raises(InvalidState, match="lock"):
        pair.store.open_segment("os", cut + 1)
    assert pair.points()[-1] == last


def test_a_second_writer_is_kept_out_and_told_who_writes(pair: Pair) -> None:
    other = LocalReplicaStore(pair.root, machine="db")
    errors: list[Exception] = []

    def in_another_thread() -> None:
        try:
            pair.store.prune(KEEP_ONE, T0)
        except Busy as error:
            errors.append(error)

    with pair.store.lock("a long transfer"):
        with pytest.raises(Busy, match=f'"pid": {os.getpid()}.*a long transfer') as caught:
            other.prune(KEEP_ONE, T0)
        thread = threading.Thread(target=in_another_thread)
        thread.start()
        thread.join()
        pair.store.prune(KEEP_ONE, T0)
    assert isinstance(caught.value, Recoverable)
    assert len(errors) == 1
    other.prune(KEEP_ONE, T0)


def test_the_lock_of_a_killed_writer_is_free(pair: Pair) -> None:
    script = (
        "import sys, time; from pathlib import Path; from replication.local import LocalReplicaStore\n"
        "with LocalReplicaStore(Path(sys.argv[1]), machine='db').lock('dying'):\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(pair.root)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(Busy, match="dying"):
            pair.store.prune(KEEP_ONE, T0)
        holder.kill()
        holder.wait()
        pair.store.prune(KEEP_ONE, T0)


def test_leftovers_of_a_crash_are_cleared_when_a_writer_comes(pair: Pair) -> None:
    kept = {path.name for path in (pair.root / "segments").iterdir()}
    (pair.root / "segments" / "0000000006-os.seg").write_bytes(b"staged, never sealed")
    (pair.root / "segments" / "0000000006-data.seg.part").write_bytes(b"half")
    (pair.root / "manifest.json.part").write_bytes(b"{")
    with pair.store.lock():
        assert {path.name for path in (pair.root / "segments").iterdir()} == kept
        assert not list(pair.root.glob("*.part"))


def test_seeding_rules(tmp_path: Path) -> None:
    store = LocalReplicaStore(tmp_path / "r", machine="db")
    assert not store.exists()
    with pytest.raises(NotFound, match="no replica"):
        store.state()
    store.create(DISKS, "one")
    store.begin_seed(T0)
    store.write_base("os", Extent(0, b"x" * 65536))
    store.checkpoint_base("os", 65536)
    store.create(DISKS, "one")
    assert store.state().seeded_bytes == {"os": 65536, "data": 0}
    with pytest.raises(InvalidState, match="65536 of 300000"):
        store.complete_seed(T0, CRASH)
    with pytest.raises(InvalidState, match="beyond the disk"):
        store.write_base("os", Extent(299_999, b"xy"))
    store.begin_seed(T0)
    assert store.state().seeded_bytes["os"] == 65536
    store.begin_seed(T0 + timedelta(seconds=1))
    assert store.state().seeded_bytes["os"] == 0
    store.checkpoint_base("os", 65536)
    store.create(DISKS, "two")
    assert store.state().seeded_bytes["os"] == 0
    assert store.state().seed_moment is None
    for disk in DISKS:
        store.checkpoint_base(disk.name, disk.size)
    point = store.complete_seed(T0, CRASH)
    assert store.complete_seed(T0, CRASH) == point
    reader = store.view("os")
    assert reader.read(65530, 10) == b"xxxxxx" + bytes(4)
    reader.close()
    with pytest.raises(InvalidState, match="complete"):
        store.create(DISKS, "three")
    with pytest.raises(InvalidState, match="complete"):
        store.write_base("os", Extent(0, b"x"))


def test_disks_that_changed_are_named_with_both_sizes(tmp_path: Path) -> None:
    store = LocalReplicaStore(tmp_path / "r", machine="db")
    store.create(DISKS, "one")
    with pytest.raises(InvalidState, match="'os' has 400000 bytes now, its replica has 300000"):
        store.create([Disk(name="os", size=400_000), DISKS[1]], "one")
    with pytest.raises(InvalidState, match="'data' is gone"):
        store.create(DISKS[:1], "one")
    with pytest.raises(InvalidState, match="'log' was added"):
        store.create([*DISKS, Disk(name="log", size=1)], "one")
    for bad in ("../x", "", "a/b", ".hidden"):
        with pytest.raises(BadInput):
            LocalReplicaStore(tmp_path / "other", machine="db").create([Disk(name=bad, size=1)], "one")


def test_the_old_source_is_adopted_by_moving_its_images(tmp_path: Path) -> None:
    image = tmp_path / "os.raw"
    image.write_bytes(b"old" * 100_000)
    store = LocalReplicaStore(tmp_path / "r", machine="db")
    with pytest.raises(InvalidState, match="300000 bytes now, its replica has 299999"):
        store.adopt({"os": image}, [Disk(name="os", size=299_999)], "e")
    assert image.exists()
    for _ in range(2):
        store.adopt({"os": image, "data": tmp_path / "lost.raw"}, DISKS, "e")
        assert not image.exists()
        assert not store.state().seeded
    sums = store.open_checksums("os")
    assert sums.checksums(0, 10, 10) != sums.checksums(290_000, 10, 10)
    sums.close()
    assert (tmp_path / "r" / "base-os.raw").read_bytes() == b"old" * 100_000
    assert (tmp_path / "r" / "base-data.raw").stat().st_size == SIZES["data"]


def test_images_of_another_file_system_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = files.rename

    def across(source: Path, target: Path) -> None:
        if source.parent != target.parent:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        real(source, target)

    monkeypatch.setattr(files, "rename", across)
    image = tmp_path / "os.raw"
    image.write_bytes(b"old" * 100_000)
    LocalReplicaStore(tmp_path / "r", machine="db").adopt({"os": image}, DISKS, "e")
    assert not image.exists()
    assert (tmp_path / "r" / "base-os.raw").read_bytes() == b"old" * 100_000


def test_remove_leaves_nothing_and_may_be_repeated(pair: Pair) -> None:
    pair.store.remove()
    pair.store.remove()
    assert not pair.root.exists()
    pair.store.create(DISKS, "again")
    assert pair.store.state().epoch == "again"


def test_a_full_disk_loses_no_point(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    before = pair.points()
    pair.write(3)

    def full(fd: int, data: bytes, offset: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(files, "write_at", full)
        with pytest.raises(NoSpace, match="free space"):
            stream.replicate_cut(pair.source, pair.store, CRASH, quiet)
    assert pair.points() == before
    stream.replicate_cut(pair.source, pair.store, CRASH, quiet)
    pair.check_every_point()


def test_the_reservation_is_asked_before_anything_is_stored(tmp_path: Path) -> None:
    asked: list[int] = []

    def reserve(length: int) -> None:
        asked.append(length)
        raise NoSpace("the site is full")

    store = LocalReplicaStore(tmp_path / "r", machine="db", reserve=reserve)
    store.create(DISKS, "e")
    store.write_base("os", Extent(0, bytes(4096)))
    assert asked == []
    with pytest.raises(NoSpace):
        store.write_base("os", Extent(0, b"x" * 4096))
    assert asked == [4096]
    assert (tmp_path / "r" / "base-os.raw").stat().st_blocks == 0


@pytest.mark.parametrize("name", ["manifest.json", "base-os.raw", "base-os.sums", "segments/0000000002-os.seg"])
def test_a_flipped_bit_in_any_file_is_found_before_it_is_used(pair: Pair, name: str) -> None:
    path = pair.root / name
    sound = path.read_bytes()
    held = [at for at, byte in enumerate(sound) if byte]
    for position in pair.rng.sample(held, 40):
        broken = bytearray(sound)
        broken[position] ^= 1 << pair.rng.randrange(8)
        path.write_bytes(broken)
        with pytest.raises((Damaged, InvalidState)):
            for point in pair.points():
                for image in pair.store.materialise(point, pair.out, quiet):
                    assert image.read_bytes() == pair.source.moments[point.time][image.stem]
            raise AssertionError(f"byte {position} of {name} was flipped and nobody noticed")
    path.write_bytes(sound)
    pair.check_every_point()


def test_a_missing_or_exchanged_segment_is_damage(pair: Pair) -> None:
    second, third = (pair.root / "segments" / f"{number:010d}-os.seg" for number in (3, 4))
    sound = third.read_bytes()
    third.write_bytes(second.read_bytes())
    with pytest.raises(Damaged, match="another segment"):
        pair.store.view("os")
    third.unlink()
    with pytest.raises(Damaged, match="missing"):
        pair.store.view("os")
    third.write_bytes(sound)
    pair.check_every_point()


def test_a_newer_manifest_is_not_called_damage(pair: Pair) -> None:
    path = pair.root / "manifest.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "version": 2}))
    with pytest.raises(InvalidState, match="version 2"):
        pair.store.state()


def test_images_are_sparse_and_unfinished_ones_are_recognisable(tmp_path: Path) -> None:
    store = LocalReplicaStore(tmp_path / "r", machine="db")
    store.create([Disk(name="big", size=8 << 30)], "e")
    store.write_base("big", Extent(4 << 30, b"x" * 4096))
    store.checkpoint_base("big", 8 << 30)
    point = store.complete_seed(T0, CRASH)

    def stop(progress: Progress) -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        store.materialise(point, tmp_path / "out", stop)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["big.raw.part"]
    (image,) = store.materialise(point, tmp_path / "out", quiet)
    assert (image.stat().st_size, image.stat().st_blocks * 512) == (8 << 30, 4096)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["big.raw"]
    assert store.state().stored_bytes < 100_000
