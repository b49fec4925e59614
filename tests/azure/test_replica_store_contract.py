"""The promises of ``ReplicaStore``, held by every store alike."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest
from model_source import ModelSource

from replication import stream
from replication.checksums import BLOCK, block_checksums
from replication.local import LocalReplicaStore
from replication.ports import Extent, OwnReplicaStore, ReplicaStore
from vault.domain import ConsistencyKind, Disk, Progress, RecoveryPoint, Retention
from vault.errors import BadInput, Busy, InvalidState, LeewardError, NotFound, ResynchronizationRequired

pytestmark = pytest.mark.contract

CRASH = ConsistencyKind.CRASH
T0 = datetime(2026, 1, 1, tzinfo=UTC)
SIZES = {"os": 300_000, "data": 200_000}
DISKS = [Disk(name=name, size=size) for name, size in SIZES.items()]
KEEP_ONE = Retention(count=1, hours=1000)
Opener = Callable[[], ReplicaStore]
OwnOpener = Callable[[], OwnReplicaStore]


def quiet(_: Progress) -> None: ...


@pytest.fixture(params=["local", "azure"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Opens the same replica as another process would."""
    if request.param == "local":
        return lambda: LocalReplicaStore(tmp_path / "replica", machine="db")
    account = request.getfixturevalue("account")
    return account.store  # type: ignore[no-any-return]


@pytest.fixture
def own(opener: Opener) -> OwnOpener:
    """Opens it as its own site does."""
    return cast(OwnOpener, opener)


class Pair:
    """A model source and its replica."""

    def __init__(self, opener: Opener, folder: Path) -> None:
        self.rng = random.Random(7)
        self.source = ModelSource(SIZES)
        self.open = opener
        self.store = opener()
        self.out = folder / "out"

    def seed(self) -> None:
        self.write(20)
        self.store.create(self.source.disks(), self.source.start_tracking())
        stream.copy_initial(self.source, self.store, quiet)

    def write(self, times: int = 3) -> None:
        for _ in range(times):
            disk = self.rng.choice(list(SIZES))
            length = self.rng.randrange(1, 20_000)
            data = bytes(length) if self.rng.random() < 0.2 else self.rng.randbytes(length)
            self.source.write(disk, self.rng.randrange(SIZES[disk] - length), data)

    def delta(self, kind: ConsistencyKind = CRASH) -> RecoveryPoint:
        self.write()
        return stream.replicate_cut(self.source, self.store, kind, quiet)

    def points(self) -> list[RecoveryPoint]:
        return self.store.state().points

    def check_every_point(self) -> None:
        for point in self.points():
            for path in self.open().materialise(point, self.out, quiet):
                assert path.read_bytes() == self.source.moments[point.time][path.stem], point


@pytest.fixture
def pair(opener: Opener, tmp_path: Path) -> Pair:
    return Pair(opener, tmp_path)


@pytest.fixture
def replicated(pair: Pair) -> Pair:
    """Four recovery points: 1 and 2 of the initial replication, 3 app-consistent, 4."""
    pair.seed()
    pair.delta(ConsistencyKind.APPLICATION)
    pair.delta()
    return pair


def test_every_point_can_be_materialised_and_found(replicated: Pair) -> None:
    points = replicated.points()
    assert [point.sequence for point in points] == [1, 2, 3, 4]
    replicated.check_every_point()
    assert sorted(path.name for path in replicated.out.iterdir()) == ["data.raw", "os.raw"]
    store = replicated.store
    assert store.resolve("latest") == store.resolve("latest-processed") == points[3]
    assert store.resolve("latest-app-consistent") == points[2]
    assert store.resolve(points[1].id) == points[1]
    assert store.resolve(points[2].time.isoformat()) == points[2]
    with pytest.raises(NotFound, match="no recovery point is 'yesterday'") as caught:
        store.resolve("yesterday")
    assert points[0].id in caught.value.remedy
    assert store.state().stored_bytes > 0


