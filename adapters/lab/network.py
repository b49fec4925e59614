"""Production networks: the lease that a running copy of a machine holds, and the record of any overlap.

A lease never keeps a copy from starting: that is the product's job. The lab measures whether the product did it.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adapters.lab.definition import MachineDefinition
from adapters.lab.documents import open_lock_file, try_lock
from adapters.lab.layout import LabLayout
from vault.errors import Damaged

PRODUCTION = "production"
VERSION = 1
BEGAN, ENDED = "began", "ended"


class ProductionLease:
    """Held by a guest on a production network for its whole life; the kernel ends it with the process."""

    def __init__(self, layout: LabLayout, definition: MachineDefinition) -> None:
        """Take the lease; when another live copy has it, record the overlap and go on."""
        self._layout = layout
        self._holder = {"machine": definition.name, "site": definition.site, "network": definition.network}
        self._identity = definition.identity
        self._descriptor = open_lock_file(layout.lease(definition.identity))
        self.held = try_lock(self._descriptor)
        if self.held:
            self._sign()
        else:
            self._record(BEGAN)

    def try_again(self) -> None:
        """While it overlaps: has the other copy ended? Then record the overlap's end and hold the lease."""
        if not self.held and try_lock(self._descriptor):
            self.held = True
            self._record(ENDED)
            self._sign()

    def _sign(self) -> None:
        signed = json.dumps({**self._holder, "pid": os.getpid()}).encode()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, signed, 0)

    def _record(self, event: str) -> None:
        other = os.pread(self._descriptor, 4096, 0).decode(errors="replace")
        moment = datetime.fromtimestamp(time.time(), UTC).isoformat()
        body = {"at": moment, "event": event, "identity": self._identity, **self._holder, "other": other}
        line = json.dumps({"version": VERSION, "checksum": zlib.crc32(_canonical(body)), "body": body}) + "\n"
        descriptor = os.open(self._layout.overlaps, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            os.write(descriptor, line.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _canonical(body: dict[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True).encode()


def overlaps(lab_root: Path) -> list[dict[str, Any]]:
    """Every time two copies of one machine ran on production networks: ``at``, ``event`` (``began``, ``ended``),
    ``identity``, ``machine``, ``site``, ``network``, ``other``. Empty is what a correct failover leaves.

    Raises ``Damaged``."""
    path = LabLayout(lab_root).overlaps
    found: list[dict[str, Any]] = []
    for number, line in enumerate(path.read_text().splitlines() if path.exists() else [], start=1):
        entry = json.loads(line)
        if entry["version"] != VERSION or zlib.crc32(_canonical(entry["body"])) != entry["checksum"]:
            raise Damaged("the record of an overlap does not match its checksum", where=f"{path}:{number}")
        found.append(entry["body"])
    return found
