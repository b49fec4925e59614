"""The storage stack against a model: cuts, snapshots, the 50 % rule, and writers killed at any moment."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.lab import hrl
from adapters.lab.changes import LabChangeSource
from adapters.lab.definition import DiskDefinition, MachineDefinition
from adapters.lab.layout import MachineFolder
from adapters.lab.storage import load_state
from adapters.lab.vdisk import VirtualDisks
from vault.domain import ConsistencyKind
from vault.errors import Busy, Damaged, InvalidState, NotFound, ResynchronizationRequired

pytestmark = pytest.mark.unit

SIZES = {"system": 300_000, "data": 1_000_000}


def make_machine(path: Path, sizes: dict[str, int] | None = None) -> MachineFolder:
    folder = MachineFolder(path)
    path.mkdir(parents=True)
    sizes = sizes or SIZES
    disks = tuple(DiskDefinition(name, size) for name, size in sizes.items())
    MachineDefinition("m", "here", "m", "net", "isolated", disks, 10, 4096).save(folder)
    for name, size in sizes.items():
        with folder.image(name).open("wb") as image:
            image.truncate(size)
    return folder


def apply(source: LabChangeSource, cut: object, copies: dict[str, bytearray]) -> None:
    for disk, copy in copies.items():
        total, end = 0, 0
        for offset, data in source.extents(cut, disk):  # type: ignore[arg-type]
            assert offset >= end
            end = offset + len(data)
            copy[offset:end] = data
            total += len(data)
        assert total == source.extents_size(cut, disk)  # type: ignore[arg-type]


disk_names = st.sampled_from(sorted(SIZES))
operations = st.lists(
    st.one_of(
        st.tuples(st.just("write"), disk_names, st.integers(0, 299_000), st.integers(1, 9000), st.integers(0, 255)),
        st.tuples(st.just("cut")),
        st.tuples(st.just("snapshot")),
        st.tuples(st.just("reopen")),
        st.tuples(st.just("check snapshot"), disk_names),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(steps=operations)
def test_cuts_and_snapshots_agree_with_a_model(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[object, ...]]
) -> None:
    folder = make_machine(tmp_path_factory.mktemp("vdisk") / "m")
    source = LabChangeSource(folder)
    disks = VirtualDisks(folder)
    model = {name: bytearray(size) for name, size in SIZES.items()}
    replica = {name: bytearray(size) for name, size in SIZES.items()}
    frozen: dict[str, bytes] | None = None
    readers = {}
    source.start_tracking()
    tracked = True
    try:
        for step in steps:
            if step[0] == "write":
                _, name, offset, length, value = step
                data = bytes([value]) * length  # type: ignore[list-item]
                data = data[: SIZES[name] - offset]  # type: ignore[index,operator]
                disks.write(name, offset, data)  # type: ignore[arg-type]
                model[name][offset : offset + len(data)] = data  # type: ignore[index,misc,operator]
                tracked = not source.tracking().resync_required
            elif step[0] == "cut" and tracked:
                cut = source.cut()
                apply(source, cut, replica)
                assert replica == model
                source.release(cut)
            elif step[0] == "snapshot":
                source.take_snapshot()
                frozen = {name: bytes(image) for name, image in model.items()}
                for reader in readers.values():
                    reader.close()
                readers = {name: source.open_snapshot(name) for name in SIZES}
            elif step[0] == "reopen":
                disks.close()
                disks = VirtualDisks(folder)
            elif step[0] == "check snapshot" and frozen is not None:
                name = str(step[1])
                assert readers[name].read(0, SIZES[name]) == frozen[name]
                covered = bytearray(SIZES[name])
                for offset, length in readers[name].allocated():
                    covered[offset : offset + length] = b"\1" * length
                assert all(covered[at] for at, byte in enumerate(frozen[name]) if byte)
        for name, image in model.items():
            assert folder.image(name).read_bytes() == image
    finally:
        disks.close()
        for reader in readers.values():
            reader.close()


def test_snapshot_reads_any_range_and_ends_when_it_is_replaced(tmp_path: Path) -> None:
    folder = make_machine(tmp_path / "m")
    source, disks = LabChangeSource(folder), VirtualDisks(folder)
    noise = random.Random(1).randbytes(SIZES["data"])
    disks.write("data", 0, noise)
    source.take_snapshot()
    reader = source.open_snapshot("data")
    disks.write("data", 70_000, b"new" * 30_000)
    assert reader.read(65_000, 200_000) == noise[65_000:265_000]
    assert reader.read(SIZES["data"] - 10, 100) == noise[-10:]
    source.take_snapshot()
    with pytest.raises(NotFound, match="snapshot was deleted"):
        reader.read(0, 10)
    source.delete_snapshot()
    source.delete_snapshot()
    with pytest.raises(NotFound, match="no snapshot"):
        source.open_snapshot("data")
    assert not list(folder.path.glob("*.snap"))
    reader.close()
    disks.close()


def test_a_damaged_kept_block_is_refused(tmp_path: Path) -> None:
    folder = make_machine(tmp_path / "m")
    source, disks = LabChangeSource(folder), VirtualDisks(folder)
    disks.write("data", 0, b"old" * 1000)
    source.take_snapshot()
    disks.write("data", 0, b"new" * 1000)
    path = next(folder.path.glob("data.*.snap"))
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"oldold")] ^= 1
    path.write_bytes(raw)
    with pytest.raises(Damaged, match="block 0"):
        source.open_snapshot("data").read(0, 10)
    disks.close()


def test_cuts_survive_until_they_are_released(tmp_path: Path) -> None:
    folder = make_machine(tmp_path / "m")
    source, disks = LabChangeSource(folder), VirtualDisks(folder)
    epoch = source.start_tracking()
    for number in (1, 2, 3):
        disks.write("data", number * 1000, bytes([number]))
        assert source.cut().number == number
    later = LabChangeSource(folder)
    first, second, third = later.pending()
    assert [cut.number for cut in (first, second, third)] == [1, 2, 3]
    assert first.epoch == epoch and first.time < second.time < third.time
    later.release(second)
    later.release(second)
    assert [cut.number for cut in source.pending()] == [1, 3]
    assert [extent.offset for extent in later.extents(third, "data")] == [3000]
    with pytest.raises(InvalidState, match="cut 2 was released"):
        later.extents_size(second, "data")
    source.stop_tracking()
    source.stop_tracking()
    assert source.pending() == [] and not list(folder.path.glob("*.hrl"))
    with pytest.raises(ResynchronizationRequired, match="not tracked"):
        source.cut()
    disks.close()


def test_a_new_period_forgets_the_old_one(tmp_path: Path) -> None:
    folder = make_machine(tmp_path / "m")
    source, disks = LabChangeSource(folder), VirtualDisks(folder)
    before = source.start_tracking()
    disks.write("data", 0, b"old")
    old = source.cut()
    disks.write("data", 10, b"older")
    after = source.start_tracking()
    assert before != after and source.pending() == []
    disks.write("data", 20, b"new")
    cut = source.cut()
    assert cut.number == 1 and [(e.offset, bytes(e.data)) for e in source.extents(cut, "data")] == [(20, b"new")]
    source.release(old)
    assert source.pending() == [cut]
    with pytest.raises(InvalidState):
        list(source.extents(old, "data"))
    disks.close()


def test_logs_beyond_half_of_a_disk_mark_the_machine(tmp_path: Path) -> None:
    folder = make_machine(tmp_path / "m")
    source, disks = LabChangeSource(folder), VirtualDisks(folder)
    source.start_tracking()
    chunk = 50_000
    for _ in range(4):
        disks.write("data", 0, bytes(chunk))
    sealed = source.cut()
    for _ in range(5):
        disks.write("data", 0, bytes(chunk))
    assert source.tracking().active and source.tracking().log_bytes > 9 * chunk
    disks.write("data", 0, b"\7" * chunk)
    now = source.tracking()
    assert now.resync_required and not now.active and now.log_bytes == 0
    assert folder.image("data").read_bytes()[:chunk] == b"\7" * chunk
    assert source.pending() == []
    for ask in (source.cut, lambda: source.extents_size(sealed, "data")):
        with pytest.raises(ResynchronizationRequired, match="marked for resynchronization"):
            ask()
    disks.close()
    assert LabChangeSource(folder).tracking().resync_required
    source.start_tracking()
    assert not source.tracking().resync_required and source.cut().number == 1


def test_a_released_log_gives_its_share_back(tmp_path: Path) -> None:
    folder = make_machine(tmp_path / "m")
    source, disks = LabChangeSource(folder), VirtualDisks(folder)
    source.start_tracking()
    for _ in range(6):
        disks.write("data", 0, bytes(400_000))
        source.release(source.cut())
    assert source.tracking().active
    disks.close()


def test_a_corrupted_log_marks_the_machine_instead_of_losing_changes(tmp_path: Path) -> None:
    folder = make_machine(tmp_path / "m")
    source, disks = LabChangeSource(folder), VirtualDisks(folder)
    source.start_tracking()
    for number in range(10):
        disks.write("data", number * 100, b"change")
    disks.close()
    path = next(folder.path.glob("data.*.hrl"))
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"HREC", 200)] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ResynchronizationRequired):
        source.cut()
    assert source.tracking().resync_required


def test_only_one_process_writes_and_it_needs_whole_images(tmp_path: Path) -> None:
    folder = make_machine(tmp_path / "m")
    disks = VirtualDisks(folder)
    with pytest.raises(Busy):
        VirtualDisks(folder)
    disks.close()
    VirtualDisks(folder).close()
    with folder.image("data").open("r+b") as image:
        image.truncate(1000)
    with pytest.raises(InvalidState, match="1000 bytes"):
        VirtualDisks(folder)
    folder.image("data").unlink()
    with pytest.raises(NotFound, match="'data' is missing"):
        VirtualDisks(folder)


def test_a_machine_that_is_off_is_cut_too(tmp_path: Path) -> None:
    folder = make_machine(tmp_path / "m")
    source = LabChangeSource(folder)
    source.start_tracking()
    cut = source.cut(ConsistencyKind.APPLICATION)
    assert cut.kind == ConsistencyKind.APPLICATION
    assert source.extents_size(cut, "data") == 0


WRITER = """
import random, sys, time
from pathlib import Path
from adapters.lab.layout import MachineFolder
from adapters.lab.vdisk import VirtualDisks
disks = VirtualDisks(MachineFolder(Path(sys.argv[1])))
chance = random.Random(int(sys.argv[2]))
print("writing", flush=True)
for _ in range(2000):  # no log becomes too large, however late the kill comes
    name = chance.choice(sorted(disks.sizes))
    offset = chance.randrange(disks.sizes[name] - 20000)
    disks.write(name, offset, chance.randbytes(chance.randrange(1, 9000)))
    if chance.random() < 0.05:
        disks.flush()
