"""The promise of design §6: a crash at any byte loses nothing and corrupts nothing.

Random work on a replica, with the power cut at a random effect of each operation; after it, a new store over what the
disk still knows must hold every recovery point it held before, byte for byte, and the operation must succeed again.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from model_source import ModelSource
from power import Power, PowerCut

from replication import compare, stream
from replication.checksums import BLOCK
from replication.local import LocalReplicaStore
from replication.ranges import pieces
from vault.domain import ConsistencyKind, Disk, Progress, Retention

pytestmark = pytest.mark.unit

SIZES = {"os": 200_000, "data": 70_000}
RUNS = 16
CRASHES_A_RUN = 14


def quiet(_: Progress) -> None: ...


class Site:
    """A source that outlives every crash, and the folder of its replica."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.rng = rng
        self.folder = folder
        self.source = ModelSource(SIZES)
        self.crashes = 0

    def store(self) -> LocalReplicaStore:
        return LocalReplicaStore(self.folder / "replica", machine="db")

    def write(self) -> None:
        for _ in range(self.rng.randrange(1, 6)):
            disk = self.rng.choice(list(SIZES))
            length = self.rng.choice([1, 512, 4096, 70_000])
            data = bytes(length) if self.rng.random() < 0.25 else self.rng.randbytes(length)
            self.source.write(disk, self.rng.randrange(SIZES[disk] - length + 1), data)

    def until_it_succeeds(self, operation: Callable[[LocalReplicaStore], object], may_drop: set[str]) -> None:
        """Cut the power at a random effect, check, and try again, a few times; then let it finish."""
        while True:
            before = {point.id for point in self._points()}
            cut_at = self.rng.randrange(1, 60) if self.rng.random() < 0.8 else None
            stash = self.folder / f"stash-{self.rng.getrandbits(64):x}"
            stash.mkdir()
            try:
                with Power(stash, self.rng, cut_at).on():
                    operation(self.store())
            except PowerCut:
                self.crashes += 1
                self.check(before - may_drop)
            else:
                self.check(before - may_drop)
                return

    def _points(self) -> list:
        store = self.store()
        return store.state().points if store.exists() else []

    def check(self, expected: set[str]) -> None:
        store = self.store()
        points = self._points()
        assert expected <= {point.id for point in points}
        for point in points:
            for name in SIZES:
                view = store.view(name, point)
                assert view.read(0, view.size) == self.source.moments[point.time][name], (point, name)
                view.close()


@pytest.fixture(autouse=True)
def _differences_are_kept_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """After some blocks, as on a large machine after hundreds of MiB."""
    monkeypatch.setattr(stream, "KEPT_AT_LEAST", BLOCK)
    monkeypatch.setattr(compare, "pieces", partial(pieces, piece=BLOCK))


@pytest.mark.parametrize("seed", range(RUNS))
def test_no_crash_loses_or_corrupts_a_recovery_point(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    site = Site(tmp_path, rng)
    source = site.source
    site.write()
    epoch = source.start_tracking()
    site.until_it_succeeds(lambda store: store.create(source.disks(), epoch), set())
    site.write()

    def seed_it(store: LocalReplicaStore) -> None:
        stream.copy_initial(source, store, quiet, checkpoint_bytes=1)

    site.until_it_succeeds(seed_it, set())
    while site.crashes < CRASHES_A_RUN:
        site.write()
        if rng.random() < 0.3:
            source.cut()
            site.write()
        match rng.choice(["delta", "delta", "delta", "prune", "prune", "resync", "last"]):
            case "delta":
                site.until_it_succeeds(
                    lambda store: stream.replicate_cut(source, store, ConsistencyKind.CRASH, quiet), set()
                )
            case "last":
                site.until_it_succeeds(lambda store: stream.send_last_changes(source, store, quiet), set())
                newest = source.moments[site.store().state().points[-1].time]
                assert newest == source.images
            case "resync":
                site.until_it_succeeds(lambda store: stream.resynchronize(source, store, quiet), set())
            case "prune":
                retention = Retention(count=rng.randrange(1, 5), hours=1000)
                points = site.store().state().points
                in_use = frozenset(point.id for point in points if rng.random() < 0.2)
                droppable = {point.id for point in points[: -retention.count]} - in_use
                now = source.now()
                site.until_it_succeeds(
                    lambda store, r=retention, n=now, u=in_use: store.prune(r, n, in_use=u), droppable
                )
    chosen = rng.choice(site.store().state().points)
    others = {point.id for point in site.store().state().points} - {chosen.id}
    site.until_it_succeeds(lambda store: store.keep_only(chosen), others)
    assert site.store().state().points == [chosen]
    site.until_it_succeeds(lambda store: store.remove(), {chosen.id})
    assert not site.store().exists()


def crash_everywhere(folder: Path, rng: random.Random, operation: Callable[[], object]) -> int:
    """Repeat an operation, cutting the power at its first effect, its second …, until it gets through."""
    cut_at = 1
    while True:
        stash = folder / f"stash-{cut_at}"
        stash.mkdir()
        try:
            with Power(stash, rng, cut_at).on():
                operation()
        except PowerCut:
            cut_at += 1
        else:
            return cut_at - 1


@pytest.mark.parametrize("seed", range(4))
def test_adoption_survives_a_crash_at_every_effect(tmp_path: Path, seed: int) -> None:
    source = ModelSource(SIZES)
    rng = random.Random(seed)
    images = {}
    for name, size in SIZES.items():
        source.write(name, 0, rng.randbytes(size))
        images[name] = tmp_path / f"{name}.raw"
        images[name].write_bytes(source.images[name])
    disks = [Disk(name=name, size=size) for name, size in SIZES.items()]
    store = LocalReplicaStore(tmp_path / "replica", machine="db")
    crashes = crash_everywhere(tmp_path, rng, lambda: store.adopt(images, disks, ""))
    assert crashes > 10
    for name in SIZES:
        assert (tmp_path / "replica" / f"base-{name}.raw").read_bytes() == source.images[name]
        assert not images[name].exists()


def test_the_power_model_can_catch_a_missing_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that does not sync its segments must fail here, else this file proves nothing."""
    from replication import segment

    class Careless:
        """``replication.files`` without durability."""

        def __getattr__(self, name: str) -> object:
            from replication import files

            return (lambda *_: None) if name == "sync" else getattr(files, name)

    monkeypatch.setattr(segment, "files", Careless())
    with pytest.raises(Exception):  # noqa: B017 - damage shows in many ways
        for seed in range(100, 112):
            folder = tmp_path / str(seed)
            folder.mkdir()
            test_no_crash_loses_or_corrupts_a_recovery_point(folder, seed)
