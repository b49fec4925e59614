"""Both kinds of change source against the disks themselves: whatever the order of writes, cuts, transfers and crashes,
the replica equals the source at every sealed moment (design §6)."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from adapters.lab import changes, hrl, maps, quiet, snapshots, vdisk
from adapters.lab.changes import LabChangeSource
from adapters.lab.definition import DiskDefinition, MachineDefinition
from adapters.lab.layout import MachineFolder
from adapters.lab.maps import LabBlockMapDevice
from adapters.lab.vdisk import VirtualDisks
from replication import blockmap, stream
from replication.bitmap import BitmapChangeSource
from replication.blockmap import BlockMap
from replication.local import LocalReplicaStore
from replication.ports import ChangeSource, Cut
from vault.domain import ConsistencyKind, Progress, Retention
from vault.errors import LeewardError, ResynchronizationRequired

pytestmark = pytest.mark.unit

SIZES = {"system": 300_000, "data": 1_000_000}
CRASH = ConsistencyKind.CRASH
RUNS = 6
STEPS = 30
EFFECTS: list[tuple[Any, str]] = [
    (changes, "save_state"),
    (changes, "create_snapshot"),
    (changes, "invalidate_snapshot"),
    (changes, "delete_unused_files"),
    (changes, "sync_files"),
    (maps, "save_state"),
    (maps, "create_snapshot"),
    (maps, "create_map"),
    (maps, "invalidate_snapshot"),
    (maps, "supersede_snapshot"),
    (maps, "delete_unused_files"),
    (vdisk, "save_state"),
    (vdisk, "delete_unused_files"),
    (hrl, "create_log"),
    (hrl, "write_fully"),
    (snapshots, "write_fully"),
    (hrl.LogWriter, "append"),
    (BlockMap, "mark"),
    (BlockMap, "begin_use"),
    (snapshots.SnapshotWriter, "preserve"),
]
"""What changes a machine's files: a process may die before or after any of them."""


class Died(BaseException):
    """Not an ``Exception``: nothing in the product may handle it."""


@contextmanager
def dying(rng: random.Random, at: int | None) -> Iterator[None]:
    """The process dies at effect number ``at``: it happens or it does not, and nothing after it."""
    count, dead = 0, False

    def around(real: Callable[..., object]) -> Callable[..., object]:
        def effect(*arguments: object, **options: object) -> object:
            nonlocal count, dead
            if dead:
                raise Died
            count += 1
            if count != at:
                return real(*arguments, **options)
            dead = True
            if rng.random() < 0.5:
                real(*arguments, **options)
            raise Died

        return effect

    with ExitStack() as patched:
        for holder, name in EFFECTS:
            patched.enter_context(mock.patch.object(holder, name, around(getattr(holder, name))))
        yield


class Watched:
    """A change source that tells of every moment it makes."""

    def __init__(self, source: ChangeSource, noted: Callable[[datetime], None]) -> None:
        self._source, self._noted = source, noted

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def cut(self, kind: ConsistencyKind = CRASH) -> Cut:
        cut = self._source.cut(kind)
        self._noted(cut.time)
        return cut

    def take_snapshot(self) -> datetime:
        moment = self._source.take_snapshot()
        self._noted(moment)
        return moment


