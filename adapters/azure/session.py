"""What a writer does while it holds the lease: it changes page blobs and the manifest, and nothing else does."""

from __future__ import annotations

import logging
import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from adapters.azure import vhd
from adapters.azure.errors import translated
from adapters.azure.layout import Layout
from adapters.azure.lease import Lease
from adapters.azure.manifest import Applied, AzureManifest, CachedLayer, ManifestBlob, open_key
from adapters.azure.pages import WRITERS, PageWriter, create_empty, read_footer
from adapters.azure.segments import CachedSegmentWriter, fetch_layer
from replication import files, rules
from replication.cipher import Keys, MachineKey
from replication.manifest import StoredSegment
from replication.ports import Extent
from replication.scratch import scratch_folder
from replication.segment import Sealed, SegmentHeader
from replication.segment_reader import SegmentReader
from vault.domain import Disk, RecoveryPoint
from vault.errors import Damaged, InvalidState, NotFound

_PIECE = 1 << 20

logger = logging.getLogger(__name__)


class _Staged(NamedTuple):
    header: SegmentHeader
    sealed: Sealed
    blob: str

    @property
    def place(self) -> tuple[int, str, int]:
        return self.header.sequence, self.header.epoch, self.header.cut


class Session:
    """One writer, from taking the lease to giving it back."""

    def __init__(
        self, layout: Layout, document: ManifestBlob, lease: Lease, holder: dict[str, str], keys: Keys
    ) -> None:
        self.lease = lease
        self._layout = layout
        self._document = document
        self._holder = holder
        self._keys = keys
        self._scratch = ExitStack()
        self._folder = self._scratch.enter_context(scratch_folder())
        self._pool = ThreadPoolExecutor(WRITERS, thread_name_prefix="azure")
        self._pages: dict[str, PageWriter] = {}
        self._staged: dict[str, _Staged] = {}
        self._clean = False
        self._etag = ""
        self._known: AzureManifest | None = None
        self._damage: Damaged | None = None

    @property
    def known(self) -> AzureManifest | None:
        """The manifest as it is in Azure; None: there is no replica. Raises ``Damaged``."""
        if self._damage is not None:
            raise self._damage
        return self._known

    def begin(self) -> None:
        """Read the manifest, keep other writers off the disks, and clear the leftovers of a crash.

        When it is damaged, whoever asks for it will hear so; the replica can still be removed."""
        try:
            self._known, self._etag = self._document.read()
        except Damaged as damage:
            self._damage, self._etag = damage, self._document.etag()
            return
        for disk in self.known.disks if self.known else []:
            try:
                self.lease.take_over(self._layout.disk(disk.name))
            except NotFound:  # the replica can still be removed; whatever needs the blob will say so
                logger.error("%s: the page blob of disk '%s' is missing", self._layout.where, disk.name)
        self.clean()

    def end(self, succeeded: bool) -> None:
        """What was written so far becomes durable, or after a failure is left to be repeated."""
        try:
            for pages in self._pages.values():
                if succeeded:
                    pages.flush()
                else:
                    pages.abandon()
        finally:
            self._pool.shutdown(cancel_futures=True)
            self._scratch.close()

    def manifest(self) -> AzureManifest:
        """Raises ``NotFound``."""
        if self.known is None:
            raise rules.no_replica(self._layout.where)
        return self.known

    def save(self, new: AzureManifest | None) -> None:
        """Atomic and durable. Raises ``Busy`` when this is not the only writer any more."""
        self.lease.require()
        self._clean = False
        self._etag = self._document.save(new, self._etag, lease=self.lease.id, metadata=self._holder)
        self._known, self._damage = new, None

    def clean(self) -> None:
        """Delete what the manifest does not list, as far as nobody reads it."""
        if not self._clean:
            self._clean = self._layout.delete_unlisted(self.known, self.lease.confirm)

    def delete_replica(self) -> None:
        """The manifest first: without it the rest does not count. Its blob, and with it the lease, goes last.

        Raises ``Busy`` when somebody began to read meanwhile: the rest is deleted by the next try."""
        for disk in self._known.disks if self._known else []:
            self.lease.forget(self._layout.disk(disk.name))
        self.save(None)
        self.clean()
        if not self._clean:
            raise self._layout.being_read()
        self.lease.forget(self._layout.manifest)
        self._layout.delete_manifest(self.lease.id)

    # --- page blobs ---------------------------------------------------------------------------------------------

    def make_disk(self, disk: Disk) -> None:
        """An empty page blob with its VHD footer."""
        blob = self._layout.disk(disk.name)
        footer = vhd.footer(disk.size, uuid.uuid4(), datetime.now(UTC))
        with translated(self._layout.where):
            create_empty(blob, vhd.blob_size(disk.size))
        self.lease.take(blob)
        with translated(self._layout.where):
            blob.upload_page(footer, vhd.virtual_size(disk.size), len(footer), lease=self.lease.id)

    def pages(self, disk: Disk, state: int | None = None) -> PageWriter:
        """What brings a disk to this state; default: the one that is made next."""
        if disk.name not in self._pages:
            self._pages[disk.name] = PageWriter(
                self._layout.disk(disk.name), disk.size, self._layout.where, self.lease, self._pool
            )
        pages = self._pages[disk.name]
        pages.towards(self.manifest().next_sequence if state is None else state)
        return pages

    def upload(self, disk: Disk, image: Path) -> None:
        """The data of a raw image; its holes are left as they are in the blob."""
        with files.translated(image):
            fd = files.open_file(image, os.O_RDONLY)
            try:
                for offset, length in files.data_ranges(fd, disk.size):
                    for start in range(offset, offset + length, _PIECE):
                        data = files.read_at(fd, min(_PIECE, offset + length - start), start)
                        self.pages(disk).add(Extent(start, data))
            finally:
                os.close(fd)
        self.pages(disk).flush()

    def take_snapshots(self, sequence: int, epoch: str, cut: int, point: RecoveryPoint | None) -> Applied:
        """Fix what the page blobs hold. Snapshots that never get into the manifest are cleared away later.

        Raises ``Damaged`` for a page blob that is no whole VHD any more."""
        self.lease.require()
        for disk in self.manifest().disks:
            self._require_whole_vhd(disk)
        about = {"sequence": str(sequence)}
        if point:
            about |= {"point": point.id, "time": point.time.isoformat(), "kind": str(point.kind)}
        snapshots = {}
        for disk in self.manifest().disks:
            with translated(self._layout.where):
                answer = self._layout.disk(disk.name).create_snapshot(metadata=about, lease=self.lease.id)
            snapshots[disk.name] = str(answer["snapshot"])
        return Applied(sequence=sequence, epoch=epoch, cut=cut, snapshots=snapshots)

    def _require_whole_vhd(self, disk: Disk) -> None:
        """A blob that was cut short reads as zeros where it ends, and Azure would not import one without its footer."""
        footer, size = read_footer(self._layout.disk(disk.name), disk.size, self._layout.where)
        if size != vhd.blob_size(disk.size) or not vhd.is_footer(footer, disk.size):
            raise Damaged(
                f"the page blob of disk '{disk.name}' is no whole VHD: it has {size} bytes, not "
                f"{vhd.blob_size(disk.size)}, or its footer was changed",
                where=self._layout.where,
                remedy="find out who changed it; recovery points up to now are whole. For new ones disable the "
                "machine's protection and enable it again",
            )

    # --- deltas -------------------------------------------------------------------------------------------------

    def stage(self, header: SegmentHeader) -> CachedSegmentWriter:
        self._staged.pop(header.disk, None)
        key = self._key()
        if key is not None:
            header = header.model_copy(update={"encryption": key.new_stream()})
        name = self._layout.new_cached(header.sequence, header.disk)
        return CachedSegmentWriter(
            self._local(name),
            self._layout.cached(name),
            self._layout.cache_where,
            header,
            self._pool,
            closed=lambda sealed: self._staged.update({header.disk: _Staged(header, sealed, name)}),
            cipher=key.cipher(header.encryption, header.disk) if key and header.encryption else None,
        )

    def _key(self) -> MachineKey | None:
        """The replica's key; one is made when the site has got one since the replica was made.

        Segments say themselves whether they are encrypted, and page blobs never are: nothing has to be made anew."""
        known = self.manifest()
        if known.key is None and (made := self._keys.make()) is not None:
            self.save(known.with_(key=made))
        return open_key(self._keys, self.manifest())

    def staged_layer(self, cut: int, epoch: str) -> CachedLayer:
        """The closed segments of a cut. Raises ``InvalidState`` when one is missing."""
        known = self.manifest()
        segments: dict[str, StoredSegment] = {}
        blobs: dict[str, str] = {}
        for disk in known.disks:
            staged = self._staged.get(disk.name)
            if staged is None or staged.place != (known.next_sequence, epoch, cut):
                raise InvalidState(f"cut {cut} has no closed segment of '{disk.name}'", where=self._layout.where)
            sealed = staged.sealed
            segments[disk.name] = StoredSegment(
                identity=sealed.identity, disk_bytes=sealed.disk_bytes, stored_bytes=sealed.stored_bytes
            )
            blobs[disk.name] = staged.blob
        return CachedLayer(sequence=known.next_sequence, epoch=epoch, cut=cut, segments=segments, blobs=blobs)

    def apply_sealed(self) -> None:
        """Bring the page blobs to the newest sealed state, layer by layer, each fixed by its snapshots.

        Writing a layer again writes the same bytes to the same pages: a crash anywhere is repaired by repeating."""
        while self.known and self.known.layers:
            self._apply(self.known.layers[0])
            self._fix(self.known.layers[0])

    def apply_or_discard(self) -> None:
        """Before a resynchronization: a delta that is damaged in the cache is lost, and the machine is compared with
        the last state that is whole."""
        while self.known and self.known.layers:
            try:
                self._apply(self.known.layers[0])
            except Damaged as damage:
                self._discard_layers(damage)
            else:
                self._fix(self.known.layers[0])

    def _discard_layers(self, damage: Damaged) -> None:
        """A part of the first may be in the page blobs, of another disk or from before a crash. So what they hold is
        fixed as a state of its own: the next delta lies over that, not over the one before."""
        known = self.manifest()
        lost = {layer.sequence for layer in known.layers}
        logger.error("%s: recovery points are lost, %d in all: %s", self._layout.where, len(lost), damage)
        points = [point for point in known.points if point.sequence not in lost]
        state = self.take_snapshots(known.next_sequence, "", 0, None)
        left = known.with_(
            layers=[],
            points=points,
            applied=[*known.applied, state],
            next_sequence=known.next_sequence + 1,
            live_bytes=min(known.disk_bytes, known.live_bytes + known.layers[0].changed_bytes),
            epoch="",
            last_cut=0,
        )
        self.save(left.without_points(set()))

    def _fix(self, layer: CachedLayer) -> None:
        """The page blobs hold the first layer: its snapshots take its place."""
        known = self.manifest()
        point = next((point for point in known.points if point.sequence == layer.sequence), None)
        state = self.take_snapshots(layer.sequence, layer.epoch, layer.cut, point)
        applied = known.with_(
            layers=known.layers[1:],
            applied=[*known.applied, state],
            live_bytes=min(known.disk_bytes, known.live_bytes + layer.changed_bytes),
        )
        self.save(applied.without_points(set()))

    def _apply(self, layer: CachedLayer) -> None:
        """Raises ``Damaged`` when one of its segments is."""
        for disk in self.manifest().disks:
            self._apply_segment(layer, disk)

    def _apply_segment(self, layer: CachedLayer, disk: Disk) -> None:
        path = self._local(layer.blobs[disk.name])
        with ExitStack() as opened:
            key = open_key(self._keys, self.manifest())
            reader = (
                SegmentReader(path, key) if path.exists() else fetch_layer(self._layout, layer, disk.name, path, key)
            )
            opened.callback(files.delete, path)
            opened.callback(reader.close)
            pages = self.pages(disk, layer.sequence)
            for extents in reader.frames():
                for extent in extents:
                    pages.add(extent)
            pages.flush()

    def _local(self, name: str) -> Path:
        return self._folder / name.rpartition("/")[2]
