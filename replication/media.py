"""Seed media: a machine's disks at one moment, in a folder that a person carries to the other site.

The folder describes itself: ``leeward-seed.json`` says whose disks they are and which files there must be, and each
disk is a row of segments (``docs/formats.md``). A medium is exported by :mod:`replication.seeding`, and imported by it.
"""

from __future__ import annotations

import json
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from replication import files
from replication.checksums import checksum
from replication.cipher import MachineKey, WrappedKey
from replication.segment_reader import NO_PAYLOAD, SegmentReader
from vault.domain import Disk, Value
from vault.errors import BadInput, Damaged, InvalidState, NotFound

MAGIC = "leeward-seed"
VERSION = 1
MANIFEST = "leeward-seed.json"
EXPORT_LOCK = "export.lock"
EXPORT_AGAIN = "export it again, or copy the medium again from an undamaged one"
_READERS_OPEN = 2
"""Segments of one disk that are open at a time: a piece that is read touches two of them at most."""


class Part(Value):
    """All that a disk held in ``[offset, end)``; what its segment does not have was zero."""

    offset: int
    end: int
    identity: str
    stored_bytes: int


class SeedManifest(Value):
    """What the medium holds.

    Attributes:
        site: where it was exported.
        epoch: the tracking period whose deltas continue this moment.
        replaces: the period that it took the place of because that one's changes were no longer known.
        beginning: its snapshot is about to be taken: one that exists may be its own.
        moment: of the snapshot; None while it is not taken yet.
        parts: per disk, ascending, without gaps; written in this order, so the last one's end is the progress.
        key: opens the segments, when they are encrypted.
    """

    machine: str
    site: str
    disks: list[Disk]
    epoch: str = ""
    replaces: str = ""
    beginning: bool = False
    moment: datetime | None = None
    parts: dict[str, list[Part]] = {}
    key: WrappedKey | None = None

    def with_(self, **changes: Any) -> SeedManifest:
        return self.model_copy(update=changes)

    def done(self, disk: str) -> int:
        """Below this offset the disk is on the medium."""
        parts = self.parts.get(disk)
        return parts[-1].end if parts else 0

    @property
    def complete(self) -> bool:
        return self.moment is not None and all(self.done(disk.name) == disk.size for disk in self.disks)

    @property
    def stored_bytes(self) -> int:
        return sum(part.stored_bytes for parts in self.parts.values() for part in parts)


def part_path(folder: Path, disk: str, number: int) -> Path:
    return folder / disk / f"{number:06d}.seg"


def load(folder: Path) -> SeedManifest:
    """Raises ``NotFound`` when the folder holds no seed, ``Damaged``, or ``InvalidState`` for a newer version."""
    path = folder / MANIFEST
    if not path.is_file():
        raise NotFound("there is no seed here", where=str(folder), remedy="name the folder that was exported to")
    with files.translated(path):
        raw = path.read_bytes()
    try:
        document = json.loads(raw)
        magic, version = document["magic"], document["version"]
        expected, body = document["checksum"], document["seed"]
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"this is not a seed's manifest ({error!r})", where=str(path), remedy=EXPORT_AGAIN) from error
    if magic != MAGIC:
        raise Damaged("this is not a seed's manifest: wrong magic", where=str(path), remedy=EXPORT_AGAIN)
    if version != VERSION:
        raise InvalidState(f"seed version {version} is not known here", where=str(path), remedy="use a newer leeward")
    if _checksum(body) != expected:
        raise Damaged("the seed's manifest does not match its checksum", where=str(path), remedy=EXPORT_AGAIN)
    try:
        return SeedManifest.model_validate(body)
    except ValidationError as error:
        raise Damaged(f"the manifest's fields are wrong ({error})", where=str(path), remedy=EXPORT_AGAIN) from error


def save(folder: Path, manifest: SeedManifest) -> None:
    """Atomic and durable."""
    path = folder / MANIFEST
    body = manifest.model_dump(mode="json")
    document = {"magic": MAGIC, "version": VERSION, "checksum": _checksum(body), "seed": body}
    with files.translated(path):
        files.replace_contents(path, json.dumps(document, indent=1).encode())


def _checksum(body: Any) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return checksum(canonical.encode()).hex()


