"""The process server's cache: cuts that wait on the source site's disk until the target has sealed them.

A cut moves from the change source into the cache and from there to the target, and is deleted at each place only after
it is durable at the next (``docs/decisions/005-cache-of-the-process-server.md``; the files are in ``docs/formats.md``).
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path

from pydantic import ValidationError

from replication import files, locking, manifest
from replication.cipher import Keys, MachineKey, SiteKey, WrappedKey
from replication.manifest import StoredSegment
from replication.pipeline import batches, read_ahead
from replication.ports import ChangeSource, Cut, Extent, Report, Tracking
from replication.progress import Meter
from replication.segment import SegmentFileWriter, SegmentHeader
from replication.segment_reader import SegmentReader
from vault.domain import CacheFill, Disk, Progress, Value
from vault.errors import Damaged, NoSpace, NotFound, ResynchronizationRequired

MAGIC = "leeward-cache"
LARGEST_EXTENT = 1 << 20
_LOOK_AGAIN_S = 0.02
_RESYNCHRONIZE = "resynchronize the machine: source and replica are compared and only the difference is sent"

log = logging.getLogger(__name__)


class CachedCut(Value):
    cut: Cut
    segments: dict[str, StoredSegment]


class CacheManifest(Value):
    """What waits, oldest first; cuts follow each other without a gap, in one tracking period.

    ``key`` is the cache's own for this machine, wrapped by the target site's; None: nothing is encrypted."""

    machine: str
    disks: list[Disk]
    key: WrappedKey | None = None
    cuts: list[CachedCut] = []


class CutCache:
    """The cuts of one machine that wait; a :class:`replication.ports.Cuts`. Changes are made inside :meth:`lock`.

    Args:
        root: the cache of the whole site, ``<root>/<machine>/``; all replication workers of the site share it.
        limit: bytes that all machines of the site may take up in it.
        site_key: the target site's key; None: segments are not encrypted.
    """

    def __init__(self, root: Path, machine: str, limit: int, *, site_key: SiteKey | None = None) -> None:
        self.limit = limit
        self._root = root
        self._folder = root / machine
        self._machine = machine
        self._site_key = site_key
        self._keys = Keys(machine, site_key)
        self._document = self._folder / "cache.json"
        self._writer_lock = self._folder / "writer.lock"
        self._lock = locking.WriterLock(self._writer_lock, entered=self._clear_leftovers, left=lambda: None)

    def lock(self, purpose: str) -> AbstractContextManager[None]:
        """Raises ``Busy`` when another process deals with this machine's cache."""
        return self._lock.hold(purpose)

    def is_empty(self) -> bool:
        """Nothing waits, and no crash left anything to clear."""
        return all(path == self._writer_lock for path in self._folder.glob("*"))

    def fill(self, *, full: bool = False) -> CacheFill:
        cuts = self._known().cuts
        with files.translated(self._root):
            used = self._used()
        return CacheFill(
            cuts=len(cuts),
            bytes=sum(segment.stored_bytes for one in cuts for segment in one.segments.values()),
            oldest=cuts[0].cut.time if cuts else None,
            site_bytes=used,
            site_limit=self.limit,
            full=full,
        )

    def take_in(self, source: ChangeSource, cut: Cut, report: Report) -> bool:
        """Hold the cut durably, unless it is here already. False: there is no room, and nothing has changed.

        It has to fit before compression; so whether it does never depends on what the disks hold.

        Raises ``ResynchronizationRequired`` when it does not follow what waits here."""
        known = self._known()
        if any(one.cut == cut for one in known.cuts):
            return True
        if known.cuts and (cut.epoch, cut.number) != (known.cuts[-1].cut.epoch, known.cuts[-1].cut.number + 1):
            last = known.cuts[-1].cut
            raise ResynchronizationRequired(
                f"cut {cut.number} of tracking period '{cut.epoch}' does not follow cut {last.number} of "
                f"'{last.epoch}' that waits in the cache",
                where=str(self._folder),
                remedy=_RESYNCHRONIZE,
            )
        disks = source.disks()
        sizes = {disk.name: source.extents_size(cut, disk.name) for disk in disks}
        with self._only_one_of_the_site(report):
            room = _Room(self.limit - self._used())
            if sum(sizes.values()) > room.left:
                return False
            if self._site_key and known.key is None:
                known = known.model_copy(update={"key": self._keys.make()})
            meter = Meter(report, f"caching the changes of cut {cut.number}", sum(sizes.values()))
            key = self._keys.open(known.key) if known.key else None
            try:
                segments = {disk.name: self._stage(source, cut, disk, key, room, meter) for disk in disks}
                with files.translated(self._folder):
                    files.sync_folder(self._folder)
                    self._save(
                        known.model_copy(
                            update={"disks": disks, "cuts": [*known.cuts, CachedCut(cut=cut, segments=segments)]}
                        )
                    )
            except NoSpace as error:
                log.warning("changes of '%s' stay in its change source: %s", self._machine, error)
                self._delete_unlisted()
                return False
        return True

    def drop_other_periods(self, epoch: str) -> None:
        """Cuts that can never follow the replica any more, because it was compared with the source since."""
        known = self._known()
        if known.cuts and known.cuts[0].cut.epoch != epoch:
            log.warning("%d cuts of '%s' are of an earlier tracking period and dropped", len(known.cuts), self._machine)
            with files.translated(self._folder):
                self._save(known.model_copy(update={"cuts": []}))
                self._delete_unlisted()

    def remove(self) -> None:
        """Forget everything that waits. Idempotent."""
        if not self._folder.is_dir():
            return
        with self.lock("removing the cache"), files.translated(self._folder):
            files.delete(self._document)
            for path in (*self._folder.glob("*.seg"), *self._folder.glob("*.part")):
                files.delete(path)
            files.delete(self._writer_lock)
            self._folder.rmdir()

    # --- what waits, as a source of cuts --------------------------------------------------------------------------

    def disks(self) -> list[Disk]:
        return self._known().disks

    def tracking(self) -> Tracking:
        cuts = self._known().cuts
        return Tracking(active=bool(cuts), epoch=cuts[0].cut.epoch if cuts else "")

    def pending(self) -> list[Cut]:
        return [one.cut for one in self._known().cuts]

    def extents_size(self, cut: Cut, disk: str) -> int:
        return self._find(cut).segments[disk].disk_bytes

    def extents(self, cut: Cut, disk: str) -> Iterator[Extent]:
        """Raises ``ResynchronizationRequired`` when the cache is damaged: the source has forgotten these changes."""
        path, stored, key = self._segment(cut, disk), self._find(cut).segments[disk], self._known().key
        try:
            with closing(SegmentReader(path, self._keys.open(key) if key else None)) as reader:
                if reader.sealed.identity != stored.identity:
                    raise Damaged("another segment lies in the place of the one that was cached", where=str(path))
                for extents in reader.frames():
                    for extent in extents:
                        yield from _pieces(extent)
        except (Damaged, NotFound) as error:
            raise ResynchronizationRequired(
                f"cut {cut.number} cannot be read from the cache, nothing of it was sealed: {error.what}",
                where=error.where,
                remedy=_RESYNCHRONIZE,
            ) from error

    def release(self, cut: Cut) -> None:
        known = self._known()
        with files.translated(self._folder):
            self._save(known.model_copy(update={"cuts": [one for one in known.cuts if one.cut != cut]}))
            self._delete_unlisted()

    # --- inside ---------------------------------------------------------------------------------------------------

    def _stage(
        self, source: ChangeSource, cut: Cut, disk: Disk, key: MachineKey | None, room: _Room, meter: Meter
    ) -> StoredSegment:
        encryption = key.new_stream() if key else None
        header = SegmentHeader(
            machine=self._machine,
            disk=disk.name,
            disk_size=disk.size,
            sequence=cut.number,
            epoch=cut.epoch,
            cut=cut.number,
            encryption=encryption,
        )
        closed: list[StoredSegment] = []
        writer = SegmentFileWriter(
            self._segment(cut, disk.name),
            header,
            reserve=room.take,
            closed=lambda sealed: closed.append(
                StoredSegment(identity=sealed.identity, disk_bytes=sealed.disk_bytes, stored_bytes=sealed.stored_bytes)
            ),
            cipher=key.cipher(encryption, disk.name) if key and encryption else None,
        )
        try:
            with read_ahead(batches(source.extents(cut, disk.name))) as ahead:
                for batch in ahead:
                    for extent in batch.extents:
                        writer.add(extent)
                    meter.add(batch.bytes, 0)
            writer.close()
        except BaseException:
            writer.abandon()
            raise
        return closed[0]

    @contextmanager
    def _only_one_of_the_site(self, report: Report) -> Iterator[None]:
        """So that what is used is counted once; writing side by side would not make one disk faster."""
        path = self._root / "cache.lock"
        with files.translated(path):
            fd = files.open_file(path, os.O_RDWR | os.O_CREAT)
        try:
            while not _try_lock(fd):
                report(Progress(doing=f"waiting until another machine has put its changes into {self._root}"))
                time.sleep(_LOOK_AGAIN_S)
            yield
        finally:
            os.close(fd)

    def _used(self) -> int:
        total = 0
        for path in self._root.glob("*/*.seg*"):
            try:
                total += path.stat().st_size
            except FileNotFoundError:
                continue  # sent meanwhile
        return total

    def _segment(self, cut: Cut, disk: str) -> Path:
        return self._folder / f"{cut.number:010d}-{disk}.seg"

    def _find(self, cut: Cut) -> CachedCut:
        for one in self._known().cuts:
            if one.cut == cut:
                return one
        raise NotFound(f"cut {cut.number} does not wait in the cache", where=str(self._folder))

    def _clear_leftovers(self) -> None:
        with suppress(ResynchronizationRequired), files.translated(self._folder):  # whoever reads it will say so
            self._delete_unlisted()

    def _delete_unlisted(self) -> None:
        listed = {self._segment(one.cut, disk) for one in self._known().cuts for disk in one.segments}
        for path in (*self._folder.glob("*.seg"), *self._folder.glob("*.part")):
            if path not in listed:
                files.delete(path)

    def _known(self) -> CacheManifest:
        """Raises ``ResynchronizationRequired`` when it is damaged, ``InvalidState`` for a newer version."""
        try:
            with files.translated(self._document):
                raw = self._document.read_bytes()
        except NotFound:
            return CacheManifest(machine=self._machine, disks=[])
        try:
            return CacheManifest.model_validate(manifest.open_document(raw, str(self._document), MAGIC))
        except (Damaged, ValidationError) as error:
            raise ResynchronizationRequired(
                f"what waits in the cache is not known any more: {error}",
                where=str(self._document),
                remedy=_RESYNCHRONIZE,
            ) from error

    def _save(self, new: CacheManifest) -> None:
        if not new.cuts:  # and with them goes their key
            files.delete(self._document)
            files.sync_folder(self._folder)
            return
        files.replace_contents(self._document, manifest.seal_document(new.model_dump(mode="json"), MAGIC))


class _Room:
    """What may still be written: the limit holds to the byte, whatever encoding adds."""

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self, count: int) -> None:
        if count > self.left:
            raise NoSpace("the cache is full", remedy="it empties itself once the target takes changes again")
        self.left -= count


def _pieces(extent: Extent) -> Iterator[Extent]:
    for start in range(0, len(extent.data), LARGEST_EXTENT):
        yield Extent(extent.offset + start, extent.data[start : start + LARGEST_EXTENT])


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
