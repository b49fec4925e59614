"""What is particular to Azure: blobs and snapshots, leases that the service checks, segments in the cache."""

from __future__ import annotations

import json
import random
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import BlobLeaseClient
from model_source import ModelSource
from storage_account import Account

from adapters.azure import lease as leases
from adapters.azure import vhd
from adapters.azure.layout import Layout
from adapters.azure.lease import Lease
from adapters.azure.manifest import AzureManifest
from adapters.azure.store import AzureReplicaStore
from replication import scratch, stream
from replication.cipher import SiteKey
from replication.ports import Extent
from vault.domain import ConsistencyKind, Disk, Progress, RecoveryPoint, Retention
from vault.errors import AuthenticationRefused, BadInput, Busy, Damaged, InvalidState, NotFound

pytestmark = pytest.mark.contract

CRASH = ConsistencyKind.CRASH
SIZES = {"os": 300_000, "data": 200_000}
KEEP_ONE = Retention(count=1, hours=1000)


def quiet(_: Progress) -> None: ...


class Pair:
    def __init__(self, account: Account, folder: Path) -> None:
        self.rng = random.Random(2)
        self.account = account
        self.folder = folder
        self.source = ModelSource(SIZES)
        self.store: AzureReplicaStore = account.store()
        self.write()
        self.store.create(self.source.disks(), self.source.start_tracking())
        stream.copy_initial(self.source, self.store, quiet)

    def write(self) -> None:
        for disk, size in SIZES.items():
            self.source.write(disk, self.rng.randrange(size - 5000), self.rng.randbytes(5000))

    def delta(self, store: AzureReplicaStore | None = None) -> RecoveryPoint:
        self.write()
        return stream.replicate_cut(self.source, store or self.store, CRASH, quiet)

    def points(self) -> list[RecoveryPoint]:
        return self.store.state().points

    def check(self) -> None:
        for point in self.points():
            for path in self.account.store().materialise(point, self.folder / "out", quiet):
                assert path.read_bytes() == self.source.moments[point.time][path.stem]

    def seal_without_applying(self, **options: Any) -> RecoveryPoint:
        """A delta whose writer dies between sealing and applying it."""

        class Killed(BaseException): ...

        def fault(request: Any, number: int) -> None:
            if request.method == "PUT" and "comp=page" in request.url:
                raise Killed

        with pytest.raises(Killed):
            self.delta(self.account.store(self.account.transport(fault), **options))
        self.account.end_leases()
        return self.points()[-1]


@pytest.fixture
def pair(account: Account, tmp_path: Path) -> Pair:
    return Pair(account, tmp_path)


def test_a_recovery_point_is_a_snapshot_of_every_disk_that_tells_what_it_is(pair: Pair) -> None:
    point = pair.delta()
    found = {
        (blob.name, blob.metadata["point"]): blob.metadata
        for blob in pair.account.container.list_blobs(include=["snapshots", "metadata"])
        if blob.snapshot
    }
    assert set(found) == {(f"db/{disk}.vhd", each.id) for disk in SIZES for each in pair.points()}
    about = found["db/os.vhd", point.id]
    assert about == {
        "point": point.id,
        "sequence": str(point.sequence),
        "time": point.time.isoformat(),
        "kind": "crash-consistent",
    }
    pair.store.prune(KEEP_ONE, pair.source.now())
    assert sorted(pair.account.names()) == sorted(["db/manifest.json", *2 * ["db/data.vhd", "db/os.vhd"]])


def test_leftovers_of_a_crash_are_cleared_when_a_writer_comes(pair: Pair) -> None:
    kept = sorted(pair.account.container.list_blob_names())
    container, cache = pair.account.container, pair.account.cache
    container.get_blob_client("db/os.vhd").create_snapshot(metadata={"sequence": "99"})
    container.get_blob_client("db/lost.vhd").create_page_blob(512)
    container.get_blob_client("db/readers/dead").upload_blob(b"")
    container.get_blob_client("db2/os.vhd").create_page_blob(512)
    cache.get_blob_client("db/0000000009-os-x.seg").upload_blob(b"staged, never sealed")
    cache.get_blob_client("db2/0000000009-os-x.seg").upload_blob(b"another machine's")
    with pair.store.lock():
        pass
    assert sorted(container.list_blob_names()) == sorted([*kept, "db2/os.vhd"])
    assert list(cache.list_blob_names()) == ["db2/0000000009-os-x.seg"]
    pair.check()


