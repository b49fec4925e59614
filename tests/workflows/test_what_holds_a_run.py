"""A run that waits for a site says so, to whoever watches it."""

from __future__ import annotations

import pytest
from house import House
from lab_support import make_inventory

from console.client import Leeward
from console.holding import with_what_holds
from console.output import Output
from console.watching import show_until_finished
from plans.model import Plan
from vault.errors import Unreachable
from workflows.model import RunStatus

pytestmark = pytest.mark.workflow

PLAN = Plan.model_validate({"plan": "shop", "groups": [{"name": "all", "machines": ["db"]}]})
GONE = Unreachable("no answer", where="site primary", remedy="check the link")


async def test_the_step_tells_what_its_machine_is_tried_again_for(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    await house.replicating("db")
    olga = Leeward(house.client, make_inventory(), house.timings)
    house.world.always("shut_down", "db", GONE)
    handle = await house.plan(PLAN, "planned")
    await house.row(handle, "shut down all/db", "running")
    seen: list[RunStatus] = []

    async def told() -> bool:
        seen.append(await with_what_holds(olga, await olga.run_status("shop")))
        return any(row.detail for stage in seen[-1].stages for row in stage.steps if row.state == "running")

    await house.until(told, "the step says what it waits for")
    [row] = [row for stage in seen[-1].stages for row in stage.steps if row.state == "running"]
    assert row.detail.startswith("site primary: no answer — check the link (try 2")

    house.world.always("shut_down", "db", None)
    async with house.time_flies():
        await house.run_ends(handle)

    async def story() -> None:
        for status in (seen[0], seen[-1], seen[-1], await with_what_holds(olga, await olga.run_status("shop"))):
            yield status

    await show_until_finished(story(), Output())
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("shut down all / db")]
    assert [line.split(" — ")[0] for line in lines][-2:] == [
        "shut down all / db: running: site primary: no answer",
        "shut down all / db: done: off, last changes sent",
    ]
    assert len(lines) == len(set(lines))
