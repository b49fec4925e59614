"""Recovery points in use: pruning, in whatever process, leaves them alone."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from model_source import ModelSource

from replication import stream
from replication.local import LocalReplicaStore
from replication.pins import Pins
from vault.domain import ConsistencyKind, Progress, RecoveryPoint, Retention
from vault.errors import Busy, NotFound

pytestmark = pytest.mark.unit

SIZES = {"os": 300_000, "data": 70_000}
ONE = Retention(count=1, hours=1000)
READER = """
import sys
from pathlib import Path
from replication.local import LocalReplicaStore
store = LocalReplicaStore(Path(sys.argv[1]), machine="db")
view = store.view("os", store.resolve(sys.argv[2]))
print("reading", flush=True)
sys.stdin.readline()
view.close()
print("closed", flush=True)
sys.stdin.readline()
"""


def quiet(_: Progress) -> None: ...


class Replica:
    def __init__(self, folder: Path) -> None:
        self.source = ModelSource(SIZES)
        self.folder = folder / "replica"
        self.store = LocalReplicaStore(self.folder, machine="db")
        self.store.create(self.source.disks(), self.source.start_tracking())
        stream.copy_initial(self.source, self.store, quiet)
        self.rng = random.Random(4)
        self.add(3)

    def add(self, count: int = 1) -> None:
        for _ in range(count):
            self.source.write("os", self.rng.randrange(290_000), self.rng.randbytes(10_000))
            stream.replicate_cut(self.source, self.store, ConsistencyKind.CRASH, quiet)

    @property
    def points(self) -> list[RecoveryPoint]:
        return self.store.state().points

    def prune(self) -> list[str]:
        return self.store.prune(ONE, self.source.now())

    def check(self, point: RecoveryPoint) -> None:
        for name in SIZES:
            view = self.store.view(name, point)
            assert view.read(0, view.size) == self.source.moments[point.time][name]
            view.close()


@pytest.fixture
def replica(tmp_path: Path) -> Replica:
    return Replica(tmp_path)


def reader(replica: Replica, point: RecoveryPoint) -> subprocess.Popen[str]:
    packages = str(Path(stream.__file__).resolve().parents[1])
    process = subprocess.Popen(
        [sys.executable, "-c", READER, str(replica.folder), point.id],
        env={**os.environ, "PYTHONPATH": packages},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "reading\n"
    return process


def test_a_point_that_another_process_reads_is_kept_until_it_is_closed(replica: Replica) -> None:
    first, second, *_, newest = replica.points
    process = reader(replica, second)
    try:
        assert second.id not in replica.prune()
        assert replica.points == [second, newest]
        replica.add(2)
        replica.check(second)
        with pytest.raises(Busy, match="being read"):
            replica.store.keep_only(replica.points[-1])
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "closed\n"
        assert second.id in replica.prune()
    finally:
        process.kill()
        process.communicate()
    assert len(replica.points) == 1 and first.id != replica.points[0].id
    replica.check(replica.points[0])


def test_a_reader_that_is_killed_holds_nothing(replica: Replica) -> None:
    second = replica.points[1]
    process = reader(replica, second)
    assert replica.prune() != [] and second in replica.points
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert replica.prune() == [second.id]
    assert list((replica.folder / "pins").glob("*@*")) == []


def test_materialising_goes_on_beside_replication_and_pruning(replica: Replica, tmp_path: Path) -> None:
    chosen = replica.points[1]
    started, go_on = threading.Event(), threading.Event()

    def slow(_: Progress) -> None:
        started.set()
        assert go_on.wait(10)

    other = LocalReplicaStore(replica.folder, machine="db")
    paths: list[Path] = []
    worker = threading.Thread(target=lambda: paths.extend(other.materialise(chosen, tmp_path / "out", slow)))
    worker.start()
    assert started.wait(10)
    for _ in range(3):
        replica.add()
        assert chosen.id not in replica.prune()
    assert [point.id for point in replica.points[:1]] == [chosen.id]
    go_on.set()
    worker.join()
    for path in paths:
        assert path.read_bytes() == replica.source.moments[chosen.time][path.stem]
    assert replica.prune() == [chosen.id]


def test_readers_that_come_and_go_never_lose_their_point_to_pruning(replica: Replica) -> None:
    """Opening and pruning race: a point is either not there when it is opened, or stays listed until it is closed."""
    stop = threading.Event()
    problems: list[str] = []
    opened = 0

    def read() -> None:
        nonlocal opened
        store = LocalReplicaStore(replica.folder, machine="db")
        rng = random.Random(threading.get_ident())
        while not stop.is_set():
            point = rng.choice(store.state().points)
            try:
                view = store.view("os", point)
            except NotFound:
                continue
            opened += 1
            if point not in store.state().points:
                problems.append(f"{point.id} was pruned while it was read")
            if view.read(0, view.size) != replica.source.moments[point.time]["os"]:
                problems.append(f"{point.id} reads as something else")
            view.close()

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(25):
        replica.add()
        replica.prune()
    stop.set()
    for thread in threads:
        thread.join()
    assert problems == []
    assert opened > 10


def test_the_caller_may_name_points_in_use_besides(replica: Replica) -> None:
    first, second, *_ = replica.points
    now = replica.source.now() + timedelta(days=50)
    replica.store.prune(Retention(count=1, hours=1), now, in_use=frozenset({first.id}))
    assert replica.points == [first, replica.points[-1]]
    assert second not in replica.points


def test_removing_a_replica_removes_its_pins(replica: Replica) -> None:
    view = replica.store.view("os")
    view.close()
    replica.store.remove()
    assert not replica.folder.exists()


def test_a_pin_names_its_holder(tmp_path: Path) -> None:
    pins = Pins(tmp_path / "pins")
    with pins.pinning():
        pin = pins.pin("rp-000001-abcdef01")
    (path,) = (tmp_path / "pins").glob("*@*")
    assert f'"pid": {os.getpid()}' in path.read_text()
    with pins.pruning() as used:
        assert used == {"rp-000001-abcdef01"}
    pin.close()
    pin.close()
    with pins.pruning() as used:
        assert used == frozenset()
