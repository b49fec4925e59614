"""The moment at which a machine's disks stand still: for cuts, snapshots and everything else that is one moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from adapters.lab.definition import MachineDefinition
from adapters.lab.layout import MachineFolder
from adapters.lab.storage import StorageLock, StorageState, WriterLock, load_state
from adapters.lab.vdisk import recover
from replication.files import translated

PATIENCE_S = 30.0
"""How long to wait for a writer that is in the middle of a write, before ``Busy``."""


@contextmanager
def quiet_storage(
    folder: MachineFolder, reach: Callable[[], None], patience_s: float = PATIENCE_S
) -> Iterator[tuple[StorageLock, StorageState]]:
    """No write is under way, and image and logs are equal on every disk. ``reach`` raises when the host is away."""
    reach()
    definition = MachineDefinition.load(folder)
    with (
        translated(folder.path),
        closing(StorageLock(folder, patience_s=patience_s)) as lock,
        lock,
        closing(WriterLock(folder)) as writer,
    ):
        if writer.take():
            recover(lock, folder, definition)
        yield lock, load_state(folder)