@pytest.mark.parametrize("harm", ["cut short", "grown", "footer lost", "footer changed"])
def test_a_page_blob_that_is_no_whole_vhd_makes_no_recovery_point(pair: Pair, harm: str) -> None:
    before = pair.points()
    blob = pair.account.container.get_blob_client("db/os.vhd")
    size, footer_at = vhd.blob_size(SIZES["os"]), vhd.virtual_size(SIZES["os"])
    match harm:
        case "cut short":
            blob.resize_blob(size - (1 << 19))
        case "grown":
            blob.resize_blob(size + 512)
        case "footer lost":
            blob.clear_page(footer_at, 512)
        case "footer changed":
            footer = bytearray(blob.download_blob(footer_at, 512).readall())
            footer[30] ^= 1
            blob.upload_page(bytes(footer), footer_at, 512)
    with pytest.raises(Damaged, match="of disk 'os' is no whole VHD") as found:
        pair.delta()
    assert not found.value.recoverable
    assert "enable it again" in found.value.remedy
    assert pair.points()[: len(before)] == before
    pair.check()
    pair.store.remove()
    assert not pair.store.exists()


# --- points that are read -------------------------------------------------------------------------------------------


def test_a_reader_that_comes_while_points_are_dropped_keeps_its_own(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the pruner's look at who reads and its update of the manifest."""
    first, second, *_ = [pair.delta() for _ in range(3)]
    opened = []
    look = Layout.read_now

    def look_too_early(self: Layout, known: AzureManifest) -> frozenset[str]:
        found = look(self, known)
        if not opened:
            opened.append(pair.account.store().view("os", second))
        return found

    with monkeypatch.context() as patched:
        patched.setattr(Layout, "read_now", look_too_early)
        dropped = pair.store.prune(KEEP_ONE, pair.source.now())
    assert first.id in dropped
    assert second.id not in dropped
    assert second in pair.points()
    assert opened[0].read(0, SIZES["os"]) == pair.source.moments[second.time]["os"]
    pair.check()
    opened[0].close()
    assert pair.store.prune(KEEP_ONE, pair.source.now()) == [second.id]


def test_a_reader_that_has_not_said_which_point_it_reads_keeps_all(pair: Pair) -> None:
    pair.delta()
    before = pair.points()
    with pair.store._layout.reading() as pin:
        assert pair.store.prune(KEEP_ONE, pair.source.now()) == []
        assert pair.points() == before
        pin(before[1].id)
        assert before[1].id not in pair.store.prune(KEEP_ONE, pair.source.now())
    assert pair.store.prune(KEEP_ONE, pair.source.now()) == [before[1].id]


def test_a_reader_that_died_keeps_nothing(pair: Pair) -> None:
    pair.delta()
    oldest = pair.points()[0]
    dead = pair.account.store().view("os", oldest)
    assert oldest.id not in pair.store.prune(KEEP_ONE, pair.source.now())
    pair.account.end_leases()
    assert pair.store.prune(KEEP_ONE, pair.source.now()) == [oldest.id]
    dead.close()


# --- encryption of what waits in the cache --------------------------------------------------------------------------


def test_segments_in_the_cache_are_encrypted_with_the_machines_key(pair: Pair) -> None:
    """Also when the site has got its key after the replica was made."""
    site_key = SiteKey(bytes(range(32)), "env:SITE_KEY")
    pair.store = pair.account.store(site_key=site_key)
    secret = b"a secret that must not be readable in the cache " * 20
    pair.source.write("os", 5000, secret)
    pair.seal_without_applying(site_key=site_key)
    cached = [pair.account.cache.download_blob(name).readall() for name in pair.account.cache.list_blob_names()]
    assert cached
    assert not any(secret[:48] in segment for segment in cached)
    newest = pair.points()[-1]
    view = pair.store.view("os", newest)
    assert view.read(0, SIZES["os"]) == pair.source.moments[newest.time]["os"]
    view.close()
    for other in (SiteKey(bytes(32), "env:OTHER"), None):
        with pytest.raises(AuthenticationRefused) as refused:
            pair.account.store(site_key=other).view("os", newest)
        assert not refused.value.recoverable
    pair.delta()
    for point in pair.points():
        for path in pair.store.materialise(point, pair.folder / "out", quiet):
            assert path.read_bytes() == pair.source.moments[point.time][path.stem]


# --- sealed, not applied --------------------------------------------------------------------------------------------


def test_a_sealed_point_is_there_before_it_is_applied_and_applied_by_the_next_writer(pair: Pair) -> None:
    point = pair.seal_without_applying()
    assert len(list(pair.account.cache.list_blobs())) == 2
    assert pair.store.resolve("latest") == point
    pair.check()
    sums = pair.store.open_checksums("os")
    sums.close()
    pair.delta()
    assert list(pair.source.pending()) == []
    pair.check()
    pair.store.prune(KEEP_ONE, pair.source.now())
    assert list(pair.account.cache.list_blobs()) == []
    pair.check()


@pytest.mark.parametrize("damage", ["flip", "lose", "cut", "exchange"])
def test_a_damaged_segment_is_never_applied_and_a_resync_goes_on_without_it(pair: Pair, damage: str) -> None:
    before = pair.points()
    lost = pair.seal_without_applying()
    cache = pair.account.cache
    mine, other = sorted(cache.list_blob_names())
    blob = cache.get_blob_client(mine)
    raw = bytearray(blob.download_blob().readall())
    raw[len(raw) // 3] ^= 4
    if damage == "lose":
        blob.delete_blob()
    else:
        replacement = {
            "flip": bytes(raw),
            "cut": bytes(raw[:-100]),
            "exchange": cache.get_blob_client(other).download_blob().readall(),
        }
        blob.upload_blob(replacement[damage], overwrite=True)
    page_blob = pair.account.container.get_blob_client("db/data.vhd")
    content = page_blob.download_blob().readall()
    with pytest.raises(Damaged):
        pair.store.materialise(lost, pair.folder / "out", quiet)
    with pytest.raises(Damaged):
        pair.delta()
    assert page_blob.download_blob().readall() == content
    stream.resynchronize(pair.source, pair.store, quiet)
    assert pair.points()[: len(before)] == before
    assert lost not in pair.points()
    pair.check()
    pair.delta()
    pair.check()


def test_what_was_applied_of_a_damaged_delta_is_known_to_the_resync(pair: Pair) -> None:
    """The delta of one disk was in its page blob already when the other disk's turned out to be damaged."""
    before, after = b"A" * 4096, b"B" * 4096
    for block in (0, 65536):
        pair.source.write("os", block, before)
    pair.delta()
    for block in (0, 65536):
        pair.source.write("os", block, after)
    pair.seal_without_applying()
    damaged = next(name for name in pair.account.cache.list_blob_names() if "-data-" in name)
    pair.account.cache.get_blob_client(damaged).upload_blob(b"rot", overwrite=True)
    with pytest.raises(Damaged):
        pair.delta()
    pair.source.write("os", 0, before)

    class Killed(BaseException): ...

    saved: list[str] = []

    def fault(request: Any, number: int) -> None:
        """Dies after what was damaged is forgotten and the differences are sealed, before they are applied."""
        if request.method == "PUT" and request.url.endswith("manifest.json"):
            saved.append(request.url)
        if len(saved) == 2 and "comp=page" in request.url:
            raise Killed

    with pytest.raises(Killed):
        stream.resynchronize(pair.source, pair.account.store(pair.account.transport(fault)), quiet)
    pair.account.end_leases()
    pair.check()
    pair.delta()
    pair.check()


def test_segments_that_pass_through_this_host_leave_nothing_on_it(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    of_a_killed_one = Path(tempfile.mkdtemp(prefix=scratch.PREFIX))
    (of_a_killed_one / "0000000002-os-x.seg").write_bytes(b"x" * 1000)
    pair.seal_without_applying()
    view = pair.store.view("os")
    assert list(temporary.rglob("*"))
    view.close()
    pair.delta()
    assert list(temporary.iterdir()) == []


# --- leases ---------------------------------------------------------------------------------------------------------


def test_a_writer_that_lost_its_lease_cannot_change_anything(pair: Pair) -> None:
    """It learns it from the service at its next request, whatever that is."""
    old = pair.store
    with old.lock("the old writer"):
        segment = old.open_segment("os", old.state().last_cut + 1)
        pair.account.end_leases()
        new = pair.account.store()
        point = pair.delta(new)
        segment.close()
        session = old._session
        assert session is not None
        with pytest.raises(Busy):
            session.save(session.manifest())
        with pytest.raises(Busy):
            session.take_snapshots(9, "e", 9, None)
        session.pages(Disk(name="os", size=SIZES["os"])).add(Extent(0, b"x" * 512))
        with pytest.raises(Busy):
            session.pages(Disk(name="os", size=SIZES["os"])).flush()
        session.pages(Disk(name="os", size=SIZES["os"])).abandon()
        session._pages.clear()
    assert new.state().points[-1] == point
    pair.check()
    pair.delta(new)
    pair.check()


def test_a_writer_whose_lease_is_broken_stops_by_itself(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lease, "renew_after_s", property(lambda self: 0.05))
    with pair.store.lock():
        pair.account.end_leases()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not pair.store._session.lease._lost:  # type: ignore[union-attr]
            time.sleep(0.02)
        with pytest.raises(Busy, match="this writer stops"):
            pair.store.prune(KEEP_ONE, pair.source.now())
    pair.check()


def test_a_writer_that_cannot_renew_in_time_stops_by_itself(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    with pair.store.lock():
        now = time.monotonic()
        monkeypatch.setattr(leases.time, "monotonic", lambda: now + leases.LEASE_S - 4)
        with pytest.raises(Busy, match="this writer stops"):
            pair.store.prune(KEEP_ONE, pair.source.now())


def test_the_lease_of_a_dead_writer_ends_and_that_of_a_living_one_does_not(pair: Pair) -> None:
    dead = pair.account.container.get_blob_client("db/manifest.json")
    BlobLeaseClient(dead).acquire(15)
    died = time.monotonic()
    with pytest.raises(Busy, match="lease ends within 60 seconds"):
        pair.delta()
    living: AzureReplicaStore = pair.account.store(machine="other", lease_s=15)
    with living.lock():
        while time.monotonic() < died + 15.5:
            time.sleep(0.2)
        pair.delta()
        living.create(pair.source.disks(), "e")
        with pytest.raises(Busy):
            pair.account.store(machine="other").remove()
    living.remove()
    pair.check()


def test_a_failed_take_leaves_no_lease_and_no_thread(pair: Pair) -> None:
    pair.account.service.delete_container(pair.account.settings.cache_container)
    with pytest.raises(NotFound):
        pair.store.prune(KEEP_ONE, pair.source.now())
    assert {blob.lease.state for blob in pair.account.container.list_blobs()} <= {"available"}
    assert [thread.name for thread in threading.enumerate() if thread.name in ("lease", "azure")] == []


def test_the_manifest_is_never_overwritten_unseen(pair: Pair) -> None:
    with pair.store.lock():
        session = pair.store._session
        assert session is not None
        blob = pair.account.container.get_blob_client("db/manifest.json")
        raw = blob.download_blob().readall()
        blob.upload_blob(raw.replace(b"db", b"bd", 1), overwrite=True, lease=BlobLeaseClient(blob, session.lease.id))
        with pytest.raises(Busy, match="nothing was overwritten"):
            session.save(session.manifest())


def test_an_answer_that_got_lost_after_the_manifest_was_saved_is_recognised(pair: Pair) -> None:
    """The library sends the request again, and the ETag has changed by then: by the first one."""
    resent: list[bool] = []

    def fault(request: Any, number: int) -> Any:
        if request.method == "PUT" and request.url.endswith("manifest.json") and not resent:
            resent.append(True)
            return lambda _: super(type(transport), transport).send(request)
        return None

    transport = pair.account.transport(fault)
    point = pair.delta(pair.account.store(transport))
    assert resent
    assert pair.points()[-1] == point
    pair.check()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda raw: raw[:50], Damaged),
        (lambda raw: raw.replace(b"epoch-1", b"epoch-2"), Damaged),
        (lambda raw: raw.replace(b"leeward-azure-replica", b"leeward-replica"), Damaged),
        (lambda raw: raw.replace(b'"version": 1', b'"version": 2'), InvalidState),
    ],
)
def test_a_damaged_manifest_is_refused(pair: Pair, change: Any, error: type[Exception]) -> None:
    blob = pair.account.container.get_blob_client("db/manifest.json")
    blob.upload_blob(change(blob.download_blob().readall()), overwrite=True)
    with pytest.raises(error):
        pair.store.state()
    with pytest.raises(error):
        pair.store.prune(KEEP_ONE, pair.source.now())


def test_a_replica_whose_manifest_is_damaged_can_be_removed_as_its_error_says(pair: Pair) -> None:
    blob = pair.account.container.get_blob_client("db/manifest.json")
    blob.upload_blob(blob.download_blob().readall().replace(b"epoch-1", b"epoch-2"), overwrite=True)
    before = sorted(pair.account.names())
    changes: list[Callable[[], object]] = [
        lambda: pair.store.prune(KEEP_ONE, pair.source.now()),
        lambda: pair.store.keep_only(RecoveryPoint(id="x", sequence=1, time=pair.source.now(), kind=CRASH, bytes=0)),
        lambda: pair.store.create(pair.source.disks(), "e"),
        lambda: pair.store.adopt({}, pair.source.disks(), "e"),
        lambda: pair.store.begin_seed(None),
        pair.delta,
        lambda: stream.resynchronize(pair.source, pair.store, quiet),
    ]
    for change in changes:
        with pytest.raises(Damaged, match="does not match its checksum") as found:
            change()
        assert "disable the machine's protection" in found.value.remedy
        assert sorted(pair.account.names()) == before
    pair.store.remove()
    assert pair.account.names() == []


def test_a_disk_that_no_page_blob_can_hold_is_named_before_anything_is_made(account: Account, tmp_path: Path) -> None:
    disks = [Disk(name="os", size=4096), Disk(name="archive", size=9 << 40)]
    for make in (lambda: account.store().create(disks, "e"), lambda: account.store().adopt({}, disks, "e")):
        with pytest.raises(BadInput, match="'archive' of 9895604649984 bytes does not fit") as found:
            make()
        assert found.value.where
        assert "leave the disk out" in found.value.remedy
        assert account.names() == []


def test_a_manifest_that_somebody_deleted_costs_no_recovery_point(pair: Pair) -> None:
    """Nothing is listed then; but what it listed is not taken for leftovers."""
    blob = pair.account.container.get_blob_client("db/manifest.json")
    manifest = blob.download_blob().readall()
    blob.delete_blob()
    before = pair.account.names()
    for change in (pair.delta, lambda: pair.store.create(pair.source.disks(), "e"), pair.store.lock().__enter__):
        with pytest.raises(Damaged, match="manifest is missing") as found:
            change()
        assert "restore" in found.value.remedy
        assert pair.account.names() == before
    blob.upload_blob(manifest)
    pair.check()
    pair.delta()
    pair.check()


def test_a_page_blob_that_somebody_deleted_is_named_and_the_replica_can_be_removed(pair: Pair) -> None:
    pair.account.container.get_blob_client("db/os.vhd").delete_blob(delete_snapshots="include")
    with pytest.raises(NotFound):
        pair.delta()
    with pytest.raises(NotFound):
        pair.store.materialise(pair.points()[-1], pair.folder / "out", quiet)
    pair.account.end_leases()
    pair.store.remove()
    assert pair.account.names() == []


# --- pages ----------------------------------------------------------------------------------------------------------


def test_neighbours_are_written_together_and_zeros_not_at_all(account: Account) -> None:
    puts: list[tuple[str, str]] = []

    def watch(request: Any, number: int) -> None:
        if "comp=page" in request.url and request.method == "PUT":
            puts.append((request.headers["x-ms-page-write"], request.headers["x-ms-range"]))

    store: AzureReplicaStore = account.store(account.transport(watch))
    mib = 1 << 20
    store.create([Disk(name="os", size=12 * mib)], "e")
    puts.clear()
    with store.lock():
        for offset in range(0, 6 * mib, mib):
            store.write_base("os", Extent(offset, b"x" * mib))
        store.write_base("os", Extent(8 * mib, bytes(2 * mib)))
        store.write_base("os", Extent(10 * mib, bytes(2 * mib)))
        store.checkpoint_base("os", 12 * mib)
    assert sorted(puts) == [
        ("clear", f"bytes={8 * mib}-{12 * mib - 1}"),
        ("update", f"bytes=0-{4 * mib - 1}"),
        ("update", f"bytes={4 * mib}-{6 * mib - 1}"),
    ]


def test_memory_stays_bounded_whatever_the_disk(account: Account) -> None:
    """96 MiB pass through the store's half of the window, 36 MiB, and what the HTTP client copies of it."""
    store: AzureReplicaStore = account.store()
    size = 96 << 20
    noise = random.Random(1).randbytes(1 << 20)
    store.create([Disk(name="os", size=size)], "e")
    tracemalloc.start()
    with store.lock():
        for offset in range(0, size, 1 << 20):
            store.write_base("os", Extent(offset, noise[offset >> 20 :] + noise[: offset >> 20]))
        store.checkpoint_base("os", size)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 90 << 20


def test_a_manifest_names_a_failover_only_when_there_is_one(pair: Pair, account: Account) -> None:
    """One that an earlier release wrote does not, and that release reads what this one wrote until then."""

    def stored() -> dict[str, object]:
        blob = account.container.get_blob_client("db/manifest.json")
        return json.loads(blob.download_blob().readall())["replica"]  # type: ignore[no-any-return]

    assert "failed_over_to" not in stored()
    chosen = pair.points()[0]
    pair.store.fail_over_to(chosen)
    assert stored()["failed_over_to"] == chosen.model_dump(mode="json")
    pair.store.readmit()
    assert "failed_over_to" not in stored()
