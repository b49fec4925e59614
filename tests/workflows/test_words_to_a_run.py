"""What an operator reads of a run that is going on, that has ended, and that never was."""

from __future__ import annotations

import re

import pytest
from house import House
from lab_support import make_inventory
from rich.console import Console

from console.client import Leeward
from console.watching import run_tree
from plans.model import Plan
from vault.domain import Finding, RunType, Severity
from vault.errors import AuthenticationRefused, InvalidState, NotFound
from workflows.model import RunStatus, Steer

pytestmark = pytest.mark.workflow

LOOK = {"manual": "Look at it"}
PLAN = Plan.model_validate({"plan": "shop", "groups": [{"name": "all", "machines": ["db"], "after": [LOOK]}]})


def shown(status: RunStatus) -> list[str]:
    printer = Console(width=200)
    with printer.capture() as printed:
        printer.print(run_tree(status))
    return printed.get().splitlines()


async def test_who_decided_what_is_seen_while_and_after_it_runs(house: House) -> None:
    await house.replicating("db")
    olga = Leeward(house.client, make_inventory(), house.timings, operator="olga")
    with pytest.raises(NotFound, match="no run of plan 'shop' is known here"):
        await olga.run_status("shop")
    handle = await house.plan(PLAN, "test", run_id="t1-aa01")
    await house.row(handle, "recover all/Look at it", "waiting")
    asking = shown(await olga.run_status("shop"))
    assert any("leeward plan approve shop --step 'recover all/Look at it'" in line for line in asking)
    await olga.pause_run("shop", "the DBA is on the way")
    await olga.resume_run("shop", "she is here")
    await olga.steer("shop", Steer(action="approve", step="recover all/Look at it", by="abel", note="looks good"))
    await house.run_ends(handle)

    lines = shown(await olga.run_status("shop"))
    assert lines[0].endswith("run t1-aa01, primary-to-recovery, asked by test")
    decided = [re.sub(r"^.*Z  ", "", line).rstrip() for line in lines if re.search(r"\d\d:\d\d:\d\dZ  ", line)]
    assert decided == [
        "olga: pause: the DBA is on the way",
        "olga: resume: she is here",
        "abel: approve 'recover all/Look at it': looks good",
    ]


async def test_a_step_that_failed_says_what_may_be_told_to_it(house: House) -> None:
    await house.replicating("db")
    olga = Leeward(house.client, make_inventory(), house.timings)
    house.world.script("start_test", "db", AuthenticationRefused("login refused"))
    handle = await house.plan(PLAN, "test")
    await house.row(handle, "recover all/db", "failed")

    async def asks() -> bool:
        return any(
            "leeward plan retry|skip shop --step 'recover all/db'" in line
            for line in shown(await olga.run_status("shop"))
        )

    await house.until(asks, "it says so")
    await olga.cancel_run("shop", "enough")
    await house.run_ends(handle)
    assert not await asks()


async def test_a_run_that_has_ended_takes_no_word(house: House) -> None:
    await house.replicating("db")
    olga = Leeward(house.client, make_inventory(), house.timings, operator="olga")
    await house.run_ends(await house.plan(PLAN, "cleanup"))
    words = (olga.pause_run("shop", "x"), olga.resume_run("shop", "x"), olga.cancel_run("shop", "x"))
    for word in words:
        with pytest.raises(InvalidState, match="no run of plan 'shop' is going on — see the last one"):
            await word


async def test_nothing_is_ready_beside_a_run_of_the_plan(house: House) -> None:
    """`plan check --ready --run commit` passed while a failover of the plan waited for its operator."""
    await house.replicating("db")
    olga = Leeward(house.client, make_inventory(), house.timings)
    assert await olga.going_on("shop") is None
    handle = await house.plan(PLAN, "test", run_id="t1-aa01")
    await house.row(handle, "recover all/Look at it", "waiting")
    assert await olga.going_on("shop") == "test"

    async def found(run_type: RunType) -> list[Finding]:
        return [one for one in await olga.readiness(PLAN, run_type) if "going on" in one.what]

    assert await found("reverse") == [
        Finding(
            severity=Severity.FAIL,
            subject="shop",
            what="a run of it (test) is going on; a plan runs once at a time",
            remedy="follow it to its end: leeward plan watch shop",
        )
    ]
    (gives_way,) = await found("planned")
    assert (gives_way.severity, gives_way.what) == (Severity.WARN, "a run of it (test) is going on; a failover ends it")
    await olga.cancel_run("shop", "seen")
    await house.run_ends(handle)
    assert await olga.going_on("shop") is None
    assert await found("reverse") == []
