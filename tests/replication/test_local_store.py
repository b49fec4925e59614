from __future__ import annotations

import errno
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import Mock

import pytest
from model_source import ModelSource
from power import Power, PowerCut

from replication import files, layout, manifest, merging, scrubbing, stream
from replication.checksums import BLOCK
from replication.local import LocalReplicaStore
from replication.ports import Extent
from replication.segment_reader import SegmentReader
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

    def __init__(self, root: Path, points: int, sizes: dict[str, int] = SIZES, writes: int = 20) -> None:
        self.rng = random.Random(7)
        self.sizes = sizes
        self.source = ModelSource(sizes)
        self.root = root / "replica"
        self.out = root / "out"
        self.store = LocalReplicaStore(self.root, machine="db")
        self.write(writes)
        self.store.create(self.source.disks(), self.source.start_tracking())
        stream.copy_initial(self.source, self.store, quiet)
        for _ in range(points - 2):
            self.write(3)
            stream.replicate_cut(self.source, self.store, CRASH, quiet)

    def write(self, times: int) -> None:
        for _ in range(times):
            disk = self.rng.choice(list(self.sizes))
            length = self.rng.randrange(1, 20_000)
            data = bytes(length) if self.rng.random() < 0.2 else self.rng.randbytes(length)
            self.source.write(disk, self.rng.randrange(self.sizes[disk] - length), data)

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


def test_what_is_written_after_images_were_adopted_goes_into_them(tmp_path: Path) -> None:
    image, disk = tmp_path / "disk.img", Disk(name="os", size=2 * 65536)
    image.write_bytes(b"i" * disk.size)
    store = LocalReplicaStore(tmp_path / "replica", machine="db")
    with store.lock():
        store.create([disk], "e")
        store.write_base("os", Extent(0, b"x" * 65536))
        store.adopt({"os": image}, [disk], "e2")
        store.write_base("os", Extent(0, b"y" * 65536))
        store.checkpoint_base("os", disk.size)
        store.complete_seed(T0, CRASH)
    with closing(store.view("os")) as view:
        assert view.read(0, disk.size) == b"y" * 65536 + b"i" * 65536


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


def test_a_disk_that_has_no_room_for_an_owner_s_name_keeps_neither_writer_nor_reader_out(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pruning is what makes room, and a full disk is when a recovery may be wanted."""
    real = os.pwrite

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        if b'"pid"' in bytes(data):
            raise OSError(errno.ENOSPC, "no space left on device")
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    oldest, newest = pair.points()[0], pair.points()[-1]
    with closing(pair.store.view("os", oldest)) as view:
        assert view.read(0, 100) == pair.source.moments[oldest.time]["os"][:100]
        assert oldest.id not in pair.store.prune(KEEP_ONE, T0)
    with (
        pair.store.lock("a long transfer"),
        pytest.raises(Busy, match="an unknown owner"),
        LocalReplicaStore(pair.root, machine="db").lock(),
    ):
        pass
    pair.store.prune(KEEP_ONE, T0)
    assert pair.points() == [newest]


def test_blocks_that_the_file_system_failed_to_write_are_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It tells so once, when they are synced; from then on its cache may show them as if they were there."""
    source, store = ModelSource({"os": 4 * 65536}), LocalReplicaStore(tmp_path / "replica", machine="db")
    source.write("os", 65536, b"x" * 65536)
    store.create(source.disks(), source.start_tracking())
    real, told = os.fsync, False

    def fsync(fd: int) -> None:
        nonlocal told
        if os.fstat(fd).st_size == 4 * 65536 and not told:
            told = True
            raise OSError(errno.EIO, "input/output error")
        real(fd)

    def forget(fd: int, *_: int) -> None:
        os.truncate(f"/proc/self/fd/{fd}", 0)
        os.truncate(f"/proc/self/fd/{fd}", 4 * 65536)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "posix_fadvise", forget)
    with pytest.raises(Recoverable, match="input/output error"):
        stream.copy_initial(source, store, quiet)
    assert not any((tmp_path / "replica" / "base-os.raw").read_bytes()), "what is read is what the disk has"
    point = stream.copy_initial(source, store, quiet)
    with closing(store.view("os")) as view:
        assert view.read(0, view.size) == source.moments[point.time]["os"]


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