def test_a_view_reads_any_range_of_its_moment(replicated: Pair) -> None:
    point = replicated.points()[1]
    moment = replicated.source.moments[point.time]
    view = replicated.store.view("os", point)
    assert view.size == SIZES["os"]
    for offset, length in [(0, 1), (511, 2), (65_530, 200_000), (299_999, 1), (299_999, 50), (300_000, 5)]:
        assert view.read(offset, length) == moment["os"][offset : offset + length]
    covered = bytearray(SIZES["os"])
    end = 0
    for offset, length in view.allocated():
        assert offset >= end
        end = offset + length
        covered[offset:end] = moment["os"][offset:end]
    assert covered == moment["os"]
    view.close()
    view.close()
    with pytest.raises(NotFound, match="no disk 'cd'"):
        replicated.store.view("cd", point)


def test_checksums_are_those_of_the_newest_point(replicated: Pair) -> None:
    image = bytes(replicated.source.images["data"])
    sums = replicated.store.open_checksums("data")
    assert sums.checksums(0, SIZES["data"], BLOCK) == block_checksums(image)
    assert sums.checksums(512, 1000, 100) == block_checksums(image[512:1512], 100)
    sums.close()


def test_pruning_keeps_the_newest_of_each_kind_and_those_in_use(replicated: Pair) -> None:
    p1, p2, p3, p4 = replicated.points()
    assert [point.kind for point in (p2, p3, p4)] == [CRASH, ConsistencyKind.APPLICATION, CRASH]
    assert replicated.store.prune(KEEP_ONE, replicated.source.now(), in_use=frozenset({p2.id})) == [p1.id]
    assert replicated.points() == [p2, p3, p4]
    replicated.check_every_point()
    with pytest.raises(NotFound, match="does not exist any more"):
        replicated.store.view("os", p1)
    assert replicated.store.prune(KEEP_ONE, replicated.source.now()) == [p2.id]
    assert replicated.store.prune(KEEP_ONE, replicated.source.now()) == []
    replicated.delta()
    assert len(replicated.points()) == 3
    assert replicated.store.prune(KEEP_ONE, p3.time + timedelta(hours=1001)) == [p3.id, p4.id]
    replicated.check_every_point()


def test_what_is_not_there_is_told_with_its_place_and_what_to_do(pair: Pair) -> None:
    def told(call: Callable[[], object], error: type[LeewardError], remedy: str) -> None:
        with pytest.raises(error) as found:
            call()
        assert found.value.where
        assert remedy in found.value.remedy

    told(pair.store.state, NotFound, "protect the machine")
    told(lambda: pair.store.prune(Retention(), pair.source.now()), NotFound, "protect the machine")
    pair.store.create(pair.source.disks(), pair.source.start_tracking())
    told(lambda: pair.store.view("os"), InvalidState, "initial replication")
    told(lambda: pair.store.open_checksums("tape"), NotFound, "os, data")
    stream.copy_initial(pair.source, pair.store, quiet)
    dropped = pair.points()[0]
    pair.delta()
    pair.store.keep_only(pair.points()[-1])
    told(lambda: pair.store.view("os", dropped), NotFound, "leeward recovery-points")


def test_an_open_reader_sees_its_point_unchanged(replicated: Pair) -> None:
    oldest = replicated.points()[0]
    reader = replicated.open().view("os", oldest)
    replicated.store.prune(KEEP_ONE, replicated.source.now())
    assert oldest in replicated.points(), "a point that is read is in use, and stays one"
    replicated.delta()
    assert replicated.store.prune(KEEP_ONE, replicated.source.now()) != []
    assert reader.read(0, SIZES["os"]) == replicated.source.moments[oldest.time]["os"]
    other = replicated.open().view("data", oldest)
    other.close()
    with pytest.raises(Busy, match="is being read"):
        replicated.store.keep_only(replicated.points()[0])
    reader.close()
    assert replicated.store.prune(KEEP_ONE, replicated.source.now()) == [oldest.id]
    replicated.store.keep_only(replicated.points()[-1])
    replicated.check_every_point()


def test_commit_to_an_older_point_ends_the_deltas_until_a_resync(replicated: Pair) -> None:
    chosen = replicated.points()[1]
    for _ in range(2):
        replicated.store.keep_only(chosen)
        assert replicated.points() == [chosen]
        replicated.check_every_point()
    with pytest.raises(ResynchronizationRequired):
        replicated.delta()
    stream.resynchronize(replicated.source, replicated.store, quiet)
    assert replicated.points()[0] == chosen
    replicated.check_every_point()
    replicated.delta()
    replicated.check_every_point()


