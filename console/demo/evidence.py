"""Comparing what a recovered machine holds with what the outside world knows: the lab's client ledger."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from adapters.lab.ledger import ACKNOWLEDGED, read_ledger
from console.demo.model import MachineResult, Window
from workflows.model import JobResult


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
