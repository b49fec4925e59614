"""The room at a target site: what recovering machines needs, what is free, and what is freed before it is needed."""

from __future__ import annotations

from collections.abc import Callable, Collection
from time import monotonic
from typing import TypeVar

from activities.running import Running
from adapters.ports import Hypervisor, NeedsRoom, ReplicationProvider, TellsRoom
from vault.domain import Finding, Relationship
from vault.errors import LeewardError, NoSpace
from vault.words import size

Made = TypeVar("Made")

PATIENCE_S = 60.0
"""So long a failover waits for the room of test copies; then its error is retried as any other (vault/retry.py)."""
LOOK_EVERY_S = 0.5


class RoomCheck:
    """Is there room for what the machines need, once the test copies in ``leaving`` are removed?

    The site is measured once, whatever the number of machines."""

    def __init__(self, fabric: Hypervisor, leaving: Collection[str]) -> None:
        self._fabric = fabric
        self._leaving = leaving
        self._free: tuple[int, int] | None = None

    def of(self, provider: ReplicationProvider, relationship: Relationship) -> list[Finding]:
        if not isinstance(provider, NeedsRoom):
            return []
        subject, machine = f"space at {self._fabric.site}", relationship.machine
        try:
            needed = provider.room_needed(relationship)
            now, later = self._measured()
        except LeewardError as error:
            return [Finding.of_error(f"site {self._fabric.site}", error)]
        is_free = f"{size(now)} are free"
        if later > now:
            is_free += f", {size(later - now)} more once the machines' test copies are removed"
        remedy = f"free space at {self._fabric.site} or raise its capacity"
        if later == 0:
            return [Finding.failed(subject, is_free, remedy)]
        if needed > later:
            return [Finding.failed(subject, f"recovering '{machine}' needs up to {size(needed)}, {is_free}", remedy)]
        return [Finding.passed(subject, f"{is_free}, '{machine}' needs up to {size(needed)}")] if needed else []

    def _measured(self) -> tuple[int, int]:
        """Free bytes now, and when the copies are gone."""
        if self._free is None:
            now = later = self._fabric.free_space()
            if self._leaving and isinstance(self._fabric, TellsRoom):
                later = max(now, self._fabric.free_space_without(self._leaving))
            self._free = now, later
        return self._free


def when_there_is_room(
    make: Callable[[], Made], fabric: Hypervisor, leaving: Collection[str], running: Running
) -> Made:
    """What ``make`` gives. While it does not fit and test copies are being removed, it is tried again.

    Raises:
        NoSpace: it does not fit without the copies either, or they are not gone after :data:`PATIENCE_S`.
    """
    began = monotonic()
    while True:
        is_held = _hold_room(fabric, leaving)
        try:
            return make()
        except NoSpace:
            if not is_held or monotonic() - began > PATIENCE_S:
                raise
        running.beat(f"waiting for the room of {', '.join(leaving)}")
        running.wait(LOOK_EVERY_S)


def _hold_room(fabric: Hypervisor, machines: Collection[str]) -> bool:
    if not machines or not isinstance(fabric, TellsRoom):
        return False
    return fabric.free_space_without(machines) > fabric.free_space()
