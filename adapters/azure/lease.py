"""Leases: one writer for a replica, and readers that keep its snapshots.

A lease ends by itself after a minute unless it is renewed, so a dead holder is in nobody's way for long. The service
checks the lease with every write: a writer that lost it without knowing cannot change anything.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from azure.core.exceptions import AzureError, HttpResponseError
from azure.storage.blob import BlobClient, BlobLeaseClient

from adapters.azure.errors import code_of, error_for, translated
from adapters.azure.manifest import ManifestBlob
from vault.errors import Busy

LEASE_S = 60
"""Azure allows 15 to 60."""
_MARGIN_S = 5.0
_TRIES = 3

logger = logging.getLogger(__name__)


class Lease:
    """One lease id on one or several blobs, renewed in the background until it is released or lost.

    Args:
        duration_s: how long it outlives its holder.
    """

    def __init__(self, where: str, duration_s: int = LEASE_S) -> None:
        self.id = str(uuid.uuid4())
        self._where = where
        self._duration_s = duration_s
        self._blobs: dict[str, BlobClient] = {}
        self._guard = threading.Lock()
        self._ended = threading.Event()
        self._lost = False
        self._renewed_at = time.monotonic()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def take(self, blob: BlobClient) -> None:
        """Raises ``Busy`` when somebody else has it. Safe to repeat: the id is ours from the start."""
        with translated(self._where):
            self.acquire(blob)

    def acquire(self, blob: BlobClient) -> None:
        """As :meth:`take`, with the client library's own errors."""
        begun = time.monotonic()
        BlobLeaseClient(blob, lease_id=self.id).acquire(self._duration_s)
        with self._guard:
            self._blobs[blob.url] = blob
        if self._thread.ident is None:
            self._renewed_at = begun
            self._thread.start()

    def take_over(self, blob: BlobClient) -> None:
        """As :meth:`take`, ending another's lease: for blobs that belong to the first one, which is ours."""
        try:
            self.take(blob)
        except Busy:
            self.confirm()
            end_lease(blob, self._where)
            self.take(blob)

    def forget(self, blob: BlobClient) -> None:
        """The blob is going to be deleted."""
        with self._guard:
            self._blobs.pop(blob.url, None)

    def require(self) -> None:
        """Raises ``Busy`` once the lease was lost or could not be renewed in time."""
        if self._lost or time.monotonic() > self._renewed_at + self._duration_s - _MARGIN_S:
            raise Busy(
                "the lease on the replica was lost, so this writer stops",
                where=self._where,
                remedy="nothing is damaged; try again when no other writer is at work",
            )

    def confirm(self) -> None:
        """Ask the service whether nobody else has had the first blob since it was taken. Raises ``Busy``.

        :meth:`require` goes by this host's clock, which stands still while the host sleeps or is moved."""
        with self._guard:
            first = next(iter(self._blobs.values()))
        with translated(self._where):
            BlobLeaseClient(first, lease_id=self.id).renew()

    def release(self) -> None:
        """Idempotent. A lease that cannot be released ends by itself."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()
        while self._blobs:
            _, blob = self._blobs.popitem()
            try:
                BlobLeaseClient(blob, lease_id=self.id).release()
            except AzureError as error:
                logger.warning("a lease was not released and ends by itself: %s", error_for(error, self._where).what)

    @property
    def renew_after_s(self) -> float:
        return self._duration_s / 3

    def _keep(self) -> None:
        pause = self.renew_after_s
        while not self._ended.wait(pause) and not self._lost:
            begun = time.monotonic()
            if self._renew():
                self._renewed_at, pause = begun, self.renew_after_s
            else:
                pause = 1.0

    def _renew(self) -> bool:
        with self._guard:
            blobs = list(self._blobs.values())
        for blob in blobs:
            try:
                BlobLeaseClient(blob, lease_id=self.id).renew()
            except HttpResponseError as error:
                if error.status_code in (404, 409, 412):
                    with self._guard:
                        self._lost = self._lost or blob.url in self._blobs
                    continue
                return False
            except AzureError:
                return False
        return True


def end_lease(blob: BlobClient, where: str) -> None:
    """Whoever has it loses it now. One that ended by itself meanwhile is no trouble."""
    try:
        BlobLeaseClient(blob).break_lease(0)
    except AzureError as error:
        if code_of(error) != "LeaseNotPresentWithLeaseOperation":
            raise error_for(error, where) from None


class WriterLease:
    """Keeps a second writer out, wherever it runs: a lease on the manifest, and with the same id on every disk.

    Re-entrant in the thread that holds it.

    Args:
        may_make: called before a manifest is made where there is none; raises to refuse.
        entered: called each time it was taken from free; ``left`` before it becomes free again, with whether the
            block succeeded.
    """

    def __init__(
        self,
        blob: BlobClient,
        document: ManifestBlob,
        *,
        may_make: Callable[[], None],
        entered: Callable[[Lease], None],
        left: Callable[[bool], None],
        duration_s: int = LEASE_S,
    ) -> None:
        self._blob = blob
        self._document = document
        self._may_make = may_make
        self._entered = entered
        self._left = left
        self._duration_s = duration_s
        self._thread: int | None = None
        self.holder: dict[str, str] = {}
        """Metadata of the manifest while the lease is held: who writes."""

    @property
    def held(self) -> bool:
        return self._thread == threading.get_ident()

    @contextmanager
    def hold(self, purpose: str, *, from_others: bool = False) -> Iterator[None]:
        """Raises ``Busy`` naming who holds it, ``NotFound`` when the container is missing.

        ``from_others``: whoever holds it loses it, and can change nothing any more."""
        if self.held:
            yield
            return
        lease = self._take(purpose, from_others)
        succeeded = False
        self._thread = threading.get_ident()
        try:
            self._entered(lease)
            yield
            succeeded = True
        finally:
            try:
                self._left(succeeded)
            finally:
                self._thread = None
                lease.release()

    def _take(self, purpose: str, from_others: bool) -> Lease:
        lease = Lease(self._document.where, self._duration_s)
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "purpose": purpose, "since": int(time.time())}
        self._acquire(lease, from_others)
        self.holder = {"holder": json.dumps(owner)}
        try:
            with translated(self._document.where):
                self._blob.set_blob_metadata(self.holder, lease=lease.id)
        except BaseException:
            lease.release()
            raise
        return lease

    def _acquire(self, lease: Lease, from_others: bool) -> None:
        for _ in range(_TRIES):
            try:
                return lease.acquire(self._blob)
            except AzureError as error:
                if code_of(error) in ("LeaseAlreadyPresent", "LeaseIsBreakingAndCannotBeAcquired"):
                    if not from_others:
                        break
                    end_lease(self._blob, self._document.where)
                    continue
                if code_of(error) != "BlobNotFound":
                    raise error_for(error, self._document.where) from None
                self._may_make()
                self._document.make()
        raise self._busy()

    def _busy(self) -> Busy:
        with translated(self._document.where):
            owner = (self._blob.get_blob_properties().metadata or {}).get("holder", "an unknown owner")
        return Busy(
            f"another writer holds the replica: {owner}",
            where=self._document.where,
            remedy=f"wait until it has finished; when it died, its lease ends within {self._duration_s} seconds",
        )