class Machine:
    """A machine, its writer that dies now and then, and what its disks held at every moment."""

    def __init__(self, path: Path, kind: str, rng: random.Random, sizes: dict[str, int] | None = None) -> None:
        self.rng = rng
        self.sizes = sizes or SIZES
        self.folder = MachineFolder(path / "m")
        self.folder.path.mkdir()
        self.kind = kind
        disks = tuple(DiskDefinition(name, size) for name, size in self.sizes.items())
        MachineDefinition("m", "here", "m", "net", "isolated", disks, 10, 4096).save(self.folder)
        for name, size in self.sizes.items():
            with self.folder.image(name).open("wb") as image:
                image.truncate(size)
        self.replica = path / "replica"
        self.moments: dict[datetime, dict[str, bytes]] = {}
        self.deaths = 0
        self._disks: VirtualDisks | None = None

    def source(self) -> Watched:
        plain: ChangeSource = LabChangeSource(self.folder)
        if self.kind == "bitmap":
            plain = BitmapChangeSource(LabBlockMapDevice(self.folder))
        return Watched(plain, self.note)

    def store(self) -> LocalReplicaStore:
        return LocalReplicaStore(self.replica, machine="m")

    def images(self) -> dict[str, bytes]:
        return {name: self.folder.image(name).read_bytes() for name in self.sizes}

    def note(self, moment: datetime) -> None:
        self.moments[moment] = self.images()

    def note_cuts_left_by_a_death(self) -> None:
        with quiet.quiet_storage(self.folder, lambda: None):
            pass  # as the next opener does: what only a log has is written to the image
        for cut in self.source().pending():
            self.moments.setdefault(cut.time, self.images())

    def write(self, count: int = 1) -> None:
        for _ in range(count):
            disk = self.rng.choice(list(self.sizes))
            length = min(self.rng.choice([1, 512, 4096, 4096, 70_000, 150_000]), self.sizes[disk])
            data = bytes(length) if self.rng.random() < 0.2 else self.rng.randbytes(length)
            if self._disks is None:
                self._disks = VirtualDisks(self.folder)
            try:
                self._disks.write(disk, self.rng.randrange(self.sizes[disk] - length + 1), data)
            except Died:
                self.stop(cleanly=False)
                raise

    def stop(self, *, cleanly: bool) -> None:
        if self._disks is not None:
            with ExitStack() as stack:
                if not cleanly:
                    stack.enter_context(mock.patch.object(BlockMap, "end_use", lambda _: None))
                self._disks.close()
            self._disks = None

    def may_die(self, work: Callable[[], object]) -> None:
        """Do it; one time in three the process dies in it. The machine's writer, another process, may live on."""
        at = self.rng.randrange(1, 40) if self.rng.random() < 0.35 else None
        try:
            with dying(self.rng, at):
                work()
        except Died:
            self.deaths += 1
            self.note_cuts_left_by_a_death()

    def writes_and_may_die(self) -> None:
        at = self.rng.randrange(1, 30) if self.rng.random() < 0.35 else None
        try:
            with dying(self.rng, at):
                self.write(self.rng.randrange(1, 5))
        except Died:
            self.deaths += 1
            self.note_cuts_left_by_a_death()

    def report(self) -> Callable[[Progress], None]:
        """Writes go on while a transfer runs; now and then the transfer is stopped."""
        left = self.rng.randrange(1, 12) if self.rng.random() < 0.3 else -1

        def report(_: Progress) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise Died
            if self.rng.random() < 0.3:
                self.write()

        return report

    def check(self) -> None:
        store = self.store()
        if not store.exists():
            return
        for point in store.state().points:
            for name in self.sizes:
                view = store.view(name, point)
                held = view.read(0, view.size)
                view.close()
                assert held == self.moments[point.time][name], (point, name)

    def replicate(self, source: Watched, store: LocalReplicaStore) -> None:
        try:
            if store.state().seeded:
                stream.replicate_cut(source, store, CRASH, self.report())
            else:
                stream.copy_initial(source, store, self.report(), checkpoint_bytes=1)
        except ResynchronizationRequired:
            with suppress(ResynchronizationRequired):  # so much was written meanwhile that the next try compares again
                stream.resynchronize(source, store, self.report())


