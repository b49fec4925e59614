"""A disk at a recovery point: the base image with the layers up to that point over it; the later one wins."""

from __future__ import annotations

import heapq
import os
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Protocol

from replication import files
from replication.base_image import BaseImage
from replication.blocks import read_exactly
from replication.checksums import BLOCK, block_checksums, checksum, runs, zero_checksum
from replication.ports import BlockReader, Report
from replication.progress import Meter
from replication.ranges import pieces, union
from replication.segment_reader import NO_PAYLOAD, SegmentReader
from vault.errors import Damaged


class Base(Protocol):
    """The disk at the moment that the layers lie over: a local base image, or a snapshot elsewhere. Thread-safe."""

    size: int

    def read_verified(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes inside the disk. Raises ``Damaged``."""

    def data_ranges(self) -> Iterator[tuple[int, int]]:
        """``(offset, length)``, ascending, of what may be other than zeros."""

    def is_hole(self, offset: int, length: int) -> bool:
        """True when the range certainly reads as zeros."""

    def close(self) -> None:
        """Idempotent."""


class ViewedDisk(BlockReader, Protocol):
    def may_hold_data(self, offset: int, length: int) -> bool:
        """False only when the range certainly reads as zeros."""


class ExtentMap:
    """Which layer answers for which bytes: sorted, disjoint ranges in compact arrays (26 bytes a range)."""

    def __init__(self) -> None:
        self.start = array("Q")
        self.end = array("Q")
        self.layer = array("H")
        self.extent = array("I")

    def add(self, start: int, end: int, layer: int, extent: int) -> None:
        if self.start and self.end[-1] == start and self.layer[-1] == layer and self.extent[-1] == extent:
            self.end[-1] = end
            return
        self.start.append(start)
        self.end.append(end)
        self.layer.append(layer)
        self.extent.append(extent)

    def overlapping(self, offset: int, end: int) -> Iterator[int]:
        """Numbers of the ranges that overlap ``[offset, end)``, ascending."""
        at = max(0, bisect_right(self.start, offset) - 1)
        while at < len(self.start) and self.start[at] < end:
            if self.end[at] > offset:
                yield at
            at += 1


def overlay(layers: Sequence[SegmentReader]) -> ExtentMap:
    """Sweep over all extents by offset; at each byte the highest layer that has it wins."""
    result = ExtentMap()
    active: list[tuple[int, int, int]] = []
    position = 0

    def advance(to: int) -> None:
        nonlocal position
        while active and position < to:
            negative, end, extent = active[0]
            if end <= position:
                heapq.heappop(active)
                continue
            stop = min(end, to)
            result.add(position, stop, -negative, extent)
            position = stop
        position = max(position, to)

    by_layer = [_extents_of(reader, -number) for number, reader in enumerate(layers)]
    for offset, negative, end, extent in heapq.merge(*by_layer):
        advance(offset)
        heapq.heappush(active, (negative, end, extent))
    advance(max((end for _, end, _ in active), default=0))
    return result


def _extents_of(reader: SegmentReader, negative: int) -> Iterator[tuple[int, int, int, int]]:
    index = reader.index
    for extent, (offset, length) in enumerate(zip(index.offset, index.length, strict=True)):
        yield offset, negative, offset + length, extent


class LayeredView:
    """A :class:`replication.ports.LayeredReader`; every byte it gives is verified. Thread-safe.

    Args:
        closing: called once, by :meth:`close`.
    """

    def __init__(
        self,
        base: Base,
        layers: Sequence[SegmentReader],
        *,
        closing: Callable[[], None] | None = None,
    ) -> None:
        self.size = base.size
        self._base = base
        self._layers = layers
        self._map = overlay(layers)
        self._closing = closing

    def read(self, offset: int, length: int) -> bytes:
        """Raises ``Damaged``."""
        end = min(offset + length, self.size)
        if end <= offset:
            return b""
        over = [
            (max(self._map.start[at], offset), min(self._map.end[at], end), at)
            for at in self._map.overlapping(offset, end)
        ]
        covered = sum(stop - start for start, stop, _ in over)
        if not covered:
            return self._read_base(offset, end - offset)
        if 2 * covered < end - offset:
            try:
                return self._read_over(offset, end, over)
            except Damaged:  # perhaps in what the layers cover, which nobody asked for
                pass
        return self._read_between(offset, end, over)

    def _read_over(self, offset: int, end: int, over: list[tuple[int, int, int]]) -> bytes:
        """All of the base at once, the layers written over it."""
        data = bytearray(self._read_base(offset, end - offset))
        for start, stop, at in over:
            data[start - offset : stop - offset] = self._read_extent(
                self._map.layer[at], self._map.extent[at], start, stop
            )
        return bytes(data)

    def _read_between(self, offset: int, end: int, over: list[tuple[int, int, int]]) -> bytes:
        """Of the base only what no layer covers."""
        pieces: list[bytes | memoryview] = []
        position = offset
        for start, stop, at in over:
            if start > position:
                pieces.append(self._read_base(position, start - position))
            pieces.append(self._read_extent(self._map.layer[at], self._map.extent[at], start, stop))
            position = stop
        if position < end:
            pieces.append(self._read_base(position, end - position))
        return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)

    def allocated(self) -> Iterator[tuple[int, int]]:
        return union(self._base.data_ranges(), self._extents_with_data())

    def may_hold_data(self, offset: int, length: int) -> bool:
        """False only when the range certainly reads as zeros."""
        return next(self._map.overlapping(offset, offset + length), None) is not None or not self._base.is_hole(
            offset, length
        )

    def contents(self) -> Iterator[tuple[int, bytes | memoryview]]:
        """``(offset, data)`` of all that may be other than zeros, in the order that costs least: the base where no
        layer lies over it, then each frame, which is decoded once. Memory grows with the number of extents only.

        Raises ``Damaged``."""
        for offset, length in pieces(self._base.data_ranges(), self.size, 4096):
            yield from self._base_beside_layers(offset, offset + length)
        ranges, layer_of = self._map, self._map.layer
        by_frame = sorted(self._ranges_with_data(), key=lambda at: (layer_of[at], self._frame_of(at)))
        for (layer, frame), in_frame in groupby(by_frame, lambda at: (layer_of[at], self._frame_of(at))):
            reader = self._layers[layer]
            plain = memoryview(reader.read_frame(frame))
            for at in in_frame:
                start, stop, extent = ranges.start[at], ranges.end[at], ranges.extent[at]
                begin = reader.index.position[extent] + start - reader.index.offset[extent]
                yield start, plain[begin : begin + stop - start]

    def check_layers(self) -> Iterator[int]:
        used = {(self._map.layer[at], self._frame_of(at)) for at in self._ranges_with_data()}
        left = sum(self._layers[layer].stored_length(frame) for layer, frame in used)
        for layer, frame in sorted(used, reverse=True):
            yield left
            self._layers[layer].check(frame)
            left -= self._layers[layer].stored_length(frame)

    def close(self) -> None:
        """Idempotent."""
        for layer in self._layers:
            layer.close()
        self._base.close()
        if self._closing:
            self._closing()
            self._closing = None

    def _extents_with_data(self) -> Iterator[tuple[int, int]]:
        for at in self._ranges_with_data():
            yield self._map.start[at], self._map.end[at] - self._map.start[at]

    def _ranges_with_data(self) -> Iterator[int]:
        """Numbers of the map's ranges that are not zeros, ascending."""
        for at, (layer, extent) in enumerate(zip(self._map.layer, self._map.extent, strict=True)):
            if self._layers[layer].index.position[extent] != NO_PAYLOAD:
                yield at

    def _frame_of(self, at: int) -> int:
        return self._layers[self._map.layer[at]].index.frame[self._map.extent[at]]

    def _base_beside_layers(self, offset: int, end: int) -> Iterator[tuple[int, bytes]]:
        gaps, position = [], offset
        for at in self._map.overlapping(offset, end):
            if self._map.start[at] > position:
                gaps.append((position, self._map.start[at]))
            position = self._map.end[at]
        if position < end:
            gaps.append((position, end))
        if not gaps:
            return
        begin = gaps[0][0]
        try:
            data = self._read_base(begin, gaps[-1][1] - begin)
        except Damaged:  # perhaps in what the layers cover, which nobody asked for
            for start, stop in gaps:
                yield start, self._read_base(start, stop - start)
        else:
            for start, stop in gaps:
                yield start, data[start - begin : stop - begin]

    def _read_base(self, offset: int, length: int) -> bytes:
        return self._base.read_verified(offset, length)

    def _read_extent(self, layer: int, extent: int, start: int, stop: int) -> bytes | memoryview:
        reader = self._layers[layer]
        position = reader.index.position[extent]
        if position == NO_PAYLOAD:
            return bytes(stop - start)
        begin = position + start - reader.index.offset[extent]
        return memoryview(reader.plain(reader.index.frame[extent]))[begin : begin + stop - start]


def copy_sparse(source: BlockReader, target: Path, done: Callable[[int, int], None]) -> None:
    """A raw, sparse, durable file of everything ``source`` holds; ``done(range bytes, written bytes)`` as it goes.

    Raises ``NoSpace``, ``Damaged``."""
    with files.translated(target):
        fd = files.open_file(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        with files.translated(target):
            files.set_size(fd, source.size)
        for offset, data in source.contents() if isinstance(source, LayeredView) else _in_order(source):
            with files.translated(target):
                written = _write_what_is_not_zero(fd, offset, data)
            done(len(data), written)
        with files.translated(target):
            files.sync(fd)
    finally:
        os.close(fd)


def _in_order(source: BlockReader) -> Iterator[tuple[int, bytes | memoryview]]:
    for offset, length in pieces(source.allocated(), source.size, 4096):
        yield offset, read_exactly(source, offset, length)


def _write_what_is_not_zero(fd: int, offset: int, data: bytes | memoryview) -> int:
    written = 0
    for start, run, zero in runs(offset, data):
        if not zero:
            files.write_at(fd, run, start)
            written += len(run)
    return written


def write_images(views: Mapping[str, BlockReader], folder: Path, report: Report, doing: str) -> list[Path]:
    """``<disk>.raw`` for each view, in ``folder``, as ``ReplicaStore.materialise`` promises."""
    meter = Meter(report, doing, sum(length for view in views.values() for _, length in view.allocated()))
    paths = {folder / f"{name}.raw": view for name, view in views.items()}
    with files.translated(folder):
        files.make_folder(folder)
    for path, view in paths.items():
        copy_sparse(view, path.with_name(path.name + ".part"), meter.add)
    meter.tell()
    with files.translated(folder):
        for path in paths:
            files.rename(path.with_name(path.name + ".part"), path)
        files.sync_folder(folder)
    return list(paths)


class SeedView:
    """What an unfinished base image holds at this moment, unverified (nothing vouches for it yet)."""

    def __init__(self, base: BaseImage) -> None:
        self.size = base.size
        self._base = base
        self.read = base.read
        self.allocated = base.written_ranges
        self.close = base.close

    def may_hold_data(self, offset: int, length: int) -> bool:
        return not self._base.is_unwritten(offset, length)


class ViewChecksums:
    """A :class:`replication.ports.BlockChecksums` computed where the blocks are.

    Args:
        before: called before each comparison; raises to end them.
    """

    def __init__(self, view: ViewedDisk, before: Callable[[], None] | None = None) -> None:
        self._view = view
        self._before = before
        self.allocated = view.allocated
        self.close = view.close

    def checksums(self, offset: int, length: int, block: int = BLOCK) -> list[bytes]:
        if self._before:
            self._before()
        length = min(length, self._view.size - offset)
        if not self._view.may_hold_data(offset, length):
            return [zero_checksum(min(block, length - start)) for start in range(0, length, block)]
        try:
            return block_checksums(self._view.read(offset, length), block)
        except Damaged:
            return [
                self._or_damaged(start, min(block, offset + length - start))
                for start in range(offset, offset + length, block)
            ]

    def _or_damaged(self, offset: int, length: int) -> bytes:
        try:
            return checksum(self._view.read(offset, length))
        except Damaged:
            return b""
