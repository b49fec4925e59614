"""How lab machines are made, retired and deleted: each in one atomic step, repeatable after a crash at any other.

A machine is registered exactly when ``machines/<name>/`` is there. What is being made lies in ``.making-<name>``,
what is being retired in ``.retired-<name>``, what is being deleted in ``.removed-<name>``.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack, closing

from adapters.lab.database import Geometry, format_disks
from adapters.lab.definition import DiskDefinition, MachineDefinition
from adapters.lab.documents import sync_folder
from adapters.lab.hrl import write_fully
from adapters.lab.layout import MachineFolder
from adapters.lab.lun import lun, split_lun
from adapters.lab.nbd import NbdDisk
from replication.ports import ReplicaStore, Report
from vault.domain import Disk, Progress, RecoveryPoint
from vault.errors import BadInput, Damaged, InvalidState, NotFound
from vault.inventory import Inventory, LabMachine

BYTES_OF_AN_EMPTY_MACHINE = 64 * 1024


def lab_settings(inventory: Inventory, machine: str) -> LabMachine:
    """Raises ``NotFound`` for an unknown machine, ``BadInput`` for one that the inventory does not describe."""
    if machine not in inventory.machines:
        known = ", ".join(inventory.machines) or "none"
        raise NotFound(f"the inventory has no machine '{machine}'", remedy=f"it has: {known}")
    settings = inventory.machines[machine].lab
    if settings is None:
        raise BadInput(f"machine '{machine}' has no 'lab' section", remedy="describe its disks in the inventory")
    return settings


def disks_of(inventory: Inventory, machine: str) -> list[Disk]:
    return [Disk(name=disk.name, size=disk.size) for disk in lab_settings(inventory, machine).disks]


def network_kind(inventory: Inventory, site: str, network: str) -> str:
    """Raises ``NotFound`` naming the site's networks."""
    networks = inventory.sites[site].networks
    if network not in networks:
        there = ", ".join(networks)
        raise NotFound(f"there is no network '{network}'", where=f"site {site}", remedy=f"the site has: {there}")
    return str(networks[network].kind)


def definition_like(
    inventory: Inventory,
    site: str,
    name: str,
    like: str,
    network: str,
    *,
    kind: str | None = None,
    made_from: str | None = None,
    volumes: dict[str, str] | None = None,
) -> MachineDefinition:
    """``kind``: of a network that the inventory does not name; ``volumes``: by disk, the volume of the site's array
    that it is; None: its disks are images in files."""
    settings = lab_settings(inventory, like)
    luns = _luns(inventory, site, volumes) if volumes is not None else {}
    return MachineDefinition(
        name=name,
        site=site,
        identity=like,
        network=network,
        network_kind=kind or network_kind(inventory, site, network),
        disks=tuple(DiskDefinition(disk.name, disk.size, luns.get(disk.name, "")) for disk in settings.disks),
        transactions_per_second=settings.transactions_per_second,
        transaction_size=settings.transaction_size,
        made_from=made_from,
    )


def _luns(inventory: Inventory, site: str, volumes: dict[str, str]) -> dict[str, str]:
    storage = inventory.sites[site].storage
    if storage is None or storage.portal is None:
        raise BadInput(f"site '{site}' has no storage with a 'portal'", remedy="check it: leeward vault check")
    return {disk: lun(storage.portal, storage.initiators[0], volume) for disk, volume in volumes.items()}


def _delete(folder: MachineFolder) -> None:
    if folder.path.exists():
        shutil.rmtree(folder.path)


def _register(half_made: MachineFolder, folder: MachineFolder) -> None:
    half_made.path.rename(folder.path)
    sync_folder(folder.path.parent)


def _fresh(folder: MachineFolder) -> MachineFolder:
    """An empty place for a machine in the making; what an earlier try left there is deleted."""
    making = folder.beside("making")
    _delete(making)
    making.path.mkdir(parents=True)
    return making


def make_empty(folder: MachineFolder, definition: MachineDefinition) -> None:
    """Make a machine whose guest has an empty database. Raises ``BadInput`` when the disks are too small."""
    Geometry.plan(definition.disks, definition.transaction_size)
    making = _fresh(folder)
    images = [making.image(disk.name) for disk in definition.disks]
    for image, disk in zip(images, definition.disks, strict=True):
        with image.open("wb") as stream:
            stream.truncate(disk.size)

    def write(disk: int, offset: int, data: bytes) -> None:
        descriptor = os.open(images[disk], os.O_WRONLY | os.O_CLOEXEC)
        try:
            write_fully(descriptor, data, offset)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    format_disks(write, definition.disks, definition.transaction_size)
    definition.save(making)
    _register(making, folder)


