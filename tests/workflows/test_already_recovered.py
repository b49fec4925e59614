"""A machine in several plans: a run that meets it recovered by another one says so and goes on (requirements §D)."""

from __future__ import annotations

from typing import Any

import pytest
from house import House, relationship
from temporalio.client import WorkflowFailureError

from plans.model import Plan
from vault.domain import RunType
from vault.lifecycle import JobKind, Phase
from workflows.already import already_done
from workflows.model import Health, MachineDescribed, RunStatus
from workflows.readiness import MAIN_JOB

pytestmark = pytest.mark.workflow


def plan(name: str, *machines: str, **parts: Any) -> Plan:
    groups = [{"name": f"with-{machine}", "machines": [machine]} for machine in machines]
    return Plan.model_validate({"plan": name, "groups": groups, **parts})


def details(status: RunStatus) -> dict[str, tuple[str, str]]:
    return {row.id: (row.state, row.detail) for stage in status.stages for row in stage.steps}


async def completed(house: House, plan: Plan, run_type: str) -> RunStatus:
    status = await house.run_ends(await house.plan(plan, run_type))
    assert status.state == "completed", status.message
    return status


async def test_a_run_goes_on_past_what_another_one_recovered(house: House, tmp_path: Any) -> None:
    """Shop and office share a database; office was recovered first. All the way there and back."""
    for machine in ("db", "app", "web"):
        await house.replicating(machine)
    shop, office = plan("shop", "db", "web"), plan("office", "db", "app")
    await completed(house, office, "planned")
    log = tmp_path / "log"
    told = {"script": "tell", "run": f"echo {{{{ machines.db.address }}}} > {log}"}
    on_db = {"script": "on db", "on": "db", "run": "x"}
    status = await completed(house, plan("shop", "db", "web", after=[told, on_db]), "planned")
    rows = details(status)
    words = "already recovered: at recovery by plan office (test)"
    assert rows["readiness/check"] == ("done", f"1 machine and its sites are ready; db is {words}")
    assert rows["shut down with-db/db"] == rows["recover with-db/db"] == ("done", words)
    assert rows["recover with-web/web"][0] == "done"
    assert log.read_text() == "127.0.0.1:9\n"
    assert [call.site for call in house.world.of("run_in_guest", "db")] == ["recovery"]
    assert len(house.world.of("fail_over", "db")) == 1

    await completed(house, office, "commit")
    rows = details(await completed(house, shop, "commit"))
    assert rows["commit with-db/db"] == ("done", "already committed: at recovery by plan office (test)")
    too_early = await house.run_ends(await house.plan(office, "failback"))
    assert too_early.state == "refused"
    assert "nothing replicates them back yet — commit and reverse first: leeward plan commit" in too_early.message
    await completed(house, office, "reverse")
    rows = details(await completed(house, shop, "reverse"))
    assert rows["reverse replication of with-db/db"][1].startswith("already protected the other way: at recovery")

    await completed(house, office, "failback")
    rows = details(await completed(house, shop, "failback"))
    assert rows["recover with-db/db"][1] == "already failed back: at primary by plan office (test)"
    assert (await house.state("web")).active_site == "primary"


async def test_what_follows_by_itself_passes_over_what_another_run_did_to_the_end(house: House) -> None:
    for machine in ("db", "web"):
        await house.replicating(machine)
    await completed(house, plan("office", "db", commit="automatic"), "planned")
    rows = details(await completed(house, plan("shop", "db", "web", commit="automatic"), "planned"))
    assert rows["commit with-db/db"] == ("done", "already failed-over: by another run")
    assert (await house.state("web")).phase is Phase.FAILED_OVER


async def test_another_run_may_be_quicker_after_the_beginning(house: House) -> None:
    for machine in ("db", "web"):
        await house.replicating(machine)
    waits = plan("shop", "db", "web", before=[{"manual": "go"}])
    handle = await house.plan(waits, "planned")
    await house.row(handle, "begin/go", "waiting")
    await completed(house, plan("office", "db"), "planned")
    await house.steer(handle, "approve", "begin/go")
    status = await house.run_ends(handle)
    rows = details(status)
    assert status.state == "completed"
    assert rows["shut down with-db/db"] == rows["recover with-db/db"]
    assert rows["recover with-db/db"] == ("done", "already recovered: by another run, meanwhile")


async def test_a_run_that_finds_nothing_to_do_is_refused(house: House) -> None:
    await house.replicating("db")
    await completed(house, plan("office", "db"), "planned")
    handle = await house.plan(plan("shop", "db"), "planned")
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    assert "commit the failover first" in (await house.status(handle)).message


def described(name: str, phase: Phase, is_reversed: bool = False) -> MachineDescribed:
    forward = relationship(name)
    return MachineDescribed(
        machine=name,
        phase=phase,
        reversed=is_reversed,
        relationship=forward.reversed("production", "isolated") if is_reversed else forward,
        health=Health(),
    )


@pytest.mark.parametrize(
    ("run_type", "here", "other", "is_done"),
    [
        ("planned", (Phase.PROTECTED, False), (Phase.COMMIT_PENDING, False), True),
        ("planned", (Phase.PROTECTED, False), (Phase.FAILED_OVER, False), True),
        ("planned", (Phase.PROTECTED, False), (Phase.PROTECTED, True), True),
        ("planned", (Phase.PROTECTED, False), (Phase.COMMIT_PENDING, True), False),
        ("planned", (Phase.PROTECTED, False), (Phase.FAILING_OVER, False), False),
        ("planned", (Phase.COMMIT_PENDING, False), (Phase.COMMIT_PENDING, False), False),
        ("planned", (Phase.PROTECTED, True), (Phase.PROTECTED, True), False),
        ("unplanned", (Phase.PROTECTED, False), (Phase.COMMIT_PENDING, False), True),
        ("unplanned", (Phase.PROTECTED, False), (Phase.PROTECTED, True), False),
        ("failback", (Phase.PROTECTED, True), (Phase.PROTECTED, False), True),
        ("failback", (Phase.PROTECTED, True), (Phase.COMMIT_PENDING, True), True),
        ("failback", (Phase.PROTECTED, True), (Phase.COMMIT_PENDING, False), False),
        ("commit", (Phase.COMMIT_PENDING, False), (Phase.FAILED_OVER, False), True),
        ("commit", (Phase.COMMIT_PENDING, False), (Phase.PROTECTED, True), True),
        ("commit", (Phase.COMMIT_PENDING, False), (Phase.PROTECTED, False), False),
        ("reverse", (Phase.FAILED_OVER, False), (Phase.PROTECTED, True), True),
        ("reverse", (Phase.FAILED_OVER, False), (Phase.COMMIT_PENDING, False), False),
        ("test", (Phase.PROTECTED, False), (Phase.COMMIT_PENDING, False), False),
    ],
)
def test_what_is_done_already(
    run_type: RunType, here: tuple[Phase, bool], other: tuple[Phase, bool], is_done: bool
) -> None:
    machines = {"here": described("here", *here), "other": described("other", *other)}
    found = already_done(machines, run_type, MAIN_JOB[run_type])
    assert found.keys() == ({"other"} if is_done else set())
    assert JobKind(MAIN_JOB[run_type])
