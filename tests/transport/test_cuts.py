"""The link breaks at any byte: the replica is at a recovery point, and none that existed is lost."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest
from model_source import ModelSource
from transport_wire import CuttingProxy, Wire, until_free

from replication import compare, stream
from replication.cache import CutCache
from replication.caching import keep, send_cached
from replication.checksums import BLOCK
from replication.cipher import SiteKey
from replication.ports import ReplicaStore
from replication.ranges import pieces
from replication.transport import connection
from replication.transport.remote import RemoteReplicaStore
from vault.domain import ConsistencyKind, Progress, Retention
from vault.errors import Busy, LeewardError, NotFound, Unreachable

pytestmark = pytest.mark.chaos

SIZES = {"os": 200_000, "data": 60_000}
CUTS = int(os.environ.get("LEEWARD_TEST_CUTS", "520"))
"""Transfers that end by a cut, in all of the tests below together; a release is tested with tens of thousands."""
SEED = int(os.environ.get("LEEWARD_TEST_SEED", "1"))
KINDS = ("plain", "encrypted")
MOST_POINTS = 5


def quiet(_: Progress) -> None: ...


class Link:
    """A source with a cache, a master target, and a link between them that breaks at any byte of what it carries."""

    def __init__(self, folder: Path, rng: random.Random, site_key: SiteKey | None) -> None:
        self.rng = rng
        self.folder = folder
        self.site_key = site_key
        self.wire = Wire(folder, site_key=site_key)
        self.wire.start()
        self.proxy = CuttingProxy(self.wire.address)
        self.source = ModelSource(SIZES)
        self.takes: dict[str, int] = {}
        """Bytes on the link that the last whole run of each operation took."""
        self.promised: set[datetime] = set()
        """Moments that are kept and not at the target yet."""
        self.cuts = 0

    def close(self) -> None:
        self.proxy.close()
        self.wire.close()

    def write(self) -> None:
        for _ in range(self.rng.randrange(1, 4)):
            disk = self.rng.choice(list(SIZES))
            length = self.rng.choice([1, 512, 4096, 50_000])
            data = bytes(length) if self.rng.random() < 0.25 else self.rng.randbytes(length)
            self.source.write(disk, self.rng.randrange(SIZES[disk] - length + 1), data)

    def cache(self) -> CutCache:
        return CutCache(self.folder / "cache", "db", 1 << 30, site_key=self.site_key)

    def over(self, cut_after: int | None) -> RemoteReplicaStore:
        """The replica over a new link: gRPC waits before it uses again an address that failed."""
        self.proxy.close()
        self.proxy = CuttingProxy(self.wire.address)
        self.proxy.cut_after = cut_after
        return self.wire.remote(address=self.proxy.address)

    def run(self, operation: str) -> None:
        """Break it at a random byte, again and again, until a run gets through."""
        keep_points = Retention(count=self.rng.randrange(1, 4), hours=1000)
        while True:
            before = self.points()
            cut_after = self.rng.randrange(self.takes.get(operation, 8_000)) if self.rng.random() < 0.9 else None
            store = self.over(cut_after)
            try:
                until_free(lambda s=store: self.perform(operation, s, keep_points))  # type: ignore[misc]
            except LeewardError as error:
                assert isinstance(error, Unreachable), error
                assert cut_after is not None
                self.cuts += 1
                self.check(before[-keep_points.count :] if operation == "prune" else before)
                if operation == "delta" and self.rng.random() < 0.5:
                    self.keep()
            else:
                self.takes[operation] = max(1_000, self.proxy.carried)
                self.check(self.points()[-1:] if operation == "prune" else before)
                return

    def perform(self, operation: str, store: ReplicaStore, keep_points: Retention) -> None:
        match operation:
            case "initial":
                stream.copy_initial(self.source, store, quiet, checkpoint_bytes=65536)
            case "delta":
                send_cached(self.cache(), store, quiet)
                stream.replicate_cut(self.source, store, ConsistencyKind.CRASH, quiet)
            case "resync":
                send_cached(self.cache(), store, quiet)
                stream.resynchronize(self.source, store, quiet)
            case "prune":
                store.prune(keep_points, self.source.now())
                return
        assert self.promised <= {point.time for point in self.wire.local().state().points}
        self.promised.clear()

    def keep(self) -> None:
        """As the process server does while the link is down."""
        self.write()
        keep(self.source, self.cache(), ConsistencyKind.CRASH, quiet)
        self.promised |= {cut.time for cut in self.cache().pending()}
        self.write()

    def points(self) -> list[str]:
        store = self.wire.local()
        return [point.id for point in store.state().points] if store.exists() else []

    def check(self, expected: list[str]) -> None:
        """Every point there is holds what the source held at its moment. Others than ``expected`` may go meanwhile:
        what had arrived before the link broke is done by the master target."""
        store = self.wire.local()
        points = store.state().points
        assert set(expected) <= {point.id for point in points}
        for point in points:
            for name in SIZES:
                try:
                    view = store.view(name, point)
                except NotFound:
                    assert point.id not in expected
                    break
                assert view.read(0, view.size) == self.source.moments[point.time][name], (point, name)
                view.close()


@pytest.fixture(autouse=True)
def _differences_are_kept_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """After some blocks, as on a large machine after hundreds of MiB."""
    monkeypatch.setattr(stream, "KEPT_AT_LEAST", BLOCK)
    monkeypatch.setattr(compare, "pieces", partial(pieces, piece=BLOCK))


@pytest.fixture
def seed() -> int:
    return SEED


@pytest.fixture(params=KINDS)
def link(
    request: pytest.FixtureRequest, tmp_path: Path, seed: int, site_key: SiteKey, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Link]:
    monkeypatch.setattr(connection, "CONNECTS_WITHIN_S", 0.01)  # a link that is cut in its handshake: no patience
    rng = random.Random(f"{request.param}-{seed}")
    link = Link(tmp_path, rng, site_key if request.param == "encrypted" else None)
    yield link
    link.close()


@pytest.mark.parametrize("seed", [SEED, SEED + 1])
def test_a_link_cut_at_any_byte_loses_nothing(link: Link, seed: int, record_property: pytest.RecordProperty) -> None:
    wanted = CUTS // len(KINDS) // 2
    while link.cuts < wanted:
        link.promised.clear()
        if link.wire.local().exists():
            until_free(lambda: link.wire.remote().remove())
        link.write()
        epoch = link.source.start_tracking()
        until_free(lambda e=epoch: link.wire.remote().create(link.source.disks(), e))
        link.run("initial")
        for _ in range(20):
            link.write()
            link.run(link.rng.choice(["delta", "delta", "delta", "resync"]))
            if len(link.points()) > MOST_POINTS:
                link.run("prune")
            if link.cuts >= wanted:
                break
    link.run("delta")
    until_free(lambda: stream.send_last_changes(link.source, link.wire.remote(), quiet))
    assert link.source.moments[link.wire.local().state().points[-1].time] == link.source.images
    record_property("cuts", link.cuts)
    print(f"seed {seed}: {link.cuts} transfers ended by a cut; LEEWARD_TEST_SEED={seed} repeats it")


def test_a_silent_link_is_noticed_and_its_lock_becomes_free(link: Link) -> None:
    link.write()
    link.wire.remote().create(link.source.disks(), link.source.start_tracking())
    link.source.write("os", 0, link.rng.randbytes(190_000))
    store = link.over(100_000)
    link.proxy.silent = True
    began = time.monotonic()
    with pytest.raises(Unreachable):
        stream.copy_initial(link.source, store, quiet)
    noticed = time.monotonic() - began
    until_free(lambda: stream.copy_initial(link.source, link.wire.remote(), quiet))
    link.check([])
    assert noticed < 30
    assert time.monotonic() - began < 60


def test_two_writers_of_one_machine(link: Link) -> None:
    link.wire.remote().create(link.source.disks(), link.source.start_tracking())
    first, second = link.wire.remote(), link.wire.remote()
    with first.lock("the long transfer"):
        with pytest.raises(Busy, match="the long transfer, for ipv4:127"):
            second.prune(Retention(), link.source.now())
        assert second.state().disks == link.source.disks()
        errors: list[BaseException] = []

        def in_another_thread() -> None:
            try:
                first.begin_seed(None)
            except Busy as error:
                errors.append(error)

        thread = threading.Thread(target=in_another_thread)
        thread.start()
        thread.join()
        assert len(errors) == 1
    second.begin_seed(None)