def claim(folder: Path, fresh: SeedManifest) -> SeedManifest:
    """The manifest of the export that ``folder`` holds already, else ``fresh``, written into it.

    Raises:
        BadInput: something else lies there, which an export must not touch.
    """
    with files.translated(folder):
        if (folder / MANIFEST).exists():
            known = _ours(folder, fresh)
        elif folder.is_dir() and {path.name for path in folder.iterdir()} - {EXPORT_LOCK, "lost+found"}:
            raise BadInput(
                "the folder is not empty and holds no seed; nothing was written",
                where=str(folder),
                remedy="name a new or empty folder",
            )
        else:
            files.make_folder(folder)
            known = fresh
            save(folder, fresh)
    return known


def _ours(folder: Path, fresh: SeedManifest) -> SeedManifest:
    try:
        known = load(folder)
    except (Damaged, InvalidState) as error:
        raise BadInput(
            f"what lies there cannot be continued: {error.what}; nothing was written",
            where=str(folder),
            remedy="name a new or empty folder",
        ) from error
    if (known.machine, known.site) != (fresh.machine, fresh.site):
        raise BadInput(
            f"the folder holds the seed of '{known.machine}' at site {known.site}; nothing was written",
            where=str(folder),
            remedy="name a new or empty folder",
        )
    return known


def delete_parts(folder: Path, manifest: SeedManifest) -> None:
    """Every segment of the disks, also those a crash left unlisted."""
    with files.translated(folder):
        for disk in manifest.disks:
            for path in (folder / disk.name).glob("*.seg*"):
                files.delete(path)


class SeedDisk:
    """One disk of a medium: a :class:`replication.ports.BlockReader` whose every byte is verified.

    Raises ``Damaged`` when a segment is missing, is another one than was exported, or fails a checksum.
    """

    def __init__(self, folder: Path, manifest: SeedManifest, disk: Disk, key: MachineKey | None) -> None:
        self.size = disk.size
        self._folder, self._manifest, self._disk, self._key = folder, manifest, disk.name, key
        self._parts = manifest.parts.get(disk.name, [])
        self._begins = [part.offset for part in self._parts]
        self._open: OrderedDict[int, SegmentReader] = OrderedDict()
        self._lock = threading.Lock()

    def check_presence(self) -> None:
        """Every segment is there and belongs here; their data is verified when it is read."""
        for number in range(len(self._parts)):
            with self._lock:
                self._reader(number)

    def read(self, offset: int, length: int) -> bytes:
        end = min(offset + length, self.size)
        data = bytearray(max(0, end - offset))
        number = bisect_right(self._begins, offset) - 1
        while number < len(self._parts) and self._begins[number] < end:
            with self._lock, _as_medium():
                _fill(data, offset, self._reader(number))
            number += 1
        return bytes(data)

    def allocated(self) -> Iterator[tuple[int, int]]:
        for number in range(len(self._parts)):
            with self._lock:
                index = self._reader(number).index
            for offset, length, position in zip(index.offset, index.length, index.position, strict=True):
                if position != NO_PAYLOAD:
                    yield offset, length

    def close(self) -> None:
        """Idempotent."""
        while self._open:
            self._open.popitem()[1].close()

    def _reader(self, number: int) -> SegmentReader:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        path = part_path(self._folder, self._disk, number)
        try:
            with _as_medium():
                reader = SegmentReader(path, self._key)
        except NotFound as error:
            raise Damaged("a part of the seed is missing", where=str(path), remedy=EXPORT_AGAIN) from error
        if reader.sealed.identity != self._parts[number].identity:
            reader.close()
            raise Damaged("this is not the part that was exported", where=str(path), remedy=EXPORT_AGAIN)
        self._open[number] = reader
        if len(self._open) > _READERS_OPEN:
            self._open.popitem(last=False)[1].close()
        return reader


@contextmanager
def _as_medium() -> Iterator[None]:
    """Damage of a segment is told with what to do about a medium, not about a replica."""
    try:
        yield
    except Damaged as error:
        raise Damaged(error.what, where=error.where, remedy=EXPORT_AGAIN) from error


def _fill(data: bytearray, offset: int, reader: SegmentReader) -> None:
    """Put what ``reader`` has of ``[offset, offset + len(data))`` into ``data``."""
    index, end = reader.index, offset + len(data)
    at = max(0, bisect_right(index.offset, offset) - 1)
    while at < len(index) and index.offset[at] < end:
        begin, stop = max(index.offset[at], offset), min(index.offset[at] + index.length[at], end)
        if stop > begin and index.position[at] != NO_PAYLOAD:
            start = index.position[at] + begin - index.offset[at]
            data[begin - offset : stop - offset] = memoryview(reader.plain(index.frame[at]))[
                start : start + stop - begin
            ]
        at += 1
