"""Comparing what a recovered machine holds with what the outside world knows: the lab's client ledger."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path

from adapters.hyperv.virtual_disks.opening import open_virtual_disk
from adapters.lab.database import scan_images
from adapters.lab.ledger import ACKNOWLEDGED, read_ledger
from console.demo.model import MachineResult, Window
from vault.domain import RecoveryPoint
from workflows.model import JobResult

PIECE = 1 << 20


def window_at(ledger: Path, moment: datetime) -> Window:
    """Which transactions a copy of that moment must hold.

    Every transaction acknowledged before the moment has to be in it; none begun after it may be. One transaction can
    be in flight (begun, not acknowledged), and one that was never acknowledged is not in the ledger: hence the ``+ 1``.
    """
    at_ns = int(moment.timestamp() * 1e9)
    least = begun = 0
    for entry in read_ledger(ledger):
        if entry.kind == ACKNOWLEDGED:
            least = entry.number if entry.time_ns < at_ns else least
            begun = entry.number if entry.other < at_ns else begun
        elif entry.time_ns < at_ns:
            least = begun = entry.number
    return Window(least, max(least, begun) + 1)


def judge(result: JobResult, ledger: Path, *, nothing_may_be_lost: bool, is_test: bool) -> MachineResult:
    """Measure one recovery; ``trouble`` says what is missing, too much or damaged.

    A test copy is measured against what was acknowledged before its recovery point: production runs on meanwhile and
    loses nothing.
    """
    rto = (
        (result.answered_at - result.outage_began).total_seconds()
        if result.answered_at and result.outage_began
        else None
    )
    point = result.point
    found = result.answering.transactions if result.answering else None
    if point is None or found is None:
        return MachineResult(rto_s=rto, trouble=result.trouble or "the recovered machine said nothing about its data")
    trouble = ""
    window = window_at(ledger, point.time)
    if found.damaged:
        trouble = f"{found.damaged} damaged transactions"
    elif nothing_may_be_lost and found.lost:
        trouble = f"{found.lost} acknowledged transactions lost"
    elif not window.least <= found.held_at_boot <= window.most:
        trouble = f"holds {found.held_at_boot}, but its recovery point has {window.least} to {window.most}"
    acknowledged = window.least if is_test else found.acknowledged_at_boot
    return MachineResult(
        rto_s=rto,
        transactions_acknowledged=acknowledged,
        transactions_held=found.held_at_boot,
        transactions_lost=max(0, acknowledged - found.held_at_boot),
        transactions_damaged=found.damaged,
        bytes_sent=result.bytes_sent,
        recovery_point=point.time,
        trouble=trouble,
    )


def judge_images(images: list[Path], point: RecoveryPoint, ledger: Path) -> MachineResult:
    """Measure what the disks of a recovery point hold without booting them; ``images`` in the machine's disk order.

    Everything acknowledged before the point's moment has to be in it. A host that makes a checkpoint does not stop
    writes while it does, so it may hold a few later ones too.
    """
    found, acknowledged = scan_images(images), window_at(ledger, point.time).least
    lost = max(0, acknowledged - found.last)
    trouble = f"{found.damaged} damaged transactions" if found.damaged else ""
    if lost:
        trouble = f"{lost} transactions that were acknowledged before its moment are not in it"
    return MachineResult(
        transactions_acknowledged=acknowledged,
        transactions_held=found.last,
        transactions_lost=lost,
        transactions_damaged=found.damaged,
        recovery_point=point.time,
        trouble=trouble,
    )


def differences_from_disk(disk: Path, image: Path, blob: Path) -> list[str]:
    """What speaks against ``image``, a recovery point that was read back, and ``blob``, a page blob that was downloaded
    whole, holding what the raw ``disk`` holds; and against the blob being a fixed VHD."""
    from adapters.azure.vhd import FOOTER_SIZE, is_footer

    size, found = disk.stat().st_size, []
    with image.open("rb") as stream:
        at = first_difference(disk, image.stat().st_size, stream.read)
    if at is not None:
        found.append(f"the recovery point's {image.name} differs from the disk at byte {at}")
    with blob.open("rb") as stream:
        stream.seek(-FOOTER_SIZE, os.SEEK_END)
        if not is_footer(stream.read(), size):
            return [*found, f"{blob.name} does not end with the footer of a fixed VHD of {size} bytes"]
    with closing(open_virtual_disk(str(blob), Path)) as virtual:
        offsets = itertools.count(0, PIECE)
        at = first_difference(disk, virtual.size, lambda length: virtual.read(next(offsets), length))
    return found if at is None else [*found, f"{blob.name}, opened as a VHD, differs from the disk at byte {at}"]


def first_difference(disk: Path, size: int, read: Callable[[int], bytes]) -> int | None:
    """Where a raw disk and a copy of ``size`` bytes, read piece by piece, differ first; None: nowhere.

    What the copy has beyond the disk must be zeros."""
    with disk.open("rb") as stream:
        for offset in range(0, max(size, disk.stat().st_size), PIECE):
            ours, theirs = stream.read(PIECE), read(min(PIECE, max(0, size - offset)))
            ours = ours.ljust(len(theirs), b"\0")
            if ours != theirs:
                same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs, strict=False))
                return offset + sum(1 for _ in same)
    return None