def test_commit_to_the_newest_point_lets_deltas_go_on(replicated: Pair) -> None:
    replicated.store.keep_only(replicated.points()[-1])
    replicated.delta()
    assert len(replicated.points()) == 2
    replicated.check_every_point()


def test_a_resync_replaces_what_differs(replicated: Pair) -> None:
    replicated.source.stop_tracking()
    replicated.write()
    before = replicated.points()
    stream.resynchronize(replicated.source, replicated.store, quiet)
    assert replicated.points()[:4] == before
    assert replicated.store.state().epoch == "epoch-2"
    replicated.check_every_point()


def test_sealing_twice_gives_the_same_point_and_a_gap_is_refused(replicated: Pair) -> None:
    last = replicated.points()[-1]
    cut = replicated.store.state().last_cut
    with replicated.store.lock():
        assert replicated.store.seal(cut, T0, CRASH) == last
        assert replicated.store.seal(cut - 1, T0, CRASH) == replicated.points()[-2]
        with pytest.raises(InvalidState, match="'os'"):
            replicated.store.seal(cut + 1, T0, CRASH)
        for wrong in (cut, cut + 2, 0):
            with pytest.raises(ResynchronizationRequired):
                replicated.store.open_segment("os", wrong)
    with pytest.raises(InvalidState, match="lock"):
        replicated.store.open_segment("os", cut + 1)
    assert replicated.points()[-1] == last


def test_differences_that_are_kept_are_found_by_a_comparison_and_by_nobody_else(replicated: Pair) -> None:
    before, newest = replicated.points(), replicated.points()[-1]
    image = bytearray(replicated.source.moments[newest.time]["os"])
    with replicated.store.lock():
        for disk in SIZES:
            segment = replicated.store.open_segment(disk, 0, epoch="new")
            if disk == "os":
                segment.add(Extent(0, b"k" * BLOCK))
            segment.close()
        replicated.store.keep_differences("new")
        with pytest.raises(InvalidState, match="no closed segment of 'os'"):
            replicated.store.keep_differences("new")
        with pytest.raises(InvalidState, match="no closed segment of 'os'"):
            replicated.store.seal(0, T0, CRASH, epoch="new")
    image[:BLOCK] = b"k" * BLOCK
    with closing(replicated.open().open_checksums("os")) as sums:
        assert sums.checksums(0, len(image), BLOCK) == block_checksums(bytes(image))
    assert replicated.open().state().points == before
    assert replicated.open().state().epoch == ""
    replicated.check_every_point()
    assert replicated.store.prune(KEEP_ONE, replicated.source.now()) == [point.id for point in before[:2]]
    replicated.check_every_point()
    with pytest.raises(ResynchronizationRequired):
        replicated.delta()
    held = {"os": bytes(image), "data": replicated.source.moments[newest.time]["data"]}
    differing = sum(
        len(now[at : at + BLOCK])
        for disk, now in replicated.source.images.items()
        for at in range(0, len(now), BLOCK)
        if now[at : at + BLOCK] != held[disk][at : at + BLOCK]
    )
    stream.resynchronize(replicated.source, replicated.store, quiet)
    compared = replicated.points()[-2]
    assert compared.bytes == BLOCK + differing, "what was kept counts for the point that it belongs to"
    assert replicated.store.prune(KEEP_ONE, replicated.source.now()) != []
    replicated.check_every_point()
    replicated.delta()
    replicated.check_every_point()


def test_an_abandoned_segment_leaves_nothing(replicated: Pair) -> None:
    before = replicated.store.state()
    with replicated.store.lock():
        for _ in range(2):
            segment = replicated.store.open_segment("os", before.last_cut + 1)
            segment.add(Extent(0, b"x" * 5000))
            segment.abandon()
            segment.abandon()
    assert replicated.store.state() == before
    replicated.delta()
    replicated.check_every_point()


