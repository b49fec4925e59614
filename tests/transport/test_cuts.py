"""The link breaks at any byte: the replica is at a recovery point, and none that existed is lost."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from model_source import ModelSource
from transport_wire import CuttingProxy, Wire, until_free

from replication import stream
from replication.cipher import SiteKey
from replication.ports import ReplicaStore
from replication.transport import connection
from replication.transport.remote import RemoteReplicaStore
from vault.domain import ConsistencyKind, Progress, Retention
from vault.errors import Busy, LeewardError, Unreachable

pytestmark = pytest.mark.chaos

SIZES = {"os": 400_000, "data": 150_000}
CUTS_S = float(os.environ.get("LEEWARD_TEST_CUTS_S", "5"))
"""How long each test goes on cutting; a release is tested with minutes."""


def quiet(_: Progress) -> None: ...


class Link:
    """A source, a master target, and a proxy between them that cuts."""

    def __init__(self, folder: Path, rng: random.Random, site_key: SiteKey | None) -> None:
        self.rng = rng
        self.wire = Wire(folder, site_key=site_key)
        self.wire.start()
        self.proxy = CuttingProxy(self.wire.address)
        self.source = ModelSource(SIZES)
        self.cuts = 0
        self.broken = 0

    def close(self) -> None:
        self.proxy.close()
        self.wire.close()

    def write(self) -> None:
        for _ in range(self.rng.randrange(1, 5)):
            disk = self.rng.choice(list(SIZES))
            length = self.rng.choice([1, 512, 4096, 100_000])
            data = bytes(length) if self.rng.random() < 0.25 else self.rng.randbytes(length)
            self.source.write(disk, self.rng.randrange(SIZES[disk] - length + 1), data)

    def store(self) -> RemoteReplicaStore:
        return self.wire.remote(address=self.proxy.address)

    def run(self, operation: str) -> None:
        """Measure on the way how many bytes it takes, then cut at a random one of them until it is through."""
        keep = Retention(count=self.rng.randrange(1, 4), hours=1000)
        while True:
            before = self.points()
            cut = self.rng.random() > 0.15
            takes = 6_000 + {"initial": 500_000, "resync": 300_000}.get(operation, 120_000)
            self.proxy.cut_after = self.rng.randrange(self.rng.choice([9_000, takes, takes])) if cut else None
            try:
                until_free(lambda: self.perform(operation, self.store(), keep))
            except LeewardError as error:
                assert isinstance(error, Unreachable), error
                assert cut
                self.broken += 1
            else:
                self.check(self.points()[-1:] if operation == "prune" else before)
                return
            finally:
                self.cuts += cut
            self.check(before[-keep.count :] if operation == "prune" else before)

    def perform(self, operation: str, store: ReplicaStore, keep: Retention) -> None:
        match operation:
            case "initial":
                stream.copy_initial(self.source, store, quiet, checkpoint_bytes=65536)
            case "delta":
                stream.replicate_cut(self.source, store, ConsistencyKind.CRASH, quiet)
            case "resync":
                stream.resynchronize(self.source, store, quiet)
            case "prune":
                store.prune(keep, self.source.now())

    def points(self) -> list[str]:
        store = self.wire.local()
        return [point.id for point in store.state().points] if store.exists() else []

    def check(self, expected: list[str]) -> None:
        """Every point there is holds what the source held at its moment."""
        store = self.wire.local()
        points = store.state().points
        assert set(expected) <= {point.id for point in points}
        for point in points:
            for name in SIZES:
                view = store.view(name, point)
                assert view.read(0, view.size) == self.source.moments[point.time][name], (point, name)
                view.close()


@pytest.fixture(params=["plain", "encrypted"])
def link(
    request: pytest.FixtureRequest, tmp_path: Path, site_key: SiteKey, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Link]:
    monkeypatch.setattr(connection, "CONNECTS_WITHIN_S", 0.2)  # a link that is cut in every handshake: no patience
    link = Link(tmp_path, random.Random(request.param), site_key if request.param == "encrypted" else None)
    yield link
    link.close()


def test_a_link_cut_at_any_byte_loses_nothing(link: Link, record_property: pytest.RecordProperty) -> None:
    ends = time.monotonic() + CUTS_S
    while time.monotonic() < ends:
        if link.wire.local().exists():
            until_free(lambda: link.wire.remote().remove())
        link.write()
        epoch = link.source.start_tracking()
        until_free(lambda e=epoch: link.wire.remote().create(link.source.disks(), e))
        link.run("initial")
        for _ in range(12):
            link.write()
            link.run(link.rng.choice(["delta", "delta", "delta", "resync", "prune"]))
    until_free(lambda: stream.send_last_changes(link.source, link.wire.remote(), quiet))
    assert link.source.moments[link.wire.local().state().points[-1].time] == link.source.images
    record_property("cuts", link.cuts)
    record_property("broken", link.broken)
    print(f"{link.cuts} links cut, {link.broken} of them within an operation")
    assert link.broken > 10


def test_a_silent_link_is_noticed_and_its_lock_becomes_free(link: Link) -> None:
    link.proxy.silent = True
    link.write()
    link.wire.remote().create(link.source.disks(), link.source.start_tracking())
    link.source.write("os", 0, link.rng.randbytes(300_000))
    link.proxy.cut_after = 150_000
    began = time.monotonic()
    with pytest.raises(Unreachable):
        stream.copy_initial(link.source, link.store(), quiet)
    noticed = time.monotonic() - began
    until_free(lambda: stream.copy_initial(link.source, link.wire.remote(), quiet))
    link.check([])
    assert noticed < 10
    assert time.monotonic() - began < 20


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