@pytest.fixture(autouse=True)
def tells_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every report is a point at which a transfer may be stopped."""
    monkeypatch.setattr("replication.progress.REPORT_EVERY_S", 0.0)
    monkeypatch.setattr(blockmap, "_LOOK_AGAIN_S", 0.0)


def enable(machine: Machine) -> None:
    source, store = machine.source(), machine.store()
    if not (store.exists() and source.tracking().active):
        store.create(source.disks(), source.start_tracking())


@pytest.mark.parametrize("kind", ["log", "bitmap"])
@pytest.mark.parametrize("seed", range(RUNS))
def test_the_replica_equals_the_source_at_every_sealed_moment(tmp_path: Path, kind: str, seed: int) -> None:
    rng = random.Random(f"{kind}/{seed}")
    machine = Machine(tmp_path, kind, rng)
    machine.write(5)
    while not (machine.store().exists() and machine.source().tracking().active):
        machine.may_die(lambda: enable(machine))
    for _ in range(STEPS):
        machine.writes_and_may_die()
        match rng.choice(
            ["cut", "replicate", "replicate", "replicate", "prune", "stop", "kill", "snapshot", "nothing"]
        ):
            case "cut":
                with suppress(ResynchronizationRequired):
                    machine.may_die(lambda: machine.source().cut())
            case "replicate":
                machine.may_die(lambda: machine.replicate(machine.source(), machine.store()))
            case "prune" if machine.store().state().points:
                newest = machine.store().state().points[-1].time
                machine.store().prune(Retention(count=rng.randrange(1, 4), hours=1000), newest)
            case "stop":
                machine.stop(cleanly=True)
            case "kill":
                machine.stop(cleanly=False)
            case "snapshot" if machine.store().state().seeded:
                machine.may_die(lambda: machine.source().take_snapshot())
        machine.check()
    assert machine.deaths > 3
    machine.stop(cleanly=True)
    source, store = machine.source(), machine.store()
    with suppress(ResynchronizationRequired):
        stream.copy_initial(source, store, lambda _: None)  # type: ignore[arg-type]
    if source.tracking().epoch != store.state().epoch or not source.tracking().active:
        stream.resynchronize(source, store, lambda _: None)  # type: ignore[arg-type]
    point = stream.send_last_changes(machine.source(), store, lambda _: None)  # type: ignore[arg-type]
    assert machine.moments[point.time] == machine.images()
    machine.check()
    assert len(store.state().points) > 0


@pytest.mark.parametrize("kind", ["log", "bitmap"])
@pytest.mark.parametrize("seed", range(RUNS))
def test_cuts_can_be_applied_long_after_they_were_made_and_released_later_still(
    tmp_path: Path, kind: str, seed: int
) -> None:
    rng = random.Random(f"{kind}/order/{seed}")
    machine = Machine(tmp_path, kind, rng, {"data": 2_000_000})
    source = machine.source()
    source.start_tracking()
    copy = bytearray(2_000_000)
    made: list[Cut] = []
    applied = released = 0
    for _ in range(60):
        match rng.choice(["write", "write", "cut", "apply", "release", "kill"]):
            case "write":
                machine.write()
            case "cut" if len(made) - released < 6 and not source.tracking().resync_required:
                made.append(source.cut())
            case "apply" if applied < len(made):
                cut = made[applied]
                size = source.extents_size(cut, "data")
                end = 0
                for offset, data in source.extents(cut, "data"):
                    assert offset >= end and 0 < len(data) <= 1 << 20
                    end = offset + len(data)
                    copy[offset:end] = data
                    size -= len(data)
                assert size == 0
                assert copy == machine.moments[cut.time]["data"], f"cut {cut.number}"
                applied += 1
            case "release" if released < applied:
                source.release(made[released])
                released += 1
            case "kill":
                machine.stop(cleanly=False)
        if source.tracking().resync_required:
            break
        assert [cut.number for cut in source.pending()] == [cut.number for cut in made[released:]]
        source = machine.source()
    machine.stop(cleanly=True)
    assert applied > 1 or source.tracking().resync_required


# --- block maps and what they stand on ------------------------------------------------------------------------------


@pytest.fixture
def mapped(tmp_path: Path) -> Machine:
    return Machine(tmp_path, "bitmap", random.Random(1))


def changed(source: Watched, cut: Cut, disk: str = "data") -> list[tuple[int, int]]:
    return [(extent.offset, len(extent.data)) for extent in source.extents(cut, disk)]


def write_at(machine: Machine, offset: int, data: bytes) -> None:
    disks = VirtualDisks(machine.folder)
    disks.write("data", offset, data)
    disks.close()


def test_a_cut_has_the_blocks_written_since_the_last_released_one(mapped: Machine) -> None:
    source = mapped.source()
    source.start_tracking()
    write_at(mapped, 70_000, b"one")
    first = source.cut()
    write_at(mapped, 200_000, b"two")
    second = source.cut()
    assert changed(source, first) == [(65_536, 65_536), (196_608, 65_536)]  # "two" comes as it was before
    assert changed(source, second) == [(65_536, 65_536), (196_608, 65_536)]
    source.release(first)
    assert changed(mapped.source(), second) == [(196_608, 65_536)]
    source.release(second)
    assert changed(source, source.cut()) == []
    assert changed(source, source.cut(), "system") == []


def test_snapshots_go_with_their_cuts(mapped: Machine) -> None:
    source = mapped.source()
    source.start_tracking()
    cuts = []
    for number in range(3):
        write_at(mapped, number * 100_000, b"x")
        cuts.append(source.cut())
    files = len(list(mapped.folder.path.glob("*.snap")))
    assert files == 3 * len(SIZES)
    source.release(cuts[1])  # the first one leans on it
    assert len(list(mapped.folder.path.glob("*.snap"))) == files
    source.release(cuts[0])
    assert len(list(mapped.folder.path.glob("*.snap"))) == len(SIZES)
    source.release(cuts[2])
    assert list(mapped.folder.path.glob("*.snap")) == []
    source.stop_tracking()
    assert list(mapped.folder.path.glob("*.map")) == []


def test_after_the_host_went_down_in_the_middle_nothing_vouches_for_the_map(
    mapped: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = mapped.source()
    source.start_tracking()
    mapped.write(3)
    cut = source.cut()
    mapped.stop(cleanly=False)
    monkeypatch.setattr(blockmap, "boot_id", lambda: b"another life 456")
    with pytest.raises(ResynchronizationRequired, match="went down"):
        list(source.extents(cut, "data"))
    with pytest.raises(ResynchronizationRequired, match="no longer known"):
        source.cut()
    assert source.tracking().resync_required
    mapped.write(1)
    source.start_tracking()
    mapped.write(1)
    assert changed(source, source.cut()) or changed(source, source.pending()[0], "system")
    mapped.stop(cleanly=True)


def test_a_host_that_goes_down_after_the_writer_stopped_loses_nothing(
    mapped: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = mapped.source()
    source.start_tracking()
    write_at(mapped, 0, b"x")
    monkeypatch.setattr(blockmap, "boot_id", lambda: b"another life 456")
    assert changed(source, source.cut()) == [(0, 65_536)]


@pytest.mark.parametrize("harm", ["missing", "header", "another period"])
def test_a_map_that_cannot_be_believed_marks_the_machine_for_resynchronization(mapped: Machine, harm: str) -> None:
    source = mapped.source()
    source.start_tracking()
    write_at(mapped, 0, b"x")
    path = next(mapped.folder.path.glob("data.*.map"))
    if harm == "missing":
        path.unlink()
    elif harm == "header":
        path.write_bytes(b"?" + path.read_bytes()[1:])
    else:
        blockmap.create_map(path, "ab" * 16, SIZES["data"])
    with pytest.raises(ResynchronizationRequired, match="no longer known"):
        source.cut()


def test_switching_the_kind_of_tracking_forgets_the_other(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "log", random.Random(2), {"data": 4_000_000})
    for kind in ("log", "bitmap", "log", "bitmap"):
        machine.kind = kind
        source, store = machine.source(), machine.store()
        assert not source.tracking().active
        if not store.exists():
            store.create(source.disks(), source.start_tracking())
        machine.write(2)
        if source.tracking().epoch == store.state().epoch:
            stream.copy_initial(source, store, lambda _: None)  # type: ignore[arg-type]
        else:
            stream.resynchronize(source, store, lambda _: None)  # type: ignore[arg-type]
        machine.write(2)
        stream.replicate_cut(source, store, CRASH, lambda _: None)  # type: ignore[arg-type]
        machine.check()
        other = "*.map" if kind == "log" else "*.hrl"
        assert list(machine.folder.path.glob(other)) == []
    machine.stop(cleanly=True)


def test_the_harness_catches_a_source_that_forgets_a_mark(tmp_path: Path) -> None:
    """A map that misses one write in twenty must fail here, else this file proves nothing."""
    real, rng = BlockMap.mark, random.Random(5)

    def careless(self: BlockMap, offset: int, length: int, generation: int) -> None:
        if rng.random() > 0.05:
            real(self, offset, length, generation)

    with mock.patch.object(BlockMap, "mark", careless), pytest.raises((AssertionError, LeewardError)):
        for seed in range(6):
            folder = tmp_path / str(seed)
            folder.mkdir()
            test_cuts_can_be_applied_long_after_they_were_made_and_released_later_still(folder, "bitmap", seed)


def test_a_large_disk_has_a_sparse_map_and_small_deltas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machine, "images", lambda self: {})
    written: dict[int, int] = {}
    for size in (1 << 30, 1 << 36):
        folder = tmp_path / str(size)
        folder.mkdir()
        machine = Machine(folder, "bitmap", random.Random(3), {"data": size})
        source = machine.source()
        source.start_tracking()
        write_at(machine, size // 2, b"x")
        cut = source.cut()
        assert changed(source, cut) == [(size // 2, 65_536)]
        source.release(cut)
        written[size] = sum(path.stat().st_blocks for path in machine.folder.path.glob("*.map"))
    assert max(written.values()) <= 64