def test_segments_take_extents_of_any_size_and_place(pair: Pair) -> None:
    pair.seed()
    state = pair.store.state()
    image = {name: bytearray(pair.source.images[name]) for name in SIZES}
    pieces = {"os": [(1, 1), (3, 600), (1023, 2), (2048, 512), (65_535, 70_000), (299_990, 10)], "data": [(7, 505)]}
    with pair.store.lock():
        for disk, places in pieces.items():
            segment = pair.store.open_segment(disk, state.last_cut + 1)
            for offset, length in places:
                data = bytes(length) if offset == 65_535 else pair.rng.randbytes(length)
                image[disk][offset : offset + length] = data
                segment.add(Extent(offset, data))
            segment.close()
            assert segment.bytes_sent > 0
        point = pair.store.seal(state.last_cut + 1, T0, CRASH, group="shop")
    assert (point.group, point.bytes) == ("shop", 70_000 + 1 + 600 + 2 + 512 + 10 + 505)
    assert pair.points()[-1] == point
    pair.source.moments[T0] = {name: bytes(data) for name, data in image.items()}
    pair.check_every_point()
    with pair.store.lock(), pytest.raises(InvalidState, match="resynchronize"):
        segment = pair.store.open_segment("os", state.last_cut + 2)
        try:
            segment.add(Extent(100, b"x"))
            segment.add(Extent(50, b"y"))
        finally:
            segment.abandon()


def test_a_second_writer_is_kept_out_and_told_who_writes(replicated: Pair) -> None:
    errors: list[Exception] = []

    def in_another_thread() -> None:
        try:
            replicated.store.prune(KEEP_ONE, T0)
        except Busy as error:
            errors.append(error)

    with replicated.store.lock("a long transfer"):
        with pytest.raises(Busy, match=r'"pid": \d+.*a long transfer'):
            replicated.open().prune(KEEP_ONE, T0)
        thread = threading.Thread(target=in_another_thread)
        thread.start()
        thread.join()
        assert replicated.open().state() == replicated.store.state()
        with replicated.store.lock("again"):
            replicated.store.prune(Retention(count=99, hours=8000), T0)
    assert len(errors) == 1
    replicated.open().prune(KEEP_ONE, T0)


def test_seeding_rules(pair: Pair) -> None:
    store = pair.store
    assert not store.exists()
    with pytest.raises(NotFound, match="no replica"):
        store.state()
    store.create(DISKS, "one")
    with pytest.raises(InvalidState, match="no recovery point yet"):
        store.view("os")
    store.begin_seed(T0)
    store.write_base("os", Extent(0, b"x" * 65536))
    store.checkpoint_base("os", 65536)
    store.create(DISKS, "one")
    assert pair.open().state().seeded_bytes == {"os": 65536, "data": 0}
    with pytest.raises(InvalidState, match="65536 of 300000"):
        store.complete_seed(T0, CRASH)
    with pytest.raises(InvalidState, match="beyond the disk"):
        store.write_base("os", Extent(299_999, b"xy"))
    with pytest.raises(InvalidState, match="not complete"), store.lock():
        store.open_segment("os", 1)
    store.begin_seed(T0)
    assert store.state().seeded_bytes["os"] == 65536
    store.begin_seed(T0 + timedelta(seconds=1))
    assert store.state().seeded_bytes["os"] == 0
    store.checkpoint_base("os", 65536)
    store.create(DISKS, "two")
    assert (store.state().seeded_bytes["os"], store.state().seed_moment) == (0, None)
    sums = store.open_checksums("os")
    assert sums.checksums(0, 131072, 65536) == block_checksums(b"x" * 65536 + bytes(65536))
    sums.close()
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


def test_disks_that_changed_are_named_with_both_sizes(pair: Pair) -> None:
    pair.store.create(DISKS, "one")
    with pytest.raises(InvalidState, match="'os' has 400000 bytes now, its replica has 300000"):
        pair.store.create([Disk(name="os", size=400_000), DISKS[1]], "one")
    with pytest.raises(InvalidState, match="'data' is gone"):
        pair.store.create(DISKS[:1], "one")
    with pytest.raises(InvalidState, match="'log' was added"):
        pair.store.create([*DISKS, Disk(name="log", size=1)], "one")
    for bad in ("../x", "", "a/b", ".hidden"):
        with pytest.raises(BadInput):
            pair.open().create([Disk(name=bad, size=1)], "one")


