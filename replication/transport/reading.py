"""Disks at another site's master target, read by offset or compared by checksums."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import count

from replication.checksums import CHECKSUM_LENGTH
from replication.compare import SAME_RELEASE
from replication.transport import messages as say
from replication.transport.messages import RANGE
from replication.transport.serving import READ_MAX
from replication.transport.session import Session
from vault.errors import Damaged

CHECKSUMS_AHEAD = 32 << 20
"""Bytes of disk whose checksums are asked for at once: a far link's latency is paid once for all of them."""


class _Disk:
    """What both kinds of sessions can do. Thread-safe."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._iterators = count()

    def allocated(self) -> Iterator[tuple[int, int]]:
        number = next(self._iterators)
        while True:
            with self._lock:
                _, page = self._session.request(say.Allocated(iterator=number))
            if not page:
                return
            yield from RANGE.iter_unpack(page)

    def close(self) -> None:
        """Idempotent."""
        self._session.drop()


class RemoteView(_Disk):
    """A :class:`replication.ports.BlockReader`."""

    def __init__(self, session: Session, size: int) -> None:
        super().__init__(session)
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        end = min(offset + length, self.size)
        return b"".join([self._read(at, min(READ_MAX, end - at)) for at in range(offset, end, READ_MAX)])

    def _read(self, offset: int, length: int) -> bytes:
        with self._lock:
            _, blocks = self._session.request(say.Read(offset=offset, length=length))
        if len(blocks) != length:
            raise Damaged(f"{length} bytes at {offset} were asked for, {len(blocks)} came", remedy=SAME_RELEASE)
        return bytes(blocks)


class RemoteChecksums(_Disk):
    """A :class:`replication.ports.BlockChecksums`.

    Checksums are fetched ahead, and each is given once: asked for again, a block is read again, because it may have
    been written meanwhile."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._block = 0
        self._begin = self._end = 0
        self._ahead: list[bytes] = []

    def checksums(self, offset: int, length: int, block: int) -> list[bytes]:
        with self._lock:
            if block != self._block or not self._holds(offset, length):
                self._fetch(offset, max(length, CHECKSUMS_AHEAD - CHECKSUMS_AHEAD % block), block)
            first = (offset - self._begin) // block
            after = first + -(-length // block)
            found = self._ahead[first:after]
            self._begin += after * block
            self._ahead = self._ahead[after:]
            return found

    def _holds(self, offset: int, length: int) -> bool:
        return self._begin <= offset and offset + length <= self._end and (offset - self._begin) % self._block == 0

    def _fetch(self, offset: int, length: int, block: int) -> None:
        done, packed = self._session.request(say.Checksums(offset=offset, length=length, block=block))
        if len(packed) % CHECKSUM_LENGTH:
            raise Damaged(f"the checksums of {length} bytes at {offset} are cut short", remedy=SAME_RELEASE)
        self._ahead = [bytes(packed[at : at + CHECKSUM_LENGTH]) for at in range(0, len(packed), CHECKSUM_LENGTH)]
        for damaged in done.result:
            self._ahead[damaged] = b""
        self._block, self._begin, self._end = block, offset, offset + length
