"""What a demo measured."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from vault.domain import Value
from workflows.model import RunStatus


class MachineResult(Value):
    """One machine in one phase. Times are seconds; None where the phase has no such thing."""

    rto_s: float | None = None
    """From the beginning of the outage (or of the test) until the machine answered."""
    transactions_acknowledged: int | None = None
    """The last one acknowledged to clients when the recovered copy booted; for a test copy, before its point."""
    transactions_held: int | None = None
    """The last one that the recovered machine found on its disks."""
    transactions_lost: int | None = None
    transactions_damaged: int | None = None
    bytes_sent: int = 0
    recovery_point: datetime | None = None
    trouble: str = ""
    """Empty: everything that must be there is there."""


class PhaseResult(Value):
    phase: str
    began: datetime
    duration_s: float
    machines: dict[str, MachineResult]
    run: RunStatus | None = None
    sentence: str = ""
    """What else was seen, in one sentence; empty: the numbers say it all."""

    @property
    def lost(self) -> int:
        return sum(result.transactions_lost or 0 for result in self.machines.values())

    @property
    def bytes_sent(self) -> int:
        return sum(result.bytes_sent for result in self.machines.values())

    @property
    def is_measured(self) -> bool:
        """Whether it moved bytes, brought machines back or looked into copies; commit and clean-up do not."""
        return any(
            result.rto_s is not None or result.bytes_sent or result.recovery_point is not None or result.trouble
            for result in self.machines.values()
        )

    @property
    def slowest_rto_s(self) -> float | None:
        times = [result.rto_s for result in self.machines.values() if result.rto_s is not None]
        return max(times, default=None)

    @property
    def troubles(self) -> list[str]:
        return [f"{name}: {result.trouble}" for name, result in self.machines.items() if result.trouble]


class DemoResult(Value):
    scenario: str
    began: datetime
    duration_s: float
    phases: list[PhaseResult]
    verdict: str
    """What is true when there are no problems."""
    overlaps: int
    """Times that two copies of one machine ran on production networks: must be 0."""

    @property
    def problems(self) -> list[str]:
        found = [f"{phase.phase}: {trouble}" for phase in self.phases for trouble in phase.troubles]
        found += [
            f"{phase.phase}: the run {phase.run.state}: {phase.run.message}"
            for phase in self.phases
            if phase.run is not None and phase.run.state != "completed"
        ]
        if self.overlaps:
            found.append(f"two copies of a machine ran on production networks {self.overlaps} times")
        return found


class Window(NamedTuple):
    """What a copy made from one moment must hold: at least ``least``, at most ``most``."""

    least: int
    most: int
