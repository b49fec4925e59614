"""Copy-on-write snapshots of a disk: the blocks as they were, kept beside the image.

Layout, little-endian::

    header  4096 bytes  magic "LWRDSNP\\0", version u32, block size u32, disk size u64, time u64 (ns since 1970, UTC),
                        snapshot id 16 bytes, CRC-32 of all before it u32; zeros; at 4092: u32, 1 while it is valid,
                        2 while it is valid and a later snapshot exists, 0 when it is not valid any more
    table   4 bytes per block: 0 the block is still in the image, 1 it was all zeros, else the CRC-32 of the block
            that is kept (2 stands for the checksums 0 and 1)
    blocks  from the next multiple of the block size: block n at n times the block size; sparse

Who writes to the disk saves a block before it overwrites it, and marks it in the table in between. So a reader that
first reads the image and *then* looks into the table knows whether what it read was still the old block.

Of several snapshots only the latest is written to. A block that an earlier one did not keep was not overwritten before
the next was taken: it is looked for there, and so on, and at last in the image.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from adapters.lab.hrl import write_fully
from vault.errors import Damaged, NotFound

MAGIC, VERSION = b"LWRDSNP\0", 1
BLOCK = 64 * 1024
_HEADER = struct.Struct("<8sIIQQ16sI")
_HEADER_SIZE = 4096
_VALID_WORD = _HEADER_SIZE // 4 - 1
_TABLE_WORD = _HEADER_SIZE // 4
_IN_IMAGE, _ZEROS, _KEPT_AT_LEAST = 0, 1, 2
_INVALID, _VALID, _SUPERSEDED = 0, 1, 2


def _blocks(disk_size: int) -> int:
    return -(-disk_size // BLOCK)


def _data_start(disk_size: int) -> int:
    return -(-(_HEADER_SIZE + 4 * _blocks(disk_size)) // BLOCK) * BLOCK


def _mark(block: bytes) -> int:
    return max(zlib.crc32(block), _KEPT_AT_LEAST)


def create_snapshot(path: Path, snapshot_id: str, disk_size: int, time_ns: int) -> None:
    """Make an empty, valid snapshot, durably. The caller keeps writers out meanwhile."""
    head = _HEADER.pack(MAGIC, VERSION, BLOCK, disk_size, time_ns, bytes.fromhex(snapshot_id), 0)[:-4]
    head += zlib.crc32(head).to_bytes(4, "little")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.ftruncate(descriptor, _data_start(disk_size) + _blocks(disk_size) * BLOCK)
        write_fully(descriptor, head, 0)
        write_fully(descriptor, _VALID.to_bytes(4, "little"), 4 * _VALID_WORD)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def invalidate_snapshot(path: Path) -> None:
    """Tell open readers that writers will no longer keep blocks for them. The caller keeps writers out."""
    _set_validity(path, _INVALID)


def supersede_snapshot(path: Path) -> None:
    """Tell open readers that a later snapshot keeps blocks from now on. The caller keeps writers out."""
    _set_validity(path, _SUPERSEDED)


def _set_validity(path: Path, validity: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        write_fully(descriptor, validity.to_bytes(4, "little"), 4 * _VALID_WORD)
    finally:
        os.close(descriptor)


class _SnapshotFile:
    """The mapped header and table of a snapshot."""

    def __init__(self, path: Path, *, writable: bool) -> None:
        self.path = path
        flags = os.O_RDWR if writable else os.O_RDONLY
        self.descriptor = os.open(path, flags | os.O_CLOEXEC)
        try:
            raw = os.pread(self.descriptor, _HEADER.size, 0)
            if len(raw) < _HEADER.size or zlib.crc32(raw[:-4]) != int.from_bytes(raw[-4:], "little"):
                raise Damaged("the snapshot's header does not match its checksum", where=str(path))
            magic, version, block, self.disk_size, self.time_ns, _, _ = _HEADER.unpack(raw)
            if (magic, version, block) != (MAGIC, VERSION, BLOCK):
                raise Damaged(f"this is not a snapshot of version {VERSION}", where=str(path))
            self._map = mmap.mmap(
                self.descriptor,
                _HEADER_SIZE + 4 * _blocks(self.disk_size),
                access=mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ,
            )
        except BaseException:
            os.close(self.descriptor)
            raise
        self.words = memoryview(self._map).cast("I")
        self.data_start = _data_start(self.disk_size)

    def close(self) -> None:
        self.words.release()
        self._map.close()
        os.close(self.descriptor)


class SnapshotWriter:
    """Keeps the blocks that are about to be overwritten. Used under the machine's storage lock."""

    def __init__(self, path: Path) -> None:
        self._file = _SnapshotFile(path, writable=True)

    def preserve(self, image: int, offset: int, length: int) -> None:
        """Save what ``image`` holds in the blocks of this range, unless that was done before."""
        words = self._file.words
        for block in range(offset // BLOCK, (offset + length - 1) // BLOCK + 1):
            if words[_TABLE_WORD + block] == _IN_IMAGE:
                before = os.pread(image, BLOCK, block * BLOCK)
                if before.count(0) == len(before):
                    words[_TABLE_WORD + block] = _ZEROS
                else:
                    write_fully(self._file.descriptor, before, self._file.data_start + block * BLOCK)
                    words[_TABLE_WORD + block] = _mark(before)

    def close(self) -> None:
        self._file.close()


class SnapshotReader:
    """One disk as it was when the snapshot was taken (``replication.ports.BlockReader``). Thread-safe.

    Args:
        later: the snapshots that were taken after this one, oldest first; asked again when one was taken meanwhile.
    """

    def __init__(self, path: Path, image: Path, later: Callable[[], Sequence[Path]] = tuple) -> None:
        self._files = [_SnapshotFile(path, writable=False)]
        self._later = later
        self._following = threading.Lock()
        try:
            self._check_valid()
            self._image = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
        except BaseException:
            self._files[0].close()
            raise
        self.size: int = self._files[0].disk_size

    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes, fewer only at the end of the disk.

        Raises ``NotFound`` when the snapshot was deleted, ``Damaged`` when a kept block fails its checksum."""
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        from_image = os.pread(self._image, length, offset)
        while True:
            known = len(self._files)
            data = self._with_kept_blocks(from_image, offset)
            self._follow_later()
            if len(self._files) == known:
                break
        self._check_valid()
        return data

    def _with_kept_blocks(self, from_image: bytes, offset: int) -> bytes:
        data: bytes | bytearray = from_image
        first, last = offset // BLOCK, (offset + len(from_image) - 1) // BLOCK
        if not any(any(file.words[_TABLE_WORD + first : _TABLE_WORD + last + 1]) for file in self._files):
            return from_image
        for block in range(first, last + 1):
            file = next((file for file in self._files if file.words[_TABLE_WORD + block] != _IN_IMAGE), None)
            if file is not None:
                kept = self._kept(file, block)
                start = max(block * BLOCK, offset)
                end = min(block * BLOCK + len(kept), offset + len(from_image))
                data = data if isinstance(data, bytearray) else bytearray(data)
                data[start - offset : end - offset] = kept[start - block * BLOCK : end - block * BLOCK]
        return bytes(data)

    def _follow_later(self) -> None:
        if self._files[-1].words[_VALID_WORD] != _SUPERSEDED:
            return
        with self._following:
            known = {file.path for file in self._files}
            try:
                self._files += [_SnapshotFile(path, writable=False) for path in self._later() if path not in known]
            except FileNotFoundError as error:
                raise NotFound("the snapshot was deleted", where=str(error.filename)) from None

    def _kept(self, file: _SnapshotFile, block: int) -> bytes:
        mark = file.words[_TABLE_WORD + block]
        length = min(BLOCK, self.size - block * BLOCK)
        if mark == _ZEROS:
            return bytes(length)
        kept = os.pread(file.descriptor, length, file.data_start + block * BLOCK)
        if _mark(kept) != mark:
            raise Damaged(f"block {block} of the snapshot does not match its checksum", where=str(file.path))
        return kept

    def _check_valid(self) -> None:
        if self._files[0].words[_VALID_WORD] == _INVALID:
            raise NotFound("the snapshot was deleted", where=str(self._files[0].path))

    def allocated(self) -> Iterator[tuple[int, int]]:
        """Ranges that may hold something other than zeros: nothing ever punches holes into an image, so what the
        image has allocated now includes what it had then."""
        for start, end in data_ranges(self._image, self.size):
            yield start, end - start

    def close(self) -> None:
        for file in self._files:
            file.close()
        os.close(self._image)


def data_ranges(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """``(start, end)`` of the parts of a sparse file that are not holes."""
    position = 0
    while position < size:
        try:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        position = min(os.lseek(descriptor, start, os.SEEK_HOLE), size)
        yield start, position
