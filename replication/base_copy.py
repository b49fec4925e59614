"""Filling the base of an unseeded replica from a machine's disks at one moment, wherever they are read from."""

from __future__ import annotations

import time as clock
from collections.abc import Callable
from contextlib import closing

from replication.compare import compare
from replication.pipeline import read_ahead
from replication.ports import BlockReader, ReplicaStore, Report
from replication.progress import Meter
from vault.domain import Disk

CHECKPOINT_BYTES = 64 << 20
CHECKPOINT_S = 5.0


def copy_base(
    open_disk: Callable[[Disk], BlockReader],
    store: ReplicaStore,
    report: Report,
    *,
    doing: str = "initial replication",
    checkpoint_bytes: int = CHECKPOINT_BYTES,
    checkpoint_s: float = CHECKPOINT_S,
) -> None:
    """All disks, one after another, each from its last checkpoint on.

    Only blocks that the base does not have are written; what only the base has becomes zeros.

    Args:
        open_disk: the disk as it was at the moment that ``store.begin_seed`` was told.
    """
    state = store.state()
    meter = Meter(report, doing, sum(disk.size for disk in state.disks))
    for disk in state.disks:
        meter.now_doing(f"{doing} of {disk.name}")
        done = state.seeded_bytes.get(disk.name, 0)
        meter.add(done)
        with (
            closing(open_disk(disk)) as reader,
            closing(store.open_checksums(disk.name)) as theirs,
            read_ahead(compare(reader, theirs, disk.size, done)) as stretches,
        ):
            since, checkpointed = clock.monotonic(), done
            for compared in stretches:
                sent = 0
                for extent in compared.differing:
                    store.write_base(disk.name, extent)
                    sent += len(extent.data)
                end = compared.offset + compared.length
                meter.add(end - done, sent)
                done = end
                if done - checkpointed >= checkpoint_bytes or clock.monotonic() - since >= checkpoint_s:
                    store.checkpoint_base(disk.name, done)
                    since, checkpointed = clock.monotonic(), done
        store.checkpoint_base(disk.name, disk.size)
        meter.add(disk.size - done)
    meter.tell()
