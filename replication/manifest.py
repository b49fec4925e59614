"""The manifest of a replica: what exists. A file that it does not list does not count."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from replication import files
from replication.checksums import checksum
from replication.cipher import WrappedKey
from vault.domain import Disk, RecoveryPoint, Value
from vault.errors import Damaged, InvalidState, NotFound

MAGIC = "leeward-replica"
VERSION = 1
REMEDY = "restore the manifest from a backup, or disable the machine's protection and enable it again"


class StoredSegment(Value):
    """``identity`` is the checksum of the segment's footer: no other file can take its place."""

    identity: str
    disk_bytes: int
    stored_bytes: int


class Layer(Value):
    """The changes of all disks by which recovery point ``sequence`` is later than the one before it.

    ``epoch`` and ``cut`` are the source's numbering, kept to recognise a cut that is sent twice.
    A layer outlives its recovery point: dropping a point in the middle only takes it off the list of points.
    """

    sequence: int
    epoch: str
    cut: int
    segments: dict[str, StoredSegment]


class Manifest(Value):
    """All that is known about a replica.

    Attributes:
        epoch: the tracking period of the source that the newest layer belongs to; empty when no deltas may follow.
        last_cut: the last cut of ``epoch`` held here. 0 is the image the epoch began with (seed or resync).
        seed_moment: the snapshot that an unfinished seed copies.
        seeded_bytes: per disk, below which offset the seed is durable.
        next_sequence: the number of the next layer; grows for ever, also across epochs.
        base_sequence: the recovery point that the base images are at; 0 before the seed is complete.
        merging: a merge of the layers up to the oldest point into the base images has begun.
        layers: ascending by sequence, all above ``base_sequence``.
        points: ascending; each is the base or one of the layers.
        key: the machine's key, wrapped by the site's; None when segments are not encrypted.
    """

    machine: str
    disks: list[Disk]
    epoch: str
    last_cut: int = 0
    seeded: bool = False
    seed_moment: datetime | None = None
    seeded_bytes: dict[str, int] = {}
    next_sequence: int = 1
    base_sequence: int = 0
    merging: bool = False
    layers: list[Layer] = []
    points: list[RecoveryPoint] = []
    key: WrappedKey | None = None

    def with_(self, **changes: Any) -> Manifest:
        return self.model_copy(update=changes)

    @property
    def settled_layers(self) -> list[Layer]:
        """Layers at or below the oldest recovery point: they belong into the base images."""
        oldest = self.points[0].sequence if self.points else 0
        return [layer for layer in self.layers if layer.sequence <= oldest]

    def disk(self, name: str) -> Disk:
        for disk in self.disks:
            if disk.name == name:
                return disk
        known = ", ".join(disk.name for disk in self.disks)
        raise NotFound(f"the replica of {self.machine} has no disk '{name}'; it has {known}")


def load(path: Path) -> Manifest:
    """Raises ``NotFound``, ``Damaged`` or ``InvalidState`` (a newer version)."""
    with files.translated(path):
        raw = path.read_bytes()
    body = open_document(raw, str(path))
    try:
        return Manifest.model_validate(body)
    except ValidationError as error:
        raise Damaged(f"the manifest's fields are wrong ({error})", where=str(path), remedy=REMEDY) from error


def save(path: Path, manifest: Manifest) -> None:
    """Atomic and durable."""
    with files.translated(path):
        files.replace_contents(path, seal_document(manifest.model_dump(mode="json")))


def seal_document(body: Any, magic: str = MAGIC) -> bytes:
    """``body`` as a document that :func:`open_document` can check."""
    document = {"magic": magic, "version": VERSION, "checksum": _checksum(body), "replica": body}
    return json.dumps(document, indent=1).encode()


def open_document(raw: bytes, where: str, magic: str = MAGIC) -> Any:
    """The body of a sealed document. Raises ``Damaged``, or ``InvalidState`` for a newer version."""
    try:
        document = json.loads(raw)
        version, expected, body = document["version"], document["checksum"], document["replica"]
        if document["magic"] != magic:
            raise ValueError("wrong magic")
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"this is not a replica's manifest ({error})", where=where, remedy=REMEDY) from error
    if version != VERSION:
        raise InvalidState(
            f"manifest version {version} is not known here", where=where, remedy="use a newer leeward release"
        )
    if _checksum(body) != expected:
        raise Damaged("the manifest does not match its checksum", where=where, remedy=REMEDY)
    return body


def _checksum(body: Any) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return checksum(canonical.encode()).hex()
