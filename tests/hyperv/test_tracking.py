"""Resilient change tracking as a change source: what it sends is what was written, whatever breaks in between."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tracked_host import TrackedHost

from adapters.hyperv.disk_folders import located
from adapters.hyperv.facts import HostItem
from adapters.hyperv.tracking_record import PREFIX, Record, decode, encode
from replication import stream
from replication.blockmap import MapCut, MapState
from replication.local import LocalReplicaStore
from replication.ports import ReplicaStore
from vault.domain import ConsistencyKind, Disk, Progress
from vault.errors import BadInput, Busy, Damaged, InvalidState, NotFound, ResynchronizationRequired, Unreachable
from vault.hyperv import DiskFolder

pytestmark = pytest.mark.unit

MIB = 1 << 20
FIRST, SECOND = "SCSI 0:0", "SCSI 0:1"
NAMES = {FIRST: "scsi-0-0", SECOND: "scsi-0-1"}


def no_report(_: Progress) -> None:
    """Nobody watches."""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[TrackedHost]:
    made = TrackedHost(tmp_path / "host", {FIRST: 2 * MIB, SECOND: MIB})
    yield made
    made.disks.close()


@pytest.fixture
def store(tmp_path: Path) -> LocalReplicaStore:
    return LocalReplicaStore(tmp_path / "replica", machine="db")


def newest(store: ReplicaStore, host: TrackedHost) -> dict[str, bytes]:
    found = {}
    for controller in host.content:
        with closing(store.view(NAMES[controller])) as view:
            found[controller] = view.read(0, view.size)
    return found


def protected(host: TrackedHost, store: LocalReplicaStore) -> None:
    source = host.source()
    store.create(source.disks(), source.start_tracking())
    stream.copy_initial(source, store, no_report)


def replicate(host: TrackedHost, store: LocalReplicaStore, kind: ConsistencyKind = ConsistencyKind.CRASH) -> Any:
    return stream.replicate_cut(host.source(), store, kind, no_report)


def test_a_machine_is_copied_then_followed(host: TrackedHost, store: LocalReplicaStore) -> None:
    host.write(FIRST, 0, b"a" * MIB)
    protected(host, store)
    assert newest(store, host) == host.content
    host.write(FIRST, 4096, b"b" * 512)
    host.write(SECOND, MIB - 512, b"c" * 512)
    point = replicate(host, store)
    assert point.bytes == 1024
    assert newest(store, host) == host.content
    tracked = host.disks.read_tracking()
    assert tracked.checkpoints == []
    assert len(tracked.reference_points) == 1
    assert [disk.path for disk in tracked.disks] == ["D:\\VMs\\disk0.vhdx", "D:\\VMs\\disk1.vhdx"]


def test_sectors_of_4096_bytes_are_followed(tmp_path: Path, store: LocalReplicaStore) -> None:
    host = TrackedHost(tmp_path / "host", {FIRST: 2 * MIB}, sector=4096)
    protected(host, store)
    host.write(FIRST, MIB - 4096, b"b" * 8192)
    assert replicate(host, store).bytes == 8192
    assert newest(store, host) == host.content


def test_many_changed_ranges_are_asked_for_in_several_calls(host: TrackedHost, store: LocalReplicaStore) -> None:
    protected(host, store)
    for number in range(200):
        host.write(FIRST, number * 8192, bytes([number]) * 512)
    host.ran.clear()
    replicate(host, store)
    assert newest(store, host) == host.content
    assert host.ran.count("changed_ranges") >= 4


def test_writes_after_the_cut_are_not_in_it(host: TrackedHost, store: LocalReplicaStore) -> None:
    protected(host, store)
    host.write(FIRST, 0, b"before--" * 64)
    host.source().cut()
    before = {at: bytes(raw) for at, raw in host.content.items()}
    host.write(FIRST, 0, b"after---" * 64)
    host.write(SECOND, 0, b"after---" * 64)
    stream.send_pending(host.source(), store, no_report)
    assert newest(store, host) == before
    replicate(host, store)
    assert newest(store, host) == host.content


def test_several_cuts_wait_and_may_be_released_in_any_order(host: TrackedHost, store: LocalReplicaStore) -> None:
    protected(host, store)
    source = host.source()
    contents = []
    for letter in (b"x", b"y", b"z"):
        host.write(FIRST, 512 * len(contents), letter * 1024)
        source.cut()
        contents.append(bytes(host.content[FIRST]))
    first, second, third = source.pending()
    for cut, content in ((first, contents[0]), (second, contents[1]), (third, contents[2])):
        for extent in source.extents(cut, "scsi-0-0"):
            assert bytes(extent.data) == content[extent.offset : extent.offset + len(extent.data)]
        assert source.extents_size(cut, "scsi-0-0") == sum(len(e.data) for e in source.extents(cut, "scsi-0-0"))
    source.release(second)
    assert b"".join(bytes(e.data) for e in source.extents(third, "scsi-0-0")) == contents[2][:2048]
    source.release(first)
    source.release(first)
    assert [cut.number for cut in source.pending()] == [third.number]
    source.release(third)
    host.write(FIRST, MIB, b"w" * 512)
    assert [(e.offset, len(e.data)) for e in source.extents(source.cut(), "scsi-0-0")] == [(MIB, 512)]


def test_a_cut_says_what_consistency_it_reached(host: TrackedHost, store: LocalReplicaStore) -> None:
    protected(host, store)
    assert replicate(host, store, ConsistencyKind.APPLICATION).kind is ConsistencyKind.APPLICATION
    assert replicate(host, store).kind is ConsistencyKind.CRASH
    host.disks.can_quiesce = False
    assert replicate(host, store, ConsistencyKind.APPLICATION).kind is ConsistencyKind.CRASH
    assert newest(store, host) == host.content


def test_without_its_reference_point_the_machine_has_to_be_resynchronized(
    host: TrackedHost, store: LocalReplicaStore
) -> None:
    protected(host, store)
    host.write(FIRST, 0, b"lost" * 128)
    for point in host.disks.read_tracking().reference_points:
        host.disks.destroy_reference_point(point.id)
    assert host.source().tracking().resync_required
    with pytest.raises(ResynchronizationRequired):
        host.source().cut()
    with pytest.raises(ResynchronizationRequired):
        replicate(host, store)
    stream.resynchronize(host.source(), store, no_report)
    assert newest(store, host) == host.content
    host.write(SECOND, 0, b"more" * 128)
    replicate(host, store)
    assert newest(store, host) == host.content


def test_a_tracking_id_that_the_host_does_not_know_asks_for_a_resynchronization(
    host: TrackedHost, store: LocalReplicaStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    protected(host, store)

    def refused(_: Any) -> Any:
        raise BadInput("GetVirtualDiskChanges returned 32773")

    monkeypatch.setattr(host.disks, "changed_ranges", refused)
    with pytest.raises(ResynchronizationRequired, match=r"does not know any more what changed.*32773"):
        replicate(host, store)

    def moved(_: Any) -> Any:
        raise NotFound("GetVirtualDiskChanges returned 32779")

    monkeypatch.setattr(host.disks, "changed_ranges", moved)
    with pytest.raises(Busy):
        replicate(host, store)


@pytest.mark.parametrize("answer", [{"processed_until": 0}, {"ranges": [(-1, 2)]}, {"ranges": [(3 * MIB, 1)]}])
def test_a_host_that_answers_nonsense_is_not_followed(
    host: TrackedHost, store: LocalReplicaStore, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any]
) -> None:
    protected(host, store)
    asked = host.disks.changed_ranges

    def nonsense(given: Any) -> Any:
        right = asked(given)
        ranges = [{"offset": offset, "length": length} for offset, length in answer.get("ranges", [])]
        return type(right).model_validate(
            {"processed_until": answer.get("processed_until", right.processed_until), "ranges": ranges}
        )

    monkeypatch.setattr(host.disks, "changed_ranges", nonsense)
    with pytest.raises(Damaged):
        replicate(host, store)


def test_a_lost_record_asks_for_a_resynchronization(host: TrackedHost, store: LocalReplicaStore) -> None:
    protected(host, store)
    items = host.disks.read_tracking().items
    host.disks.write_tracking([], [item.name for item in items])
    assert not host.source().tracking().active
    with pytest.raises(ResynchronizationRequired):
        replicate(host, store)
    host.disks.write_tracking(items, [])
    host.write(FIRST, 0, b"back" * 128)
    replicate(host, store)
    assert newest(store, host) == host.content


def test_of_two_workers_that_change_the_record_one_is_told(host: TrackedHost, store: LocalReplicaStore) -> None:
    protected(host, store)
    mine = host.source()
    with mine._device.quiet():
        state = mine._device.load()
        host.source().cut()
        with pytest.raises(Busy, match="another worker"):
            mine._device.save(state)
    assert len(host.source().pending()) == 1


def test_nothing_is_left_when_protection_ends(host: TrackedHost, store: LocalReplicaStore) -> None:
    protected(host, store)
    source = host.source()
    source.take_snapshot()
    source.cut()
    source.delete_snapshot()
    source.stop_tracking()
    source.stop_tracking()
    tracked = host.disks.read_tracking()
    assert (tracked.checkpoints, tracked.reference_points) == ([], [])
    assert sorted(path.name for path in host.folder.iterdir()) == ["disk0.vhdx", "disk1.vhdx"]


def test_checkpoints_and_reference_points_of_others_are_left_alone(host: TrackedHost, store: LocalReplicaStore) -> None:
    backup = host.disks.create_checkpoint("backup", application_consistent=False)
    point = host.disks.create_reference_point(application_consistent=False)
    host.write(FIRST, 0, b"a" * 4096)
    protected(host, store)
    host.write(FIRST, 512, b"b" * 4096)
    replicate(host, store)
    assert newest(store, host) == host.content
    host.source().stop_tracking()
    tracked = host.disks.read_tracking()
    assert [checkpoint.name for checkpoint in tracked.checkpoints] == [backup.name]
    assert tracked.reference_points == [point]


def test_disks_are_left_out_by_their_file_also_under_a_checkpoint(host: TrackedHost) -> None:
    excluded = ["d:\\vms\\DISK1.vhdx"]
    assert host.source(excluded=excluded).disks() == [Disk(name="scsi-0-0", size=2 * MIB)]
    host.disks.create_checkpoint("backup", application_consistent=False)
    assert host.source(excluded=excluded).disks() == [Disk(name="scsi-0-0", size=2 * MIB)]


@pytest.mark.parametrize("change", [{"pass_through": True, "size": 0}, {"base_path": "D:\\VMs\\old.vhd"}])
def test_what_cannot_be_tracked_is_refused(
    host: TrackedHost, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    tracked = host.disks.read_tracking()
    first = tracked.disks[0].model_copy(update=change)
    changed = tracked.model_copy(update={"disks": [first, *tracked.disks[1:]]})
    monkeypatch.setattr(host.disks, "read_tracking", lambda: changed)
    for attempt in (host.source().disks, host.source().start_tracking):
        with pytest.raises(InvalidState, match="SCSI 0:0 cannot be tracked"):
            attempt()


def test_space_is_what_grows_beside_the_disks(host: TrackedHost, store: LocalReplicaStore) -> None:
    protected(host, store)
    assert host.source().tracking().log_bytes == 0
    source = host.source()
    source.cut()
    host.write(FIRST, 0, b"a" * MIB)
    assert host.source().tracking().log_bytes >= MIB
    host.disks.create_checkpoint("backup", application_consistent=False)
    assert host.source().tracking().log_bytes == 0


@pytest.mark.parametrize(("part", "given_up"), [(0.4, False), (0.5, True)])
def test_a_cut_that_waits_too_long_is_given_up_before_it_fills_the_host(
    host: TrackedHost, store: LocalReplicaStore, monkeypatch: pytest.MonkeyPatch, part: float, given_up: bool
) -> None:
    protected(host, store)
    host.write(FIRST, 0, b"waits---" * 64)
    host.source().cut()
    look = host.disks.read_tracking

    def grown() -> Any:
        seen = look()
        large = 64 * 2**30
        disks = [disk.model_copy(update={"size": large, "file_size": int(large * part)}) for disk in seen.disks]
        return seen.model_copy(update={"disks": disks}) if seen.checkpoints else seen

    monkeypatch.setattr(host.disks, "read_tracking", grown)
    tracking = host.source().tracking()
    assert tracking.resync_required == given_up
    assert len(host.disks.read_tracking().checkpoints) == (0 if given_up else 1)
    monkeypatch.setattr(host.disks, "read_tracking", look)
    if given_up:
        assert host.source().pending() == []
        with pytest.raises(ResynchronizationRequired):
            replicate(host, store)
        stream.resynchronize(host.source(), store, no_report)
    replicate(host, store)
    assert newest(store, host) == host.content


def test_a_disk_that_the_reference_point_does_not_have_asks_for_a_resynchronization(
    host: TrackedHost, store: LocalReplicaStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    protected(host, store)
    look = host.disks.read_tracking

    def nameless() -> Any:
        seen = look()
        points = [point.model_copy(update={"disks": {"?": "rct:0"}}) for point in seen.reference_points]
        disks = [disk.model_copy(update={"instance_id": "?"}) for disk in seen.disks]
        return seen.model_copy(update={"reference_points": points, "disks": disks})

    monkeypatch.setattr(host.disks, "read_tracking", nameless)
    with pytest.raises(ResynchronizationRequired, match="does not have it"):
        replicate(host, store)


# --- the record ---------------------------------------------------------------------------------------------------

CUTS = tuple(MapCut(n, n, f"leeward-{n:016x}", 10**18, "crash-consistent", "") for n in range(1, 9))
STATE = MapState("0" * 32, True, False, 9, 0, 8, CUTS, tuple(cut.snapshot for cut in CUTS))
RECORD = Record(STATE, {n: f"Microsoft:Reference\\{n:036}" for n in range(9)}, ("Microsoft:gone",), 7)


def test_a_record_is_read_back_from_pieces_that_a_host_takes() -> None:
    items = encode(RECORD)
    assert len(items) > 1
    assert all(len(item.value) < 1024 for item in items)
    assert decode(reversed(items)) == RECORD


def test_of_two_records_the_newer_whole_one_counts() -> None:
    newer = encode(replace(RECORD, revision=8, unneeded=()))
    assert decode([*encode(RECORD), *newer]).revision == 8
    assert decode([*encode(RECORD), *newer[:-1]]) == RECORD
    assert decode(newer[:-1]) == Record(revision=8)
    assert decode([HostItem(name=PREFIX + "x.y", value="?"), HostItem(name="other", value="?")]) == Record()


def test_a_record_of_a_later_version_is_not_believed() -> None:
    body = '{"new": 1}'
    text = f"LWRCT 2 {zlib.crc32(body.encode()):08x} {body}"
    assert decode([HostItem(name=f"{PREFIX}3.0", value=text)]) == Record(revision=3)


# --- where files are ----------------------------------------------------------------------------------------------


def test_a_file_is_looked_for_in_the_longest_folder_of_its_host() -> None:
    folders = [
        DiskFolder(path="D:\\", folder="/mnt/d"),
        DiskFolder(path="D:\\VMs", folder="/mnt/vms"),
        DiskFolder(path="D:\\", folder="/mnt/hv2", host="hv2"),
        DiskFolder(path="\\\\files\\share", folder="/mnt/share"),
    ]
    assert located(folders, "hv1")("d:\\vms\\db\\Disk 1.vhdx") == Path("/mnt/vms/db/Disk 1.vhdx")
    assert located(folders, "hv1")("D:\\VMs2\\x.vhdx") == Path("/mnt/d/VMs2/x.vhdx")
    assert located(folders[2:], "hv2")("D:\\x.vhdx") == Path("/mnt/hv2/x.vhdx")
    assert located(folders, "hv1")("\\\\files\\share\\x.vhdx") == Path("/mnt/share/x.vhdx")
    for path in ("E:\\x.vhdx", "D:\\VMs\\..\\..\\..\\E:\\x", "C:\\x"):
        with pytest.raises(BadInput, match="no worker") if path[0] != "D" else pytest.raises(BadInput):
            located([folders[1]], "hv1")(path)


# --- crashes ------------------------------------------------------------------------------------------------------

WRITE = st.tuples(st.integers(0, 511), st.integers(1, 24), st.integers(1, 255))
STEP = st.tuples(
    st.sampled_from(["replicate", "replicate", "replicate", "cut", "resynchronize", "snapshot"]),
    st.lists(WRITE, max_size=3),
    st.none() | st.integers(0, 16),
    st.booleans(),
)


@settings(max_examples=10, deadline=None)
@given(st.lists(STEP, min_size=1, max_size=6))
def test_any_worker_may_die_at_any_call(tmp_path_factory: pytest.TempPathFactory, steps: list[Any]) -> None:
    """Writes, cuts, snapshots, transfers in any order, each of which may die at a call, before or after the host did
    it. Every recovery point is what the disk held when some checkpoint was made; the newest is what it holds."""
    folder = tmp_path_factory.mktemp("dies")
    host = TrackedHost(folder / "host", {FIRST: MIB})
    store = LocalReplicaStore(folder / "replica", machine="db")
    protected(host, store)
    for what, writes, dies_at, takes_effect in steps:
        for sector, count, byte in writes:
            data = bytes([byte]) * (512 * min(count, 2048 - sector))
            host.write(FIRST, sector * 512, data)
        host.lose, host.takes_effect = dies_at, takes_effect
        try:
            _act(what, host, store)
            finished = True
        except Unreachable:
            finished = False
        except ResynchronizationRequired:
            # Only what was interrupted while a new period began may need that.
            host.lose = None
            stream.resynchronize(host.source(), store, no_report)
            finished = True
        host.lose = None
        if finished and what in ("replicate", "resynchronize"):
            assert newest(store, host) == host.content
    try:
        replicate(host, store)
    except ResynchronizationRequired:
        stream.resynchronize(host.source(), store, no_report)
    assert newest(store, host) == host.content
    held = {moment[FIRST] for moment in host.moments}
    for point in store.state().points:
        with closing(store.view("scsi-0-0", point)) as view:
            assert view.read(0, view.size) in held
    host.source().delete_snapshot()
    host.source().stop_tracking()
    assert host.disks.read_tracking().checkpoints == []
    host.disks.close()
    shutil.rmtree(folder)


def _act(what: str, host: TrackedHost, store: LocalReplicaStore) -> None:
    source = host.source()
    match what:
        case "replicate":
            stream.replicate_cut(source, store, ConsistencyKind.CRASH, no_report)
        case "cut":
            source.cut()
        case "snapshot":
            source.take_snapshot()
        case "resynchronize":
            stream.resynchronize(source, store, no_report)


def test_moments_are_of_before_the_checkpoint(host: TrackedHost, store: LocalReplicaStore) -> None:
    """What was acknowledged before a point's time is in it."""
    protected(host, store)
    before = datetime.now(UTC)
    point = replicate(host, store)
    assert before - timedelta(milliseconds=1) <= point.time <= datetime.now(UTC)
