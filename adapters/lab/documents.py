"""Small checksummed documents, and locks between processes.

A document is JSON with a format name, a version and a CRC-32 over its body, and is replaced atomically: a reader sees
the old one or the new one, after any crash.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from vault.errors import Busy, Damaged, NotFound

_LOOK_AGAIN_S = 0.005


def _checksum(body: dict[str, Any]) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return f"{zlib.crc32(canonical.encode()):08x}"


def write_document(path: Path, format_name: str, version: int, body: dict[str, Any], *, mode: int = 0o644) -> None:
    """Replace ``path`` atomically and durably."""
    document = {"format": format_name, "version": version, "checksum": _checksum(body), "body": body}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(json.dumps(document, indent=1).encode())
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def read_document(path: Path, format_name: str, version: int) -> dict[str, Any]:
    """The body of a document.

    Raises:
        NotFound: there is no such file.
        Damaged: it is not what it says, or not of this format and version.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"there is no {format_name} document", where=str(path)) from None
    try:
        document = json.loads(raw)
        found = (document["format"], document["version"])
        body, checksum = document["body"], document["checksum"]
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"this is not a {format_name} document: {error!r}", where=str(path)) from None
    if found != (format_name, version):
        raise Damaged(f"expected {format_name} version {version}, found {found[0]} version {found[1]}", where=str(path))
    if not isinstance(body, dict) or _checksum(body) != checksum:
        raise Damaged(f"the {format_name} document does not match its checksum", where=str(path))
    return body


def sync_folder(folder: Path) -> None:
    """Make the folder's entries (created, renamed and deleted names) durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_lock_file(path: Path) -> int:
    """Open (and make, when missing) a file for ``flock``; the caller closes the descriptor."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def try_lock(descriptor: int) -> bool:
    """Take an exclusive ``flock`` if nobody has it. It is held until the descriptor is closed or unlocked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Held(NamedTuple):
    patience_s: float
    error: Busy


def _wait(descriptor: int, held: Held) -> None:
    end = time.monotonic() + held.patience_s
    while not try_lock(descriptor):
        if time.monotonic() > end:
            raise held.error
        time.sleep(_LOOK_AGAIN_S)


@contextmanager
def locked_file(path: Path, held: Held | None = None) -> Iterator[int]:
    """Hold the exclusive lock of ``path``; gives its descriptor. ``held``: how long to wait for who holds it, and what
    to raise then; None: for ever, where nobody holds it for long."""
    descriptor = open_lock_file(path)
    try:
        if held is None:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        else:
            _wait(descriptor, held)
        yield descriptor
    finally:
        os.close(descriptor)
