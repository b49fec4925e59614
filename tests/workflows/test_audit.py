"""What ``leeward audit`` finds in Temporal's histories."""

from __future__ import annotations

import asyncio

import pytest
from house import PATIENCE_S, open_house
from lab_support import make_inventory

from console.audit import audit
from console.client import Leeward
from plans.model import Plan
from vault.domain import Finding, Severity
from vault.inventory import Inventory
from vault.lifecycle import JobKind, Phase

pytestmark = pytest.mark.workflow


async def test_who_resumed_a_machine_or_brought_it_settings_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_house(monkeypatch, real_server=True) as house:
        text = make_inventory().model_dump_json().replace("secondary", "recovery")  # the house's name for that site
        inventory = Inventory.model_validate_json(text)
        olga = Leeward(house.client, inventory, house.timings, operator="olga")
        machine = await house.machine("db", Phase.PROTECTED)
        await machine.execute_update("resume_replication")  # as an older command line did
        await olga.configure("db")
        await olga.configure("db")
        slower = inventory.policies["often"].model_copy(update={"resync": "manual"})
        inventory = inventory.model_copy(update={"policies": {"often": slower}})
        await Leeward(house.client, inventory, house.timings, operator="ada").configure("db")
        await olga.resume_replication("db")

        async def all_of_them() -> bool:
            return len((await audit(olga, plan=None, since=None))[0]) >= 4

        await house.until(all_of_them, "visibility has the machine")
        lines, unreadable = await audit(olga, plan=None, since=None)
        assert [(line.who, line.what, line.on, line.note) for line in lines[1:]] == [
            ("olga", "settings", "db", "changed: forward, backward, policy"),
            ("ada", "settings", "db", "changed: policy"),
            ("olga", "resume", "db", ""),
        ]
        assert (lines[0].what, "@" in lines[0].who, unreadable) == ("resume", True, [])
        assert await audit(olga, plan=None, since=lines[2].at) == (lines[2:], [])
        assert await audit(olga, plan="shop", since=None) == ([], [])


async def test_what_was_decided_in_a_run_that_had_begun_before_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = {"plan": "shop", "groups": [{"name": "all", "machines": ["db"], "before": [{"manual": "go"}]}]}
    async with open_house(monkeypatch, real_server=True) as house:
        leeward = Leeward(house.client, make_inventory(), house.timings)
        await house.replicating("db")
        run = await house.plan(Plan.model_validate(plan), "test", requested_by="olga")
        row = await house.row(run, "recover all/go", "waiting")
        begun = (await house.status(run)).started
        decision = await house.steer(run, "approve", row.id)

        async def is_there() -> bool:
            return len((await audit(leeward, plan=None, since=None))[0]) == 2

        await house.until(is_there, "visibility has the run")
        assert begun < decision.at
        lines, unreadable = await audit(leeward, plan=None, since=decision.at)
        assert [(line.who, line.what, line.note) for line in lines] == [("ada", "approve", "seen")]
        assert unreadable == []
        await house.run_ends(run)


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
