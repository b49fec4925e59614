"""Where the blobs of one replica are, and which of them count."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import urlsplit

from azure.core import MatchConditions
from azure.core.exceptions import AzureError
from azure.storage.blob import BlobClient, BlobLeaseClient, BlobServiceClient

from adapters.azure.errors import code_of, error_for, translated
from adapters.azure.lease import Lease
from adapters.azure.manifest import AzureManifest
from vault.errors import Busy, Damaged, NotFound

logger = logging.getLogger(__name__)

_TRIES = 3
_READS = "point"
"""Metadata of a reader's blob."""


class Listed(NamedTuple):
    """What there is under a replica's name, whether it counts or not."""

    blobs: dict[str, str]
    """By name, the ETag."""
    snapshots: list[tuple[str, str]]
    """``(blob, snapshot)``."""
    cached: list[str]
    readers: dict[str, str]
    """Blobs of readers whose lease is alive, and the recovery point that each reads; empty: it has not said yet."""
    dead_readers: list[str]


class Layout:
    """``<machine>/manifest.json``, ``<machine>/<disk>.vhd`` with snapshots, ``<machine>/readers/<id>``; in the cache
    container ``<machine>/<sequence>-<disk>-<id>.seg``."""

    def __init__(self, service: BlobServiceClient, container: str, cache_container: str, machine: str) -> None:
        self._blobs = service.get_container_client(container)
        self._cache = service.get_container_client(cache_container)
        self._prefix = f"{machine}/"
        address = urlsplit(service.url)
        self.where = f"{address.netloc}{address.path.rstrip('/')}/{container}/{machine}"
        self.cache_where = f"{address.netloc}{address.path.rstrip('/')}/{cache_container}/{machine}"
        self.manifest = self._blobs.get_blob_client(self._prefix + "manifest.json")

    def disk_name(self, disk: str) -> str:
        return f"{self._prefix}{disk}.vhd"

    def disk(self, disk: str, snapshot: str | None = None) -> BlobClient:
        return self._blobs.get_blob_client(self.disk_name(disk), snapshot=snapshot)

    def new_cached(self, sequence: int, disk: str) -> str:
        """A name that no other writer uses, dead or alive."""
        return f"{self._prefix}{sequence:010d}-{disk}-{uuid.uuid4().hex}.seg"

    def cached(self, name: str) -> BlobClient:
        return self._cache.get_blob_client(name)

    @contextmanager
    def reading(self) -> Iterator[Callable[[str], None]]:
        """While inside, no snapshot and no cached segment that counted at the beginning is deleted.

        The manifest is read inside; then the yielded function is told which of its points is read. That one stays on
        the manifest, and until it is told every one does.

        Raises ``NotFound`` when the container is missing."""
        lease, blob = self._announce()

        def pin(point_id: str) -> None:
            with translated(self.where):
                blob.set_blob_metadata({_READS: point_id}, lease=lease.id)

        try:
            yield pin
        finally:
            lease.release()
            self._take_back(blob)

    def _announce(self) -> tuple[Lease, BlobClient]:
        """A writer's cleaning may take the announcement away before it has its lease: then it is made again."""
        for attempt in range(_TRIES):
            blob = self._blobs.get_blob_client(f"{self._prefix}readers/{uuid.uuid4().hex}")
            lease = Lease(self.where)
            with translated(self.where):
                blob.upload_blob(b"", overwrite=True)  # by the same request, when its answer got lost
            try:
                lease.take(blob)
            except NotFound:
                if attempt == _TRIES - 1:
                    raise
            else:
                return lease, blob
        raise AssertionError("unreachable")

    def _take_back(self, blob: BlobClient) -> None:
        """What was read is read, and without its lease an announcement keeps nothing: it fails nobody."""
        try:
            _delete(blob.delete_blob)
        except AzureError as error:
            logger.warning(
                "a reader's announcement stays until the next writer clears it: %s", error_for(error, self.where).what
            )

    def listed(self) -> Listed:
        found = Listed({}, [], [], {}, [])
        with translated(self.where):
            for blob in self._blobs.list_blobs(name_starts_with=self._prefix, include=["snapshots", "metadata"]):
                if blob.name.startswith(self._prefix + "readers/"):
                    if blob.lease.state == "leased":
                        found.readers[blob.name] = (blob.metadata or {}).get(_READS, "")
                    else:
                        found.dead_readers.append(blob.name)
                elif blob.snapshot:
                    found.snapshots.append((blob.name, blob.snapshot))
                elif blob.name != self.manifest.blob_name:
                    found.blobs[blob.name] = blob.etag
        with translated(self.cache_where):
            found.cached.extend(blob.name for blob in self._cache.list_blobs(name_starts_with=self._prefix))
        return found

    def refuse_lost_manifest(self) -> None:
        """Raises ``Damaged`` where recovery points are but nothing lists them: to a writer they would be leftovers.

        Whoever removes a replica deletes its manifest last, and whoever makes one has no snapshots yet."""
        found = self.listed()
        if found.snapshots:
            raise Damaged(
                f"the manifest is missing, though {len(found.snapshots)} snapshots of recovery points are there",
                where=self.where,
                remedy="restore the blob manifest.json; or delete all blobs of the machine there, to protect it anew",
            )

    def refuse_while_read(self) -> None:
        """Raises ``Busy``."""
        if self.listed().readers:
            raise self.being_read()

    def being_read(self) -> Busy:
        return Busy(
            "a recovery point is being read",
            where=self.where,
            remedy="wait until the test failover or copy that reads it has its disks",
        )

    def read_now(self, known: AzureManifest) -> frozenset[str]:
        """The recovery points of ``known`` that are being read, as far as one can know: a reader that has not said yet
        which one it wants may want any."""
        read = frozenset(self.listed().readers.values())
        return frozenset(point.id for point in known.points) if "" in read else read

    def delete_unlisted(self, known: AzureManifest | None, confirm: Callable[[], None]) -> bool:
        """Leftovers of crashes and of dropped points. Snapshots and segments stay while anyone reads; returns whether
        all is clean.

        Deleting a snapshot or a segment needs no lease. So ``confirm`` is called after looking: when the caller still
        is the only writer then, what was seen and is not listed counts for nobody, now or later."""
        found = self.listed()
        confirm()
        disks = {self.disk_name(disk.name) for disk in known.disks} if known else set()
        states = known.applied if known else []
        snapshots = {(self.disk_name(disk), snap) for state in states for disk, snap in state.snapshots.items()}
        cached = {name for layer in known.layers for name in layer.blobs.values()} if known else set()
        with translated(self.where):
            for name in found.dead_readers:
                _delete(self._blobs.get_blob_client(name).delete_blob, unless=("LeaseIdMissing",))  # alive by now
            if found.readers:
                return False
            for name, snapshot in found.snapshots:
                if name in disks and (name, snapshot) not in snapshots:
                    _delete(self._blobs.get_blob_client(name, snapshot=snapshot).delete_blob)
            for name in found.blobs.keys() - disks:
                self._delete_disk(self._blobs.get_blob_client(name), found.blobs[name])
        with translated(self.cache_where):
            for name in set(found.cached) - cached:
                _delete(self._cache.get_blob_client(name).delete_blob)
        return True

    def _delete_disk(self, blob: BlobClient, etag: str) -> None:
        """With its snapshots, as it was seen: never one that somebody made in its place since. A lease that somebody
        left on it is broken. Not there: nothing happens."""
        as_seen = MatchConditions.IfNotModified

        def delete() -> None:
            try:
                blob.delete_blob(delete_snapshots="include", etag=etag, match_condition=as_seen)
            except AzureError as error:
                if code_of(error) != "ConditionNotMet":
                    raise
                blob.get_blob_properties()  # gone when the answer got lost; else it is another one
                raise

        try:
            _delete(delete)
        except AzureError as error:
            if code_of(error) != "LeaseIdMissing":
                raise
            BlobLeaseClient(blob).break_lease(0, etag=etag, match_condition=as_seen)
            _delete(delete)

    def delete_manifest(self, lease: str) -> None:
        with translated(self.where):
            _delete(lambda: self.manifest.delete_blob(delete_snapshots="include", lease=lease))


def _delete(delete: Callable[[], None], *, unless: tuple[str, ...] = ()) -> None:
    """Not there, or refused with one of these codes: nothing happens."""
    try:
        delete()
    except AzureError as error:
        if code_of(error) not in ("BlobNotFound", *unless):
            raise
