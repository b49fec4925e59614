"""The file operations the replica store is built from: every change to a disk goes through here.

One place, so that durability is reviewed once (what is synced before what), errors get their class once, and tests
can stop the world between any two effects.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vault.errors import AuthorizationRefused, LeewardError, NoSpace, NotFound, Unreachable

_FALLOC_FL_KEEP_SIZE = 0x01
_FALLOC_FL_PUNCH_HOLE = 0x02
_WRITE_ZEROS = bytes(1 << 20)
_DIRECT_PIECE = 1 << 20


def error_for(error: OSError, where: str) -> LeewardError:
    """The leeward error for what the operating system said about ``where``."""
    said = (error.strerror or str(error)).lower()
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return NoSpace(f"the file cannot grow: {said}", where=where, remedy="free space on its file system")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return NotFound(f"the file cannot be opened: {said}", where=where)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return AuthorizationRefused(
            f"access was refused: {said}", where=where, remedy="let the replication worker read and write this path"
        )
    return Unreachable(f"the file system failed: {said}", where=where, remedy="check the disk and its mount")


@contextmanager
def translated(where: Path) -> Iterator[None]:
    """Turns every ``OSError`` inside into the leeward error of its class, naming ``where`` or the failing file."""
    try:
        yield
    except OSError as error:
        raise error_for(error, error.filename if isinstance(error.filename, str) else str(where)) from error


def open_file(path: Path, flags: int) -> int:
    """A file descriptor; files are created for their owner only."""
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def read_at(fd: int, length: int, offset: int) -> bytes:
    """``length`` bytes, fewer only at the end of the file."""
    data = os.pread(fd, length, offset)
    if len(data) == length or not data:
        return data
    pieces = [data]
    got = len(data)
    while got < length and (more := os.pread(fd, length - got, offset + got)):
        pieces.append(more)
        got += len(more)
    return b"".join(pieces)


def write_at(fd: int, data: bytes | memoryview, offset: int) -> None:
    """All of ``data``; not durable before :func:`sync`."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written


DIRECT_UNIT = 4096
"""Offsets and lengths of direct writes are multiples of it: no disk has larger sectors."""
_buffers = threading.local()


def open_direct(path: Path) -> int | None:
    """For :func:`write_direct`; None where the system or the file system cannot write past the page cache."""
    if not hasattr(os, "O_DIRECT"):
        return None
    try:
        return open_file(path, os.O_WRONLY | os.O_DIRECT)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return None
        raise


def write_direct(fd: int, data: bytes | memoryview, offset: int) -> None:
    """All of ``data``, past the page cache: a replica is not read soon, and copying it there costs more than all other
    work on it. Offset and length are multiples of :data:`DIRECT_UNIT`; not durable before :func:`sync`."""
    buffer: mmap.mmap | None = getattr(_buffers, "aligned", None)
    if buffer is None:
        buffer = _buffers.aligned = mmap.mmap(-1, _DIRECT_PIECE)
    view = memoryview(data)
    for start in range(0, len(view), _DIRECT_PIECE):
        piece = view[start : start + _DIRECT_PIECE]
        buffer[: len(piece)] = piece
        with memoryview(buffer) as aligned:
            write_at(fd, aligned[: len(piece)], offset + start)


def set_size(fd: int, size: int) -> None:
    os.ftruncate(fd, size)


def zero_range(fd: int, offset: int, length: int) -> None:
    """Make a range read as zeros, giving its space back where the file system can punch holes."""
    if _punch_hole(fd, offset, length):
        return
    for start in range(offset, offset + length, len(_WRITE_ZEROS)):
        write_at(fd, memoryview(_WRITE_ZEROS)[: min(len(_WRITE_ZEROS), offset + length - start)], start)


def _punch_hole(fd: int, offset: int, length: int) -> bool:
    if _fallocate is None:
        return False
    if _fallocate(fd, _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE, offset, length) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EOPNOTSUPP, errno.ENOSYS):
        return False
    raise OSError(code, os.strerror(code))


def _find_fallocate() -> ctypes._FuncPointer | None:
    function = getattr(ctypes.CDLL(None, use_errno=True), "fallocate64", None)
    if function is not None:
        function.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
        function.restype = ctypes.c_int
    return function


_fallocate = _find_fallocate()


def sync(fd: int) -> None:
    """Everything written to ``fd`` survives a power cut.

    After an error nobody knows what the disk holds, and the system may go on to show what it failed to write, as if it
    were there. That is forgotten: whoever reads the file now learns what the disk has."""
    try:
        os.fsync(fd)
    except OSError:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        raise


def rename(source: Path, target: Path) -> None:
    """Atomic; durable after :func:`sync_folder`."""
    source.replace(target)


def delete(path: Path) -> None:
    """Not there: nothing happens."""
    path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Names made, changed or deleted in ``folder`` survive a power cut."""
    fd = open_file(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync(fd)
    finally:
        os.close(fd)


def make_folder(folder: Path) -> None:
    """The folder and its parents exist, durably."""
    missing = [folder, *folder.parents]
    missing = missing[: next(i for i, path in enumerate(missing) if path.is_dir())]
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def replace_contents(path: Path, data: bytes) -> None:
    """The file holds ``data`` or what it held before, whatever happens; durable when it returns."""
    part = path.with_name(path.name + ".part")
    fd = open_file(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        write_at(fd, data, 0)
        sync(fd)
    finally:
        os.close(fd)
    rename(part, path)
    sync_folder(path.parent)


def data_ranges(fd: int, size: int, start: int = 0) -> Iterator[tuple[int, int]]:
    """``(offset, length)`` of the parts of a file from ``start`` on that are not holes, ascending."""
    offset = start
    while offset < size:
        try:
            begin = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                return
            raise
        end = min(os.lseek(fd, begin, os.SEEK_HOLE), size)
        if begin >= size:
            return
        yield begin, end - begin
        offset = end


def is_hole(fd: int, offset: int, length: int) -> bool:
    """True when the range certainly holds no data."""
    try:
        return os.lseek(fd, offset, os.SEEK_DATA) >= offset + length
    except OSError as error:
        if error.errno == errno.ENXIO:
            return True
        raise


def space_used(path: Path) -> int:
    """Bytes the file takes on its file system (holes take none)."""
    return path.stat().st_blocks * 512
