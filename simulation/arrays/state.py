"""What an array remembers: pools, volumes, masking, replication groups; one document, replaced atomically."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from pydantic import BaseModel

from adapters.lab.documents import read_document, write_document
from adapters.smis.values import CopyState

FORMAT, VERSION = "leeward-simulated-array", 1


class Pool(BaseModel):
    name: str
    size: int


class Volume(BaseModel):
    """``hosts``: initiators that see the volume, and whether they may write to it."""

    id: str
    name: str
    pool: str
    size: int
    hosts: dict[str, bool] = {}
    cloned_from: str = ""
    cloned_at: datetime | None = None


class Group(BaseModel):
    """Volumes that are replicated together, seen from one of the two arrays.

    ``is_source``: the direction of the relationship. ``active``: this side takes writes of hosts; at most one side of a
    pair is. ``generation`` grows whenever the active side changes: an array that finds its peer ahead has missed a
    failover, and stops taking writes.
    """

    id: str
    name: str
    volumes: list[str]
    peer: str = ""
    """Empty: a local group, of clones or of volumes that are not replicated yet."""
    peer_group: str = ""
    peer_volumes: list[str] = []
    is_source: bool = True
    active: bool = True
    state: CopyState = CopyState.NOT_APPLICABLE
    generation: int = 0
    target_is_whole: bool = False
    """The target is the copy of one moment: no copying is under way that would leave it between two."""
    in_sync_until: datetime | None = None
    """Which moment that is; None: now."""
    asynchronous: bool = False
    """Writes are acknowledged at once and cross the link in cycles, the last whole one at ``in_sync_until``."""
    is_applying: bool = False
    """At an asynchronous target: a whole cycle is in its journal, and perhaps only partly in the volumes."""
    blocks_on_failure: bool = False
    """Writes of hosts wait while the target cannot be written (FailedCopyStopsHostIO), else go on without it."""


class ArrayState(BaseModel):
    pools: dict[str, Pool] = {}
    volumes: dict[str, Volume] = {}
    groups: dict[str, Group] = {}
    next_number: int = 1

    def save(self, path: Path) -> None:
        write_document(path, FORMAT, VERSION, self.model_dump(mode="json"))

    @classmethod
    def load(cls, path: Path) -> ArrayState:
        """Raises ``Damaged``; an array that was never used is empty."""
        return cls.model_validate(read_document(path, FORMAT, VERSION)) if path.exists() else cls()

    def group_of(self, volume: str) -> Group | None:
        """The replicated group that a volume belongs to."""
        return next((group for group in self.groups.values() if group.peer and volume in group.volumes), None)

    def used(self, pool: str) -> int:
        return sum(volume.size for volume in self.volumes.values() if volume.pool == pool)
