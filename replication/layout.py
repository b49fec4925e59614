"""Where the files of a local replica are, and how they are opened."""

from __future__ import annotations

import os
import re
from contextlib import ExitStack, suppress
from pathlib import Path

from replication import files, locking, manifest, rules
from replication.base_image import BaseImage
from replication.cipher import Keys, MachineKey
from replication.fence import Fence
from replication.manifest import Layer, Manifest
from replication.overwritten import Overwritten
from replication.pins import Pins
from replication.pipeline import WINDOW
from replication.segment_reader import WITHOUT_IT, FrameCache, SegmentReader
from replication.view import LayeredView
from vault.domain import Disk
from vault.errors import BadInput, Damaged, InvalidState, NotFound

OPEN_OF_A_VIEW = 32
"""Segments that stay open: there may be more of them than a process may open files."""
_DISK_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")


class Layout:
    """``manifest.json``, ``base-<disk>.raw`` + ``.sums``, ``segments/<sequence>-<disk>.seg``, two lock files."""

    def __init__(self, root: Path, keys: Keys) -> None:
        self.root = root
        self.keys = keys
        self.manifest = root / "manifest.json"
        self.segments = root / "segments"
        self.writer_lock = root / "writer.lock"
        self.readers_lock = root / "readers.lock"
        self.pins = Pins(root / "pins")
        self.fence = Fence(root)

    def base(self, disk: str) -> Path:
        return self.root / f"base-{disk}.raw"

    def sums(self, disk: str) -> Path:
        return self.root / f"base-{disk}.sums"

    def segment(self, sequence: int, disk: str) -> Path:
        return self.segments / f"{sequence:010d}-{disk}.seg"

    def load(self) -> Manifest:
        try:
            return manifest.load(self.manifest)
        except NotFound as error:
            raise rules.no_replica(str(self.root)) from error

    def make_base(self, disk: Disk) -> None:
        BaseImage.make(self.base(disk.name), self.sums(disk.name), disk.size)

    def open_base(self, disk: Disk, *, writable: bool = False, unsettled: Overwritten | None = None) -> BaseImage:
        return BaseImage(self.base(disk.name), self.sums(disk.name), disk.size, writable=writable, unsettled=unsettled)

    def open_segment(
        self, layer: Layer, disk: str, key: MachineKey | None, cache: FrameCache | None = None
    ) -> SegmentReader:
        """Raises ``Damaged`` when the file is missing or is not the one that was sealed."""
        path = self.segment(layer.sequence, disk)
        try:
            reader = SegmentReader(path, key, cache)
        except NotFound as error:
            raise Damaged("a sealed segment is missing", where=str(path), remedy=WITHOUT_IT) from error
        if reader.sealed.identity != layer.segments[disk].identity:
            reader.close()
            raise Damaged("another segment lies in the place of the sealed one", where=str(path), remedy=WITHOUT_IT)
        return reader

    def open_view(self, disk: str, point_id: str | None, *, with_kept_differences: bool = False) -> LayeredView:
        """Until it is closed what it reads does not change under it, and its recovery point is not pruned.

        ``with_kept_differences``: of a resynchronization that is not complete, over the newest point."""
        with ExitStack() as opened:
            readers = locking.share(self.readers_lock)
            opened.callback(os.close, readers)
            with self.pins.pinning():
                known = self.load()
                if not known.points:
                    raise rules.no_point_yet(str(self.root))
                points = [point for point in known.points if point_id in (None, point.id)]
                if not points:
                    raise rules.no_such_point(point_id, str(self.root))
                pin = self.pins.pin(points[-1].id)
                opened.callback(pin.close)
            described = known.disk(disk)
            key = self.keys.open(known.key)
            layers: list[SegmentReader] = []
            cache = FrameCache(WINDOW)
            for layer in known.layers:
                if layer.sequence <= points[-1].sequence or with_kept_differences:
                    layers.append(self.open_segment(layer, disk, key, cache))
                    opened.callback(layers[-1].close)
                    if len(layers) > OPEN_OF_A_VIEW:
                        layers[-1].close()
            base = self.open_base(described, unsettled=_unsettled(known, described, layers))
            opened.callback(base.close)
            held = ExitStack()
            held.callback(os.close, readers)
            held.callback(pin.close)
            view = LayeredView(base, layers, closing=held.close)
            opened.pop_all()
        return view

    def delete_unlisted(self, known: Manifest) -> None:
        """Leftovers of a crash: half-written files, and segments that were never sealed or are merged already."""
        listed = {self.segment(layer.sequence, disk) for layer in known.layers for disk in layer.segments}
        listed.add(self.fence.unfinished)
        for path in (*self.root.glob("*.part"), *self.segments.glob("*")):
            if path not in listed:
                files.delete(path)

    def delete_segments(self, layers: list[Layer]) -> None:
        for layer in layers:
            for disk in layer.segments:
                files.delete(self.segment(layer.sequence, disk))

    def delete_everything(self) -> None:
        """The manifest goes first: without it the rest does not count. The writer's lock goes last."""
        files.delete(self.manifest)
        files.sync_folder(self.root)
        self.fence.unmark()
        for path in (*self.segments.glob("*"), *self.root.glob("base-*"), *self.root.glob("*.part")):
            files.delete(path)
        with suppress(FileNotFoundError):
            self.segments.rmdir()
        self.pins.delete_all()
        files.delete(self.readers_lock)
        files.delete(self.writer_lock)
        with suppress(FileNotFoundError):
            self.root.rmdir()

    def stored_bytes(self) -> int:
        total = 0
        for path in (*self.root.glob("base-*"), *self.segments.glob("*")):
            with suppress(FileNotFoundError):  # pruned by another process meanwhile
                total += files.space_used(path)
        return total


def _unsettled(known: Manifest, disk: Disk, layers: list[SegmentReader]) -> Overwritten | None:
    """What an interrupted merge was about."""
    if not known.merging:
        return None
    settled = layers[: len(known.settled_layers)]
    return Overwritten(disk.size, *map(SegmentReader.all_ranges, settled), verifiable=known.rests_known)


def check_disks(disks: list[Disk]) -> None:
    """Raises ``BadInput`` for names that are no safe file names, or appear twice."""
    names = [disk.name for disk in disks]
    for name in names:
        if not _DISK_NAME.match(name) or names.count(name) > 1:
            raise BadInput(
                f"'{name}' cannot name a disk of a replica",
                remedy="give every disk its own name of letters, digits, '.', '_' and '-'",
            )


def check_same_disks(known: list[Disk], now: list[Disk], where: str) -> None:
    """Raises ``InvalidState`` when disks came, went, or changed their size."""
    sizes = {disk.name: disk.size for disk in known}
    new_sizes = {disk.name: disk.size for disk in now}
    for name in sizes.keys() | new_sizes.keys():
        if sizes.get(name) == new_sizes.get(name):
            continue
        if name not in new_sizes:
            what = f"the disk '{name}' is gone from the machine"
        elif name not in sizes:
            what = f"the disk '{name}' was added to the machine"
        else:
            what = f"the disk '{name}' has {new_sizes[name]} bytes now, its replica has {sizes[name]}"
        raise InvalidState(
            what, where=where, remedy="disable the machine's protection and enable it again for its new disks"
        )
