from __future__ import annotations

import random
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from model_source import MemoryReader, ModelSource

from replication import stream
from replication.checksums import BLOCK
from replication.local import LocalReplicaStore
from replication.pipeline import WINDOW, read_ahead
from replication.ports import BlockReader, Cut, Extent
from vault.domain import ConsistencyKind, Disk, Progress, Retention
from vault.errors import Busy, InvalidState, ResynchronizationRequired, Unreachable

pytestmark = pytest.mark.unit

CRASH = ConsistencyKind.CRASH


def quiet(_: Progress) -> None: ...


class Setup:
    def __init__(self, folder: Path, sizes: dict[str, int]) -> None:
        self.rng = random.Random(11)
        self.source = ModelSource(sizes)
        self.folder = folder
        self.store = LocalReplicaStore(folder / "replica", machine="db")

    def enable(self) -> None:
        self.store.create(self.source.disks(), self.source.start_tracking())

    def noise(self, disk: str, offset: int, length: int) -> None:
        self.source.write(disk, offset, self.rng.randbytes(length))

    def latest(self, disk: str) -> bytes:
        reader = self.store.view(disk)
        try:
            return reader.read(0, reader.size)
        finally:
            reader.close()

    def check(self) -> None:
        for point in self.store.state().points:
            for path in self.store.materialise(point, self.folder / "out", quiet):
                assert path.read_bytes() == self.source.moments[point.time][path.stem]


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(tmp_path, {"os": 40 * BLOCK, "data": 10 * BLOCK + 512})


@pytest.fixture
def protected(setup: Setup) -> Setup:
    setup.noise("os", 3 * BLOCK, 4 * BLOCK)
    setup.enable()
    stream.copy_initial(setup.source, setup.store, quiet)
    return setup


