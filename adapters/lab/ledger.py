"""The outside world's memory: which transactions a machine's clients got acknowledged, and when a copy booted.

It survives any site, because clients do. One file per protected machine, only appended to, little-endian::

    header  32 bytes  magic "LWRDLGR\\0", version u32, record size u32, zeros, CRC-32 of all before it u32
    record  32 bytes  kind u32 (1 acknowledged, 2 booted), number u64, time u64 (ns since 1970, UTC), other u64,
                      CRC-32 of all before it u32

*acknowledged*: transaction ``number`` at ``time``; ``other`` is when it began. *booted*: a copy booted on a production
network and holds transactions up to ``number``; ``other`` is the last one acknowledged before. From then on the
machine's history goes on after ``number``: what was acknowledged beyond it is lost, and is counted once.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from vault.errors import Damaged

MAGIC, VERSION = b"LWRDLGR\0", 1
ACKNOWLEDGED, BOOTED = 1, 2
_HEADER = struct.Struct("<8sII12xI")
_RECORD = struct.Struct("<IQQQI")
_SIZE = _RECORD.size


class Entry(NamedTuple):
    """``other`` is the beginning (ns) of an acknowledged transaction, or the last acknowledged before a boot."""

    kind: int
    number: int
    time_ns: int
    other: int


def _with_checksum(head: bytes) -> bytes:
    return head + zlib.crc32(head).to_bytes(4, "little")


def _is_sound(raw: bytes) -> bool:
    return len(raw) == _SIZE and zlib.crc32(raw[:-4]) == int.from_bytes(raw[-4:], "little")


def _pack(entry: Entry) -> bytes:
    return _with_checksum(_RECORD.pack(*entry, 0)[:-4])


class Ledger:
    """An open ledger. Appending is one system call, so that records of two processes never mix."""

    def __init__(self, path: Path) -> None:
        """Raises ``Damaged`` when the file is no ledger of this version."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            try:
                self._prepare()
            finally:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        except BaseException:
            os.close(self._descriptor)
            raise

    def _prepare(self) -> None:
        size = os.fstat(self._descriptor).st_size
        if size < _SIZE:
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, _with_checksum(_HEADER.pack(MAGIC, VERSION, _SIZE, 0)[:-4]))
        else:
            _check_header(os.pread(self._descriptor, _SIZE, 0), self._path)
            os.ftruncate(self._descriptor, size - size % _SIZE)

    def acknowledge(self, transactions: Iterable[tuple[int, int, int]]) -> None:
        """Record ``(number, acknowledged ns, begun ns)``, oldest first."""
        self._append([Entry(ACKNOWLEDGED, *transaction) for transaction in transactions])

    def boot(self, held: int, time_ns: int) -> int:
        """Record that a copy booted that holds transactions up to ``held``; return the last one acknowledged before."""
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            acknowledged = self.last_acknowledged()
            self._append([Entry(BOOTED, held, time_ns, acknowledged)])
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        return acknowledged

    def last_acknowledged(self) -> int:
        """The last acknowledged transaction of the machine's present history; after a boot, what the copy held."""
        size = os.fstat(self._descriptor).st_size
        records = size // _SIZE - 1
        if records < 1:
            return 0
        raw = os.pread(self._descriptor, _SIZE, records * _SIZE)
        if not _is_sound(raw):
            raise Damaged("the last record of the ledger does not match its checksum", where=str(self._path))
        return int(_RECORD.unpack(raw)[1])

    def _append(self, entries: list[Entry]) -> None:
        data = b"".join(map(_pack, entries))
        if os.write(self._descriptor, data) != len(data):
            raise OSError(f"the ledger {self._path} took only a part of a record")

    def close(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _check_header(raw: bytes, path: Path) -> None:
    if not _is_sound(raw) or _HEADER.unpack(raw)[:3] != (MAGIC, VERSION, _SIZE):
        raise Damaged(f"this is not a client ledger of version {VERSION}", where=str(path))


def read_ledger(path: Path) -> Iterator[Entry]:
    """Every record, oldest first; nothing when there is no ledger. Raises ``Damaged``."""
    if not path.exists():
        return
    with path.open("rb") as stream:
        _check_header(stream.read(_SIZE), path)
        while len(raw := stream.read(_SIZE)) == _SIZE:
            if not _is_sound(raw):
                raise Damaged("a record of the ledger does not match its checksum", where=str(path))
            yield Entry(*_RECORD.unpack(raw)[:4])


def last_acknowledged(path: Path) -> int:
    """See :meth:`Ledger.last_acknowledged`; 0 when there is no ledger."""
    if not path.exists():
        return 0
    with Ledger(path) as ledger:
        return ledger.last_acknowledged()