def test_the_old_source_is_adopted_and_its_images_are_gone(pair: Pair, tmp_path: Path) -> None:
    image = tmp_path / "os.raw"
    content = b"old" * 50_000 + bytes(150_000)
    image.write_bytes(content)
    with pytest.raises(InvalidState, match="300000 bytes now, its replica has 299999"):
        pair.store.adopt({"os": image}, [Disk(name="os", size=299_999)], "e")
    assert image.exists()
    for _ in range(2):
        pair.store.adopt({"os": image, "data": tmp_path / "lost.raw"}, DISKS, "e")
        assert not image.exists()
        assert not pair.store.state().seeded
    sums = pair.open().open_checksums("os")
    assert sums.checksums(0, 300_000, BLOCK) == block_checksums(content)
    sums.close()


def test_blocks_that_the_replica_has_are_not_sent_again(pair: Pair, tmp_path: Path) -> None:
    pair.write(20)
    image = tmp_path / "os.raw"
    changed = bytearray(pair.source.images["os"])
    changed[100_000] ^= 1
    image.write_bytes(changed)
    pair.store.adopt({"os": image}, pair.source.disks(), "")
    pair.store.create(pair.source.disks(), pair.source.start_tracking())
    sent: list[Progress] = []
    stream.copy_initial(pair.source, pair.store, sent.append)
    data_blocks = sum(any(pair.source.images["data"][at : at + BLOCK]) for at in range(0, SIZES["data"], BLOCK))
    assert max(progress.bytes_sent for progress in sent) <= BLOCK * (1 + data_blocks)
    pair.check_every_point()


def test_removing_leaves_nothing_and_can_be_repeated(replicated: Pair) -> None:
    replicated.store.remove()
    replicated.store.remove()
    assert not replicated.open().exists()
    replicated.store.create(DISKS, "again")
    assert not replicated.store.state().seeded
    assert replicated.points() == []


# --- failover: the source may not have heard of it ----------------------------------------------------------------


def staged(pair: Pair, cut: int, epoch: str | None = None) -> None:
    for disk in SIZES:
        segment = pair.store.open_segment(disk, cut, epoch=epoch)
        segment.add(Extent(0, b"written by the old source"))
        segment.close()


def refused(call: Callable[[], object]) -> None:
    with pytest.raises(InvalidState, match="failed over to the recovery point of") as found:
        call()
    assert found.value.where
    assert "cancelled" in found.value.remedy


def test_after_a_failover_the_source_changes_nothing(replicated: Pair, own: OwnOpener) -> None:
    before, epoch = replicated.points(), replicated.source.tracking().epoch
    own().fail_over_to(before[1])
    for _ in range(2):
        refused(replicated.delta)
        refused(lambda: replicated.store.prune(KEEP_ONE, replicated.source.now()))
        refused(lambda: stream.resynchronize(replicated.source, replicated.store, quiet))
        refused(lambda: stream.copy_initial(replicated.source, replicated.store, quiet))
        refused(lambda: stream.send_last_changes(replicated.source, replicated.store, quiet))
    with replicated.store.lock():
        refused(lambda: replicated.store.open_segment("os", replicated.store.state().last_cut + 1))
        refused(lambda: replicated.store.open_segment("os", 0, epoch="another"))
    assert replicated.points() == before
    assert replicated.store.state().failed_over_to == before[1]
    assert replicated.source.tracking().epoch == epoch, (
        "nothing was begun that would make a resynchronization necessary"
    )
    replicated.check_every_point()


def test_a_failover_waits_for_no_writer_and_refuses_what_was_under_way(replicated: Pair, own: OwnOpener) -> None:
    before, cut = replicated.points(), replicated.store.state().last_cut + 1
    with replicated.store.lock("an old source's cycle"):
        staged(replicated, cut)
        own().fail_over_to(before[0])
        refused(lambda: replicated.store.seal(cut, T0, CRASH))
        refused(lambda: replicated.store.prune(KEEP_ONE, replicated.source.now()))
    own().readmit()
    with replicated.store.lock("its resynchronization"):
        staged(replicated, 0, "anew")
        own().fail_over_to(before[0])
        refused(lambda: replicated.store.keep_differences("anew"))
        refused(lambda: replicated.store.seal(0, T0, CRASH, epoch="anew"))
    assert own().state().points == before
    replicated.check_every_point()