def flip(path: Path, position: int) -> None:
    broken = bytearray(path.read_bytes())
    broken[position] ^= 1
    path.write_bytes(broken)


def prune_to_one(pair: Pair) -> bool:
    """Whether damage was found."""
    try:
        pair.store.prune(KEEP_ONE, T0)
    except Damaged:
        return True
    return False


def never_wrong(pair: Pair) -> int:
    """How many points have damage; what is read is right, or it is an error."""
    damaged = 0
    for point in pair.points():
        try:
            for path in pair.store.materialise(point, pair.out, quiet):
                assert path.read_bytes() == pair.source.moments[point.time][path.stem], point
        except Damaged:
            damaged += 1
    return damaged


def heal(pair: Pair) -> None:
    """A resynchronization, and pruning to what it has made."""
    stream.resynchronize(pair.source, pair.store, quiet)
    assert not prune_to_one(pair)
    pair.check_every_point()
    pair.write(3)
    stream.replicate_cut(pair.source, pair.store, CRASH, quiet)
    assert not prune_to_one(pair)
    pair.check_every_point()


@pytest.mark.parametrize("crash", ["", "begun", "ending"])
def test_rot_beside_what_is_merged_is_found_once_and_never_taken_for_good(
    pair: Pair, crash: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A delta overwrites a part of a block of the base image; another part of it has rotted."""
    prune_to_one(pair)
    pair.source.write("os", 5 * 4096, b"new" * 100)
    stream.replicate_cut(pair.source, pair.store, CRASH, quiet)
    flip(pair.root / "base-os.raw", 9 * 4096)
    if crash:
        real, saved = manifest.save, []

        def save(path: Path, known: manifest.Manifest) -> None:
            saved.append(known)
            if len(saved) == 3:  # the points are dropped, the merge has begun; this would be its end
                raise KeyboardInterrupt
            real(path, known)
            if known.merging and crash == "begun":
                raise KeyboardInterrupt

        monkeypatch.setattr(manifest, "save", save)
        with pytest.raises(KeyboardInterrupt):
            pair.store.prune(KEEP_ONE, T0)
        monkeypatch.undo()
        assert never_wrong(pair) == 1
    assert prune_to_one(pair), "it is told when it is found, at the latest by whoever repeats the merge"
    assert never_wrong(pair) == 1
    pair.source.write("os", 5 * 4096, b"newer" * 100)
    stream.replicate_cut(pair.source, pair.store, CRASH, quiet)
    assert not prune_to_one(pair), "retention goes on, and what is known is not told again"
    assert never_wrong(pair) == 1
    heal(pair)


@pytest.mark.parametrize("keep_only", [False, True])
def test_rot_beside_what_comes_after_an_interrupted_merge_is_found_too(
    pair: Pair, keep_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the blocks of the layers that it had begun with are between two states."""
    prune_to_one(pair)
    pair.source.write("os", 5 * 4096, b"new" * 100)
    stream.replicate_cut(pair.source, pair.store, CRASH, quiet)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(merging.Merge, "finish", Mock(side_effect=KeyboardInterrupt))
        pair.store.prune(KEEP_ONE, T0)
    flip(pair.root / "base-os.raw", BLOCK + 9 * 4096)
    pair.source.write("os", BLOCK + 5 * 4096, b"new" * 100)
    stream.replicate_cut(pair.source, pair.store, CRASH, quiet)
    with closing(pair.store.view("os")):
        assert pair.store.prune(KEEP_ONE, T0) == [], "what was begun comes first, and somebody reads"
    with pytest.raises(Damaged):
        if keep_only:
            pair.store.keep_only(pair.points()[-1])
        else:
            pair.store.prune(KEEP_ONE, T0)
    assert never_wrong(pair) == 1
    heal(pair)


@contextmanager
def few_more_files(count: int) -> Iterator[None]:
    """This process may open at most so many more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.close(lowest := os.open("/dev/null", os.O_RDONLY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_replica_may_have_more_layers_than_a_process_may_open_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day of points, one every 30 s, are 2880; many a system lets a process open 1024 files."""
    monkeypatch.setattr(layout, "OPEN_OF_A_VIEW", 4)
    pair = Pair(tmp_path, 2, {"os": 300_000}, writes=5)
    for _ in range(120):
        pair.write(1)
        stream.replicate_cut(pair.source, pair.store, CRASH, quiet)
    newest, real, decoded = pair.points()[-1], SegmentReader.read_frame, []

    def read_frame(reader: SegmentReader, number: int) -> bytes | memoryview:
        decoded.append((reader.path, number))
        return real(reader, number)

    monkeypatch.setattr(SegmentReader, "read_frame", read_frame)
    with few_more_files(100):
        (image,) = pair.store.materialise(newest, pair.out, quiet)
        assert image.read_bytes() == pair.source.images["os"]
        assert len(decoded) == len(set(decoded)), "however many extents a frame has"
        with closing(pair.store.view("os")) as view:
            assert view.read(0, view.size) == pair.source.images["os"]
        stream.resynchronize(pair.source, pair.store, quiet)
        prune_to_one(pair)
    pair.check_every_point()


@pytest.mark.parametrize("rots", [False, True])
def test_rot_between_a_crash_at_any_effect_of_a_merge_and_its_repeat_is_found(tmp_path: Path, rots: bool) -> None:
    """Two layers that each overwrite a part of the same block of the base; what rots is beside both of them."""
    pair = Pair(tmp_path, 2)
    prune_to_one(pair)
    for offset in (5 * 4096, 20_000, BLOCK + 512):
        pair.source.write("os", offset, pair.rng.randbytes(3000))
        stream.replicate_cut(pair.source, pair.store, CRASH, quiet)
    whole = tmp_path / "whole"
    pair.root.rename(whole)
    for cut_at in range(1, 1000):
        shutil.rmtree(pair.root, ignore_errors=True)
        shutil.copytree(whole, pair.root)
        stash = tmp_path / f"stash-{cut_at}"
        stash.mkdir()
        try:
            with Power(stash, pair.rng, cut_at).on():
                pair.store.prune(KEEP_ONE, T0)
        except PowerCut:
            pass
        else:
            break
        if not rots:
            assert never_wrong(pair) == 0
            assert not prune_to_one(pair), cut_at
            pair.check_every_point()
            continue
        flip(pair.root / "base-os.raw", 9 * 4096)
        assert never_wrong(pair) == len(pair.points()), cut_at
        merged = not manifest.load(pair.root / "manifest.json").layers
        assert prune_to_one(pair) or merged, cut_at
        assert never_wrong(pair) == 1, cut_at
    assert cut_at > 20
    heal(pair)


def test_a_merge_that_an_earlier_version_began_is_ended_though_it_kept_no_rests(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    prune_to_one(pair)
    pair.source.write("os", 5 * 4096, pair.rng.randbytes(300))
    stream.replicate_cut(pair.source, pair.store, CRASH, quiet)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(merging, "keep_rests", Mock(return_value=None))
        patched.setattr(merging, "enter", Mock(side_effect=KeyboardInterrupt))
        pair.store.prune(KEEP_ONE, T0)
    path = pair.root / "manifest.json"
    body = manifest.open_document(path.read_bytes(), "")
    assert body["merging"]
    del body["rests_known"]
    path.write_bytes(manifest.seal_document(body))
    assert never_wrong(pair) == 0
    assert not prune_to_one(pair)
    pair.check_every_point()


@pytest.mark.parametrize("which", [-3, -2, -1])
def test_a_damaged_block_of_a_segment_stops_retention_once_and_is_never_taken_for_good(pair: Pair, which: int) -> None:
    for offset in (0, 30_000, 10_000):
        pair.source.write("os", offset, pair.rng.randbytes(15_000))
        stream.replicate_cut(pair.source, pair.store, CRASH, quiet)
    segment = sorted((pair.root / "segments").glob("*-os.seg"))[which]
    with closing(SegmentReader(segment)) as reader:
        offset, length, *_ = reader._frames[-1]
    flip(segment, offset + length - 1)
    assert never_wrong(pair) == -which
    assert prune_to_one(pair)
    assert never_wrong(pair) <= 1
    assert not prune_to_one(pair), "retention goes on"
    heal(pair)


def test_flipped_bytes_of_a_waiting_segment_are_found_by_reading_it_again(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long before it is merged, or a recovery wants it; once a resynchronization has replaced it nothing is told."""
    keep_all = Retention(count=100, hours=1000)
    monkeypatch.setattr(scrubbing, "SHARE", 1.0)
    pair.source.write("os", 30_000, pair.rng.randbytes(15_000))
    stream.replicate_cut(pair.source, pair.store, CRASH, quiet)
    pair.store.prune(keep_all, T0)
    segment = sorted((pair.root / "segments").glob("*-os.seg"))[-1]
    with closing(SegmentReader(segment)) as reader:
        offset, length, *_ = reader._frames[-1]
    flip(segment, offset + length - 1)
    pair.source.write("os", 100_000, b"elsewhere")
    stream.replicate_cut(pair.source, pair.store, CRASH, quiet)
    before = pair.points()
    monkeypatch.setattr(scrubbing, "SHARE", 0.0)
    pair.store.prune(keep_all, T0)
    monkeypatch.setattr(scrubbing, "SHARE", 1.0)
    with pytest.raises(Damaged, match="resynchronize the machine"):
        pair.store.prune(keep_all, T0)
    assert pair.points() == before
    stream.resynchronize(pair.source, pair.store, quiet)
    pair.store.prune(keep_all, T0)
    assert never_wrong(pair) == 2, "the points between damage and resynchronization"
    segment.unlink()
    with pytest.raises(Damaged, match="missing"):
        pair.store.prune(keep_all, T0)


@pytest.mark.parametrize("zeroed", [False, True])
def test_what_was_lost_before_it_ever_came_into_the_base_is_no_hole(tmp_path: Path, zeroed: bool) -> None:
    """The base holds nothing yet where the damaged changes belong: that must not read as zeros."""
    pair = Pair(tmp_path, 0, {"os": 20 * 65536, "data": 65536}, writes=0)
    pair.source.write("os", 8 * 65536, pair.rng.randbytes(65536))
    stream.replicate_cut(pair.source, pair.store, CRASH, quiet)
    segment = pair.root / "segments" / "0000000003-os.seg"
    with closing(SegmentReader(segment)) as reader:
        offset, length, *_ = reader._frames[-1]
    flip(segment, offset + length - 1)
    assert prune_to_one(pair)
    assert never_wrong(pair) == 1
    if zeroed:
        pair.source.write("os", 8 * 65536, bytes(65536))
    heal(pair)


def test_a_segment_that_cannot_be_opened_changes_nothing_and_gives_way_to_a_resynchronization(pair: Pair) -> None:
    prune_to_one(pair)
    for _ in range(3):
        pair.write(3)
        stream.replicate_cut(pair.source, pair.store, CRASH, quiet)
    flip(sorted((pair.root / "segments").glob("*-os.seg"))[1], 3)
    before = pair.points()
    assert prune_to_one(pair)
    assert prune_to_one(pair)
    assert pair.points() == before, "points before the damage are not given up for points that cannot be read"
    heal(pair)


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


def test_a_replica_whose_manifest_is_damaged_can_be_removed_as_its_error_says(pair: Pair) -> None:
    path = pair.root / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b"epoch-1", b"epoch-2"))
    before = {found: found.read_bytes() for found in pair.root.rglob("*") if found.suffix in (".raw", ".seg", ".json")}
    for change in (
        lambda: pair.store.prune(KEEP_ONE, pair.source.now()),
        lambda: pair.store.create(pair.source.disks(), "e"),
        lambda: pair.store.adopt({}, pair.source.disks(), "e"),
        lambda: pair.store.begin_seed(None),
        lambda: stream.replicate_cut(pair.source, pair.store, CRASH, quiet),
        lambda: stream.resynchronize(pair.source, pair.store, quiet),
    ):
        with pytest.raises(Damaged, match="does not match its checksum") as found:
            change()
        assert "disable the machine's protection" in found.value.remedy
        assert {path: path.read_bytes() for path in before} == before
    pair.store.remove()
    assert not pair.root.exists()


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
