"""What a plan can say beyond groups and machines, in real runs (requirements §D)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from house import House
from receiver_support import Answer, Receiver, receiving
from temporalio.client import WorkflowFailureError

from plans.model import Plan
from vault.errors import AuthenticationRefused

pytestmark = pytest.mark.workflow


def plan(*groups: dict[str, Any], **parts: Any) -> Plan:
    return Plan.model_validate({"plan": "shop", "groups": list(groups), **parts})


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Refuses the first request, takes the others."""
    with receiving(Answer(200, b"pool is switched")) as server:
        server.answers = [Answer(409, b"pool is switched")]
        yield server


async def test_calls_and_commands_are_steps_like_others(house: House, receiver: Receiver) -> None:
    """A call that was refused waits for the operator; his retry is a new request, with a key of its own."""
    await house.replicating("db")
    after = [
        {"call": "switch", "url": receiver.url("/pool")},
        {"check": "here", "command": {"run": "echo 'lag 3 s'", "matches": "lag [0-9] s"}},
        {"check": "there", "command": {"on": "db", "run": "app-status", "matches": "^done"}},
    ]
    handle = await house.plan(plan({"name": "data", "machines": ["db"], "after": after}), "planned")
    failed = await house.row(handle, "recover data/switch", "failed")
    assert "answers 409, expected 2xx: pool is switched (try 1)" in failed.detail
    await house.steer(handle, "retry", failed.id)
    status = await house.run_ends(handle)
    rows = {row.name: row for stage in status.stages for row in stage.steps}
    assert (status.state, rows["switch"].kind, rows["switch"].detail) == (
        "completed",
        "call",
        "answered 200: pool is switched",
    )
    assert len({one.headers["Idempotency-Key"] for one in receiver.got}) == 2
    assert rows["here"].detail.startswith("the command answered 'lag 3 s'")
    assert rows["there"].output == "done in guest\n"
    assert [call.site for call in house.world.of("run_in_guest", "db")] == ["recovery"]


async def test_steps_of_one_machine_hold_up_nothing_else(house: House, tmp_path: Any) -> None:
    """Its step before waits for a person while the others start; the steps after a skipped machine are skipped."""
    for machine in ("db", "app", "web"):
        await house.replicating(machine)
    log = tmp_path / "log"
    db = {
        "machine": "db",
        "before": [{"manual": "look at db"}],
        "after": [{"script": "after db", "run": f"echo {{{{ machines.db.address }}}} >> {log}"}],
    }
    app = {"machine": "app", "priority": 5, "after": [{"script": "after app", "on": "app", "run": "x"}]}
    handle = await house.plan(plan({"name": "all", "machines": [app, db, "web"]}), "unplanned", source_unreachable=True)
    await house.row(handle, "recover all/look at db", "waiting")
    await house.row(handle, "recover all/web", "done")
    assert not house.world.of("fail_over", "db") and not house.world.of("fail_over", "app")
    house.world.script("fail_over", "app", AuthenticationRefused("login refused"))
    await house.steer(handle, "approve", "recover all/look at db")
    await house.row(handle, "recover all/app", "failed")
    await house.steer(handle, "skip", "recover all/app")
    status = await house.run_ends(handle)
    rows = {row.name: row for stage in status.stages for row in stage.steps}
    assert status.state == "completed"
    assert log.read_text() == "127.0.0.1:9\n"
    assert [row.name for row in status.stages[1].steps] == ["app", "after app", "look at db", "db", "after db", "web"]
    assert (rows["after app"].state, rows["after app"].detail) == ("skipped", "'app' is skipped")
    assert not house.world.of("run_in_guest")


async def test_a_run_can_go_on_when_nobody_approves_in_time(house: House) -> None:
    await house.replicating("db")
    manual = {"manual": "look", "timeout": "100ms", "on_timeout": "continue"}
    handle = await house.plan(plan({"name": "all", "machines": ["db"], "before": [manual]}), "test")
    status = await house.run_ends(handle)
    row = next(row for row in status.stages[1].steps if row.name == "look")
    assert (status.state, row.state) == ("completed", "skipped")
    assert row.detail == "nobody approved 'look' within 0.1 s; the plan goes on"


async def test_a_run_hands_the_target_settings_to_the_fabric(house: House) -> None:
    """Forth they hold, with their own variant for tests; on the way back the machine is what it was."""
    await house.replicating("db")
    target = {"network": "dmz", "test": {"network": "quarantine"}}
    shaped = plan({"name": "data", "machines": [{"machine": "db", "target": target}]})
    networks = []
    for run_type in ("test", "cleanup", "planned", "commit", "reverse", "failback"):
        status = await house.run_ends(await house.plan(shaped, run_type))
        assert status.state == "completed", status.message
        rows = [row for stage in status.stages for row in stage.steps if row.result and row.result.recovered]
        networks += [(run_type, row.result.recovered.network) for row in rows if row.result and row.result.recovered]
    assert networks == [("test", "quarantine"), ("planned", "dmz"), ("failback", "production")]


async def test_what_the_fabric_cannot_set_is_refused_before_anything_is_changed(house: House) -> None:
    await house.replicating("db")
    shaped = plan({"name": "data", "machines": [{"machine": "db", "target": {"cpus": 4, "address": "10.0.0.5"}}]})
    with pytest.raises(WorkflowFailureError):
        await (await house.plan(shaped, "planned")).result()
    status = await house.status(house.roots[-1])
    assert status.state == "refused"
    assert "db: address, cpus of recovered machines cannot be set at recovery" in status.message
    assert not house.world.of("shut_down")
