"""Registering machines on volumes at a site's hosts, and what is registered there."""

from __future__ import annotations

from adapters.san import points
from adapters.san.ports import SanFabric
from vault.domain import PowerState, RecoveryPoint, Relationship
from vault.errors import NotFound


def register(
    fabric: SanFabric,
    relationship: Relationship,
    name: str,
    volumes: dict[str, str],
    point: RecoveryPoint,
    *,
    test: bool,
) -> None:
    network = relationship.test_network if test else relationship.target_network
    fabric.register_on_volumes(name, relationship.machine, volumes, network, point.id)


def point_of_earlier_try(fabric: SanFabric, name: str) -> RecoveryPoint | None:
    try:
        made_from = fabric.made_from(name)
    except NotFound:
        return None
    return points.read(made_from) if made_from else None


def is_registered(fabric: SanFabric, machine: str) -> bool:
    try:
        fabric.describe(machine)
    except NotFound:
        return False
    return True


def runs(fabric: SanFabric, machine: str) -> bool:
    try:
        return fabric.describe(machine).power is PowerState.RUNNING
    except NotFound:
        return False
