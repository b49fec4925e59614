"""Bringing base images to a later recovery point: the layers up to it are written into them.

All of it may be interrupted anywhere and repeated as often as it takes. What lies beside the bytes that the layers
overwrite is under a checksum all the time: while a block is changed, its entry in the table is that of its rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing

from replication.base_image import (
    KNOWN_DAMAGED,
    BaseImage,
    blocks_of,
    consecutive,
    entry_of,
    is_either,
    rest_entry,
    whole_blocks_of,
)
from replication.cipher import MachineKey
from replication.layout import Layout
from replication.manifest import Layer
from replication.overwritten import Overwritten
from replication.ports import Extent
from vault.errors import Damaged

BaseOf = Callable[[str], BaseImage]
"""The base image of a disk, writable."""


def require_segments(layers: Sequence[Layer], files: Layout, key: MachineKey | None) -> None:
    """They can be opened: points are not dropped for one that cannot be merged. Raises ``Damaged``."""
    for layer in layers:
        for disk in layer.segments:
            files.open_segment(layer, disk, key).close()


class Merge:
    """Layers and the base images that they are to be merged into: first :meth:`keep_rests`, then :meth:`finish`.

    What is damaged does not hold up the rest: the table knows such blocks as damaged until something later, like a
    resynchronization, writes them anew. Damage is returned, the first that was met.
    """

    def __init__(self, layers: Sequence[Layer], files: Layout, base_of: BaseOf, key: MachineKey | None) -> None:
        self._layers, self._files, self._base_of, self._key = layers, files, base_of, key
        every = {disk: self._overwritten_on(disk) for disk in layers[0].segments}
        self._overwritten = {disk: overwritten for disk, overwritten in every.items() if not overwritten.nothing}

    def keep_rests(self, *, begun: bool, trusted: bool) -> Damaged | None:
        """The tables tell, durably, what the layers leave alone.

        Args:
            begun: such a merge was interrupted; the damage that it found may not have been told.
            trusted: what the tables tell counts. It does not when a merge was begun that did not keep what they told.
        """
        damage: Damaged | None = None
        for disk, overwritten in self._overwritten.items():
            found = keep_rests(self._base_of(disk), overwritten, begun=begun, trusted=trusted)
            damage = damage or found
        return damage

    def finish(self) -> Damaged | None:
        """Base images and tables have what the layers have, durably."""
        damage: Damaged | None = None
        for disk, overwritten in self._overwritten.items():
            base = self._base_of(disk)
            lost, unreadable = self._write(disk, base, overwritten)
            base.sync_image()
            base.give_up(lost)
            rotten = enter(base, overwritten)
            damage = damage or unreadable or rotten
        return damage

    def _overwritten_on(self, disk: str) -> Overwritten:
        ranges = []
        for layer in self._layers:
            with closing(self._files.open_segment(layer, disk, self._key)) as reader:
                ranges.append(reader.all_ranges())
        return Overwritten(self._base_of(disk).size, *ranges)

    def _write(self, disk: str, base: BaseImage, overwritten: Overwritten) -> tuple[set[int], Damaged | None]:
        """The blocks whose changes are lost with a damaged frame, and were not written anew as a whole later."""
        lost: set[int] = set()
        damage: Damaged | None = None
        for layer in self._layers:
            with closing(self._files.open_segment(layer, disk, self._key)) as reader:
                for frame in range(len(reader)):
                    try:
                        extents = reader.extents(frame)
                    except Damaged as found:
                        damage = damage or found
                        lost.update(block for extent in reader.ranges(frame) for block in blocks_of(*extent))
                    else:
                        write(base, overwritten, extents)
                        if lost:
                            lost.difference_update(*(whole_blocks_of(at, len(data), base.size) for at, data in extents))
        return lost, damage


def write(base: BaseImage, overwritten: Overwritten, extents: list[Extent]) -> None:
    """Blocks that the merge overwrites as a whole are entered while they are at hand: to repeat it writes them anew."""
    touched: set[int] = set()
    for extent in extents:
        base.write(extent)
        touched.update(blocks_of(extent.offset, len(extent.data)))
    for run in consecutive(sorted(block for block in touched if not overwritten.beside(block))):
        base.enter(run)


def keep_rests(base: BaseImage, overwritten: Overwritten, *, begun: bool, trusted: bool) -> Damaged | None:
    """Entries of blocks that are overwritten in part become those of their rests, as :meth:`Merge.keep_rests` says."""
    damage: Damaged | None = None

    def entry_to_be(block: int, data: memoryview, entry: bytes) -> bytes:
        nonlocal damage
        if entry == KNOWN_DAMAGED:
            damage = damage or (base.damage_in(block) if begun else None)
            return entry
        rest = rest_entry(data, block, overwritten.beside(block))
        if trusted and not is_either(entry, entry_of(data), rest):
            damage = damage or base.damage_in(block)
            return KNOWN_DAMAGED
        return rest

    base.change_entries(overwritten.blocks_in_part(), entry_to_be)
    base.sync_table()
    return damage


def enter(base: BaseImage, overwritten: Overwritten) -> Damaged | None:
    """Entries of rests become those of whole blocks again, when what was written into them is durable."""
    damage: Damaged | None = None

    def entry_to_be(block: int, data: memoryview, entry: bytes) -> bytes:
        nonlocal damage
        whole = entry_of(data)
        if is_either(entry, whole, rest_entry(data, block, overwritten.beside(block))):
            return whole
        if entry != KNOWN_DAMAGED:
            damage = damage or base.damage_in(block)
        return KNOWN_DAMAGED

    base.change_entries(overwritten.blocks_in_part(), entry_to_be)
    base.sync_table()
    return damage