def test_what_was_sealed_before_a_failover_stays(replicated: Pair, own: OwnOpener) -> None:
    chosen, last = replicated.points()[0], replicated.points()[-1]
    with replicated.store.lock():
        cut = replicated.store.state().last_cut
        own().fail_over_to(chosen)
        assert replicated.store.seal(cut, last.time, CRASH) == last, "its answer may have been lost"
    assert replicated.points()[-1] == last
    replicated.check_every_point()


@pytest.mark.parametrize("chosen", [1, -1])
def test_a_failover_is_committed_to_its_point_and_to_no_other(replicated: Pair, own: OwnOpener, chosen: int) -> None:
    point, others = replicated.points()[chosen], [p for p in replicated.points() if p != replicated.points()[chosen]]
    own().fail_over_to(point)
    for other in others:
        with pytest.raises(InvalidState, match="not to that of"):
            replicated.store.keep_only(other)
    for _ in range(2):
        replicated.store.keep_only(point)
        assert replicated.points() == [point]
        replicated.check_every_point()
        refused(replicated.delta)
    assert replicated.store.state().failed_over_to == point


def test_after_a_cancelled_failover_deltas_go_on_from_where_they_were(replicated: Pair, own: OwnOpener) -> None:
    own().readmit()
    own().fail_over_to(replicated.points()[2])
    for _ in range(2):
        refused(replicated.delta)
    for _ in range(2):
        replicated.store.readmit()
        assert replicated.store.state().failed_over_to is None
        replicated.delta()
    assert replicated.store.prune(KEEP_ONE, replicated.source.now()) != []
    replicated.check_every_point()


def test_a_failover_may_be_begun_again_but_not_to_another_point(replicated: Pair, own: OwnOpener) -> None:
    first, second, *_ = replicated.points()
    for _ in range(2):
        own().fail_over_to(first)
    with pytest.raises(InvalidState, match="not to that of") as caught:
        own().fail_over_to(second)
    assert "cancel that failover" in caught.value.remedy
    assert own().state().failed_over_to == first
    own().readmit()
    own().fail_over_to(second)
    assert own().state().failed_over_to == second


def test_nobody_fails_over_to_what_is_not_there(pair: Pair, own: OwnOpener) -> None:
    missing = RecoveryPoint(id="rp-000001-00000000", sequence=1, time=T0)
    with pytest.raises(NotFound, match="no replica"):
        own().fail_over_to(missing)
    own().readmit()
    assert not own().exists()
    pair.seed()
    with pytest.raises(NotFound, match="does not exist any more"):
        own().fail_over_to(missing)
    assert own().state().failed_over_to is None
    pair.delta()


def test_a_replica_that_is_made_anew_knows_of_no_failover(replicated: Pair, own: OwnOpener) -> None:
    own().fail_over_to(replicated.points()[0])
    replicated.store.remove()
    replicated.seed()
    assert replicated.store.state().failed_over_to is None
    replicated.delta()
    replicated.check_every_point()


def test_nothing_is_sealed_or_dropped_behind_a_failover_that_comes_at_any_moment(
    replicated: Pair, own: OwnOpener
) -> None:
    """A source that cycles as fast as it can; failovers, each at another moment of a cycle, and their cancellation."""
    ended: list[LeewardError] = []

    def cycles() -> None:
        while True:
            try:
                replicated.delta()
                replicated.store.prune(Retention(count=2, hours=1000), replicated.source.now())
            except Busy:  # it lost its lease: the next try hears why
                continue
            except LeewardError as error:
                ended.append(error)
                return

    for round in range(6):
        cycling = threading.Thread(target=cycles)
        cycling.start()
        seen = len(replicated.source.moments)
        while cycling.is_alive() and len(replicated.source.moments) < seen + 1 + round % 3:
            time.sleep(0)
        chosen = newest_that_can_be_chosen(own)
        points = own().state().points
        cycling.join(60)
        assert [type(error) for error in ended] == [InvalidState] * (round + 1), ended
        assert own().state().points == points
        assert chosen in points
        own().readmit()
    replicated.delta()
    replicated.check_every_point()


def newest_that_can_be_chosen(own: OwnOpener) -> RecoveryPoint:
    """Failed over to; one that is pruned while it is being chosen is chosen anew, and others may be quicker."""
    while True:
        point = own().state().points[-1]
        try:
            own().fail_over_to(point)
        except (NotFound, Busy):
            continue
        return point
