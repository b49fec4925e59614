"""Reading blocks that have to be there."""

from __future__ import annotations

from replication.ports import BlockReader
from vault.errors import Damaged


def read_exactly(reader: BlockReader, offset: int, length: int) -> bytes:
    """A range that lies inside the disk. Bytes that do not come would be taken for zeros, or for unchanged.

    Raises ``Damaged``, besides what the reader raises."""
    data = reader.read(offset, length)
    if len(data) != length:
        raise Damaged(
            f"{length} bytes at {offset} were asked for, {len(data)} came",
            remedy="check that the disk's file or volume still has the size of the disk",
        )
    return data
