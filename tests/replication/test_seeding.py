"""Initial replication by media: export, carry, import; then deltas only."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from model_source import ModelSource

from replication import media, seeding, stream
from replication.checksums import BLOCK
from replication.cipher import SiteKey
from replication.local import LocalReplicaStore
from replication.media import SeedManifest
from replication.ports import Extent
from vault.domain import ConsistencyKind, Disk, Progress
from vault.errors import (
    AuthenticationRefused,
    BadInput,
    Busy,
    Damaged,
    InvalidState,
    NoSpace,
    NotFound,
    ResynchronizationRequired,
)

pytestmark = pytest.mark.unit

SIZES = {"os": 40 * BLOCK, "data": 10 * BLOCK + 512}
PART = 4 * BLOCK


class Stop(Exception):
    pass


def quiet(_: Progress) -> None: ...


class Seeding:
    """A protected machine without replica data yet, and a medium to carry its disks on."""

    def __init__(self, folder: Path) -> None:
        self.rng = random.Random(5)
        self.source = ModelSource(SIZES)
        self.medium = folder / "medium"
        self.folder = folder
        self.store = LocalReplicaStore(folder / "replica", machine="db")
        self.noise("os", 3 * BLOCK, 13 * BLOCK)
        self.noise("os", 30 * BLOCK, BLOCK // 2)
        self.noise("data", 10 * BLOCK, 512)

    def noise(self, disk: str, offset: int, length: int) -> None:
        self.source.write(disk, offset, self.rng.randbytes(length))

    def enable(self) -> None:
        self.store.create(self.source.disks(), self.source.start_tracking())

    def export(self, **options: object) -> SeedManifest:
        given = {"machine": "db", "site": "here", "part_bytes": PART, "replica": self.store, **options}
        replica, report = given.pop("replica"), given.pop("report", quiet)
        folder = given.pop("folder", self.medium)
        return seeding.export_seed(self.source, replica, folder, report, **given)  # type: ignore[arg-type]

    def bring(self, **options: object) -> None:
        given = {"machine": "db", **options}
        report = given.pop("report", quiet)
        seeding.import_seed(self.store, self.medium, report, **given)  # type: ignore[arg-type]

    def check(self) -> None:
        points = self.store.state().points
        assert points
        for point in points:
            for path in self.store.materialise(point, self.folder / "out", quiet):
                assert path.read_bytes() == self.source.moments[point.time][path.stem]


@pytest.fixture
def seed(tmp_path: Path) -> Seeding:
    return Seeding(tmp_path)


class Wire:
    """Counts what goes from the source to the replica."""

    def __init__(self, store: LocalReplicaStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.base: list[tuple[str, int, int]] = []
        real = store.write_base

        def write_base(disk: str, extent: Extent) -> None:
            self.base.append((disk, extent.offset, len(extent.data)))
            real(disk, extent)

        monkeypatch.setattr(store, "write_base", write_base)


def test_after_the_import_only_changes_since_the_export_cross_the_wire(
    seed: Seeding, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed.enable()
    seed.noise("os", 20 * BLOCK, 5 * BLOCK)  # between enabling and the export: travels on the medium
    manifest = seed.export()
    assert manifest.complete and [len(manifest.parts[name]) for name in SIZES] == [5, 1]
    seed.noise("os", 0, 1000)
    seed.bring()
    (first,) = seed.store.state().points
    assert first.time == manifest.moment
    wire = Wire(seed.store, monkeypatch)
    last: list[Progress] = []
    point = stream.copy_initial(seed.source, seed.store, last.append)
    assert wire.base == []
    assert point.bytes == 1024  # two sectors of the model
    assert [known.sequence for known in seed.store.state().points] == [1, 2]
    assert seed.source.snapshot_moment() is None
    seed.check()
    seed.noise("data", 0, 700)
    stream.replicate_cut(seed.source, seed.store, ConsistencyKind.CRASH, quiet)
    seed.check()


def test_a_medium_can_be_brought_before_the_machine_is_protected(seed: Seeding) -> None:
    seed.export()
    seed.bring()
    seed.noise("os", 5 * BLOCK, 10)
    assert stream.copy_initial(seed.source, seed.store, quiet).bytes <= 1024
    seed.check()


def test_an_export_goes_on_with_its_snapshot_after_any_stop(seed: Seeding) -> None:
    seed.enable()
    rng = random.Random(7)
    moments, stops = set(), 0
    while True:
        left = rng.randrange(1, 9)

        def stop(progress: Progress) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Stop

        def full(_: Path, at: int = rng.randrange(1, 12)) -> int:
            nonlocal left
            left -= 1
            if left < 0:
                raise Stop
            return 1 << 40

        try:
            manifest = seed.export(report=stop, free=full)
            break
        except Stop:
            stops += 1
            moments.add(media.load(seed.medium).moment)
            seed.noise("os", rng.randrange(39) * BLOCK, BLOCK)
    assert stops > 4
    assert moments - {None} == {manifest.moment}
    seed.bring()
    seed.check()
    stream.copy_initial(seed.source, seed.store, quiet)
    seed.check()


def test_an_export_whose_snapshot_is_gone_begins_anew_and_never_mixes_moments(seed: Seeding) -> None:
    seed.enable()
    calls = 0

    def stop(_: Path) -> int:
        nonlocal calls
        calls += 1
        if calls > 12:
            raise Stop
        return 1 << 40

    with pytest.raises(Stop):
        seed.export(free=stop)
    begun = media.load(seed.medium)
    assert begun.parts["os"] and not begun.complete
    seed.source.delete_snapshot()
    seed.noise("os", 3 * BLOCK, 8 * BLOCK)
    assert seed.export().moment != begun.moment
    seed.bring()
    seed.check()


def test_a_crash_around_the_snapshot_leaves_an_export_that_can_be_repeated(
    seed: Seeding, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed.enable()
    real = seed.source.take_snapshot

    def take_and_die() -> None:
        real()
        raise Stop

    with monkeypatch.context() as patched:
        patched.setattr(seed.source, "take_snapshot", take_and_die)
        with pytest.raises(Stop):
            seed.export()
    seed.export()
    seed.bring()
    seed.check()


def test_a_complete_medium_is_kept_until_a_restart_is_asked_for(seed: Seeding) -> None:
    seed.enable()
    first = seed.export()
    seed.noise("os", 0, BLOCK)
    assert seed.export() == first
    second = seed.export(restart=True)
    assert second.moment != first.moment and second.epoch != first.epoch
    seed.bring()
    seed.check()


def test_a_snapshot_of_another_transfer_is_not_taken_away(seed: Seeding) -> None:
    seed.enable()

    def stop(progress: Progress) -> None:
        if progress.doing.endswith("data"):
            raise Stop

    with pytest.raises(Stop):
        stream.copy_initial(seed.source, seed.store, stop)
    with pytest.raises(InvalidState, match="has a snapshot already"):
        seed.export()
    seed.export(restart=True)
    seed.bring()
    seed.check()


def test_a_machine_that_is_replicated_is_not_exported(seed: Seeding) -> None:
    seed.enable()
    stream.copy_initial(seed.source, seed.store, quiet)
    with pytest.raises(InvalidState, match="complete replica already"):
        seed.export()
    stream.replicate_cut(seed.source, seed.store, ConsistencyKind.CRASH, quiet)


def test_while_replication_holds_the_replica_no_export_begins(seed: Seeding) -> None:
    seed.enable()
    other = LocalReplicaStore(seed.folder / "replica", machine="db")
    with other.lock("initial replication"), pytest.raises(Busy, match="initial replication"):
        seed.export()


def test_an_unreachable_target_leaves_the_tracking_period_as_it_is(seed: Seeding) -> None:
    seed.enable()
    seed.noise("data", 0, 600)
    epoch = seed.source.tracking().epoch
    assert seed.export(replica=None).epoch == epoch
    seed.bring()
    assert stream.copy_initial(seed.source, seed.store, quiet).bytes >= 600  # sent again, but right
    seed.check()


def test_two_exports_into_one_folder_exclude_each_other(seed: Seeding) -> None:
    errors: list[Exception] = []

    def meanwhile(_: Progress) -> None:
        if not errors:
            try:
                seed.export()
            except Busy as error:
                errors.append(error)

    seed.export(report=meanwhile)
    assert len(errors) == 1


def test_a_full_medium_ends_the_export_which_goes_on_when_there_is_room(seed: Seeding) -> None:
    seed.enable()
    room = 6 * BLOCK + seeding.KEPT_FREE

    def used() -> int:
        return sum(path.stat().st_size for path in seed.medium.rglob("*.seg*"))

    with pytest.raises(NoSpace, match="does not fit: the medium is full with 458,752 of"):
        seed.export(free=lambda _: room - used())
    parts = media.load(seed.medium).parts["os"]
    assert [part.end for part in parts] == [7 * BLOCK]
    seed.export()
    assert media.load(seed.medium).parts["os"][0] == parts[0]
    seed.bring()
    seed.check()


@pytest.mark.parametrize("what", ["a stranger's file", "another machine", "another site", "a damaged manifest"])
def test_a_foreign_folder_is_never_written_into(seed: Seeding, what: str) -> None:
    if what == "a stranger's file":
        seed.medium.mkdir()
        (seed.medium / "holiday.jpg").write_bytes(b"sun")
    elif what == "another machine":
        seed.export(machine="web")
    elif what == "another site":
        seed.export(site="there")
    else:
        seed.export()
        manifest = seed.medium / media.MANIFEST
        manifest.write_bytes(manifest.read_bytes().replace(b'"db"', b'"dc"'))
    seed.source.delete_snapshot()
    before = {path: path.read_bytes() for path in seed.medium.rglob("*") if path.is_file()}
    with pytest.raises(BadInput, match="nothing was written"):
        seed.export(restart=True)
    assert {path: path.read_bytes() for path in seed.medium.rglob("*") if path.is_file()} == before


# --- media that must not be believed ------------------------------------------------------------------------------


def no_point(seed: Seeding) -> None:
    assert not seed.store.exists() or seed.store.state().points == []


Harm = Callable[[Path], None]


def cut_short(medium: Path) -> None:
    path = media.part_path(medium, "os", 1)
    path.write_bytes(path.read_bytes()[:-100])


def remove_a_part(medium: Path) -> None:
    media.part_path(medium, "os", 2).unlink()


def swap_parts(medium: Path) -> None:
    one, other = media.part_path(medium, "os", 0), media.part_path(medium, "os", 1)
    kept = one.read_bytes()
    shutil.copyfile(other, one)
    other.write_bytes(kept)


def flip_a_bit(medium: Path) -> None:
    path = media.part_path(medium, "os", 2)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def flip_the_manifest(medium: Path) -> None:
    path = medium / media.MANIFEST
    raw = bytearray(path.read_bytes())
    raw[raw.index(b'"end"') + 8] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize("harm", [cut_short, remove_a_part, swap_parts, flip_a_bit, flip_the_manifest])
def test_a_damaged_medium_never_becomes_a_recovery_point(seed: Seeding, harm: Harm) -> None:
    seed.enable()
    seed.export()
    good = seed.folder / "good"
    shutil.copytree(seed.medium, good)
    harm(seed.medium)
    with pytest.raises(Damaged) as raised:
        seed.bring()
    assert str(seed.medium) in raised.value.where and "export it again" in raised.value.remedy
    no_point(seed)
    shutil.rmtree(seed.medium)
    good.rename(seed.medium)
    seed.bring()
    seed.check()


def test_every_bit_of_a_medium_is_under_a_checksum(seed: Seeding) -> None:
    seed.enable()
    seed.export()
    rng = random.Random(3)
    paths = [path for path in seed.medium.rglob("*") if path.suffix == ".seg"]
    for _ in range(60):
        path = rng.choice(paths)
        good = path.read_bytes()
        raw = bytearray(good)
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        path.write_bytes(raw)
        seed.store.begin_seed(None)  # read all of it again
        with pytest.raises((Damaged, InvalidState)):
            seed.bring()
        no_point(seed)
        path.write_bytes(good)
    seed.bring()
    seed.check()


def test_an_incomplete_medium_is_refused_before_anything_is_written(seed: Seeding) -> None:
    seed.enable()

    def stop(progress: Progress) -> None:
        if progress.doing.startswith("exporting data"):
            raise Stop

    with pytest.raises(Stop):
        seed.export(report=stop)
    with pytest.raises(InvalidState, match="the export is not complete: 2,621,440 of 3,277,312 bytes"):
        seed.bring()
    assert seed.store.state().seed_moment is None


def test_foreign_media_are_refused(seed: Seeding, tmp_path: Path) -> None:
    seed.enable()
    with pytest.raises(NotFound, match="no seed here"):
        seed.bring()
    seed.export()
    with pytest.raises(BadInput, match="the seed of 'db', not of 'web'"):
        seeding.import_seed(seed.store, seed.medium, quiet, machine="web")
    other = LocalReplicaStore(tmp_path / "other", machine="db")
    other.create([Disk(name="os", size=SIZES["os"])], seed.source.tracking().epoch)
    with pytest.raises(InvalidState, match="the disk 'data'"):
        seeding.import_seed(other, seed.medium, quiet, machine="db")
    no_point(seed)


def test_media_of_an_earlier_period_are_refused_but_those_that_replace_it_are_not(seed: Seeding) -> None:
    seed.enable()
    seed.export()
    stale = seed.folder / "stale"
    seed.medium.rename(stale)
    seed.export()
    newest, seed.medium = seed.medium, stale
    with pytest.raises(InvalidState, match="took its place"):
        seed.bring()
    seed.medium = newest
    seed.source.resync_required = True  # the logs outgrew the disk, with the target out of reach
    seed.export(replica=None, restart=True)
    seed.bring()
    seed.check()


def test_an_import_goes_on_after_a_stop_and_can_be_repeated(seed: Seeding, monkeypatch: pytest.MonkeyPatch) -> None:
    seed.enable()
    seed.noise("os", 0, 40 * BLOCK)
    seed.export()

    def stop(progress: Progress) -> None:
        if progress.doing.endswith("data"):
            raise Stop

    with pytest.raises(Stop):
        seed.bring(report=stop)
    no_point(seed)
    wire = Wire(seed.store, monkeypatch)
    seed.bring()
    assert wire.base == [("data", 10 * BLOCK, 512)]
    seed.bring()
    assert len(seed.store.state().points) == 1
    seed.check()


def test_what_an_earlier_copy_left_in_the_base_gives_way_to_the_medium(seed: Seeding) -> None:
    seed.enable()

    def stop(progress: Progress) -> None:
        if progress.doing.endswith("data"):
            raise Stop

    with pytest.raises(Stop):
        stream.copy_initial(seed.source, seed.store, stop)
    seed.source.write("os", 3 * BLOCK, bytes(13 * BLOCK))
    seed.export(restart=True)
    seed.bring()
    seed.check()


def test_a_machine_whose_replica_is_complete_refuses_another_medium(seed: Seeding) -> None:
    seed.enable()
    seed.export()
    seed.bring()
    other = seed.folder / "other"
    seed.export(folder=other, replica=None)
    seed.medium = other
    with pytest.raises(InvalidState, match="complete replica here"):
        seed.bring()


def test_changes_that_are_no_longer_known_lead_to_a_comparison_not_to_a_wrong_replica(seed: Seeding) -> None:
    seed.enable()
    seed.export()
    seed.bring()
    seed.noise("os", 0, 2 * BLOCK)
    seed.source.start_tracking()
    with pytest.raises(ResynchronizationRequired):
        stream.copy_initial(seed.source, seed.store, quiet)
    stream.resynchronize(seed.source, seed.store, quiet)
    seed.check()


def test_encrypted_media_open_with_the_sites_key_only(seed: Seeding) -> None:
    key = SiteKey(bytes(range(32)), "file:key")
    secret = b"nobody may read this " * 200
    seed.source.write("os", 0, secret)
    seed.export(site_key=key)
    assert not any(secret[:40] in path.read_bytes() for path in seed.medium.rglob("*.seg"))
    with pytest.raises(AuthenticationRefused):
        seed.bring()
    with pytest.raises(AuthenticationRefused):
        seed.bring(site_key=SiteKey(bytes(32), "file:other"))
    no_point(seed)
    seed.bring(site_key=key)
    seed.check()
