"""A replica store in local files: the lab's, and a master target's.

A *forward journal*: base images at the oldest kept recovery point, and one layer of sealed segments for each later
point (``docs/decisions/003-forward-journal.md``). Formats are in ``docs/formats.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

from replication import adoption, files, locking, manifest, merging, rules, scrubbing
from replication.base_image import BaseImage
from replication.checksums import is_zero
from replication.cipher import Encryption, FrameCipher, Keys, SiteKey, WrappedKey
from replication.damage import without_damaged_layers
from replication.layout import Layout, check_disks, check_same_disks
from replication.manifest import Layer, Manifest, StoredSegment
from replication.ports import BlockChecksums, BlockReader, Extent, ReplicaState, Report, SegmentWriter
from replication.retention import expired, resolve
from replication.segment import Sealed, SegmentFile, SegmentFileWriter, SegmentHeader
from replication.view import SeedView, ViewChecksums, write_images
from vault.domain import ConsistencyKind, Disk, RecoveryPoint, Retention
from vault.errors import Busy, Damaged, InvalidState


class LocalReplicaStore:
    """A :class:`replication.ports.ReplicaStore` in the folder ``root``.

    Args:
        reserve: called with the bytes about to be added to the store; raises ``NoSpace`` to refuse them.
        site_key: encrypts the segments of replicas made from now on; opens those made with it.
    """

    def __init__(
        self,
        root: Path,
        *,
        machine: str,
        reserve: Callable[[int], None] | None = None,
        site_key: SiteKey | None = None,
    ) -> None:
        self._keys = Keys(machine, site_key)
        self._files = Layout(root, self._keys)
        self.machine = machine
        self._reserve = reserve
        self._lock = locking.WriterLock(self._files.writer_lock, entered=self._entered, left=self._left)
        self._known: Manifest | None = None
        self._bases: dict[str, BaseImage] = {}
        self._staged: dict[str, tuple[SegmentHeader, Sealed]] = {}

    # --- state ------------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        return self._files.manifest.is_file()

    def lock(self, purpose: str = "replication") -> AbstractContextManager[None]:
        return self._lock.hold(purpose)

    def state(self) -> ReplicaState:
        known = self._manifest()
        with files.translated(self._files.root):
            stored = self._files.stored_bytes()
        return known.state(stored, self.failed_over_to())

    def resolve(self, choice: str) -> RecoveryPoint:
        return resolve(self._manifest().points, choice, str(self._files.root))

    # --- failover ---------------------------------------------------------------------------------------------

    def failed_over_to(self) -> RecoveryPoint | None:
        """As :attr:`ReplicaState.failed_over_to`, without reading the manifest. Raises ``Damaged``."""
        return self._files.fence.point()

    def is_failed_over(self) -> bool:
        return self._files.fence.is_marked()

    def fail_over_to(self, point: RecoveryPoint) -> None:
        where = str(self._files.root)
        if not self.exists():
            raise rules.no_replica(where)
        with self._files.fence.closing():
            rules.refuse_other_failover(self.failed_over_to(), point, where)
            self._files.fence.mark(rules.listed(self._files.load().points, point, where))

    def readmit(self) -> None:
        self._files.fence.unmark()

    # --- seeding ----------------------------------------------------------------------------------------------

    def create(self, disks: list[Disk], epoch: str) -> None:
        check_disks(disks)
        with self._writing("creating the replica"):
            if self.exists():
                known = self._unseeded()
                check_same_disks(known.disks, disks, str(self._files.root))
                if known.epoch != epoch:
                    self._save(self._fresh(known.disks, epoch, known.key))
                return
            files.make_folder(self._files.segments)
            self._files.fence.unmark()  # of a replica that was not removed to the end
            for disk in disks:
                self._files.make_base(disk)
            self._save(self._fresh(disks, epoch))

    def begin_seed(self, moment: datetime | None) -> None:
        with self._writing("seeding"):
            known = self._unseeded()
            if known.seed_moment != moment or moment is None:
                self._save(known.with_(seed_moment=moment, seeded_bytes=dict.fromkeys(known.seeded_bytes, 0)))

    def open_checksums(self, disk: str) -> BlockChecksums:
        known = self._manifest()
        if known.seeded:
            if self._lock.held:  # a writer that compares replica and source goes on from what is whole
                left, damaged = without_damaged_layers(known, self._files, self._keys.open(known.key))
                if damaged:
                    with self._files.fence.source_may():
                        self._save(left)
                    self._files.delete_segments(damaged)
            before = self._files.fence.refuse_source if self._lock.held else None
            return ViewChecksums(self._files.open_view(disk, None, with_kept_differences=True), before)
        return ViewChecksums(SeedView(self._files.open_base(known.disk(disk))))

    def write_base(self, disk: str, extent: Extent) -> None:
        with self._writing("seeding"):
            self.base_writer(disk)(extent)

    def base_writer(self, disk: str) -> Callable[[Extent], None]:
        """What writes into the base: while this thread holds the lock, other threads may call it, for other blocks."""
        self._require_lock()
        described, where = self._unseeded().disk(disk), str(self._files.base(disk))
        base = self._base(disk)

        def write(extent: Extent) -> None:
            if self._reserve and not is_zero(extent.data):
                self._reserve(len(extent.data))
            rules.require_inside(described, extent.offset, len(extent.data), where)
            base.fill(extent)

        return write

    def checkpoint_base(self, disk: str, offset: int) -> None:
        with self._writing("seeding"):
            self.settling(disk, offset)()
            self.note_checkpoint(disk, offset)

    def settling(self, disk: str, offset: int) -> Callable[[], None]:
        """What makes every block below ``offset`` durable. It may run in another thread while this one, which holds the
        lock, goes on writing above ``offset``; :meth:`note_checkpoint` follows, in this thread again."""
        self._require_lock()
        reached = self._unseeded().seeded_bytes[disk]
        base = self._base(disk)

        def settle() -> None:
            with files.translated(self._files.root):
                base.settle(reached, offset - reached)
                base.sync()

        return settle if offset > reached else lambda: None

    def note_checkpoint(self, disk: str, offset: int) -> None:
        """The progress of the seeding is durable: a later try goes on at ``offset``."""
        with self._writing("seeding"):
            known = self._unseeded()
            if offset > known.seeded_bytes[disk]:
                self._save(known.with_(seeded_bytes={**known.seeded_bytes, disk: offset}))

    def complete_seed(self, time: datetime, kind: ConsistencyKind) -> RecoveryPoint:
        with self._writing("seeding"):
            known = self._manifest()
            if known.seeded:
                return known.points[0]
            rules.require_whole(known, str(self._files.root))
            point = self._point(known, 0, known.epoch, time, kind, sum(disk.size for disk in known.disks))
            self._save(
                known.with_(
                    seeded=True,
                    seed_moment=None,
                    base_sequence=point.sequence,
                    next_sequence=point.sequence + 1,
                    points=[point],
                )
            )
            return point

    def adopt(self, images: dict[str, Path], disks: list[Disk], epoch: str) -> None:
        check_disks(disks)
        with self._writing("adopting images"):
            present = {disk.name: images[disk.name] for disk in disks if images.get(disk.name, Path()).is_file()}
            if self.exists():
                known = self._unseeded()
                check_same_disks(known.disks, disks, str(self._files.root))
                if known.epoch == epoch and not present:
                    return
                self._save(self._fresh(known.disks, epoch, known.key))
            adoption.refuse_other_sizes(present, disks)
            files.make_folder(self._files.segments)
            self._files.fence.unmark()  # an unseeded replica has no mark: it is of one that was not removed to the end
            self._close_bases()  # other files take their place
            for name, image in present.items():
                adoption.move_in(image, self._files.base(name))
            for disk in disks:
                self._files.make_base(disk)
            self._save(self._fresh(disks, epoch, self._known.key if self._known else None))

    # --- recovery points --------------------------------------------------------------------------------------

    def open_segment(self, disk: str, cut: int, *, epoch: str | None = None) -> SegmentWriter:
        self._require_lock()
        key = self._keys.open(self._manifest().key)
        header = self._segment_header(disk, cut, epoch, key.new_stream() if key else None)
        return SegmentFileWriter(
            self._files.segment(header.sequence, disk),
            header,
            reserve=self._reserve_for_source,
            closed=lambda sealed: self._staged.update({disk: (header, sealed)}),
            cipher=key.cipher(header.encryption, disk) if key and header.encryption else None,
        )

    def open_frames(
        self, disk: str, cut: int, *, epoch: str | None = None, encryption: Encryption | None = None
    ) -> SegmentFile:
        """As :meth:`open_segment`, for frames that were encoded (and encrypted) at the source.

        Raises what :meth:`frame_cipher` raises: this side could never read them."""
        self._require_lock()
        self.frame_cipher(disk, encryption)
        header = self._segment_header(disk, cut, epoch, encryption)
        return SegmentFile(
            self._files.segment(header.sequence, disk),
            header,
            reserve=self._reserve_for_source,
            closed=lambda sealed: self._staged.update({disk: (header, sealed)}),
        )

    def frame_cipher(self, disk: str, encryption: Encryption | None) -> FrameCipher | None:
        """What opens frames of ``disk`` that the source encrypted so.

        Raises ``AuthenticationRefused`` when it is not how this replica is encrypted."""
        return self._keys.cipher(self._manifest().key, encryption, disk)

    def seal(
        self, cut: int, time: datetime, kind: ConsistencyKind, *, epoch: str | None = None, group: str = ""
    ) -> RecoveryPoint:
        self._require_lock()
        known = self._manifest()
        epoch = epoch or known.epoch
        if epoch == known.epoch and cut <= known.last_cut:
            return self._sealed_already(known, cut)
        self._files.fence.refuse_source()
        self._refuse_gap(known, cut, epoch)
        layer = self._staged_layer(known, cut, epoch)
        changed = sum(new.changed_bytes for new in (*known.kept_differences, layer))
        point = self._point(known, cut, epoch, time, kind, changed, group)
        sealed = known.with_(
            epoch=epoch,
            last_cut=cut,
            next_sequence=point.sequence + 1,
            layers=[*known.layers, layer],
            points=[*known.points, point],
        )
        with self._files.fence.source_may():
            self._save(sealed)
        self._staged.clear()
        return point

    def keep_differences(self, epoch: str) -> None:
        self._require_lock()
        known = self._manifest()
        self._files.fence.refuse_source()
        self._refuse_gap(known, 0, epoch)
        layer = self._staged_layer(known, 0, epoch)
        kept = known.with_(epoch="", last_cut=0, next_sequence=layer.sequence + 1, layers=[*known.layers, layer])
        with self._files.fence.source_may():
            self._save(kept)
        self._staged.clear()

    def view(self, disk: str, point: RecoveryPoint | None = None) -> BlockReader:
        return self._files.open_view(disk, point.id if point else None)

    def materialise(self, point: RecoveryPoint, folder: Path, report: Report) -> list[Path]:
        with ExitStack() as opened:
            views = {}
            for disk in self._manifest().disks:
                views[disk.name] = self._files.open_view(disk.name, point.id)
                opened.callback(views[disk.name].close)
            return write_images(views, folder, report, f"writing the disks of {self.machine} at {point.id}")

    def prune(self, retention: Retention, now: datetime, *, in_use: frozenset[str] = frozenset()) -> list[str]:
        with self._writing("pruning recovery points"):
            known = self._manifest()
            self._files.fence.refuse_source()
            if known.merging:
                # Once points are dropped, nobody can tell which layers it was about: only their blocks go unverified.
                if not self._merge_unless_read(known):
                    return []
                known = self._manifest()
            with self._files.pins.pruning() as read_now:
                dropped = [point.id for point in expired(known.points, retention, now, in_use | read_now)]
                if dropped:
                    known = known.with_(points=[point for point in known.points if point.id not in dropped])
                    merging.require_segments(known.settled_layers, self._files, self._keys.open(known.key))
                    with self._files.fence.source_may():
                        self._save(known)
            if known.settled_layers:
                self._merge_unless_read(known)
            scrubbing.read_again(self._manifest(), self._files, self._keys.open(known.key))
            return dropped

    def keep_only(self, point: RecoveryPoint) -> None:
        with (
            self._writing("dropping all other recovery points"),
            locking.exclude(self._files.readers_lock) as alone,
        ):
            if not alone:
                raise Busy(
                    "a recovery point is being read",
                    where=str(self._files.root),
                    remedy="wait until the test failover or copy that reads it has its disks",
                )
            known = self._manifest()
            self._files.fence.refuse_other(point)
            if known.merging:
                self._merge(known)
                known = self._manifest()
            point = resolve(known.points, point.id, str(self._files.root))
            later = [layer for layer in known.layers if layer.sequence > point.sequence]
            kept = [layer for layer in known.layers if layer.sequence <= point.sequence]
            followed = (known.epoch, known.last_cut) if not later else ("", 0)
            known = known.with_(points=[point], layers=kept, epoch=followed[0], last_cut=followed[1])
            self._save(known)
            self._files.delete_segments(later)
            self._merge(known)

    def remove(self) -> None:
        if not self._files.root.is_dir():
            return
        with self._writing("removing the replica"):
            self._close_bases()
            self._known = None
            self._files.delete_everything()

    # --- inside -----------------------------------------------------------------------------------------------

    @contextmanager
    def _writing(self, purpose: str) -> Iterator[None]:
        with files.translated(self._files.root), self.lock(purpose):
            yield

    def _entered(self) -> None:
        if self.exists():
            try:
                self._known = self._files.load()
            except Damaged:  # whoever asks it will say so; the replica can still be removed
                return
            with files.translated(self._files.root):
                self._files.delete_unlisted(self._known)

    def _left(self) -> None:
        self._close_bases()
        self._known = None
        self._staged.clear()

    def _close_bases(self) -> None:
        while self._bases:
            self._bases.popitem()[1].close()

    def _manifest(self) -> Manifest:
        return self._known if self._lock.held and self._known else self._files.load()

    def _save(self, new: Manifest) -> None:
        manifest.save(self._files.manifest, new)
        self._known = new

    def _unseeded(self) -> Manifest:
        known = self._manifest()
        rules.require_unseeded(known, str(self._files.root))
        return known

    def _segment_header(self, disk: str, cut: int, epoch: str | None, encryption: Encryption | None) -> SegmentHeader:
        known = self._manifest()
        epoch = epoch or known.epoch
        self._files.fence.refuse_source()
        self._refuse_gap(known, cut, epoch)
        self._staged.pop(disk, None)
        return SegmentHeader(
            machine=self.machine,
            disk=disk,
            disk_size=known.disk(disk).size,
            sequence=known.next_sequence,
            epoch=epoch,
            cut=cut,
            encryption=encryption,
        )

    def _staged_layer(self, known: Manifest, cut: int, epoch: str) -> Layer:
        """The closed segments of a cut, durable. Raises ``InvalidState`` when one is missing."""
        segments: dict[str, StoredSegment] = {}
        for disk in known.disks:
            header, sealed = self._staged.get(disk.name, (None, None))
            if header is None or sealed is None or (header.epoch, header.cut) != (epoch, cut):
                raise InvalidState(f"cut {cut} has no closed segment of '{disk.name}'", where=str(self._files.root))
            segments[disk.name] = StoredSegment(
                identity=sealed.identity, disk_bytes=sealed.disk_bytes, stored_bytes=sealed.stored_bytes
            )
        with files.translated(self._files.segments):
            files.sync_folder(self._files.segments)
        return Layer(sequence=known.next_sequence, epoch=epoch, cut=cut, segments=segments)

    def _reserve_for_source(self, count: int) -> None:
        """A transfer ends when its machine is failed over: the next seal, and with it the lock, may be hours away."""
        self._files.fence.refuse_source()
        if self._reserve:
            self._reserve(count)

    def _require_lock(self) -> None:
        if not self._lock.held:
            raise InvalidState("only the holder of the replica's lock may do this", where=str(self._files.root))

    def _fresh(self, disks: list[Disk], epoch: str, key: WrappedKey | None = None) -> Manifest:
        zero = {disk.name: 0 for disk in disks}
        return Manifest(machine=self.machine, disks=disks, epoch=epoch, seeded_bytes=zero, key=key or self._keys.make())

    def _base(self, disk: str) -> BaseImage:
        if disk not in self._bases:
            self._bases[disk] = self._files.open_base(self._manifest().disk(disk), writable=True)
        return self._bases[disk]

    def _point(
        self,
        known: Manifest,
        cut: int,
        epoch: str,
        time: datetime,
        kind: ConsistencyKind,
        changed: int,
        group: str = "",
    ) -> RecoveryPoint:
        return rules.new_point(self.machine, known.next_sequence, epoch, cut, time, kind, changed, group)

    def _sealed_already(self, known: Manifest, cut: int) -> RecoveryPoint:
        sequences = [layer.sequence for layer in known.layers if (layer.epoch, layer.cut) == (known.epoch, cut)]
        return rules.sealed_already(known, cut, sequences, str(self._files.root))

    def _refuse_gap(self, known: Manifest, cut: int, epoch: str) -> None:
        rules.refuse_gap(known, cut, epoch, str(self._files.root))

    def _merge_unless_read(self, known: Manifest) -> bool:
        """False: a reader is open; the layers wait for the next prune."""
        with locking.exclude(self._files.readers_lock) as alone:
            if alone:
                self._merge(known)
            return alone

    def _merge(self, known: Manifest) -> None:
        """Bring the base images to the oldest recovery point. A crash anywhere in it is repaired by repeating it:
        until the manifest says it is done, the layers still lie over whatever the base images hold."""
        settled = known.settled_layers
        if not settled:
            return
        merge = merging.Merge(settled, self._files, self._base, self._keys.open(known.key))
        begun, trusted = known.merging, known.rests_known or not known.merging
        if trusted:
            known = self._merging(known)
        damage = merge.keep_rests(begun=begun, trusted=trusted)
        if not trusted:
            known = self._merging(known)
        damage = merge.finish() or damage
        rest = [layer for layer in known.layers if layer not in settled]
        self._save(known.with_(merging=False, rests_known=False, base_sequence=known.points[0].sequence, layers=rest))
        self._files.delete_segments(settled)
        if damage is not None:
            raise damage

    def _merging(self, known: Manifest) -> Manifest:
        if not known.rests_known:
            known = known.with_(merging=True, rests_known=True)
            self._save(known)
        return known
