"""Segments in the cache container: the same sealed files as everywhere (``docs/formats.md``), stored as block blobs."""

from __future__ import annotations

import os
from base64 import b64encode
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from azure.core.exceptions import AzureError
from azure.storage.blob import BlobBlock, BlobClient

from adapters.azure.errors import code_of, translated
from adapters.azure.layout import Layout
from adapters.azure.manifest import CachedLayer
from replication import files
from replication.cipher import FrameCipher, MachineKey
from replication.ports import Extent
from replication.segment import Sealed, SegmentFileWriter, SegmentHeader
from replication.segment_reader import WITHOUT_IT, SegmentReader
from vault.errors import Damaged

PART = 4 << 20
PARTS_IN_FLIGHT = 4


class CachedSegmentWriter:
    """Stages a segment: it grows in a local file, and its finished parts are uploaded while it does.

    The blob exists once :meth:`close` has committed its blocks.
    """

    def __init__(
        self,
        path: Path,
        blob: BlobClient,
        where: str,
        header: SegmentHeader,
        pool: ThreadPoolExecutor,
        closed: Callable[[Sealed], None],
        cipher: FrameCipher | None,
    ) -> None:
        self.bytes_sent = 0
        self._path = path
        self._blob = blob
        self._where = where
        self._pool = pool
        self._closed = closed
        self._sealed: Sealed | None = None
        self._blocks: list[str] = []
        self._uploaded = 0
        self._running: deque[Future[None]] = deque()
        self._writer = SegmentFileWriter(path, header, closed=self._remember, cipher=cipher)
        with files.translated(path):
            self._fd = files.open_file(path.with_name(path.name + ".part"), os.O_RDONLY)

    def add(self, extent: Extent) -> None:
        self._writer.add(extent)
        self._upload(PART)

    def close(self) -> None:
        if self._fd < 0:
            return
        self._writer.close()
        self._upload(1)
        self._wait_until_running(0)
        with translated(self._where):
            self._blob.commit_block_list([BlobBlock(block_id) for block_id in self._blocks])
        self._release()
        assert self._sealed is not None
        self._closed(self._sealed)

    def abandon(self) -> None:
        """Blocks that were not committed are forgotten by Azure after a week, and cost nothing."""
        self._writer.abandon()
        while self._running:
            self._running.popleft().exception()
        self._release()

    def _remember(self, sealed: Sealed) -> None:
        self._sealed = sealed

    def _release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _upload(self, at_least: int) -> None:
        while self._writer.bytes_sent - self._uploaded >= at_least:
            length = min(PART, self._writer.bytes_sent - self._uploaded)
            with files.translated(self._path):
                data = files.read_at(self._fd, length, self._uploaded)
            block_id = b64encode(f"{len(self._blocks):08d}".encode()).decode()
            self._wait_until_running(PARTS_IN_FLIGHT - 1)
            self._running.append(self._pool.submit(self._stage, block_id, data))
            self._blocks.append(block_id)
            self._uploaded += length
        self.bytes_sent = self._writer.bytes_sent

    def _stage(self, block_id: str, data: bytes) -> None:
        with translated(self._where):
            self._blob.stage_block(block_id, data, length=len(data))

    def _wait_until_running(self, count: int) -> None:
        while len(self._running) > count:
            self._running.popleft().result()


def fetch_layer(layout: Layout, layer: CachedLayer, disk: str, path: Path, key: MachineKey | None) -> SegmentReader:
    """A sealed segment from the cache as the local file ``path``, every byte verified.

    Raises ``Damaged`` when it is missing, damaged, or not the one that was sealed; ``AuthenticationRefused`` when it is
    encrypted, and not with ``key``."""
    blob = layout.cached(layer.blobs[disk])
    part = path.with_name(path.name + ".part")
    with files.translated(part), translated(layout.cache_where), part.open("wb") as file:
        try:
            for chunk in blob.download_blob(max_concurrency=1).chunks():
                file.write(chunk)
        except AzureError as error:
            if code_of(error) != "BlobNotFound":  # a missing container, or a 404 of somebody on the way, costs no point
                raise
            raise Damaged("a sealed segment is missing", where=layout.cache_where, remedy=WITHOUT_IT) from None
    reader = SegmentReader(part, key)
    try:
        if reader.sealed.identity != layer.segments[disk].identity:
            raise Damaged(
                "another segment lies in the place of the sealed one", where=layout.cache_where, remedy=WITHOUT_IT
            )
        reader.verify()
        with files.translated(part):
            files.rename(part, path)
    except BaseException:
        reader.close()
        raise
    return reader
