"""Protecting a machine, and the replication that follows (requirements §C.1-4)."""

from __future__ import annotations

import pytest
from house import House

from vault.lifecycle import JobKind, Phase

pytestmark = pytest.mark.workflow


async def test_one_request_leads_to_a_protected_machine(house: House) -> None:
    await house.machine("db")
    await house.ask("db", JobKind.ENABLE, id="protect-1")
    state = await house.phase("db", Phase.PROTECTED)
    await house.until(lambda: house.world.of("replicate_once"), "deltas are replicated")
    kinds = [(job.kind.value, job.id, job.state) for job in state.jobs]
    assert kinds == [
        ("EnableProtection", "job/db/1-EnableProtection", "done"),
        ("InitialReplication", "job/db/2-InitialReplication", "done"),
        ("FinalizeProtection", "job/db/3-FinalizeProtection", "done"),
    ]
    assert house.world.names()[:5] == ["check_source", "check_target", "enable", "copy_initial", "finalize"]
