"""A virtual disk as layers: each file says of each stretch whether it has it, it is zeros, or the parent knows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from adapters.hyperv.virtual_disks.files import DiskFile
from replication.ports import BlockReader
from replication.ranges import union

_BYTES_AT_ONCE = 512


class Elsewhere(Enum):
    ZEROS = "zeros"
    PARENT = "parent"


class Stretch(NamedTuple):
    """``place`` is an offset in the file, unless the bytes are elsewhere."""

    offset: int
    length: int
    place: int | Elsewhere


class Layer(ABC, BlockReader):
    """One file of a chain with all that it leans on. Thread-safe.

    ``parent`` is None when nothing is below: what it would have are zeros.
    """

    file: DiskFile
    size: int
    parent: Layer | None = None

    @abstractmethod
    def stretches(self, offset: int, length: int) -> Iterator[Stretch]:
        """Where these bytes are: ascending, without gaps, all inside the disk. Raises ``Damaged``."""

    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes, fewer only at the end of the disk. Raises ``Damaged``."""
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        parts = []
        for stretch in self.stretches(offset, length):
            if isinstance(stretch.place, int):
                parts.append(self.file.read(stretch.place, stretch.length))
            elif stretch.place is Elsewhere.ZEROS or self.parent is None:
                parts.append(bytes(stretch.length))
            else:
                # A disk may have been made larger than the one it leans on.
                below = self.parent.read(stretch.offset, stretch.length)
                parts.append(below + bytes(stretch.length - len(below)))
        return b"".join(parts)

    def allocated(self) -> Iterator[tuple[int, int]]:
        """Ascending ranges that may hold something other than zeros. Raises ``Damaged``."""
        return union(self._allocated(0, self.size))

    def _allocated(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        for stretch in self.stretches(offset, min(length, self.size - offset)):
            if isinstance(stretch.place, int):
                yield stretch.offset, stretch.length
            elif stretch.place is Elsewhere.PARENT and self.parent is not None:
                yield from self.parent._allocated(stretch.offset, stretch.length)

    def close(self) -> None:
        """The files of the whole chain. Idempotent."""
        self.file.close()
        if self.parent is not None:
            self.parent.close()


def runs(bitmap: bytes, first: int, count: int) -> Iterator[tuple[int, int, bool]]:
    """``(first bit, how many, whether set)`` of ``count`` bits from ``first``, which is counted from the lowest bit of
    the first byte."""
    at = 0
    while at < count:
        # A piece at a time: arithmetic on integers costs what they are long.
        byte, skip = divmod(first + at, 8)
        bits = int.from_bytes(bitmap[byte : byte + _BYTES_AT_ONCE], "little") >> skip
        end = min(at + 8 * _BYTES_AT_ONCE - skip, count)
        while at < end:
            is_set = bool(bits & 1)
            others = ~bits if is_set else bits
            length = min((others & -others).bit_length() - 1 if others else end - at, end - at)
            yield at, length, is_set
            bits >>= length
            at += length
