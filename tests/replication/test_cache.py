"""The cache of a process server, against a model: what it kept becomes recovery points, whatever is cut, or damaged."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from model_source import ModelSource
from power import Power, PowerCut

from replication import stream
from replication.cache import CutCache
from replication.caching import keep, send_cached
from replication.cipher import SiteKey
from replication.local import LocalReplicaStore
from vault.domain import CacheFill, ConsistencyKind, Progress
from vault.errors import AuthenticationRefused, Busy, ResynchronizationRequired

pytestmark = pytest.mark.unit

SIZES = {"os": 200_000, "data": 70_000}
RUNS = int(os.environ.get("LEEWARD_TEST_RUNS", "8"))
CRASHES_A_RUN = 6
SITE_KEY = SiteKey(bytes(range(32)), "env:SITE_KEY")
MUCH = 1 << 30


def quiet(_: Progress) -> None: ...


class Sites:
    """A source that outlives every crash, the cache beside it, and a replica."""

    def __init__(self, folder: Path, rng: random.Random, *, limit: int = MUCH, site_key: SiteKey | None = None) -> None:
        self.rng = rng
        self.folder = folder
        self.limit = limit
        self.site_key = site_key
        self.source = ModelSource(SIZES)
        self.crashes = 0
        self.store.create(self.source.disks(), self.source.start_tracking())
        stream.copy_initial(self.source, self.store, quiet)

    @property
    def store(self) -> LocalReplicaStore:
        return LocalReplicaStore(self.folder / "replica", machine="db", site_key=self.site_key)

    @property
    def cache(self) -> CutCache:
        return self.cache_of("db")

    def cache_of(self, machine: str) -> CutCache:
        return CutCache(self.folder / "cache", machine, self.limit, site_key=self.site_key)

    def write(self, length: int | None = None) -> None:
        for _ in range(self.rng.randrange(1, 5) if length is None else 1):
            disk = self.rng.choice(list(SIZES)) if length is None else "os"
            size = length or self.rng.choice([1, 512, 4096, 60_000])
            data = bytes(size) if self.rng.random() < 0.2 and length is None else self.rng.randbytes(size)
            self.source.write(disk, self.rng.randrange(SIZES[disk] - size + 1), data)

    def keep(self) -> CacheFill:
        return keep(self.source, self.cache, ConsistencyKind.CRASH, quiet)

    def keep_twice(self) -> None:
        """So that what the first one wrote is not taken for durable when the power goes in the second."""
        self.keep()
        self.write()
        self.keep()

    def send(self) -> None:
        send_cached(self.cache, self.store, quiet)
        stream.replicate_cut(self.source, self.store, ConsistencyKind.CRASH, quiet)

    def used(self) -> int:
        return sum(path.stat().st_size for path in (self.folder / "cache").rglob("*.seg*"))

    def segments(self) -> list[Path]:
        return sorted((self.folder / "cache" / "db").glob("*.seg"))

    def check(self) -> None:
        """Every recovery point holds what the source held at its moment."""
        store = self.store
        for point in store.state().points:
            for name in SIZES:
                view = store.view(name, point)
                assert view.read(0, view.size) == self.source.moments[point.time][name], (point, name)
                view.close()

    def power_cut_somewhere(self, operation: Callable[[], object]) -> None:
        """The power goes at a random effect, in cache or replica, again and again; then the operation gets through."""
        while True:
            cut_at = self.rng.randrange(1, 36) if self.rng.random() < 0.75 else None
            stash = self.folder / f"stash-{self.rng.getrandbits(64):x}"
            stash.mkdir()
            before = {point.id for point in self.store.state().points}
            try:
                with Power(stash, self.rng, cut_at).on():
                    operation()
            except PowerCut:
                self.crashes += 1
            else:
                cut_at = None
            assert before <= {point.id for point in self.store.state().points}
            self.check()
            if cut_at is None:
                return


@pytest.mark.parametrize("seed", range(RUNS))
def test_what_was_kept_becomes_recovery_points_whatever_crashes(tmp_path: Path, seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    sites = Sites(tmp_path, rng, limit=rng.choice([MUCH, 150_000]), site_key=rng.choice([None, SITE_KEY]))
    promised = set()
    while sites.crashes < CRASHES_A_RUN:
        sites.write()
        match rng.choice(["keep", "keep", "send"]):
            case "keep":
                sites.power_cut_somewhere(sites.keep_twice)
                promised |= {cut.time for cut in (*sites.cache.pending(), *sites.source.pending())}
            case "send":
                sites.power_cut_somewhere(sites.send)
                promised |= {sites.store.state().points[-1].time}
        assert sites.used() <= sites.limit
    sites.power_cut_somewhere(sites.send)
    assert promised <= {point.time for point in sites.store.state().points}
    newest = sites.source.moments[sites.store.state().points[-1].time]
    assert newest == sites.source.images
    assert sites.cache.is_empty()
    assert sites.segments() == []


def test_the_power_model_can_catch_a_missing_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that does not sync its segments must fail here, else the test above proves nothing."""
    from replication import files, segment

    class Careless:
        def __getattr__(self, name: str) -> object:
            return (lambda *_: None) if name == "sync" else getattr(files, name)

    monkeypatch.setattr(segment, "files", Careless())
    with pytest.raises(Exception):  # noqa: B017 - damage shows in many ways
        for seed in range(100, 110):
            folder = tmp_path / str(seed)
            folder.mkdir()
            test_what_was_kept_becomes_recovery_points_whatever_crashes(folder, seed)