time.sleep(600)
"""


@pytest.mark.chaos
def test_a_writer_killed_at_any_moment_leaves_image_and_log_equal(tmp_path: Path) -> None:
    folder = make_machine(tmp_path / "m", {"system": 24 * 2**20, "data": 24 * 2**20})
    sizes = {disk.name: disk.size for disk in LabChangeSource(folder).disks()}
    source = LabChangeSource(folder)
    source.start_tracking()
    replica = {name: bytearray(size) for name, size in sizes.items()}
    chance = random.Random(5)
    for seed in range(12):
        writer = subprocess.Popen(
            [sys.executable, "-S", "-c", WRITER, str(folder.path), str(seed)],
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": str(Path(hrl.__file__).parents[2])},
        )
        assert writer.stdout is not None and writer.stdout.readline() == b"writing\n"
        time.sleep(chance.uniform(0.0, 0.05))
        if seed % 3 == 0:
            source.take_snapshot()
            frozen = {name: source.open_snapshot(name).read(0, size) for name, size in sizes.items()}
        if seed % 4 == 0:
            apply(source, cut := source.cut(), replica)
            source.release(cut)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        if seed % 2:
            with next(folder.path.glob(f"data.*.{load_state(folder).number:06d}.hrl")).open("ab") as log:
                log.write(b"HREC\1\1\1")
        if seed % 5 == 0:
            VirtualDisks(folder).close()
        apply(source, cut := source.cut(), replica)
        source.release(cut)
        for name, size in sizes.items():
            assert folder.image(name).read_bytes() == replica[name]
            assert source.open_snapshot(name).read(0, size) == frozen[name]
