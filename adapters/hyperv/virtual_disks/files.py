"""One file of a virtual disk, opened for reading, and never read outside of it."""

from __future__ import annotations

import os
from pathlib import Path

from vault.errors import Damaged, NotFound

REMEDY = "check the disk on its host: Test-VHD, Get-VHD"


class DiskFile:
    """Thread-safe.

    Args:
        path: where this process finds the file.
        name: what the host calls it; errors do too.

    Raises ``NotFound``.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            remedy = f"looked for {path}: check 'disk_folders' of the Hyper-V site"
            raise NotFound("the virtual disk's file is not there", where=name, remedy=remedy) from None
        self.size = os.lseek(self._descriptor, 0, os.SEEK_END)

    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes. Raises ``Damaged`` when they are not all inside the file."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise self.damaged(f"{length} bytes at {offset} are not in a file of {self.size}", offset)
        parts, at = [], offset
        while at < offset + length:
            part = os.pread(self._descriptor, offset + length - at, at)
            if not part:
                raise self.damaged("the file ends here, it became shorter while it was read", at)
            parts.append(part)
            at += len(part)
        return b"".join(parts)

    def damaged(self, what: str, offset: int) -> Damaged:
        return Damaged(what, where=f"{self.name}, offset {offset}", remedy=REMEDY)

    def close(self) -> None:
        """Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
