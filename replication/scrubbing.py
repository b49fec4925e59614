"""Reading again what waits in segments: damage is found while the source can still replace it, and not when a recovery
wants it."""

from __future__ import annotations

import random
from contextlib import closing
from time import monotonic

from replication.cipher import MachineKey
from replication.layout import Layout
from replication.manifest import Manifest
from vault.errors import Damaged

SHARE = 1 / 32
"""Of all segments, each time: by a rhythm of 30 s each is read once in a quarter of an hour, by chance."""
READ_FOR_S = 5.0
"""No further segment is begun then: replication waits for it."""


def read_again(known: Manifest, files: Layout, key: MachineKey | None) -> None:
    """A few segments. Raises ``Damaged`` when the newest recovery point has something from one that is damaged: what a
    resynchronization has replaced hurts only points before it, until they are gone."""
    chosen = [(layer, disk) for layer in known.layers for disk in layer.segments if random.random() < SHARE]
    random.shuffle(chosen)
    end = monotonic() + READ_FOR_S
    for layer, disk in chosen:
        with closing(files.open_segment(layer, disk, key)) as reader:
            try:
                reader.verify()
            except Damaged:
                _require_newest(files, disk)
        if monotonic() > end:
            return


def _require_newest(files: Layout, disk: str) -> None:
    with closing(files.open_view(disk, None)) as view:
        for _ in view.check_layers():
            pass
