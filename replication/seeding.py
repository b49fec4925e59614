"""Initial replication by media (requirements §C.2): export at the source, carry, import at the target.

The medium is a snapshot that travels. The source's tracking period begins with it, so that after the import deltas go
on from its moment and nothing is sent twice.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from replication import files, locking, media
from replication.base_copy import copy_base
from replication.blocks import read_exactly
from replication.cipher import Keys, MachineKey, SiteKey
from replication.media import Part, SeedDisk, SeedManifest, part_path
from replication.pipeline import read_ahead
from replication.ports import BlockReader, ChangeSource, Extent, ReplicaState, ReplicaStore, Report
from replication.progress import Meter
from replication.ranges import PIECE, pieces
from replication.segment import Sealed, SegmentFileWriter, SegmentHeader
from replication.stream import begin_period
from vault.domain import ConsistencyKind, Disk, RecoveryPoint
from vault.errors import BadInput, Busy, InvalidState, NoSpace

PART_BYTES = 1 << 30
"""Data of a disk in one segment: what an interrupted export has to read again at most."""
KEPT_FREE = 1 << 20
"""Bytes of the medium that stay free for the manifest."""


def free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _key(known: SeedManifest, site_key: SiteKey | None) -> MachineKey | None:
    """Raises ``AuthenticationRefused`` when the medium is encrypted and ``site_key`` does not open it."""
    return Keys(known.machine, site_key).open(known.key) if known.key else None


# --- export -----------------------------------------------------------------------------------------------------


def export_seed(
    source: ChangeSource,
    replica: ReplicaStore | None,
    folder: Path,
    report: Report,
    *,
    machine: str,
    site: str,
    restart: bool = False,
    site_key: SiteKey | None = None,
    part_bytes: int = PART_BYTES,
    free: Callable[[Path], int] = free_bytes,
) -> SeedManifest:
    """Write the disks of ``machine`` at one moment into ``folder``. A repeated call goes on where the last one stopped,
    while the snapshot exists; a complete medium stays as it is.

    Args:
        replica: the machine's replica at the target; None when the target cannot be reached. It is told the tracking
            period that the medium begins.
        restart: take a new snapshot, whatever the folder of this machine holds and whoever uses the old one.
        site_key: encrypts the medium; the importing site needs the same.

    Raises:
        BadInput: the folder holds something else.
        InvalidState: the machine is replicated already, or another transfer uses its snapshot.
        NoSpace: the medium is full; a repeated call goes on when there is room.
        Busy: another export writes into this folder, or replication of the machine is under way.
    """
    fresh = SeedManifest(machine=machine, site=site, disks=source.disks())
    known = media.claim(folder, fresh)
    with locking.exclude(folder / media.EXPORT_LOCK) as alone:
        if not alone:
            raise Busy("another export writes into this folder", where=str(folder), remedy="wait until it has ended")
        known = media.load(folder)
        if known.complete and not restart:
            return _export_is_over(source, known)
        if restart or not _can_continue(source, known):
            known = _begin(source, replica, folder, fresh, known, site_key, restart=restart)
        key = _key(known, site_key)
        meter = Meter(report, f"exporting {machine}", sum(disk.size for disk in known.disks))
        for disk in known.disks:
            meter.now_doing(f"exporting {disk.name} of {machine}")
            meter.add(known.done(disk.name))
            known = _write_disk(source, folder, known, disk, key, meter, part_bytes, free)
        meter.tell()
        return _export_is_over(source, known)


def _can_continue(source: ChangeSource, known: SeedManifest) -> bool:
    tracking = source.tracking()
    same_period = tracking.active and tracking.epoch == known.epoch
    return known.moment is not None and same_period and source.snapshot_moment() == known.moment


def _begin(
    source: ChangeSource,
    replica: ReplicaStore | None,
    folder: Path,
    fresh: SeedManifest,
    known: SeedManifest,
    site_key: SiteKey | None,
    *,
    restart: bool,
) -> SeedManifest:
    """A new tracking period and its snapshot; the folder forgets its old moment before either exists."""
    own = known.beginning or source.snapshot_moment() in (None, known.moment)
    if not own and not restart:
        raise InvalidState(
            f"'{fresh.machine}' has a snapshot already: its initial replication or another export reads from it",
            where=f"site {fresh.site}",
            remedy="let that finish, or give --restart: then it starts over",
        )
    if replica is None and source.pending():
        raise InvalidState(
            f"'{fresh.machine}' is being replicated: cuts wait to be sent, and the target cannot be asked",
            where=f"site {fresh.site}",
            remedy="export when the target can be reached",
        )
    media.delete_parts(folder, known)
    key = Keys(fresh.machine, site_key).make()
    media.save(folder, fresh.with_(beginning=True))
    if replica is None or not replica.exists():
        begun = _begin_period(source, fresh, renew=replica is not None)
    else:
        with replica.lock("beginning a seed"):
            _refuse_complete(replica.state(), fresh)
            begun = _begin_period(source, fresh, renew=True)
            replica.create(begun.disks, begun.epoch)
    begun = begun.with_(key=key)
    media.save(folder, begun)
    return begun


def _begin_period(source: ChangeSource, fresh: SeedManifest, *, renew: bool) -> SeedManifest:
    """``renew`` False: the replica could not be asked whether it follows the present period, so that one stays."""
    before = source.tracking()
    if before.active and not before.resync_required and not renew:
        return fresh.with_(epoch=before.epoch, moment=source.take_snapshot())
    epoch, moment = begin_period(source)
    return fresh.with_(epoch=epoch, replaces=before.epoch, moment=moment)


def _refuse_complete(state: ReplicaState, fresh: SeedManifest) -> None:
    if state.seeded:
        raise InvalidState(
            f"'{fresh.machine}' has a complete replica already",
            where=f"site {fresh.site}",
            remedy=f"repair its replication with: leeward resync {fresh.machine}",
        )


def _write_disk(
    source: ChangeSource,
    folder: Path,
    known: SeedManifest,
    disk: Disk,
    key: MachineKey | None,
    meter: Meter,
    part_bytes: int,
    free: Callable[[Path], int],
) -> SeedManifest:
    done = known.done(disk.name)
    if done == disk.size:
        return known
    with files.translated(folder):
        files.make_folder(folder / disk.name)
    with (
        closing(source.open_snapshot(disk.name)) as reader,
        read_ahead(_data(reader, disk.size, done, min(PIECE, part_bytes))) as extents,
    ):
        while done < disk.size:
            part = _write_part(folder, known, disk, key, extents, meter, part_bytes, free)
            known = known.with_(parts={**known.parts, disk.name: [*known.parts.get(disk.name, []), part]})
            media.save(folder, known)
            done = part.end
    return known


def _data(reader: BlockReader, size: int, start: int, piece: int) -> Iterator[Extent]:
    for offset, length in pieces(reader.allocated(), size, 4096, piece):
        begin = max(offset, start)
        if offset + length > begin:
            yield Extent(begin, read_exactly(reader, begin, offset + length - begin))


def _write_part(
    folder: Path,
    known: SeedManifest,
    disk: Disk,
    key: MachineKey | None,
    extents: Iterator[Extent],
    meter: Meter,
    part_bytes: int,
    free: Callable[[Path], int],
) -> Part:
    begin, number = known.done(disk.name), len(known.parts.get(disk.name, []))
    encryption = key.new_stream() if key else None
    header = SegmentHeader(
        machine=known.machine,
        disk=disk.name,
        disk_size=disk.size,
        sequence=number,
        epoch=known.epoch,
        cut=0,
        encryption=encryption,
    )
    sealed: list[Sealed] = []
    writer = SegmentFileWriter(
        part_path(folder, disk.name, number),
        header,
        reserve=lambda count: _require_room(folder, known, count, free),
        closed=sealed.append,
        cipher=key.cipher(encryption, disk.name) if key and encryption else None,
    )
    done = begin
    held = counted = 0
    try:
        for extent in extents:
            writer.add(extent)
            end = extent.offset + len(extent.data)
            meter.add(end - done, writer.bytes_sent - counted)
            done, counted = end, writer.bytes_sent
            held += len(extent.data)
            if held >= part_bytes:
                break
        else:
            done_before, done = done, disk.size
            meter.add(done - done_before)
        writer.close()
    except BaseException:
        writer.abandon()
        raise
    with files.translated(folder):
        files.sync_folder(folder / disk.name)
    meter.add(0, sealed[0].stored_bytes - counted)
    return Part(offset=begin, end=done, identity=sealed[0].identity, stored_bytes=sealed[0].stored_bytes)


def _require_room(folder: Path, known: SeedManifest, count: int, free: Callable[[Path], int]) -> None:
    left = free(folder) - KEPT_FREE
    if left < count:
        total = sum(disk.size for disk in known.disks)
        done = sum(known.done(disk.name) for disk in known.disks)
        raise NoSpace(
            f"the seed of '{known.machine}' does not fit: the medium is full with {done:,} of {total:,} bytes of disk",
            where=str(folder),
            remedy="make room and repeat the command, which goes on from there; or use a larger medium",
        )


def _export_is_over(source: ChangeSource, known: SeedManifest) -> SeedManifest:
    """The medium has everything: the snapshot need not grow any more."""
    if source.snapshot_moment() == known.moment:
        source.delete_snapshot()
    return known


# --- import -----------------------------------------------------------------------------------------------------


def import_seed(
    store: ReplicaStore,
    folder: Path,
    report: Report,
    *,
    machine: str,
    site_key: SiteKey | None = None,
) -> RecoveryPoint:
    """Write the medium in ``folder`` into the base of the machine's unseeded replica; its moment becomes the first
    recovery point once every byte was verified. A repeated call goes on where the last one stopped.

    Blocks that the replica has already are not written. Nothing is changed when the medium is not whole.

    Raises:
        NotFound: there is no seed in the folder.
        BadInput: it is another machine's.
        Damaged: a part is missing or does not match its checksum; there is no recovery point then.
        InvalidState: the export is not complete, its disks or its tracking period do not fit, or the replica is
            complete already.
    """
    known = media.load(folder)
    _refuse_unfit(known, folder, machine)
    key = _key(known, site_key)
    for disk in known.disks:
        with closing(SeedDisk(folder, known, disk, key)) as reader:
            reader.check_presence()
    assert known.moment is not None
    with store.lock("importing a seed"):
        if store.exists():
            state = store.state()
            if state.seeded and state.epoch == known.epoch and state.points[0].time == known.moment:
                return state.points[0]
            _refuse_other_period(state, known, folder)
        store.create(known.disks, known.epoch)
        store.begin_seed(known.moment)
        copy_base(lambda disk: SeedDisk(folder, known, disk, key), store, report, doing="import of the seed")
        return store.complete_seed(known.moment, ConsistencyKind.CRASH)


def _refuse_unfit(known: SeedManifest, folder: Path, machine: str) -> None:
    if known.machine != machine:
        raise BadInput(
            f"this is the seed of '{known.machine}', not of '{machine}'; nothing was imported",
            where=str(folder),
            remedy="name the folder of its own export",
        )
    if not known.complete:
        total = sum(disk.size for disk in known.disks)
        done = sum(known.done(disk.name) for disk in known.disks)
        raise InvalidState(
            f"the export is not complete: {done:,} of {total:,} bytes of disk are on the medium; nothing was imported",
            where=str(folder),
            remedy=f"finish it at site {known.site}: leeward seed export {machine} --to FOLDER",
        )


def _refuse_other_period(state: ReplicaState, known: SeedManifest, folder: Path) -> None:
    if state.seeded:
        raise InvalidState(
            f"'{known.machine}' has a complete replica here; nothing was imported",
            where=str(folder),
            remedy=f"repair its replication with: leeward resync {known.machine}",
        )
    if state.epoch not in (known.epoch, known.replaces):
        raise InvalidState(
            f"the medium belongs to tracking period '{known.epoch}', but the replica waits for '{state.epoch}': "
            "a later export, or enabling the protection anew, took its place; nothing was imported",
            where=str(folder),
            remedy=f"bring the newest medium, or export again: leeward seed export {known.machine} --to FOLDER",
        )
