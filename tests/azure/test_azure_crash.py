"""A crash at any request loses nothing and corrupts nothing.

Each operation is tried again and again; each try is cut off at a later request than the one before: the process is
killed or the link goes down, before the request leaves or before its answer comes. After every crash another process
must find each recovery point as it was, and in the end the operation must succeed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Set
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import ServiceRequestError, ServiceResponseError
from model_source import ModelSource
from storage_account import Account

from adapters.azure.store import AzureReplicaStore
from replication import compare, stream
from replication.checksums import BLOCK
from replication.ranges import pieces
from vault.domain import ConsistencyKind, Progress, Retention
from vault.errors import LeewardError, Unreachable

pytestmark = pytest.mark.contract

CRASH = ConsistencyKind.CRASH
SIZES = {"os": 150_000, "data": 70_000}
Operation = Callable[[AzureReplicaStore], object]


class Killed(BaseException):
    """Not an ``Exception``: nothing in the product may handle it."""


def quiet(_: Progress) -> None: ...


class CutOff:
    """The connection of a process that dies at its n-th request, or of a link that goes down there for good."""

    def __init__(self, at: int, rng: random.Random) -> None:
        self._at = at
        self._killed = rng.random() < 0.5
        self._after = rng.random() < 0.5
        self.happened = False

    def __call__(self, request: Any, number: int) -> Callable[[Any], Any] | None:
        if number < self._at:
            return None
        self.happened = True
        if number == self._at and self._after:
            return self._lose
        raise Killed if self._killed else ServiceRequestError("the link is down")

    def _lose(self, answer: Any) -> Any:
        raise Killed if self._killed else ServiceResponseError("the answer was lost")


class Site:
    """A source that outlives every crash."""

    def __init__(self, account: Account, folder: Path, rng: random.Random, stride: int) -> None:
        self.account = account
        self.folder = folder
        self.rng = rng
        self.stride = stride
        self.source = ModelSource(SIZES)
        self.crashes = 0

    def write(self) -> None:
        for _ in range(3):
            disk = self.rng.choice(list(SIZES))
            length = self.rng.choice([512, 4096, 60_000])
            data = bytes(length) if self.rng.random() < 0.25 else self.rng.randbytes(length)
            self.source.write(disk, self.rng.randrange(SIZES[disk] - length + 1), data)

    def points(self) -> list[Any]:
        store = self.account.store()
        return store.state().points if store.exists() else []

    def crash_everywhere(self, operation: Operation, *, may_drop: Set[str] = frozenset()) -> int:
        """Returns the request after which there was none left to be cut off at."""
        before = {point.id for point in self.points()}
        for at in count(self.rng.randint(1, self.stride), self.stride):
            cut_off = CutOff(at, self.rng)
            store = self.account.store(self.account.transport(cut_off))
            try:
                operation(store)
            except (Killed, Unreachable):
                assert cut_off.happened
            except LeewardError as error:
                raise AssertionError(f"request {at} was cut off, and the store said: {error}") from error
            self.account.end_leases()
            self.check(before - may_drop)
            if not cut_off.happened:
                return at - 1
            self.crashes += 1
        raise AssertionError

    def check(self, expected: set[str]) -> None:
        """Every point that must be there is there, and two of all are what the source was at their moments."""
        points = self.points()
        assert expected <= {point.id for point in points}
        for point in {
            point.id: point for point in (*points[-1:], *self.rng.sample(points, min(1, len(points))))
        }.values():
            for path in self.account.store().materialise(point, self.folder / "out", quiet):
                assert path.read_bytes() == self.source.moments[point.time][path.stem], point


@pytest.fixture(autouse=True)
def _differences_are_kept_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """After some blocks, as on a large machine after hundreds of MiB."""
    monkeypatch.setattr(stream, "KEPT_AT_LEAST", 2 * BLOCK)
    monkeypatch.setattr(compare, "pieces", partial(pieces, piece=BLOCK))


@pytest.mark.parametrize("stride", [6, pytest.param(3, marks=pytest.mark.chaos)])
def test_no_crash_loses_or_corrupts_a_recovery_point(account: Account, tmp_path: Path, stride: int) -> None:
    rng = random.Random(stride)
    site = Site(account, tmp_path, rng, stride)
    source = site.source
    site.write()
    epoch = source.start_tracking()
    assert site.crash_everywhere(lambda store: store.create(source.disks(), epoch)) >= 10
    site.write()
    seeding = site.crash_everywhere(lambda store: stream.copy_initial(source, store, quiet, checkpoint_bytes=65536))
    assert seeding >= 25
    site.write()
    assert site.crash_everywhere(lambda store: stream.replicate_cut(source, store, CRASH, quiet)) >= 15
    site.check({point.id for point in site.points()})
    two = Retention(count=2, hours=1000)
    droppable = {point.id for point in site.points()[:-2]}
    site.crash_everywhere(lambda store: store.prune(two, source.now()), may_drop=droppable)
    assert len(site.points()) == 2
    source.stop_tracking()
    site.write()
    resync = site.crash_everywhere(lambda store: stream.resynchronize(source, store, quiet))
    assert resync >= 25
    chosen, *others = site.points()
    dropped = {point.id for point in others}
    site.crash_everywhere(lambda store: store.keep_only(chosen), may_drop=dropped)
    assert site.points() == [chosen]
    site.crash_everywhere(lambda store: stream.resynchronize(source, store, quiet))
    newest = site.points()[-1]
    assert source.moments[newest.time] == source.images
    site.crash_everywhere(lambda store: store.remove(), may_drop={point.id for point in site.points()})
    assert account.names() == []
    assert site.crashes >= 180 / stride


def test_adoption_survives_a_crash_at_every_request(account: Account, tmp_path: Path) -> None:
    rng = random.Random(5)
    site = Site(account, tmp_path, rng, stride=1)
    images = {name: tmp_path / f"{name}.raw" for name in SIZES}
    for name, size in SIZES.items():
        site.source.write(name, 0, rng.randbytes(size))
        images[name].write_bytes(site.source.images[name])
    assert site.crash_everywhere(lambda store: store.adopt(images, site.source.disks(), "")) >= 10
    assert not any(image.exists() for image in images.values())
    for name in SIZES:
        blob = account.container.get_blob_client(f"db/{name}.vhd").download_blob().readall()
        assert blob[: SIZES[name]] == site.source.images[name]
