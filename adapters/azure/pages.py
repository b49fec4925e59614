"""Page blobs: writing a disk in pages, and reading it back."""

from __future__ import annotations

import uuid
from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from azure.core import MatchConditions
from azure.core.exceptions import AzureError, HttpResponseError
from azure.core.pipeline import PipelineResponse
from azure.storage.blob import BlobClient, SequenceNumberAction

from adapters.azure import vhd
from adapters.azure.errors import code_of, translated
from adapters.azure.lease import Lease
from adapters.azure.vhd import SECTOR
from replication.checksums import runs
from replication.ports import Extent
from replication.ranges import union
from vault.errors import Unreachable

PUT_MAX = 4 << 20
"""Put Page takes at most 4 MiB; Clear Pages any length."""
WRITERS = 8
IN_FLIGHT = WRITERS
"""With the run being collected at most 36 MiB of a disk wait here: the store's half of a transfer's window."""


class PageWriter:
    """Writes extents into a page blob: neighbours joined, zeros cleared, several requests side by side.

    Pages are sectors of 512 bytes; a sector that an extent covers only in part is read first. Nothing is durable
    before :meth:`flush`. After an error every further call raises it again.

    A request that nobody waits for any more, because its connection broke or it took too long and was sent again, may
    still arrive. So before a page may be written again, the blob's sequence number is raised, and each write demands
    that it is no higher than when the write was sent: what is late is refused, and never wins over what is newer.
    """

    def __init__(self, blob: BlobClient, size: int, where: str, lease: Lease, pool: ThreadPoolExecutor) -> None:
        self._blob = blob
        self._size = size
        self._where = where
        self._lease = lease
        self._pool = pool
        self._running: deque[Future[None]] = deque()
        self._failed: BaseException | None = None
        self._data: list[memoryview] = []
        self._zero = False
        self._start = self._end = 0
        self._state = -1
        self._fence = 0
        self._fenced = False
        self._reached = 0
        """Up to where pages were written since the sequence number was raised."""

    def towards(self, state: int) -> None:
        """What is added from here on belongs to this state of the disk, which follows all those before."""
        if state != self._state:
            self.flush()
            self._state = state
            self._fenced = False

    def add(self, extent: Extent) -> None:
        """The extent lies inside the disk, and its bytes must not change afterwards."""
        if extent.offset < self._end:
            self.flush()  # what was written before must not arrive after it
        for offset, data, zero in runs(extent.offset, extent.data):
            clear = zero and self._whole_sectors(offset, offset + len(data))
            for start in range(0, len(data), PUT_MAX):
                self._collect(offset + start, data[start : start + PUT_MAX], clear)

    def flush(self) -> None:
        """All that was added is in the blob, durably."""
        self._begin_next()
        self._wait_until_running(0)

    def abandon(self) -> None:
        """Wait for what runs, and forget the rest."""
        self._data, self._start, self._end = [], 0, 0
        while self._running:
            self._running.popleft().exception()

    def _whole_sectors(self, start: int, end: int) -> bool:
        """The disk's last sector may be short: what follows in the blob is zeros anyway."""
        return start % SECTOR == 0 and (end % SECTOR == 0 or end == self._size)

    def _collect(self, offset: int, data: memoryview, zero: bool) -> None:
        room = PUT_MAX if self._start % SECTOR == 0 else PUT_MAX - 2 * SECTOR
        fits = zero or self._end - self._start + len(data) <= room
        if offset != self._end or zero != self._zero or not fits:
            self._begin_next()
            self._start, self._zero = offset, zero
        self._end = offset + len(data)
        if not zero:
            self._data.append(data)

    def _begin_next(self) -> None:
        self._raise_failure()
        start, end, parts = self._start, self._end, self._data
        self._data, self._start = [], end
        if end == start:
            return
        self._lease.require()
        self._keep_late_ones_out(start, end)
        if self._zero:
            self._submit(lambda: self._clear(start, -(-end // SECTOR) * SECTOR))
        elif self._whole_sectors(start, end):
            self._submit(lambda: self._put(start, b"".join(parts)))
        else:
            self._wait_until_running(0)  # a neighbour may be writing the same sector
            self._put_inside_sectors(start, b"".join(parts))

    def _keep_late_ones_out(self, start: int, end: int) -> None:
        if not self._fenced or start - start % SECTOR < self._reached:
            self._wait_until_running(0)
            with translated(self._where):
                answer = self._blob.set_sequence_number(
                    SequenceNumberAction.MAX, str(self._fence + 1), lease=self._lease.id
                )
            self._fence = int(str(answer["blob_sequence_number"]))  # an earlier writer's may be higher
            self._fenced = True
        self._reached = -(-end // SECTOR) * SECTOR

    def _submit(self, request: Callable[[], None]) -> None:
        self._wait_until_running(IN_FLIGHT - 1)
        self._running.append(self._pool.submit(request))

    def _wait_until_running(self, count: int) -> None:
        while len(self._running) > count:
            try:
                self._running.popleft().result()
            except BaseException as error:
                self._failed = error
                raise
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failed:
            raise self._failed

    def _put(self, offset: int, data: bytes) -> None:
        data += bytes(-len(data) % SECTOR)
        with translated(self._where):
            self._blob.upload_page(data, offset, len(data), lease=self._lease.id, if_sequence_number_lte=self._fence)

    def _clear(self, start: int, end: int) -> None:
        with translated(self._where):
            self._blob.clear_page(start, end - start, lease=self._lease.id, if_sequence_number_lte=self._fence)

    def _put_inside_sectors(self, start: int, data: bytes) -> None:
        begin, end = start - start % SECTOR, start + len(data)
        last = end - end % SECTOR
        before = self._sector(begin)[: start - begin]
        after = self._sector(last)[end - last :] if end % SECTOR and end != self._size else b""
        self._put(begin, before + data + after)

    def _sector(self, offset: int) -> bytes:
        with translated(self._where):
            return read_range(self._blob, offset, SECTOR)


def create_empty(blob: BlobClient, size: int) -> None:
    """A page blob of zeros, in the place of what a crash left there. Raises the client library's errors.

    Once: a repetition of the request that arrives late finds another ETag, and empties nothing."""
    mine = {"creation": uuid.uuid4().hex}
    condition: dict[str, Any] = {"match_condition": MatchConditions.IfMissing}
    for last in (False, True):
        try:
            blob.create_page_blob(size, metadata=mine, **condition)
            return
        except AzureError as error:
            if code_of(error) not in ("BlobAlreadyExists", "ConditionNotMet"):
                raise
            found = blob.get_blob_properties()
            if found.metadata == mine:  # the answer to it got lost
                return
            if last:
                raise
        condition = {"match_condition": MatchConditions.IfNotModified, "etag": found.etag}


def read_range(blob: BlobClient, offset: int, length: int) -> bytes:
    """One Get Blob. Raises the client library's errors."""
    return bytes(blob.download_blob(offset, length, raw_response_hook=_as_block_blob).readall())


def read_footer(blob: BlobClient, disk_size: int, where: str) -> tuple[bytes, int]:
    """What lies where the VHD footer of a disk belongs, and the blob's size; nothing lies beyond its end."""
    sizes: list[int] = []

    def note(answer: PipelineResponse[Any, Any]) -> None:
        if answer.http_response.status_code == 206:  # not when the range lies beyond the end
            sizes.append(int(answer.http_response.headers["Content-Range"].rpartition("/")[2]))
        _as_block_blob(answer)

    with translated(where):
        try:
            found = blob.download_blob(vhd.virtual_size(disk_size), vhd.FOOTER_SIZE, raw_response_hook=note).readall()
            if sizes:
                return bytes(found), sizes[0]
            # The library shows no answer to a request that it sent again.
            return bytes(found), int(blob.get_blob_properties().size)
        except HttpResponseError as error:
            if code_of(error) != "InvalidRange":
                raise
            return b"", int(blob.get_blob_properties().size)


def _as_block_blob(answer: PipelineResponse[Any, Any]) -> None:
    """After each read from a page blob the client library asks for the page ranges of the whole blob, to skip empty
    ones of a long download. :class:`PageReader` knows them already, and on a fragmented disk the list is larger than
    the read; so the library does not learn that this is a page blob."""
    if "x-ms-blob-type" in answer.http_response.headers:
        answer.http_response.headers["x-ms-blob-type"] = "BlockBlob"


class PageReader:
    """A page blob or one of its snapshots, as the base of a view (:class:`replication.view.Base`).

    What was never written is known from the page ranges, read once, and costs no request. The bytes themselves are
    verified by Azure, which keeps checksums of its own, and by TLS on the way.
    """

    def __init__(self, blob: BlobClient, size: int, where: str) -> None:
        self.size = size
        self._blob = blob
        self._where = where
        self._start, self._end = array("Q"), array("Q")
        for offset, length in union(self._page_ranges()):
            self._start.append(offset)
            self._end.append(offset + length)

    def read_verified(self, offset: int, length: int) -> bytes:
        if self.is_hole(offset, length):
            return bytes(length)
        with translated(self._where):
            data = read_range(self._blob, offset, length)
        if len(data) != length:
            raise Unreachable(f"{len(data)} bytes came instead of {length}", where=self._where, remedy="try again")
        return data

    def data_ranges(self) -> Iterator[tuple[int, int]]:
        for start, end in zip(self._start, self._end, strict=True):
            yield start, end - start

    def is_hole(self, offset: int, length: int) -> bool:
        at = bisect_right(self._start, offset + length - 1) - 1
        return at < 0 or self._end[at] <= offset

    def close(self) -> None:
        """Nothing is held."""

    def _page_ranges(self) -> Iterator[tuple[int, int]]:
        with translated(self._where):
            for found in self._blob.list_page_ranges():
                start, last = found.start, found.end
                if found.cleared or start is None or last is None or start >= self.size:
                    continue
                yield start, min(last + 1, self.size) - start
