"""A replica store seen through a link: every call asks the link, and data is charged to it."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime
from pathlib import Path

import pytest
from lab_support import no_report

from adapters.lab.link import over_link
from replication.local import LocalReplicaStore
from replication.ports import Extent, ReplicaStore
from vault.domain import ConsistencyKind, Disk, Retention
from vault.errors import Unreachable

pytestmark = pytest.mark.unit

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SIZE = 256 * 1024


class Link:
    def __init__(self) -> None:
        self.carried: list[int] = []
        self.down = False

    def __call__(self, count: int) -> None:
        if self.down:
            raise Unreachable("the link is down")
        self.carried.append(count)


def test_data_is_charged_and_requests_are_asked(tmp_path: Path) -> None:
    link = Link()
    store = over_link(LocalReplicaStore(tmp_path / "replica", machine="db"), link)
    assert not store.exists()
    store.create([Disk(name="d", size=SIZE)], "e1")
    with store.lock("test"):
        store.begin_seed(NOW)
        store.write_base("d", Extent(0, b"x" * 1000))
        assert link.carried[-1] == 1000
        store.checkpoint_base("d", SIZE)
        checksums = store.open_checksums("d")
        assert len(checksums.checksums(0, SIZE, 65536)) == 4 and link.carried[-1] == 64
        assert list(checksums.allocated())
        checksums.close()
        store.complete_seed(NOW, ConsistencyKind.CRASH)
        before = sum(link.carried)
        writer = store.open_segment("d", 1)
        writer.add(Extent(4096, b"abcd" * 4096))
        writer.close()
        assert sum(link.carried) - before == writer.bytes_sent > 0
        point = store.seal(1, NOW.replace(year=2027), ConsistencyKind.CRASH)
    assert store.resolve("latest") == point and store.state().last_cut == 1
    view = store.view("d", point)
    assert view.read(4096, 8) == b"abcdabcd" and link.carried[-1] == 8
    view.close()
    assert [path.name for path in store.materialise(point, tmp_path, no_report)] == ["d.raw"]
    store.prune(Retention(), NOW.replace(year=2027))
    store.keep_only(point)
    store.remove()
    assert not store.exists()


def test_nothing_reaches_the_store_through_a_broken_link(tmp_path: Path) -> None:
    link = Link()
    store = over_link(LocalReplicaStore(tmp_path / "replica", machine="db"), link)
    store.create([Disk(name="d", size=SIZE)], "e1")
    with store.lock("test"):
        store.begin_seed(NOW)
        store.checkpoint_base("d", SIZE)
        store.complete_seed(NOW, ConsistencyKind.CRASH)
        writer = store.open_segment("d", 1)
        view, checksums = store.view("d"), store.open_checksums("d")
        link.down = True
        with pytest.raises(Unreachable):
            writer.add(Extent(0, b"x"))
        with pytest.raises(Unreachable):
            writer.close()
        with pytest.raises(Unreachable):
            view.read(0, 1)
        with pytest.raises(Unreachable):
            checksums.checksums(0, SIZE, 65536)
        writer.abandon()
        view.close()
        checksums.close()
    calls = [name for name, _ in inspect.getmembers(ReplicaStore, inspect.isfunction) if not name.startswith("_")]
    assert len(calls) > 15
    for name in calls:
        method = getattr(store, name)
        wanted = [
            parameter
            for parameter in inspect.signature(method).parameters.values()
            if parameter.default is parameter.empty
        ]
        with pytest.raises(Unreachable):
            method(*(Extent(0, b"x") if parameter.name == "extent" else None for parameter in wanted))
            pytest.fail(f"{name} got through")
