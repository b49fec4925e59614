"""What holds up the machines of a plan run: their jobs know, the run itself hears of it only when they have ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from activities.contracts import REPLICATE_DELTAS, WATCH_OLD_COPY
from console.client import Leeward
from console.machine_status import MachineStatus
from vault.errors import Unreachable
from workflows.model import RunStatus, StepRow

ASKED_AT_ONCE = 8
"""Of a stage with a thousand machines the first few tell enough."""
BESIDE_THE_RUN = frozenset({REPLICATE_DELTAS.name, WATCH_OLD_COPY.name})


async def with_what_holds(leeward: Leeward, status: RunStatus) -> RunStatus:
    """The status; steps of machines that do not get on say why."""
    running = [
        row
        for stage in status.stages
        for row in stage.steps
        if row.machine is not None and row.kind == "machine" and row.state == "running" and not row.detail
    ][:ASKED_AT_ONCE]
    found = await asyncio.gather(*(leeward.machine_status(row.machine or "") for row in running))
    reasons = {row.id: _reason(machine) for row, machine in zip(running, found, strict=True)}

    def told(row: StepRow) -> StepRow:
        reason = reasons.get(row.id)
        return row.model_copy(update={"detail": reason}) if reason else row

    stages = [stage.model_copy(update={"steps": [told(row) for row in stage.steps]}) for stage in status.stages]
    return status.model_copy(update={"stages": stages}) if any(reasons.values()) else status


async def all_with_what_holds(leeward: Leeward, statuses: AsyncIterator[RunStatus]) -> AsyncIterator[RunStatus]:
    async for status in statuses:
        try:
            shown = await with_what_holds(leeward, status)
        except Unreachable:  # whoever watches hears of it with the next status
            shown = status
        yield shown


def _reason(machine: MachineStatus | None) -> str:
    activities = machine.activities if machine is not None else []
    return next((one.trouble for one in activities if one.trouble and one.name not in BESIDE_THE_RUN), "")