class Written:
    """Counts what reaches the base image."""

    def __init__(self, store: LocalReplicaStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.extents: list[tuple[str, int, int]] = []
        real = store.write_base

        def write_base(disk: str, extent: Extent) -> None:
            self.extents.append((disk, extent.offset, len(extent.data)))
            real(disk, extent)

        monkeypatch.setattr(store, "write_base", write_base)


def test_initial_replication_copies_what_is_there_and_then_what_changed(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup.noise("os", 3 * BLOCK, 4 * BLOCK)
    setup.noise("data", 10 * BLOCK, 512)
    setup.enable()
    written = Written(setup.store, monkeypatch)
    seen: list[Progress] = []

    def write_meanwhile(progress: Progress) -> None:
        if not seen:
            setup.source.write("os", 0, b"while the copy ran")
        seen.append(progress)

    point = stream.copy_initial(setup.source, setup.store, write_meanwhile)
    assert written.extents == [("os", 3 * BLOCK, 4 * BLOCK), ("data", 10 * BLOCK, 512)]
    assert [p.sequence for p in setup.store.state().points] == [1, 2]
    assert point.sequence == 2
    assert setup.latest("os").startswith(b"while the copy ran")
    assert "initial replication of os" in [progress.doing for progress in seen]
    whole = [progress for progress in seen if progress.doing.startswith("initial")][-1]
    assert (whole.bytes_done, whole.bytes_sent) == (whole.bytes_total, 4 * BLOCK + 512)
    setup.check()


def test_blocks_that_the_replica_has_are_not_sent_and_stale_ones_become_zeros(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    for offset in range(0, 40, 4):
        setup.noise("os", offset * BLOCK, BLOCK)
    old = setup.folder / "os.raw"
    image = bytearray(setup.source.images["os"])
    image[4 * BLOCK : 5 * BLOCK] = b"x" * BLOCK
    image[30 * BLOCK + 5] = 1
    old.write_bytes(image)
    setup.store.adopt({"os": old}, setup.source.disks(), "")
    setup.enable()
    written = Written(setup.store, monkeypatch)
    stream.copy_initial(setup.source, setup.store, quiet)
    assert written.extents == [("os", 4 * BLOCK, BLOCK), ("os", 30 * BLOCK, BLOCK)]
    base = (setup.folder / "replica" / "base-os.raw").stat()
    assert base.st_blocks * 512 == 39 * BLOCK
    setup.check()


class Stop(Exception):
    pass


def test_initial_replication_resumes_with_the_same_snapshot(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    setup.noise("os", 0, 40 * BLOCK)
    setup.noise("data", 0, 10 * BLOCK)
    setup.enable()
    written = Written(setup.store, monkeypatch)
    checkpoints = 0
    real = setup.store.checkpoint_base

    def checkpoint_base(disk: str, offset: int) -> None:
        nonlocal checkpoints
        real(disk, offset)
        checkpoints += 1
        if checkpoints == 2:
            raise Stop

    monkeypatch.setattr(setup.store, "checkpoint_base", checkpoint_base)
    with pytest.raises(Stop):
        stream.copy_initial(setup.source, setup.store, quiet, checkpoint_bytes=BLOCK)
    moment = setup.store.state().seed_moment
    assert setup.store.state().seeded_bytes == {"os": 32 * BLOCK, "data": 0}
    written.extents.clear()
    setup.noise("os", 0, BLOCK)
    stream.copy_initial(setup.source, setup.store, quiet, checkpoint_bytes=BLOCK)
    assert written.extents == [("os", 32 * BLOCK, 8 * BLOCK), ("data", 0, 10 * BLOCK)]
    assert setup.store.state().points[0].time == moment
    setup.check()


def test_a_lost_snapshot_starts_the_seed_again_so_that_no_point_mixes_moments(setup: Setup) -> None:
    setup.noise("os", 0, 40 * BLOCK)
    setup.enable()

    def stop(progress: Progress) -> None:
        if progress.doing.endswith("data"):
            raise Stop

    with pytest.raises(Stop):
        stream.copy_initial(setup.source, setup.store, stop)
    setup.source.delete_snapshot()
    setup.noise("os", 0, BLOCK)
    stream.copy_initial(setup.source, setup.store, quiet)
    setup.check()


def test_a_crash_just_after_a_second_snapshot_never_mixes_it_with_the_first(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup.noise("os", 0, 40 * BLOCK)
    setup.enable()

    def stop(progress: Progress) -> None:
        if progress.doing.endswith("data"):
            raise Stop

    with pytest.raises(Stop):
        stream.copy_initial(setup.source, setup.store, stop)
    setup.source.delete_snapshot()
    setup.noise("data", 0, BLOCK)
    real = setup.source.take_snapshot

    def take_and_die() -> None:
        real()
        raise Stop

    with monkeypatch.context() as patched:
        patched.setattr(setup.source, "take_snapshot", take_and_die)
        with pytest.raises(Stop):
            stream.copy_initial(setup.source, setup.store, quiet)
    stream.copy_initial(setup.source, setup.store, quiet)
    setup.check()


def test_a_cut_that_a_crash_left_is_sent_once(protected: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    protected.noise("os", 0, 700)
    with monkeypatch.context() as patched:
        patched.setattr(protected.source, "release", lambda cut: (_ for _ in ()).throw(Stop()))
        with pytest.raises(Stop):
            stream.replicate_cut(protected.source, protected.store, CRASH, quiet)
    assert len(protected.source.pending()) == 1
    protected.noise("data", 0, 700)
    unsent = protected.source.cut()
    point = stream.replicate_cut(protected.source, protected.store, ConsistencyKind.APPLICATION, quiet)
    assert protected.source.pending() == []
    assert [p.sequence for p in protected.store.state().points] == [1, 2, 3, 4, 5]
    assert protected.store.state().points[3].time == unsent.time
    assert point.kind is ConsistencyKind.APPLICATION
    protected.check()


def test_deltas_that_do_not_follow_ask_for_a_resync(protected: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    before = protected.store.state().points

    def refused(match: str) -> None:
        with pytest.raises(ResynchronizationRequired, match=match):
            stream.replicate_cut(protected.source, protected.store, CRASH, quiet)
        with pytest.raises(ResynchronizationRequired, match=match):
            stream.send_last_changes(protected.source, protected.store, quiet)
        assert protected.store.state().points == before

    protected.source.release(protected.source.cut())
    refused(r"cut 3 .* does not follow cut 1")
    protected.source.resync_required = True
    refused("gave up")
    protected.source.resync_required = False
    protected.source.stop_tracking()
    refused("in no tracking period")
    protected.source.start_tracking()
    refused("'epoch-1', but the source is in tracking period 'epoch-2'")
    stream.resynchronize(protected.source, protected.store, quiet)
    protected.check()


def test_a_source_whose_cuts_went_back_is_not_believed(protected: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protected.source, "_number", 0)
    with pytest.raises(ResynchronizationRequired, match=r"cut 1 .* does not follow cut 1"):
        stream.replicate_cut(protected.source, protected.store, CRASH, quiet)


def test_a_disk_that_grew_is_refused(protected: Setup) -> None:
    protected.source.images["os"] += bytes(512)
    for transfer in (stream.resynchronize, stream.send_last_changes, stream.copy_initial):
        with pytest.raises(InvalidState, match=f"'os' has {40 * BLOCK + 512} bytes now, its replica has {40 * BLOCK}"):
            transfer(protected.source, protected.store, quiet)


def test_resynchronization_sends_only_what_differs_and_keeps_the_points(protected: Setup) -> None:
    before = protected.store.state().points
    protected.source.stop_tracking()
    protected.noise("os", 5 * BLOCK, 100)
    protected.source.write("os", 3 * BLOCK, bytes(BLOCK))
    seen: list[Progress] = []
    point = stream.resynchronize(protected.source, protected.store, seen.append)
    state = protected.store.state()
    assert state.points[: len(before)] == before
    compared, after = state.points[len(before) :]
    assert (compared.bytes, after.bytes) == (2 * BLOCK, 0)
    assert point == after
    assert (state.epoch, state.last_cut) == ("epoch-2", 1)
    assert max(progress.bytes_sent for progress in seen) < 2 * BLOCK
    protected.check()
    protected.noise("data", 0, 5)
    stream.replicate_cut(protected.source, protected.store, CRASH, quiet)
    protected.check()


def stop_at_data(progress: Progress) -> None:
    if progress.doing.endswith("data"):
        raise Stop


def test_a_stopped_resynchronization_leaves_the_points_and_can_be_repeated(protected: Setup) -> None:
    before = protected.store.state().points
    protected.noise("os", 0, 40 * BLOCK)

    with pytest.raises(Stop):
        stream.resynchronize(protected.source, protected.store, stop_at_data)
    assert protected.store.state().points == before
    with pytest.raises(ResynchronizationRequired):
        stream.replicate_cut(protected.source, protected.store, CRASH, quiet)
    stream.resynchronize(protected.source, protected.store, quiet)
    protected.check()


def test_a_stopped_resynchronization_goes_on_after_what_was_kept(
    protected: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "KEPT_AT_LEAST", 4 * BLOCK)
    before = protected.store.state().points
    protected.source.stop_tracking()
    protected.noise("os", 0, 40 * BLOCK)
    protected.noise("data", 0, 10 * BLOCK)
    sent: list[int] = []

    def stop(progress: Progress) -> None:
        sent.append(progress.bytes_sent)
        stop_at_data(progress)

    with pytest.raises(Stop):
        stream.resynchronize(protected.source, protected.store, stop)
    assert max(sent) > 35 * BLOCK
    assert protected.store.state().points == before
    protected.check()
    with pytest.raises(ResynchronizationRequired):
        stream.replicate_cut(protected.source, protected.store, CRASH, quiet)
    protected.noise("os", 3 * BLOCK, 100)
    seen: list[Progress] = []
    stream.resynchronize(protected.source, protected.store, seen.append)
    assert max(progress.bytes_sent for progress in seen) < 20 * BLOCK
    protected.check()
    protected.noise("data", 0, 5)
    stream.replicate_cut(protected.source, protected.store, CRASH, quiet)
    protected.check()


@pytest.mark.parametrize("committed", [0, -1])
def test_a_commit_between_two_tries_of_a_resynchronization_drops_what_was_kept(
    protected: Setup, monkeypatch: pytest.MonkeyPatch, committed: int
) -> None:
    monkeypatch.setattr(stream, "KEPT_AT_LEAST", BLOCK)
    protected.source.stop_tracking()
    protected.noise("os", 0, 40 * BLOCK)

    with pytest.raises(Stop):
        stream.resynchronize(protected.source, protected.store, stop_at_data)
    point = protected.store.state().points[committed]
    protected.store.keep_only(point)
    assert protected.store.state().points == [point]
    protected.check()
    with pytest.raises(ResynchronizationRequired):
        stream.replicate_cut(protected.source, protected.store, CRASH, quiet)
    stream.resynchronize(protected.source, protected.store, quiet)
    protected.check()
    protected.store.prune(Retention(count=1, hours=1000), protected.source.now())
    protected.check()


def test_resynchronization_of_an_incomplete_replica_seeds_it_again(setup: Setup) -> None:
    setup.noise("os", 0, 4 * BLOCK)
    setup.enable()

    def stop(progress: Progress) -> None:
        raise Stop

    with pytest.raises(Stop):
        stream.copy_initial(setup.source, setup.store, stop)
    setup.source.resync_required = True
    with pytest.raises(ResynchronizationRequired):
        stream.copy_initial(setup.source, setup.store, quiet)
    stream.resynchronize(setup.source, setup.store, quiet)
    setup.check()


def test_resynchronization_heals_a_damaged_block(protected: Setup) -> None:
    with (protected.folder / "replica" / "base-os.raw").open("r+b") as file:
        file.seek(4 * BLOCK + 9)
        file.write(b"rot")
    stream.resynchronize(protected.source, protected.store, quiet)
    assert protected.latest("os") == protected.source.images["os"]


def test_the_last_changes_end_with_an_empty_cut(protected: Setup) -> None:
    protected.noise("os", 100, 3000)
    point = stream.send_last_changes(protected.source, protected.store, quiet)
    assert point.bytes == 0
    assert protected.latest("os") == protected.source.images["os"]
    protected.check()


def test_a_machine_that_goes_on_writing_has_no_last_changes(protected: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    real = protected.source.cut

    def cut(kind: ConsistencyKind = CRASH) -> Cut:
        protected.noise("os", 100, 3000)
        return real(kind)

    monkeypatch.setattr(protected.source, "cut", cut)
    with pytest.raises(InvalidState, match="still wrote"):
        stream.send_last_changes(protected.source, protected.store, quiet)


def test_the_report_may_stop_a_transfer_and_leaves_nothing_behind(protected: Setup) -> None:
    protected.noise("os", 0, 30 * BLOCK)
    before = protected.store.state()

    def cancelled(_: Progress) -> None:
        raise TimeoutError("heartbeat: cancelled")

    with pytest.raises(TimeoutError):
        stream.replicate_cut(protected.source, protected.store, CRASH, cancelled)
    assert protected.store.state() == before
    assert not list(protected.folder.rglob("*.part"))
    assert [thread.name for thread in threading.enumerate() if "read-ahead" in thread.name] == []
    stream.replicate_cut(protected.source, protected.store, CRASH, quiet)
    protected.check()


def test_an_unreachable_source_stops_the_transfer_with_its_error(
    protected: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    protected.noise("os", 0, 30 * BLOCK)

    def extents(cut: Cut, disk: str) -> Iterator[Extent]:
        yield Extent(0, b"x" * BLOCK)
        raise Unreachable("the link is down")

    with monkeypatch.context() as patched:
        patched.setattr(protected.source, "extents", extents)
        with pytest.raises(Unreachable, match="link is down"):
            stream.replicate_cut(protected.source, protected.store, CRASH, quiet)
    stream.replicate_cut(protected.source, protected.store, CRASH, quiet)
    protected.check()


def test_two_transfers_of_one_machine_never_run_together(protected: Setup) -> None:
    other = LocalReplicaStore(protected.folder / "replica", machine="db")
    with other.lock("the other process server"), pytest.raises(Busy, match="the other process server"):
        stream.replicate_cut(protected.source, protected.store, CRASH, quiet)


def test_reading_ahead_keeps_order_and_its_depth() -> None:
    produced: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(1, 100):
            produced.append(number)
            yield number

    with read_ahead(numbers(), depth=5) as items:
        assert [next(items) for _ in range(10)] == list(range(1, 11))
        assert len(produced) <= 16
    assert len(produced) <= 16


class EndlessSource(ModelSource):
    """A disk far larger than the window, made up as it is read."""

    def __init__(self, size: int) -> None:
        super().__init__({})
        self.size = size
        self.noise = random.Random(1).randbytes(1 << 20)

    def disks(self) -> list[Disk]:
        return [Disk(name="big", size=self.size)]

    def open_snapshot(self, disk: str) -> BlockReader:
        noise, size = self.noise, self.size

        class Endless(MemoryReader):
            def __init__(self) -> None:
                self.size = size

            def read(self, offset: int, length: int) -> bytes:
                return (offset.to_bytes(8, "big") + noise)[:length]

            def allocated(self) -> Iterator[tuple[int, int]]:
                yield 0, size

        return Endless()

    def extents(self, cut: Cut, disk: str) -> Iterator[Extent]:
        return (Extent(at, at.to_bytes(8, "big") + self.noise[:-8]) for at in range(0, self.size, 1 << 20))

    def extents_size(self, cut: Cut, disk: str) -> int:
        return self.size


def test_memory_is_bounded_by_the_window_not_by_the_disk(tmp_path: Path) -> None:
    source = EndlessSource(3 * WINDOW)
    store = LocalReplicaStore(tmp_path / "replica", machine="big")
    store.create(source.disks(), source.start_tracking())
    tracemalloc.start()
    try:
        stream.copy_initial(source, store, quiet)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < WINDOW
