"""A replica store in Azure Storage.

Each disk is a page blob in VHD layout that holds the newest applied state; a recovery point is a snapshot of every
disk. A delta is staged in the cache container, sealed by one update of the manifest, applied to the page blobs, and
fixed by snapshots (``docs/azure.md``).
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

from azure.storage.blob import BlobServiceClient

from adapters.azure import vhd, views
from adapters.azure.connection import shared
from adapters.azure.download import copy_sparse
from adapters.azure.layout import Layout
from adapters.azure.lease import LEASE_S, Lease, WriterLease
from adapters.azure.manifest import AzureManifest, ManifestBlob
from adapters.azure.pages import WRITERS
from adapters.azure.session import Session
from replication import adoption, files, rules
from replication.cipher import Keys, SiteKey
from replication.layout import check_disks, check_same_disks
from replication.ports import BlockChecksums, BlockReader, Extent, ReplicaState, Report, SegmentWriter
from replication.progress import Meter
from replication.retention import expired, resolve
from replication.segment import SegmentHeader
from replication.view import ViewChecksums
from vault.domain import ConsistencyKind, Disk, RecoveryPoint, Retention
from vault.errors import Busy, InvalidState
from vault.inventory import AzureReplicas


class AzureReplicaStore:
    """A :class:`replication.ports.ReplicaStore` in two containers of a storage account.

    Args:
        service: the account, from :func:`adapters.azure.connection.connect`.
        container: holds page blobs and manifest, under ``<machine>/``.
        cache_container: holds deltas until they are applied.
        lease_s: how long a dead writer keeps others out, 15 to 60 seconds.
        site_key: wraps the machine's key, with which segments in the cache are encrypted; None: they are not.
    """

    def __init__(
        self,
        service: BlobServiceClient,
        *,
        machine: str,
        container: str,
        cache_container: str,
        lease_s: int = LEASE_S,
        site_key: SiteKey | None = None,
    ) -> None:
        self._machine = machine
        self._keys = Keys(machine, site_key)
        self._layout = Layout(service, container, cache_container, machine)
        self._where = self._layout.where
        self._document = ManifestBlob(self._layout.manifest, self._where)
        self._lock = WriterLease(
            self._layout.manifest,
            self._document,
            may_make=self._layout.refuse_lost_manifest,
            entered=self._entered,
            left=self._left,
            duration_s=lease_s,
        )
        self._session: Session | None = None

    @classmethod
    def open(cls, settings: AzureReplicas, machine: str, site_key: SiteKey | None = None) -> AzureReplicaStore:
        """The store that a site's ``replica_store`` names. Raises what :func:`shared` does."""
        return cls(
            shared(settings),
            machine=machine,
            container=settings.container,
            cache_container=settings.cache_container,
            site_key=site_key,
        )

    # --- state ------------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        return self._read() is not None

    def lock(self, purpose: str = "replication") -> AbstractContextManager[None]:
        return self._lock.hold(purpose)

    def state(self) -> ReplicaState:
        known = self._manifest()
        return known.state(known.stored_bytes, known.failed_over_to)

    def resolve(self, choice: str) -> RecoveryPoint:
        return resolve(self._manifest().points, choice, self._where)

    # --- failover ---------------------------------------------------------------------------------------------

    def fail_over_to(self, point: RecoveryPoint) -> None:
        """Another writer loses its lease by it: what it does not have in the manifest by then never gets there."""
        if self._is_failed_over_to(point):
            return
        with self._lock.hold("failing over", from_others=True):
            if not self._is_failed_over_to(point):
                known = self._manifest()
                self._require_lock().save(known.with_(failed_over_to=rules.listed(known.points, point, self._where)))

    def _is_failed_over_to(self, point: RecoveryPoint) -> bool:
        """Raises ``InvalidState`` when it is another one."""
        known = self._manifest()
        rules.refuse_other_failover(known.failed_over_to, point, self._where)
        return known.failed_over_to is not None

    def readmit(self) -> None:
        known = self._read()
        if known is not None and known.failed_over_to is not None:
            with self._writing("taking changes again") as session:
                session.save(self._manifest().with_(failed_over_to=None))

    # --- seeding ----------------------------------------------------------------------------------------------

    def create(self, disks: list[Disk], epoch: str) -> None:
        self._check_disks(disks)
        with self._writing("creating the replica") as session:
            self._make_unseeded(session, disks, epoch)

    def begin_seed(self, moment: datetime | None) -> None:
        with self._writing("seeding") as session:
            known = self._unseeded()
            if known.seed_moment != moment or moment is None:
                zero = dict.fromkeys(known.seeded_bytes, 0)
                session.save(known.with_(seed_moment=moment, seeded_bytes=zero))

    def write_base(self, disk: str, extent: Extent) -> None:
        with self._writing("seeding") as session:
            known = self._unseeded()
            rules.require_inside(known.disk(disk), extent.offset, len(extent.data), self._where)
            session.pages(known.disk(disk)).add(extent)

    def checkpoint_base(self, disk: str, offset: int) -> None:
        with self._writing("seeding") as session:
            known = self._unseeded()
            if offset > known.seeded_bytes[disk]:
                session.pages(known.disk(disk)).flush()
                session.save(known.with_(seeded_bytes={**known.seeded_bytes, disk: offset}))

    def complete_seed(self, time: datetime, kind: ConsistencyKind) -> RecoveryPoint:
        with self._writing("seeding") as session:
            known = self._manifest()
            if known.seeded:
                return known.points[0]
            rules.require_whole(known, self._where)
            point = rules.new_point(self._machine, known.next_sequence, known.epoch, 0, time, kind, known.disk_bytes)
            state = session.take_snapshots(point.sequence, known.epoch, 0, point)
            session.save(
                known.with_(
                    seeded=True,
                    seed_moment=None,
                    next_sequence=point.sequence + 1,
                    applied=[state],
                    points=[point],
                    live_bytes=self._data_bytes(known.with_(applied=[state])),
                ),
            )
            return point

    def adopt(self, images: dict[str, Path], disks: list[Disk], epoch: str) -> None:
        """The images are uploaded, and deleted once they are in Azure: from there they cannot be moved."""
        self._check_disks(disks)
        with self._writing("adopting images") as session:
            present = {disk.name: images[disk.name] for disk in disks if images.get(disk.name, Path()).is_file()}
            adoption.refuse_other_sizes(present, disks)
            self._make_unseeded(session, disks, epoch)
            for disk in disks:
                if disk.name in present:
                    session.upload(disk, present[disk.name])
                    with files.translated(present[disk.name]):
                        files.delete(present[disk.name])

    # --- deltas -----------------------------------------------------------------------------------------------

    def open_segment(self, disk: str, cut: int, *, epoch: str | None = None) -> SegmentWriter:
        with self._from_source() as session:
            known = self._manifest()
            epoch = epoch or known.epoch
            rules.refuse_gap(known, cut, epoch, self._where)
            return session.stage(
                SegmentHeader(
                    machine=self._machine,
                    disk=disk,
                    disk_size=known.disk(disk).size,
                    sequence=known.next_sequence,
                    epoch=epoch,
                    cut=cut,
                )
            )

    def seal(
        self, cut: int, time: datetime, kind: ConsistencyKind, *, epoch: str | None = None, group: str = ""
    ) -> RecoveryPoint:
        """Sealed by the update of the manifest; then applied. When applying fails the point is there all the same:
        it is read through its segments, and applied before the next delta."""
        self._require_lock()
        known = self._manifest()
        epoch = epoch or known.epoch
        if epoch == known.epoch and cut <= known.last_cut:
            numbers = [state.sequence for state in known.applied if (state.epoch, state.cut) == (epoch, cut)]
            numbers += [layer.sequence for layer in known.layers if (layer.epoch, layer.cut) == (epoch, cut)]
            return rules.sealed_already(known, cut, numbers, self._where)
        with self._from_source() as session:
            rules.refuse_gap(known, cut, epoch, self._where)
            layer = session.staged_layer(cut, epoch)
            changed = known.kept_bytes + layer.changed_bytes
            point = rules.new_point(self._machine, layer.sequence, epoch, cut, time, kind, changed, group)
            session.save(
                known.with_(
                    epoch=epoch,
                    last_cut=cut,
                    next_sequence=point.sequence + 1,
                    layers=[*known.layers, layer],
                    points=[*known.points, point],
                    kept_bytes=0,
                ),
            )
            session.apply_sealed()
        return point

    def keep_differences(self, epoch: str) -> None:
        """They are applied like a delta; the snapshots of the points before do not change."""
        with self._from_source() as session:
            known = self._manifest()
            rules.refuse_gap(known, 0, epoch, self._where)
            layer = session.staged_layer(0, epoch)
            session.save(
                known.with_(
                    epoch="",
                    last_cut=0,
                    next_sequence=layer.sequence + 1,
                    layers=[*known.layers, layer],
                    kept_bytes=known.kept_bytes + layer.changed_bytes,
                )
            )
            session.apply_sealed()

    # --- recovery points --------------------------------------------------------------------------------------

    def view(self, disk: str, point: RecoveryPoint | None = None) -> BlockReader:
        with ExitStack() as opened:
            pin = opened.enter_context(self._layout.reading())
            known = self._manifest()
            sequence = views.sequence_of(known, point, self._where)
            pin(point.id if point else known.points[-1].id)
            return views.open_state(self._layout, known, self._keys, disk, sequence, opened)

    def open_checksums(self, disk: str) -> BlockChecksums:
        """Computed here from blocks that are read over the network: comparing costs as much as downloading what the
        page blob holds. Ranges that were never written cost nothing."""
        session = self._session if self._lock.held else None
        known = self._manifest()
        if not known.seeded:
            if session:
                session.pages(known.disk(disk)).flush()
            return ViewChecksums(views.open_live(self._layout, known, disk))
        with ExitStack() as opened:
            if session:
                with self._from_source():
                    session.apply_or_discard()
            else:
                pin = opened.enter_context(self._layout.reading())
                pin(self._manifest().points[-1].id)
            known = self._manifest()
            return ViewChecksums(
                views.open_state(self._layout, known, self._keys, disk, known.next_sequence - 1, opened)
            )

    def materialise(self, point: RecoveryPoint, folder: Path, report: Report) -> list[Path]:
        with ExitStack() as opened:
            pool = opened.enter_context(ThreadPoolExecutor(WRITERS, thread_name_prefix="azure"))
            pin = opened.enter_context(self._layout.reading())
            known = self._manifest()
            sequence = views.sequence_of(known, point, self._where)
            pin(point.id)
            disks = {}
            for disk in known.disks:
                view = views.open_state(self._layout, known, self._keys, disk.name, sequence, ExitStack())
                opened.callback(view.close)
                disks[folder / f"{disk.name}.raw"] = view
            total = sum(length for view in disks.values() for _, length in view.allocated())
            meter = Meter(report, f"downloading the disks of {self._machine} at {point.id}", total)
            with files.translated(folder):
                files.make_folder(folder)
            for path, view in disks.items():
                copy_sparse(view, path.with_name(path.name + ".part"), pool, meter.add)
            meter.tell()
            with files.translated(folder):
                for path in disks:
                    files.rename(path.with_name(path.name + ".part"), path)
                files.sync_folder(folder)
            return list(disks)

    def prune(self, retention: Retention, now: datetime, *, in_use: frozenset[str] = frozenset()) -> list[str]:
        with self.lock("pruning recovery points"), self._from_source() as session:
            session.lease.require()
            session.apply_sealed()
            known = self._manifest()
            dropped = [point.id for point in expired(known.points, retention, now, in_use)]
            if dropped:
                dropped = self._drop(session, known, dropped)
            session.clean()
            return dropped

    def _drop(self, session: Session, known: AzureManifest, expired_now: list[str]) -> list[str]:
        """Take points off the manifest, except those that are being read. A reader may have come between looking and
        saving: its point is put back, whose snapshots nobody has deleted meanwhile."""
        read = self._layout.read_now(known)
        dropped = [point for point in expired_now if point not in read]
        while dropped:
            session.save(known.without_points(set(dropped)))
            came = self._layout.read_now(known).intersection(dropped)
            if not came:
                return dropped
            session.save(known)
            dropped = [point for point in dropped if point not in came]
        return []

    def keep_only(self, point: RecoveryPoint) -> None:
        with self._writing("dropping all other recovery points") as session:
            rules.refuse_other_failover(self._manifest().failed_over_to, point, self._where)
            self._layout.refuse_while_read()
            session.apply_sealed()
            known = self._manifest()
            point = resolve(known.points, point.id, self._where)
            newest = known.applied[-1].sequence == point.sequence
            followed = (known.epoch, known.last_cut) if newest else ("", 0)
            kept = known.without_points({other.id for other in known.points} - {point.id})
            session.save(kept.with_(epoch=followed[0], last_cut=followed[1], kept_bytes=0))
            session.clean()

    def remove(self) -> None:
        if not self._document.etag():
            return
        with self._writing("removing the replica") as session:
            self._layout.refuse_while_read()
            session.delete_replica()

    # --- the writer's session -----------------------------------------------------------------------------------

    @contextmanager
    def _writing(self, purpose: str) -> Iterator[Session]:
        with self.lock(purpose):
            session = self._require_lock()
            session.lease.require()
            yield session

    @contextmanager
    def _from_source(self) -> Iterator[Session]:
        """For what the source changes. Raises ``InvalidState`` when the machine was failed over; so it does when that
        happened meanwhile, and the lease was lost by it."""
        session = self._require_lock()
        rules.refuse_failed_over(self._manifest().failed_over_to, self._where)
        try:
            yield session
        except Busy:
            now = self._document.read()[0]
            rules.refuse_failed_over(now.failed_over_to if now else None, self._where)
            raise

    def _require_lock(self) -> Session:
        if not self._lock.held or self._session is None:
            raise InvalidState("segments are staged and sealed under one lock", where=self._where)
        return self._session

    def _entered(self, lease: Lease) -> None:
        self._session = Session(self._layout, self._document, lease, self._lock.holder, self._keys)
        self._session.begin()

    def _left(self, succeeded: bool) -> None:
        session, self._session = self._session, None
        if session:
            session.end(succeeded)

    def _read(self) -> AzureManifest | None:
        if self._lock.held and self._session:
            return self._session.known
        return self._document.read()[0]

    def _manifest(self) -> AzureManifest:
        known = self._read()
        if known is None:
            raise rules.no_replica(self._where)
        return known

    def _unseeded(self) -> AzureManifest:
        known = self._manifest()
        rules.require_unseeded(known, self._where)
        return known

    def _check_disks(self, disks: list[Disk]) -> None:
        check_disks(disks)
        for disk in disks:
            vhd.require_fit(disk, self._where)

    def _make_unseeded(self, session: Session, disks: list[Disk], epoch: str) -> None:
        zero = {disk.name: 0 for disk in disks}
        fresh = AzureManifest(machine=self._machine, disks=disks, epoch=epoch, seeded_bytes=zero)
        if session.known is None:
            for disk in disks:
                session.make_disk(disk)
            session.save(fresh)
            return
        known = self._unseeded()
        check_same_disks(known.disks, disks, self._where)
        if known.epoch != epoch:
            session.save(fresh.with_(disks=known.disks, key=known.key))

    def _data_bytes(self, known: AzureManifest) -> int:
        readers = [views.snapshot(self._layout, known, disk.name, known.applied[-1]) for disk in known.disks]
        return sum(length for reader in readers for _, length in reader.data_ranges())
