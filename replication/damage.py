"""What is left of a replica when a sealed segment is damaged or gone: the recovery points before it."""

from __future__ import annotations

import logging

from replication.cipher import MachineKey
from replication.layout import Layout
from replication.manifest import Layer, Manifest
from vault.errors import Damaged

log = logging.getLogger(__name__)


def without_damaged_layers(known: Manifest, files: Layout, key: MachineKey | None) -> tuple[Manifest, list[Layer]]:
    """``known`` up to the first layer that cannot be opened, and the layers from there on; no delta may follow it.

    A layer whose index is sound is kept, whatever its blocks are: which of them are damaged is found by reading, and a
    resynchronization replaces them.

    Raises ``Damaged`` when no recovery point lies before the damage."""
    for number, layer in enumerate(known.layers):
        for disk in layer.segments:
            try:
                files.open_segment(layer, disk, key).close()
            except Damaged as damage:
                points = [point for point in known.points if point.sequence < layer.sequence]
                if not points:
                    raise Damaged(
                        f"no recovery point is left before the damage: {damage.what}",
                        where=damage.where,
                        remedy="disable the machine's protection and enable it again",
                    ) from damage
                kept = known.with_(layers=known.layers[:number], points=points, epoch="", last_cut=0)
                lost = ", ".join(point.id for point in known.points if point not in points)
                what = (
                    f"recovery points are lost, their segments are damaged: {lost}" if lost else "differences are lost"
                )
                log.error("%s: %s (%s)", files.root, what, damage)
                return kept, known.layers[number:]
    return known, []
