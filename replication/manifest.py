"""The manifest of a replica: what exists. A file that it does not list does not count."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from replication import files
from replication.checksums import checksum
from vault.domain import Disk, RecoveryPoint, Value
from vault.errors import Damaged, InvalidState, NotFound

MAGIC = "leeward-replica"
VERSION = 1


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
    remedy = "restore the manifest from a backup, or disable the machine's protection and enable it again"
    try:
        document = json.loads(raw)
        version, expected, body = document["version"], document["checksum"], document["replica"]
        if document["magic"] != MAGIC:
            raise ValueError("wrong magic")
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"this is not a replica's manifest ({error})", where=str(path), remedy=remedy) from error
    if version != VERSION:
        raise InvalidState(
            f"manifest version {version} is not known here", where=str(path), remedy="use a newer leeward release"
        )
    if _checksum(body) != expected:
        raise Damaged("the manifest does not match its checksum", where=str(path), remedy=remedy)
    try:
        return Manifest.model_validate(body)
    except ValidationError as error:
        raise Damaged(f"the manifest's fields are wrong ({error})", where=str(path), remedy=remedy) from error


def save(path: Path, manifest: Manifest) -> None:
    """Atomic and durable."""
    body = manifest.model_dump(mode="json")
    document = {"magic": MAGIC, "version": VERSION, "checksum": _checksum(body), "replica": body}
    with files.translated(path):
        files.replace_contents(path, json.dumps(document, indent=1).encode())


def _checksum(body: Any) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return checksum(canonical.encode()).hex()
