"""Disks at recovery points: a snapshot, with sealed deltas over it while they are not applied."""

from __future__ import annotations

from contextlib import ExitStack

from adapters.azure.layout import Layout
from adapters.azure.manifest import Applied, AzureManifest, open_key
from adapters.azure.pages import PageReader
from adapters.azure.segments import fetch_layer
from replication import rules
from replication.cipher import Keys
from replication.scratch import scratch_folder
from replication.segment_reader import SegmentReader
from replication.view import LayeredView
from vault.domain import RecoveryPoint


def sequence_of(known: AzureManifest, point: RecoveryPoint | None, where: str) -> int:
    """The number of the state that a point means (default: the newest). Raises ``NotFound``, ``InvalidState``."""
    if not known.points:
        raise rules.no_point_yet(where)
    if point is None:
        return known.points[-1].sequence
    if point.id not in {other.id for other in known.points}:
        raise rules.no_such_point(point.id, where)
    return point.sequence


def open_live(layout: Layout, known: AzureManifest, disk: str) -> LayeredView:
    """What the page blob holds at this moment."""
    return LayeredView(PageReader(layout.disk(disk), known.disk(disk).size, layout.where), [])


def open_state(
    layout: Layout, known: AzureManifest, keys: Keys, disk: str, sequence: int, opened: ExitStack
) -> LayeredView:
    """The snapshot of a state, or that of the last applied one with the sealed layers over it.

    Takes over what is on ``opened``: it is closed with the view."""
    known.disk(disk)
    exact = [state for state in known.applied if state.sequence == sequence]
    layers: list[SegmentReader] = []
    waiting = [layer for layer in known.layers if not exact and layer.sequence <= sequence]
    if waiting:
        folder = opened.enter_context(scratch_folder())
        key = open_key(keys, known)
        for layer in waiting:
            layers.append(fetch_layer(layout, layer, disk, folder / str(layer.sequence), key))
            opened.callback(layers[-1].close)
    base = snapshot(layout, known, disk, exact[0] if exact else known.applied[-1])
    return LayeredView(base, layers, closing=opened.pop_all().close)


def snapshot(layout: Layout, known: AzureManifest, disk: str, state: Applied) -> PageReader:
    return PageReader(layout.disk(disk, state.snapshots[disk]), known.disk(disk).size, layout.where)