def test_when_it_is_full_the_newest_changes_stay_in_the_source(tmp_path: Path) -> None:
    sites = Sites(tmp_path, random.Random(1), limit=100_000)
    fills = []
    for _ in range(5):
        sites.write(30_000)
        fills.append(sites.keep())
        assert sites.used() <= sites.limit
    assert [fill.full for fill in fills] == [False, False, False, True, True]
    assert [fill.cuts for fill in fills] == [1, 2, 3, 3, 3]
    assert len(sites.source.pending()) == 1, "a cut that does not fit is not followed by another"
    assert 90_000 < fills[-1].bytes == fills[-1].site_bytes <= sites.limit
    before = len(sites.store.state().points)
    sites.send()
    points = sites.store.state().points[before:]
    assert len(points) == 5, "three from the cache, the one that did not fit, and what came since"
    sites.check()
    assert sites.source.moments[points[-1].time] == sites.source.images


def test_all_machines_of_a_site_share_the_limit(tmp_path: Path) -> None:
    sites = Sites(tmp_path, random.Random(2), limit=100_000)
    other = ModelSource(SIZES)
    other.start_tracking()
    for source, machine in ((sites.source, "db"), (other, "web"), (other, "web")):
        source.write("os", 0, sites.rng.randbytes(40_000))
        fill = keep(source, sites.cache_of(machine), ConsistencyKind.CRASH, quiet)
    assert fill.full
    assert fill.bytes < fill.site_bytes <= sites.limit
    sites.send()
    assert not keep(other, sites.cache_of("web"), ConsistencyKind.CRASH, quiet).full


def test_a_cut_of_a_group_moves_instead_of_a_new_one(tmp_path: Path) -> None:
    sites = Sites(tmp_path, random.Random(3))
    sites.write()
    cut = sites.source.cut()
    sites.write()
    assert keep(sites.source, sites.cache, ConsistencyKind.CRASH, quiet).cuts == 1
    assert sites.cache.pending() == [cut]
    assert keep(sites.source, sites.cache, None, quiet).cuts == 1
    assert sites.keep().oldest == cut.time


@pytest.mark.parametrize("seed", range(12))
def test_a_flipped_bit_in_the_cache_is_never_applied(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    sites = Sites(tmp_path, rng, site_key=rng.choice([None, SITE_KEY]))
    for _ in range(3):
        sites.write()
        sites.keep()
    flipped = rng.choice([*sites.segments(), tmp_path / "cache" / "db" / "cache.json"])
    raw = bytearray(flipped.read_bytes())
    raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    flipped.write_bytes(raw)
    before = [point.id for point in sites.store.state().points]
    with pytest.raises(ResynchronizationRequired, match="cache"):
        sites.send()
    assert [point.id for point in sites.store.state().points][: len(before)] == before
    sites.check()
    sites.cache.remove()
    stream.resynchronize(sites.source, sites.store, quiet)
    sites.check()
    assert sites.source.moments[sites.store.state().points[-1].time] == sites.source.images


def test_a_segment_that_is_missing_or_exchanged(tmp_path: Path) -> None:
    sites = Sites(tmp_path, random.Random(4))
    for _ in range(2):
        sites.write(5000)
        sites.keep()
    first, second = (path for path in sites.segments() if path.name.endswith("-os.seg"))
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    with pytest.raises(ResynchronizationRequired, match="another segment"):
        sites.send()
    first.unlink()
    with pytest.raises(ResynchronizationRequired, match="cannot be read"):
        sites.send()
    first.write_bytes(kept)
    sites.send()
    sites.check()


def test_cached_segments_are_encrypted_and_need_the_key(tmp_path: Path) -> None:
    sites = Sites(tmp_path, random.Random(5), site_key=SITE_KEY)
    secret = b"a secret that must not be readable on the process server's disk"
    sites.source.write("os", 1000, secret)
    sites.keep()
    assert not any(secret[:20] in path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file())
    sites.site_key = SiteKey(bytes(32), "env:OTHER")
    with pytest.raises(AuthenticationRefused, match="does not open the key"):
        list(sites.cache.extents(sites.cache.pending()[0], "os"))
    sites.site_key = SITE_KEY
    sites.send()
    sites.check()


def test_what_a_resynchronization_has_overtaken_is_dropped(tmp_path: Path) -> None:
    sites = Sites(tmp_path, random.Random(6))
    sites.write()
    sites.keep()
    stream.resynchronize(sites.source, sites.store, quiet)
    sites.write()
    with pytest.raises(ResynchronizationRequired, match="does not follow"):
        sites.keep()
    send_cached(sites.cache, sites.store, quiet)
    assert sites.cache.is_empty()
    sites.keep()
    sites.send()
    sites.check()


def test_only_one_process_deals_with_a_machines_cache(tmp_path: Path) -> None:
    sites = Sites(tmp_path, random.Random(7))
    with sites.cache.lock("a long transfer"), pytest.raises(Busy, match="a long transfer"):
        sites.keep()
    sites.keep()
    sites.cache.remove()
    sites.cache.remove()
    assert sites.cache.is_empty()
    assert not (tmp_path / "cache" / "db").exists()
