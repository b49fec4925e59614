"""The manifest of a replica: what exists. A file that it does not list does not count."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from replication import files
from replication.checksums import checksum
from replication.cipher import WrappedKey
from replication.ports import ReplicaState
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

    @property
    def changed_bytes(self) -> int:
        return sum(segment.disk_bytes for segment in self.segments.values())


class ReplicaRecord(Value):
    """What every store knows about a replica, wherever its blocks lie.

    Attributes:
        epoch: the tracking period of the source that the newest layer belongs to; empty when no deltas may follow.
        last_cut: the last cut of ``epoch`` held here. 0 is the image the epoch began with (seed or resync).
        seed_moment: the snapshot that an unfinished seed copies.
        seeded_bytes: per disk, below which offset the seed is durable.
        next_sequence: the number of the next layer; grows for ever, also across epochs.
        points: ascending.
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
    points: list[RecoveryPoint] = []
    key: WrappedKey | None = None

    def with_(self, **changes: Any) -> Self:
        return self.model_copy(update=changes)

    def disk(self, name: str) -> Disk:
        """Raises ``NotFound`` naming those that there are."""
        return disk_named(name, self.disks, self.machine)

    def state(self, stored_bytes: int, failed_over_to: RecoveryPoint | None) -> ReplicaState:
        return ReplicaState(
            disks=self.disks,
            seeded=self.seeded,
            seeded_bytes=self.seeded_bytes,
            seed_moment=self.seed_moment,
            epoch=self.epoch,
            last_cut=self.last_cut,
            points=self.points,
            stored_bytes=stored_bytes,
            key=self.key,
            failed_over_to=failed_over_to,
        )


class Manifest(ReplicaRecord):
    """All that is known about a replica.

    Attributes:
        base_sequence: the recovery point that the base images are at; 0 before the seed is complete.
        merging: a merge of the layers up to the oldest point into the base images has begun.
        rests_known: the tables tell what is left alone by the merge; not so when a release before 0.2 began it.
        layers: ascending by sequence, all above ``base_sequence``; each point is one of them or the base. Those above
            the newest point are what a resynchronization that is not complete has found so far.
    """

    base_sequence: int = 0
    merging: bool = False
    rests_known: bool = False
    layers: list[Layer] = []

    @property
    def settled_layers(self) -> list[Layer]:
        """Layers at or below the oldest recovery point: they belong into the base images."""
        oldest = self.points[0].sequence if self.points else 0
        return [layer for layer in self.layers if layer.sequence <= oldest]

    @property
    def kept_differences(self) -> list[Layer]:
        """Layers above the newest recovery point: only a comparison reads them."""
        newest = self.points[-1].sequence if self.points else 0
        return [layer for layer in self.layers if layer.sequence > newest]


def disk_named(name: str, disks: list[Disk], machine: str) -> Disk:
    """Raises ``NotFound`` naming those that the machine's replica has."""
    for disk in disks:
        if disk.name == name:
            return disk
    known = ", ".join(disk.name for disk in disks)
    raise NotFound(
        f"there is no disk '{name}' in the replica", where=f"replica of '{machine}'", remedy=f"it has {known}"
    )


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
