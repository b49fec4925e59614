"""The mark of a failover in a local replica: durable, alone in its power, and gone with the replica."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from model_source import ModelSource
from power import Power, PowerCut

from replication import stream
from replication.local import LocalReplicaStore
from replication.ports import Extent
from vault.domain import ConsistencyKind, Disk, Progress, RecoveryPoint, Retention
from vault.errors import Damaged, InvalidState, NotFound

pytestmark = pytest.mark.unit

KEEP_ONE = Retention(count=1, hours=1000)
T0 = datetime(2026, 1, 1, tzinfo=UTC)


def quiet(_: Progress) -> None: ...


class Replica:
    def __init__(self, root: Path) -> None:
        self.root, self.rng, self.source = root, random.Random(5), ModelSource({"os": 100_000})
        self.store.create(self.source.disks(), self.source.start_tracking())
        stream.copy_initial(self.source, self.store, quiet)
        self.delta()

    @property
    def store(self) -> LocalReplicaStore:
        """As another process opens it."""
        return LocalReplicaStore(self.root, machine="db")

    @property
    def mark(self) -> Path:
        return self.root / "failed-over.json"

    def delta(self) -> RecoveryPoint:
        self.source.write("os", self.rng.randrange(90_000), self.rng.randbytes(3000))
        return stream.replicate_cut(self.source, self.store, ConsistencyKind.CRASH, quiet)

    def points(self) -> list[RecoveryPoint]:
        return self.store.state().points

    def is_closed(self) -> bool:
        """Whether the source is refused. It is, or it goes on: there is nothing between."""
        before = self.points()
        try:
            self.store.prune(KEEP_ONE, T0)
        except InvalidState:
            assert self.points() == before
            return True
        return False

    def each_power_cut(self, whole: Path, change: Callable[[], None], then: Callable[[bool], None]) -> None:
        """``then`` is told whether ``change`` had returned, with the replica as it is after the power is back."""
        shutil.copytree(self.root, whole)
        for cut_at in range(1, 100):
            stash = whole.with_name(f"stash-{cut_at}")
            stash.mkdir()
            returned = True
            try:
                with Power(stash, self.rng, cut_at).on():
                    change()
            except PowerCut:
                returned = False
            then(returned)
            shutil.rmtree(self.root, ignore_errors=True)
            shutil.copytree(whole, self.root)
            if returned:
                assert cut_at > 2
                return


@pytest.fixture
def replica(tmp_path: Path) -> Replica:
    return Replica(tmp_path / "replica")


def test_a_failover_is_durable_or_has_not_begun(replica: Replica, tmp_path: Path) -> None:
    chosen = replica.points()[0]

    def then(returned: bool) -> None:
        store = replica.store
        assert store.state().failed_over_to in ([chosen] if returned else [chosen, None])
        store.fail_over_to(chosen)
        assert replica.is_closed()
        assert store.state().failed_over_to == chosen

    replica.each_power_cut(tmp_path / "whole", lambda: replica.store.fail_over_to(chosen), then)


def test_a_cancelled_failover_is_durably_over_or_goes_on(replica: Replica, tmp_path: Path) -> None:
    replica.store.fail_over_to(replica.points()[0])

    def then(returned: bool) -> None:
        assert not returned or not replica.is_closed()
        replica.store.readmit()
        assert replica.store.state().failed_over_to is None
        replica.store.prune(KEEP_ONE, T0)

    replica.each_power_cut(tmp_path / "whole", replica.store.readmit, then)


def test_a_replica_that_is_made_where_one_was_half_removed_knows_of_no_failover(
    replica: Replica, tmp_path: Path
) -> None:
    replica.store.fail_over_to(replica.points()[0])

    def then(returned: bool) -> None:
        assert not returned or not replica.root.exists()
        if replica.store.exists():
            assert replica.is_closed(), "a replica that is not removed yet is failed over as before"
            return
        source = ModelSource({"os": 100_000})
        replica.store.create([Disk(name="os", size=100_000)], source.start_tracking())
        stream.copy_initial(source, replica.store, quiet)
        assert replica.store.state().failed_over_to is None
        assert not replica.is_closed()

    replica.each_power_cut(tmp_path / "whole", replica.store.remove, then)


def test_old_images_are_adopted_where_a_replica_was_half_removed(replica: Replica, tmp_path: Path) -> None:
    replica.store.fail_over_to(replica.points()[0])
    (replica.root / "manifest.json").unlink()
    image = tmp_path / "os.raw"
    image.write_bytes(bytes(100_000))
    replica.store.adopt({"os": image}, [Disk(name="os", size=100_000)], "e")
    assert not replica.mark.exists()


def test_a_writer_that_clears_leftovers_leaves_a_mark_that_is_being_made(replica: Replica) -> None:
    unfinished = replica.root / "failed-over.json.part"
    unfinished.write_bytes(b"{")
    leftover = replica.root / "manifest.json.part"
    leftover.write_bytes(b"{")
    replica.delta()
    assert unfinished.exists()
    assert not leftover.exists()
    replica.store.remove()
    assert not replica.root.exists()


@pytest.mark.parametrize("rot", [b"", b"{}", b"not json"])
def test_a_damaged_mark_keeps_the_source_out_until_the_failover_is_committed_or_cancelled(
    replica: Replica, rot: bytes
) -> None:
    chosen = replica.points()[0]
    replica.store.fail_over_to(chosen)
    for settle in (lambda: replica.store.keep_only(chosen), replica.store.readmit):
        replica.mark.write_bytes(rot)
        before = replica.source.tracking()
        with pytest.raises(Damaged, match="failed over") as caught:
            replica.delta()
        assert (caught.value.where, "commit or cancel" in caught.value.remedy) == (str(replica.mark), True)
        assert replica.source.tracking() == before
        settle()
        state = replica.store.state()
        assert state.failed_over_to in (chosen, None)
        assert state.points == [chosen]


def test_a_mark_is_a_sealed_document_that_one_owner_reads(replica: Replica) -> None:
    replica.store.fail_over_to(replica.points()[0])
    assert replica.mark.stat().st_mode & 0o077 == 0
    sealed = replica.mark.read_text()
    replica.mark.write_text(sealed.replace('"sequence": 1', '"sequence": 2'))
    with pytest.raises(Damaged):
        replica.store.state()


def test_a_replica_that_is_gone_is_not_failed_over_to(replica: Replica) -> None:
    chosen = replica.points()[0]
    replica.store.remove()
    with pytest.raises(NotFound, match="no replica"):
        replica.store.fail_over_to(chosen)
    replica.store.readmit()
    assert not replica.root.exists()


@pytest.mark.parametrize("does", ["compares", "sends"])
def test_a_source_that_is_busy_hears_of_the_failover_before_its_next_seal(replica: Replica, does: str) -> None:
    """It may be hours away, and the lock is not free before."""
    store, cut = replica.store, replica.store.state().last_cut + 1
    with pytest.raises(InvalidState, match="failed over"), store.lock():
        with closing(store.open_checksums("os")) as theirs:
            segment = store.open_segment("os", cut)
            theirs.checksums(0, 65536, 65536)
            segment.add(Extent(0, b"before"))
            replica.store.fail_over_to(replica.points()[0])
            if does == "compares":
                theirs.checksums(65536, 34464, 65536)
            else:
                segment.add(Extent(6, replica.rng.randbytes(90_000)))
                segment.close()
        pytest.fail("nobody told it")
    replica.store.keep_only(replica.points()[0])
