"""What arrives too late, and who wakes up too late: neither changes anything any more."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import ServiceRequestError, ServiceResponseError
from azure.core.pipeline.transport import HttpRequest
from azure.storage.blob import LinearRetry
from model_source import ModelSource
from storage_account import Account, answer

from adapters.azure import vhd
from adapters.azure.connection import connect
from adapters.azure.store import AzureReplicaStore
from replication import stream
from replication.ports import BlockReader, Extent
from vault.domain import ConsistencyKind, Progress, RecoveryPoint, Retention
from vault.errors import Busy, Damaged, NotFound

pytestmark = pytest.mark.contract

CRASH = ConsistencyKind.CRASH
SIZE = 64 << 10
KEEP_ONE = Retention(count=1, hours=1000)


def quiet(_: Progress) -> None: ...


class Replica:
    def __init__(self, account: Account, folder: Path) -> None:
        self.account = account
        self.folder = folder
        self.source = ModelSource({"os": SIZE})
        self.store: AzureReplicaStore = account.store()
        self.write(b"a")
        self.store.create(self.source.disks(), self.source.start_tracking())
        stream.copy_initial(self.source, self.store, quiet)

    def write(self, letter: bytes) -> None:
        self.source.write("os", 0, letter * 4096)

    def delta(self, letter: bytes, store: AzureReplicaStore | None = None) -> RecoveryPoint:
        self.write(letter)
        return stream.replicate_cut(self.source, store or self.store, CRASH, quiet)

    def points(self) -> list[RecoveryPoint]:
        return self.store.state().points

    def check(self) -> None:
        for point in self.points():
            (path,) = self.account.store().materialise(point, self.folder / "out", quiet)
            assert path.read_bytes() == self.source.moments[point.time]["os"]

    def live(self, machine: str = "db") -> bytes:
        raw = self.account.container.get_blob_client(f"{machine}/os.vhd").download_blob().readall()
        return bytes(raw[:SIZE])

    def persistent(
        self, fault: Callable[[HttpRequest, int], object], machine: str = "db"
    ) -> tuple[AzureReplicaStore, Any]:
        """A store that tries each request again, as in production, and its connection."""
        transport = self.account.transport(fault)
        retry = LinearRetry(backoff=0, random_jitter_range=0, retry_total=2)
        service = connect(self.account.settings, retry_policy=retry, transport=transport)
        settings = self.account.settings
        store = AzureReplicaStore(
            service, machine=machine, container=settings.container, cache_container=settings.cache_container
        )
        return store, transport


@pytest.fixture
def replica(account: Account, tmp_path: Path) -> Replica:
    return Replica(account, tmp_path)


class Late:
    """The first request of a kind gets stuck on its way: the client gives up on it and sends another."""

    def __init__(self, wanted: Callable[[HttpRequest], bool]) -> None:
        self._wanted = wanted
        self.stuck: HttpRequest | None = None

    def __call__(self, request: HttpRequest, number: int) -> None:
        if self.stuck is None and self._wanted(request):
            self.stuck = copy.deepcopy(request)
            raise ServiceResponseError("no answer came in time")


def is_put_page(request: HttpRequest) -> bool:
    return request.method == "PUT" and "comp=page" in request.url


def test_a_put_page_that_arrives_after_the_next_delta_changes_nothing(replica: Replica) -> None:
    late = Late(is_put_page)
    store, transport = replica.persistent(late)
    with store.lock():
        replica.delta(b"b", store)
        assert late.stuck is not None
        replica.delta(b"c", store)
        transport.deliver(late.stuck)
    assert replica.live() == replica.source.images["os"]
    replica.source.write("os", SIZE - 512, b"d" * 512)
    stream.replicate_cut(replica.source, replica.store, CRASH, quiet)
    replica.check()


def test_a_late_put_page_of_the_copy_changes_nothing_after_the_first_delta(account: Account, tmp_path: Path) -> None:
    replica = Replica(account, tmp_path)
    replica.store.remove()
    late = Late(is_put_page)
    store, transport = replica.persistent(late)
    with store.lock():
        replica.write(b"b")
        store.create(replica.source.disks(), replica.source.start_tracking())
        late.stuck = None
        stream.copy_initial(replica.source, store, quiet)
        replica.delta(b"c", store)
        transport.deliver(late.stuck)
    assert replica.live() == replica.source.images["os"]


def test_of_two_writes_into_one_sector_a_late_first_one_changes_nothing(replica: Replica) -> None:
    late = Late(is_put_page)
    store, transport = replica.persistent(late, machine="other")
    store.create(replica.source.disks(), "e")
    late.stuck = None
    with store.lock():
        store.write_base("os", Extent(0, b"x" * 100))
        store.write_base("os", Extent(462, b"y" * 100))
        store.checkpoint_base("os", SIZE)
        transport.deliver(late.stuck)
    assert replica.live("other")[:1024] == b"x" * 100 + bytes(362) + b"y" * 100 + bytes(462)


def test_sectors_that_were_written_again_and_again_are_written_by_the_next_writer_too(replica: Replica) -> None:
    first, second = replica.account.store(machine="other"), replica.account.store(machine="other")
    first.create(replica.source.disks(), "e")
    with first.lock():
        for _ in range(3):
            first.write_base("os", Extent(100, b"x" * 100))
    with second.lock():
        second.write_base("os", Extent(100, b"y" * 100))
        second.write_base("os", Extent(100, b"z" * 100))
    assert replica.live("other")[:512] == bytes(100) + b"z" * 100 + bytes(312)


def test_a_writer_that_slept_through_its_lease_deletes_nothing_of_the_next_one(replica: Replica) -> None:
    slept: list[RecoveryPoint] = []

    def fault(request: HttpRequest, number: int) -> None:
        if request.method == "GET" and "comp=list" in request.url and not slept:
            replica.account.end_leases()
            slept.append(replica.delta(b"b"))

    with pytest.raises(Busy):
        replica.account.store(replica.account.transport(fault)).prune(KEEP_ONE, replica.source.now())
    assert slept[0] in replica.points()
    replica.check()


def test_a_reader_that_comes_while_the_replica_is_removed_leaves_nothing_behind_for_good(replica: Replica) -> None:
    """Between the look at who reads and the removal: what it reads stays until it is done, and goes then."""
    views: list[BlockReader] = []
    point = replica.points()[-1]

    def fault(request: HttpRequest, number: int) -> None:
        if request.method == "PUT" and request.url.endswith("manifest.json") and not views:
            views.append(replica.account.store().view("os", point))

    with pytest.raises(Busy, match="being read"):
        replica.account.store(replica.account.transport(fault)).remove()
    assert views[0].read(0, SIZE) == replica.source.images["os"]
    views[0].close()
    assert not replica.store.exists()
    replica.store.remove()
    assert replica.account.names() == []


def test_a_late_request_to_make_a_disk_does_not_wipe_it(replica: Replica) -> None:
    def makes_disk(request: HttpRequest) -> bool:
        return request.headers.get("x-ms-blob-type") == "PageBlob"

    late = Late(makes_disk)
    store, transport = replica.persistent(late, machine="other")
    store.create(replica.source.disks(), "e")
    store.write_base("os", Extent(0, b"x" * 512))
    transport.deliver(late.stuck)
    assert replica.live("other")[:512] == b"x" * 512


def test_an_answer_that_got_lost_after_a_disk_was_made_is_no_error(replica: Replica) -> None:
    lost: list[str] = []

    def fault(request: HttpRequest, number: int) -> Any:
        if request.headers.get("x-ms-blob-type") == "PageBlob" and not lost:
            lost.append(request.url)
            return lambda _: transport.deliver(request)
        return None

    transport: Any
    store, transport = replica.persistent(fault, machine="other")
    store.create(replica.source.disks(), "e")
    assert lost
    assert store.state().seeded_bytes == {"os": 0}


def test_what_a_reader_has_got_is_not_lost_with_the_last_request(replica: Replica) -> None:
    """Its announcement cannot be taken back: the next writer clears it."""

    def fault(request: HttpRequest, number: int) -> None:
        if request.method == "DELETE":
            raise ServiceRequestError("the link is down")

    store = replica.account.store(replica.account.transport(fault))
    (path,) = store.materialise(replica.points()[-1], replica.folder / "out", quiet)
    assert path.read_bytes() == replica.source.images["os"]
    view = store.view("os")
    assert view.read(0, SIZE) == replica.source.images["os"]
    view.close()
    with replica.store.lock():
        pass
    assert not [name for name in replica.account.names() if "/readers/" in name]


def test_a_reader_that_comes_while_a_writer_cleans_does_not_stop_it(replica: Replica) -> None:
    """It is there and has no lease yet when the writer looks, and has one when the writer deletes."""
    blob = replica.account.container.get_blob_client("db/readers/new")
    blob.upload_blob(b"")
    leases = []

    def fault(request: HttpRequest, number: int) -> None:
        if request.method == "DELETE" and "/readers/" in request.url and not leases:
            leases.append(blob.acquire_lease(60))

    with replica.account.store(replica.account.transport(fault)).lock():
        pass
    assert leases
    assert blob.exists()


# --- what is damaged, and what only seems to be ---------------------------------------------------------------------


def sealed_not_applied(replica: Replica) -> RecoveryPoint:
    class Killed(BaseException): ...

    def fault(request: HttpRequest, number: int) -> None:
        if is_put_page(request):
            raise Killed

    with pytest.raises(Killed):
        replica.delta(b"s", replica.account.store(replica.account.transport(fault)))
    replica.account.end_leases()
    return replica.points()[-1]


def test_a_page_blob_that_is_no_whole_vhd_costs_no_sealed_point_at_a_resynchronization(replica: Replica) -> None:
    point = sealed_not_applied(replica)
    replica.account.container.get_blob_client("db/os.vhd").clear_page(vhd.virtual_size(SIZE), 512)
    with pytest.raises(Damaged, match="no whole VHD"):
        stream.resynchronize(replica.source, replica.store, quiet)
    assert point in replica.points()
    replica.check()


def test_a_404_of_somebody_on_the_way_costs_no_sealed_point_at_a_resynchronization(replica: Replica) -> None:
    point = sealed_not_applied(replica)

    def fault(request: HttpRequest, number: int) -> Any:
        def nothing_here(response: Any) -> Any:
            return answer(response, 404, "")

        return nothing_here if request.method == "GET" and request.url.endswith(".seg") else None

    with pytest.raises(NotFound) as found:
        stream.resynchronize(replica.source, replica.account.store(replica.account.transport(fault)), quiet)
    assert type(found.value) is NotFound
    assert point in replica.points()
    replica.check()


class Forgetful:
    """Every request is done, and its first answer gets lost."""

    def __init__(self) -> None:
        self._of_thread = threading.local()
        self.lost = 0

    def __call__(self, request: HttpRequest, number: int) -> Callable[[Any], Any] | None:
        again = getattr(self._of_thread, "again", False)
        self._of_thread.again = not again
        return None if again else self._lose

    def _lose(self, response: Any) -> Any:
        self.lost += 1
        raise ServiceResponseError("the answer was lost")


def test_nothing_fails_though_every_answer_gets_lost_once(replica: Replica) -> None:
    replica.store.remove()
    forgetful = Forgetful()
    store, _ = replica.persistent(forgetful)
    source = replica.source
    store.create(source.disks(), source.start_tracking())
    stream.copy_initial(source, store, quiet)
    replica.delta(b"b", store)
    source.write("os", 8192, bytes(4096))
    replica.delta(b"c", store)
    (path,) = store.materialise(store.state().points[0], replica.folder / "early", quiet)
    assert path.read_bytes() == source.moments[store.state().points[0].time]["os"]
    replica.check()
    assert len(store.prune(Retention(count=2, hours=1000), source.now())) == 2
    source.stop_tracking()
    stream.resynchronize(source, store, quiet)
    replica.check()
    store.keep_only(store.state().points[0])
    replica.check()
    store.remove()
    assert replica.account.names() == []
    assert forgetful.lost > 50
