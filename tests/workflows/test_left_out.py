"""Machines that an operator leaves out of one run: nobody asks them for anything, and the run follows the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from house import House
from temporalio.client import WorkflowFailureError

from plans.model import Plan
from vault.domain import Finding, Severity
from vault.lifecycle import Phase
from workflows.model import RunStatus

pytestmark = pytest.mark.workflow

WHY = {"without": ["db"], "note": "replica damaged, ticket 4711"}
WORDS = ("skipped", "left out by test: replica damaged, ticket 4711")
DAMAGED = Finding(severity=Severity.FAIL, subject="recovery point of 'db'", what="is damaged", remedy="resync")


def plan(**parts: Any) -> Plan:
    """The steps around the database are about it; those of its group are not."""
    data = {
        "name": "data",
        "machines": [{"machine": "db", "before": [{"script": "ask db", "run": "exit 1"}]}, "cache"],
        "before": [{"script": "note it", "run": "true"}],
        "after": [{"check": "db answers", "tcp": "db"}, {"script": "on db", "on": "db", "run": "x"}],
    }
    front = {"name": "front", "machines": ["web"]}
    return Plan.model_validate({"plan": "shop", "on_failure": "stop", "groups": [data, front], **parts})


def details(status: RunStatus) -> dict[str, tuple[str, str]]:
    return {row.id: (row.state, row.detail) for stage in status.stages for row in stage.steps}


async def run(house: House, plan: Plan, run_type: str, **wanted: Any) -> RunStatus:
    return await house.run_ends(await house.plan(plan, run_type, **wanted))


async def completed(house: House, plan: Plan, run_type: str, **wanted: Any) -> RunStatus:
    status = await run(house, plan, run_type, **wanted)
    assert status.state == "completed", status.message
    return status


@pytest.mark.parametrize("run_type", ["planned", "unplanned"])
async def test_one_damaged_replica_does_not_hold_up_the_others(house: House, tmp_path: Path, run_type: str) -> None:
    for machine in ("db", "cache", "web"):
        await house.replicating(machine)
    house.world.findings["target", "db"] = [DAMAGED]
    shop = plan(after=[{"script": "keep what is told", "run": f'cp "$LEEWARD_CONTEXT" {tmp_path}/told'}])
    refused = await run(house, shop, run_type)
    assert (refused.state, refused.message) == ("refused", "recovery point of 'db': is damaged — resync")
    assert refused.way_out == "to recover the others now, give the command again with: --without db --note WHY"

    before = await house.state("db")
    status = await completed(house, shop, run_type, **WHY)
    assert status.message == "left out: db; commit pending — leeward plan commit shop"
    rows = details(status)
    assert rows["readiness/check"] == ("done", "2 machines and their sites are ready; left out: db")
    assert rows["recover data/db"] == WORDS
    if run_type == "planned":
        assert rows["shut down data/db"] == WORDS
    about_db = ("skipped", f"db is not in this run: {WORDS[1]}")
    assert (rows["recover data/db answers"], rows["recover data/on db"]) == (about_db, about_db)
    assert rows["recover data/note it"][0] == "done"
    assert "recover data/ask db" not in rows
    assert [(one.action, one.machine, one.by, one.note) for one in status.decisions] == [
        ("leave out", "db", "test", "replica damaged, ticket 4711")
    ]
    told = json.loads((tmp_path / "told").read_text())
    assert (sorted(told["machines"]), told["left_out"]) == (["cache", "web"], ["db"])

    after = await house.state("db")
    assert (after.phase, after.jobs) == (Phase.PROTECTED, before.jobs)
    assert house.world.runs_at("db") == {"primary"}
    assert house.world.runs_at("web") == {"recovery"}


async def test_commit_and_reverse_replication_follow_what_was_recovered(house: House) -> None:
    for machine in ("db", "cache", "web"):
        await house.replicating(machine)
    steps = [{"script": "tell db", "on": "db", "run": "x", "runs": ["commit"]}]
    shop = plan(after=steps)
    await completed(house, shop, "unplanned", **WHY)
    stayed = ("skipped", "not failed over, nothing to commit: it is protected at primary")
    status = await completed(house, shop, "commit")
    assert status.message == "not recovered: db; committed — leeward plan reverse shop"
    rows = details(status)
    assert rows["readiness/check"] == ("done", "2 machines and their sites are ready; not recovered: db")
    assert rows["commit data/db"] == stayed
    assert rows["end/tell db"] == ("skipped", f"db is not in this run: {stayed[1]}")
    assert status.decisions == []
    status = await completed(house, shop, "reverse")
    assert details(status)["reverse replication of data/db"][1].startswith("not failed over, nothing to reverse")
    assert [(await house.state(name)).phase for name in ("db", "cache", "web")] == [Phase.PROTECTED] * 3
    assert [(await house.state(name)).reversed for name in ("db", "cache", "web")] == [False, True, True]
    assert house.world.of("run_in_guest") == []

    status = await completed(house, plan(groups=[{"name": "all", "machines": ["db", "cache", "web"]}]), "failback")
    assert details(status)["recover all/db"][1].startswith("already failed back: at primary")


async def test_commit_and_reverse_replication_by_themselves_do_not_ask_it_either(house: House) -> None:
    for machine in ("db", "cache", "web"):
        await house.replicating(machine)
    itself = {"commit": "automatic", "reverse_replication": "automatic"}
    rows = details(await completed(house, plan(**itself), "planned", **WHY))
    assert rows["commit data/db"] == rows["reverse replication of data/db"] == WORDS
    assert (await house.state("web")).reversed


async def test_a_machine_that_is_not_even_protected_is_left_out_of_a_test_and_its_clean_up(house: House) -> None:
    for machine in ("cache", "web"):
        await house.replicating(machine)
    assert (await run(house, plan(), "test")).way_out.endswith("--without db --note WHY")
    assert details(await completed(house, plan(), "test", **WHY))["recover data/db"] == WORDS
    rows = details(await completed(house, plan(), "cleanup"))
    assert rows["clean up data/db"] == ("skipped", "it has no test copy, nothing to clean up")
    assert [call.machine for call in house.world.of("end_test")] == ["web", "cache"]


async def test_a_commit_waits_for_no_machine_that_is_being_failed_over(house: House) -> None:
    """It is not one that was never recovered."""
    for machine in ("db", "web"):
        await house.replicating(machine)
    first = Plan.model_validate({"plan": "front", "groups": [{"name": "front", "machines": ["web"]}]})
    await completed(house, first, "planned")
    data = {"name": "data", "machines": ["db"], "before": [{"manual": "go"}]}
    held = await house.plan(Plan.model_validate({"plan": "data", "groups": [data]}), "planned")
    await house.row(held, "recover data/go", "waiting")
    both = Plan.model_validate({"plan": "both", "groups": [{"name": "all", "machines": ["db", "web"]}]})
    status = await run(house, both, "commit")
    assert (status.state, "machine 'db' is failing-over" in status.message) == ("refused", True)
    await house.cancel(held)
    await house.run_ends(held)


async def test_the_run_itself_refuses_what_cannot_be_left_out(house: House) -> None:
    """Also of somebody who goes around the command line."""
    await house.replicating("web")
    for wanted, sentence in (
        ({"without": ["web"], "note": ""}, "a note is required"),
        ({"without": ["dbb"], "note": "why"}, "'dbb' is no machine of plan shop"),
    ):
        handle = await house.plan(plan(), "unplanned", **wanted)
        with pytest.raises(WorkflowFailureError):
            await handle.result()
        status = await house.status(handle)
        assert (status.state, sentence in status.message, status.decisions) == ("refused", True, [])
