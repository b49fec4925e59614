"""What ``leeward audit`` finds in Temporal's histories."""

from __future__ import annotations

import asyncio

import pytest
from house import PATIENCE_S, open_house
from lab_support import make_inventory

from console.audit import audit
from console.client import Leeward
from vault.domain import Finding, Severity
from vault.lifecycle import JobKind, Phase

pytestmark = pytest.mark.workflow


async def test_jobs_of_a_machine_that_is_not_protected_any_more_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_house(monkeypatch, real_server=True) as house:
        leeward = Leeward(house.client, make_inventory(), house.timings)
        full = Finding(severity=Severity.FAIL, subject="recovery", what="no space left", remedy="free 20 GiB")
        house.world.findings["target", "db"] = [full]
        machine = await house.machine("db")
        await house.ask("db", JobKind.ENABLE, requested_by="olga")
        await asyncio.wait_for(machine.result(), PATIENCE_S)

        machine = await house.machine("db", Phase.PROTECTED)
        await house.ask("db", JobKind.DISABLE, requested_by="ada")
        await asyncio.wait_for(machine.result(), PATIENCE_S)
        assert await leeward.find_machine("db") is None

        async def both() -> bool:
            lines, _ = await audit(leeward, plan=None, since=None)
            return len(lines) == 2

        await house.until(both, "visibility has both jobs")
        lines, unreadable = await audit(leeward, plan=None, since=None)
        assert [(line.who, line.what, line.on, line.outcome) for line in lines] == [
            ("olga", "EnableProtection", "db", "failed"),
            ("ada", "DisableProtection", "db", "done"),
        ]
        assert unreadable == []
        assert await audit(leeward, plan=None, since=lines[1].at) == ([lines[1]], [])
