"""A process server and a master target as real processes, replicating a lab machine's disks."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from lab_support import AWAY, make_inventory, no_report
from model_source import ModelSource
from transport_sites import DISK, Sites, until_reached, until_true
from transport_wire import until_free

from replication import stream
from replication.ports import BlockReader, Cut, Extent
from vault.domain import Disk, Progress
from vault.errors import AuthorizationRefused, LeewardError, Unreachable
from workers import embedded
from workers.settings import Settings

pytestmark = pytest.mark.e2e


@pytest.fixture
def sites(tmp_path: Path) -> Iterator[Sites]:
    sites = Sites(tmp_path)
    yield sites
    sites.kill()
    sites.log.close()


def test_a_machine_is_replicated_and_recovered_through_a_master_target(sites: Sites, tmp_path: Path) -> None:
    rng = random.Random(1)
    process = sites.start_master_target()
    provider = sites.adapters.provider(sites.relationship)
    sites.write("data", 1 << 20, rng.randbytes(3 << 20))
    provider.enable(sites.relationship)
    provider.copy_initial(sites.relationship, no_report)
    provider.finalize(sites.relationship)
    marker = b"a secret that must not be readable in a segment " * 100
    sites.write("data", 12345, marker)
    sites.write("system", 0, rng.randbytes(5000))
    point = provider.replicate_once(sites.relationship, no_report, app_consistent=False)
    assert provider.recovery_points(sites.relationship)[-1] == point
    for disk in ("system", "data"):
        assert sites.replica(disk) == sites.image(disk)
    segments = list(sites.data.rglob("*.seg"))
    assert segments
    assert not any(marker[:40] in path.read_bytes() for path in segments)
    (made, *_) = sites.store.materialise(point, tmp_path / "out", no_report)
    assert made.read_bytes() == sites.image(made.stem)
    recovered = provider.start_test(sites.relationship, "latest", "db-test", no_report)
    assert (sites.lab.folder("db-test", AWAY).image("data")).read_bytes() == sites.image("data")
    provider.end_test(sites.relationship, recovered.name)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0, Path(sites.log.name).read_text()
    with pytest.raises(Unreachable, match="master target"):
        provider.replicate_once(sites.relationship, no_report, app_consistent=False)


@pytest.mark.chaos
def test_a_killed_master_target_resumes_at_its_last_checkpoint(sites: Sites, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(2)
    sites.start_master_target()
    sites.write("data", 0, rng.randbytes(DISK))
    source = sites.lab.site().change_source("db")
    sites.store.create(source.disks(), source.start_tracking())

    def kill_in_the_middle(progress: Progress) -> None:
        if progress.bytes_sent > DISK * 2 // 3:
            sites.kill()

    monkeypatch.setattr("replication.progress.REPORT_EVERY_S", 0)
    with pytest.raises(Unreachable):
        stream.copy_initial(source, sites.store, kill_in_the_middle, checkpoint_bytes=4 << 20)
    sites.start_master_target()
    resumed_at = sites.store.state().seeded_bytes["data"]
    assert resumed_at >= 4 << 20
    sent = 0

    def count(progress: Progress) -> None:
        nonlocal sent
        sent = max(sent, progress.bytes_sent)

    stream.copy_initial(source, sites.store, count, checkpoint_bytes=4 << 20)
    assert sent <= DISK - resumed_at + (2 << 20), "what was durable was sent again"
    assert sites.replica("data") == sites.image("data")
    killer = threading.Timer(0.05, sites.kill)
    sites.write("data", 0, rng.randbytes(DISK // 4))
    killer.start()
    before = sites.lab.site(AWAY).replica_store("db").state().points
    try:
        until_free(lambda: stream.send_last_changes(source, sites.store, no_report))
    except LeewardError as error:
        assert isinstance(error, Unreachable), error
    killer.join()
    assert sites.lab.site(AWAY).replica_store("db").state().points[: len(before)] == before
    sites.start_master_target()
    stream.send_last_changes(source, sites.store, no_report)
    assert sites.replica("data") == sites.image("data")


def test_leeward_up_runs_the_master_targets_of_the_inventory(sites: Sites) -> None:
    """What its supervisor runs is run here by the same means, without a Temporal beside it."""
    assert embedded.master_target_processes(make_inventory()) == {}
    ((name, module),) = embedded.master_target_processes(sites.inventory).items()
    assert name == f"master-target-{AWAY}"
    settings = Settings(vault=sites.vault, data=sites.data)
    child = embedded.Child(
        name,
        lambda: subprocess.Popen(
            [sys.executable, "-m", *module],
            env={**os.environ, **settings.environment()},
            cwd=Path(__file__).parents[2],
            stderr=sites.log,
        ),
    )
    try:
        for _ in range(2):
            until_true(lambda: child.ensure_running(time.monotonic()))
            until_reached(sites.store.exists)
            assert child.process is not None
            child.process.kill()
            child.process.wait()
        until_true(lambda: child.ensure_running(time.monotonic()))
        until_reached(sites.store.exists)
        process = child.process
    finally:
        asyncio.run(child.stop())
    assert process is not None
    assert process.returncode == 0, Path(sites.log.name).read_text()


def test_a_master_target_that_cannot_start_says_why(sites: Sites) -> None:
    unknown = subprocess.run(
        [sys.executable, "-m", "workers.master_target", "--site", "moon"],
        env={**os.environ, **Settings(vault=sites.vault, data=sites.data).environment()},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert unknown.returncode == 2
    assert "unknown site 'moon'" in unknown.stderr


def test_a_machine_taken_out_of_the_inventory_loses_its_access_at_once(sites: Sites) -> None:
    sites.start_master_target()
    assert sites.store.exists() is False
    without = sites.inventory.model_copy(update={"machines": {}})
    sites.vault.write_text(without.model_dump_json())
    with pytest.raises(AuthorizationRefused, match="'primary' may not touch the replica of 'db'"):
        sites.store.exists()
    sites.vault.write_text("not: [an inventory")
    with pytest.raises(AuthorizationRefused):
        sites.store.exists()
    sites.vault.write_text(sites.inventory.model_dump_json(indent=1))
    assert sites.store.exists() is False


class Sparse(ModelSource):
    """A disk of 1 GiB, every fourth MiB of it written; made up as it is read."""

    SIZE = 1 << 30

    def __init__(self) -> None:
        super().__init__({})
        self.noise = random.Random(1).randbytes(1 << 20)

    def disks(self) -> list[Disk]:
        return [Disk(name="data", size=self.SIZE)]

    def extents(self, cut: Cut, disk: str) -> Iterator[Extent]:
        return iter(())

    def open_snapshot(self, disk: str) -> BlockReader:
        source = self

        class Reader:
            size = source.SIZE

            def read(self, offset: int, length: int) -> bytes:
                return (offset.to_bytes(8, "big") + source.noise)[:length]

            def allocated(self) -> Iterator[tuple[int, int]]:
                return ((at, 1 << 20) for at in range(0, source.SIZE, 4 << 20))

            def close(self) -> None: ...

        return Reader()


def test_memory_stays_small_on_both_sides_whatever_the_disk(sites: Sites) -> None:
    target = psutil.Process(sites.start_master_target().pid)
    own = psutil.Process()
    source, store = Sparse(), sites.store
    store.create(source.disks(), source.start_tracking())
    began = own.memory_info().rss
    peak = {"target": 0, "own": 0}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak["target"] = max(peak["target"], target.memory_info().rss)
            peak["own"] = max(peak["own"], own.memory_info().rss - began)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        stream.copy_initial(source, store, no_report)
    finally:
        done.set()
        watcher.join()
    assert peak["target"] < 200 << 20, f"{peak['target'] >> 20} MiB"
    assert peak["own"] < 120 << 20, f"{peak['own'] >> 20} MiB"
