"""A block map: for each block of a disk, the generation in which it was last written.

A cut remembers the present generation and begins the next, so it costs the same for any disk; what changed since is
what has a later number than the last cut that was released. The map is mapped into the memory of whoever writes to the
disk; the layout is in ``docs/formats.md``.

It never says less than what changed: a page that its writer left half done, or that is damaged, counts as changed as a
whole. After the host went down with the map in use nothing vouches for it, and it is refused.

Standard library only: this runs inside whatever writes to the disk.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vault.errors import Damaged, NotFound, ResynchronizationRequired

MAGIC, VERSION = b"LWBLKMAP", 1
BLOCK = 64 * 1024
PAGE = 4096
ENTRIES = 1022
"""Entries of a page; the rest of it is their sum."""

_HEADER = struct.Struct("<8sHHIQ16s")
"""magic, version, flags, block size, disk size, epoch; then their CRC-32."""
_USE = struct.Struct("<I16s")
_USE_AT = 64
"""Whether a writer has the map in use, and in which life of the host; then their CRC-32."""
_FREE, _IN_USE = 0, 1
_LOOKS = 5
_LOOK_AGAIN_S = 0.001
_EMPTY = bytes(PAGE)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class MapCut:
    """A cut that is not released: all blocks written up to ``generation``, as ``snapshot`` has them."""

    number: int
    generation: int
    snapshot: str
    time_ns: int
    kind: str
    group: str = ""


@dataclass(frozen=True)
class MapState:
    """What is known of a machine under block maps, besides the maps: one value, so that a cut is one moment.

    Attributes:
        generation: what writes are marked with now.
        released: the target holds everything up to this generation.
        number: of the last cut.
        snapshots: all that exist, oldest first.
        seed: the snapshot that an initial replication or a comparison reads, among ``snapshots``.
    """

    epoch: str = ""
    active: bool = False
    resync_required: bool = False
    generation: int = 1
    released: int = 0
    number: int = 0
    cuts: tuple[MapCut, ...] = ()
    snapshots: tuple[str, ...] = ()
    seed: str = ""
    seed_time_ns: int = 0

    @property
    def marking(self) -> bool:
        return self.active and not self.resync_required


def boot_id() -> bytes:
    """Which life of the host this is; nothing when that cannot be told: then no life equals another."""
    try:
        return bytes.fromhex(_BOOT_ID.read_text().strip().replace("-", ""))
    except (OSError, ValueError):
        return b""


def _with_checksum(head: bytes) -> bytes:
    return head + zlib.crc32(head).to_bytes(4, "little")


def _pages(disk_size: int, block: int) -> int:
    blocks = -(-disk_size // block)
    return -(-blocks // ENTRIES)


def create_map(path: Path, epoch: str, disk_size: int, block: int = BLOCK) -> None:
    """An empty map, durably; a leftover of the same name is replaced."""
    head = _with_checksum(_HEADER.pack(MAGIC, VERSION, 0, block, disk_size, bytes.fromhex(epoch)))
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(descriptor, PAGE * (1 + _pages(disk_size, block)))
        os.pwrite(descriptor, head, 0)
        os.pwrite(descriptor, _with_checksum(_USE.pack(_FREE, bytes(16))), _USE_AT)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class BlockMap:
    """One disk's map, opened. One writer at a time; readers beside it see every mark that was made before they look.

    Raises:
        NotFound: there is no map.
        Damaged: this is not a map of this version, or its header does not match its checksum.
    """

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        self.path = path
        try:
            self._descriptor = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFound("there is no block map", where=str(path)) from None
        try:
            self._read_header()
            access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
            self._map = mmap.mmap(self._descriptor, PAGE * (1 + _pages(self.disk_size, self.block)), access=access)
        except BaseException:
            os.close(self._descriptor)
            raise
        view = memoryview(self._map)
        self._words, self._sums = view.cast("I"), view.cast("Q")
        self._using = False

    def _read_header(self) -> None:
        raw = os.pread(self._descriptor, _HEADER.size + 4, 0)
        if len(raw) < _HEADER.size + 4 or raw != _with_checksum(raw[: _HEADER.size]):
            raise Damaged("the block map's header does not match its checksum", where=str(self.path))
        magic, version, flags, self.block, self.disk_size, epoch = _HEADER.unpack_from(raw)
        if (magic, version, flags) != (MAGIC, VERSION, 0):
            raise Damaged(f"this is not a block map of version {VERSION}", where=str(self.path))
        self.epoch: str = epoch.hex()
        expected = PAGE * (1 + _pages(self.disk_size, self.block))
        if os.fstat(self._descriptor).st_size != expected:
            raise Damaged(f"the block map does not have {expected} bytes", where=str(self.path))

    def close(self) -> None:
        """Idempotent. A writer that did not :meth:`end_use` before leaves the map in use."""
        if self._descriptor >= 0:
            self._words.release()
            self._sums.release()
            self._map.close()
            os.close(self._descriptor)
            self._descriptor = -1

    # --- the writer -------------------------------------------------------------------------------------------

    def begin_use(self, generation: int) -> None:
        """Before the first mark. After a killed writer, pages it may have left half done count as changed.

        Raises ``ResynchronizationRequired`` when the host went down with the map in use."""
        self.check_trust()
        if self._in_use():
            self._repair(generation)
        self._set_use(_IN_USE)
        self._using = True

    def mark(self, offset: int, length: int, generation: int) -> None:
        """Before the write happens: its blocks change in ``generation``, which never goes back."""
        words, sums = self._words, self._sums
        for block in range(offset // self.block, (offset + length - 1) // self.block + 1):
            page, at = divmod(block, ENTRIES)
            word = (1 + page) * (PAGE // 4) + at
            if words[word] != generation:
                sums[(1 + page) * (PAGE // 8) + PAGE // 8 - 1] += generation - words[word]
                words[word] = generation

    def end_use(self) -> None:
        """After the last mark: the map is durable and whole. Idempotent."""
        if self._using:
            self._map.flush()
            self._set_use(_FREE)
            self._using = False

    def _set_use(self, use: int) -> None:
        os.pwrite(self._descriptor, _with_checksum(_USE.pack(use, boot_id().ljust(16, b"\0"))), _USE_AT)
        os.fsync(self._descriptor)

    def _repair(self, generation: int) -> None:
        for page in range(_pages(self.disk_size, self.block)):
            entries, whole = self._look(page)
            if not whole:
                first = (1 + page) * (PAGE // 4)
                for at in range(len(entries)):
                    self._words[first + at] = generation
                self._sums[(1 + page) * (PAGE // 8) + PAGE // 8 - 1] = generation * len(entries)

    # --- readers ----------------------------------------------------------------------------------------------

    def check_trust(self) -> None:
        """Raises ``ResynchronizationRequired`` when the host went down with the map in use: marks may be lost."""
        use, life = self._use()
        if use == _IN_USE and (not boot_id() or life != boot_id()):
            raise ResynchronizationRequired(
                "the host went down while the disk was written to; which blocks changed is not known any more",
                where=str(self.path),
                remedy="resynchronize the machine: source and replica are compared and only the difference is sent",
            )

    def changed(self, since: int) -> Iterator[tuple[int, int]]:
        """``(offset, length)``, ascending and apart, of all blocks marked in a later generation than ``since``."""
        begin = end = 0
        for block in self._changed_blocks(since):
            if block != end:
                if end > begin:
                    yield self._range(begin, end)
                begin = block
            end = block + 1
        if end > begin:
            yield self._range(begin, end)

    def _range(self, begin: int, end: int) -> tuple[int, int]:
        return begin * self.block, min(end * self.block, self.disk_size) - begin * self.block

    def _changed_blocks(self, since: int) -> Iterator[int]:
        for page in range(_pages(self.disk_size, self.block)):
            entries, whole = self._look(page)
            if not whole:
                yield from range(page * ENTRIES, page * ENTRIES + len(entries))
            elif entries and max(entries) > since:
                yield from (page * ENTRIES + at for at, generation in enumerate(entries) if generation > since)

    def _look(self, page: int) -> tuple[memoryview | bytes, bool]:
        """The entries of a page, and whether they match their sum; a mark that is being made just now is waited for."""
        count = min(ENTRIES, -(-self.disk_size // self.block) - page * ENTRIES)
        for _ in range(_LOOKS):
            raw = self._map[(1 + page) * PAGE : (2 + page) * PAGE]
            if raw == _EMPTY:
                return b"", True
            entries = memoryview(raw).cast("I")[:count]
            if sum(entries) == int.from_bytes(raw[-8:], "little"):
                return entries, True
            time.sleep(_LOOK_AGAIN_S)
        return entries, False

    def _in_use(self) -> bool:
        return self._use()[0] == _IN_USE

    def _use(self) -> tuple[int, bytes]:
        raw = os.pread(self._descriptor, _USE.size + 4, _USE_AT)
        if len(raw) < _USE.size + 4 or raw != _with_checksum(raw[: _USE.size]):
            raise Damaged("the block map does not say whether it is in use", where=str(self.path))
        use, life = _USE.unpack_from(raw)
        return use, life
