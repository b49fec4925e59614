"""The manifest of a replica in Azure: what exists. A blob or snapshot that it does not list does not count."""

from __future__ import annotations

from typing import Any

from azure.core import MatchConditions
from azure.core.exceptions import AzureError
from azure.storage.blob import BlobClient, BlobLeaseClient
from pydantic import ValidationError

from adapters.azure.errors import code_of, error_for, translated
from replication import manifest
from replication.cipher import Keys, MachineKey
from replication.manifest import Layer, ReplicaRecord
from vault.domain import RecoveryPoint, Value
from vault.errors import Damaged

MAGIC = "leeward-azure-replica"


class CachedLayer(Layer):
    """A sealed delta that is not applied to the page blobs yet. ``blobs`` names each disk's segment in the cache."""

    blobs: dict[str, str]


class Applied(Value):
    """A state that the page blobs went through, kept as one snapshot for each disk.

    ``epoch`` and ``cut`` are the source's numbering, kept to recognise a cut that is sent twice."""

    sequence: int
    epoch: str
    cut: int
    snapshots: dict[str, str]


class AzureManifest(ReplicaRecord):
    """All that is known about a replica.

    Attributes:
        layers: sealed and not yet applied, ascending, all above the last of ``applied``.
        applied: ascending. The last one is what the page blobs hold, and stays even when it is no point any more:
            the next delta lies over it. The others belong to points, each of which is one of ``applied`` or ``layers``.
        live_bytes: at most so many bytes of the page blobs are not zeros.
        kept_bytes: so many of a resynchronization that is not complete are in the page blobs.
        failed_over_to: the point that the machine was failed over to: its source may change nothing any more.
    """

    layers: list[CachedLayer] = []
    applied: list[Applied] = []
    live_bytes: int = 0
    kept_bytes: int = 0
    failed_over_to: RecoveryPoint | None = None

    def without_points(self, dropped: set[str]) -> AzureManifest:
        """Snapshots of dropped points go with them, except the last state's."""
        points = [point for point in self.points if point.id not in dropped]
        kept = {point.sequence for point in points}
        applied = [state for state in self.applied if state.sequence in kept or state is self.applied[-1]]
        return self.with_(points=points, applied=applied)

    def as_stored(self) -> dict[str, Any]:
        """An earlier release reads it, unless the machine was failed over: then it may change nothing."""
        return self.model_dump(mode="json", exclude=None if self.failed_over_to else {"failed_over_to"})

    @property
    def disk_bytes(self) -> int:
        return sum(disk.size for disk in self.disks)

    @property
    def stored_bytes(self) -> int:
        """An upper estimate: the page blobs, and for each later point what it changed."""
        return self.live_bytes + sum(point.bytes for point in self.points[1:])


def open_key(keys: Keys, known: AzureManifest) -> MachineKey | None:
    """What opens the segments in the cache; None when they are not encrypted.

    Raises ``AuthenticationRefused`` when the site's key is not the one that wrapped it."""
    return keys.open(known.key) if known.key else None


class ManifestBlob:
    """Reads and replaces the manifest. A replacement needs the ETag of what was read: no update is ever lost."""

    def __init__(self, blob: BlobClient, where: str) -> None:
        self._blob = blob
        self.where = where

    def read(self) -> tuple[AzureManifest | None, str]:
        """The manifest and its ETag; None when there is no replica: no blob, or one that only carries a lease.

        Raises ``Damaged``."""
        try:
            answer = self._blob.download_blob()
            raw = answer.readall()
        except AzureError as error:
            if code_of(error) == "BlobNotFound":
                return None, ""
            raise error_for(error, self.where) from None
        body = manifest.open_document(raw, self.where, MAGIC)
        if body is None:
            return None, str(answer.properties.etag)
        try:
            return AzureManifest.model_validate(body), str(answer.properties.etag)
        except ValidationError as error:
            raise Damaged(
                f"the manifest's fields are wrong ({error})", where=self.where, remedy=manifest.REMEDY
            ) from error

    def etag(self) -> str:
        """Of whatever is there; empty when nothing is. Raises ``NotFound`` for a missing container."""
        try:
            return str(self._blob.get_blob_properties().etag)
        except AzureError as error:
            if code_of(error) == "BlobNotFound":
                return ""
            raise error_for(error, self.where) from None

    def save(self, new: AzureManifest | None, etag: str, *, lease: str, metadata: dict[str, str]) -> str:
        """Atomic and durable; None: there is no replica. Returns the new ETag.

        Raises ``Busy`` when somebody else replaced it meanwhile."""
        raw = manifest.seal_document(new.as_stored() if new else None, MAGIC)
        try:
            answer = self._blob.upload_blob(
                raw,
                overwrite=True,
                lease=BlobLeaseClient(self._blob, lease_id=lease),
                metadata=metadata,
                etag=etag,
                match_condition=MatchConditions.IfNotModified,
            )
        except AzureError as error:
            changed = self._etag_of(raw) if code_of(error) == "ConditionNotMet" else None
            if changed is None:
                raise error_for(error, self.where) from None
            return changed
        return str(answer["etag"])

    def make(self) -> None:
        """A place for the lease. One that is there already is kept. Raises ``NotFound`` for a missing container."""
        try:
            self._blob.upload_blob(manifest.seal_document(None, MAGIC), overwrite=False)
        except AzureError as error:
            if code_of(error) not in ("BlobAlreadyExists", "LeaseIdMissing"):
                raise error_for(error, self.where) from None

    def _etag_of(self, raw: bytes) -> str | None:
        """The ETag of ``raw``, if the manifest holds exactly that: the library tries again when an answer got lost,
        and the second try fails although the first was done."""
        with translated(self.where):
            answer = self._blob.download_blob()
            return str(answer.properties.etag) if answer.readall() == raw else None