def make_on_volumes(folder: MachineFolder, definition: MachineDefinition, *, empty: bool) -> None:
    """Register a machine whose disks are volumes; ``empty``: with an empty database on them.

    Raises as :class:`adapters.lab.nbd.NbdDisk` when a volume that has to be written cannot be."""
    making = _fresh(folder)
    if empty:
        Geometry.plan(definition.disks, definition.transaction_size)
        with ExitStack() as opened:
            luns = [opened.enter_context(closing(NbdDisk(*split_lun(disk.lun)))) for disk in definition.disks]

            def write(disk: int, offset: int, data: bytes) -> None:
                luns[disk].write(offset, data)

            format_disks(write, definition.disks, definition.transaction_size)
    definition.save(making)
    _register(making, folder)


def require_same(found: MachineDefinition, wanted: MachineDefinition) -> None:
    """Raises ``InvalidState`` unless the machine that has the name was made from the same point, for the same use."""
    if (found.identity, found.network) != (wanted.identity, wanted.network):
        raise InvalidState(
            f"machine '{found.name}' exists: a copy of '{found.identity}' on network '{found.network}'",
            where=f"site {found.site}",
            remedy="remove it first",
        )
    if found.made_from != wanted.made_from:
        origin = f"recovery point {found.made_from}" if found.made_from else "no recovery point"
        raise InvalidState(
            f"machine '{found.name}' exists and was made from {origin}, not from {wanted.made_from}",
            where=f"site {found.site}",
            remedy="remove it first, if it is not needed",
        )


def make_from_replica(
    folder: MachineFolder,
    definition: MachineDefinition,
    store: ReplicaStore,
    point: RecoveryPoint,
    report: Report,
    reserve: Callable[[int], None],
) -> None:
    """Raises ``InvalidState`` when the replica's disks are not the machine's, ``NoSpace``, ``Damaged``."""
    _require_disks(definition, store.state().disks)
    with ExitStack() as in_use:
        views = [in_use.enter_context(closing(store.view(disk.name, point))) for disk in definition.disks]
        reserve(sum(length for view in views for _, length in view.allocated()))
        _make_from_views(folder, definition, store, point, report)


def _make_from_views(
    folder: MachineFolder, definition: MachineDefinition, store: ReplicaStore, point: RecoveryPoint, report: Report
) -> None:
    making = _fresh(folder)
    try:
        made = {path.name for path in store.materialise(point, making.path, report)}
        missing = [disk.name for disk in definition.disks if making.image(disk.name).name not in made]
        if missing:
            raise Damaged(f"the replica did not give the disks {', '.join(missing)}", where=folder.name)
        definition.save(making)
        report(Progress(doing=f"registering {definition.name}"))  # a late try hears here that it is one
        _register(making, folder)
    except BaseException:
        _delete(making)
        raise


def _require_disks(definition: MachineDefinition, replicated: list[Disk]) -> None:
    wanted = {disk.name: disk.size for disk in definition.disks}
    found = {disk.name: disk.size for disk in replicated}
    if wanted != found:
        raise InvalidState(
            f"the replica has the disks {found}, machine '{definition.identity}' has {wanted}",
            where=f"site {definition.site}",
            remedy="make the inventory and the replica agree; protect the machine again when its disks changed",
        )


def unregister_and_delete(folder: MachineFolder) -> None:
    """Idempotent."""
    removed = folder.beside("removed")
    _delete(removed)
    if folder.path.exists():
        folder.path.rename(removed.path)
        sync_folder(folder.path.parent)
    _delete(removed)
    _delete(folder.beside("making"))


def retire(folder: MachineFolder, disks: list[Disk], store: ReplicaStore, epoch: str) -> None:
    """Unregister first, then move the disks away: between the two nobody can start the machine any more."""
    retired = folder.beside("retired")
    if folder.path.exists():
        _delete(retired)
        folder.path.rename(retired.path)
        sync_folder(folder.path.parent)
    if _follows(store, epoch) and store.state().seeded:
        _delete(retired)
    elif retired.path.exists():
        store.adopt({disk.name: retired.image(disk.name) for disk in disks}, disks, epoch)
        _delete(retired)
    else:
        store.create(disks, epoch)


def _follows(store: ReplicaStore, epoch: str) -> bool:
    """Was the machine retired into this replica before, and has its replication perhaps gone on since?"""
    return store.exists() and store.state().epoch == epoch
