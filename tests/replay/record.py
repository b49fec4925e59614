"""Record the histories that today's workflow code must go on being able to replay.

    python tests/replay/record.py

Writes ``histories/v<major>.<minor>/`` of the version in ``pyproject.toml``. Record until a version is released; from
then on its histories stay as they are, and a change that they cannot replay needs ``workflow.patched``.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/workflows")]

from house import House, open_house  # noqa: E402
from temporalio.client import WorkflowHistory  # noqa: E402

from plans.model import Plan  # noqa: E402
from vault.errors import AuthenticationRefused, ResynchronizationRequired, Unreachable  # noqa: E402
from vault.lifecycle import JobKind, Phase  # noqa: E402

PLAN = Plan.model_validate(
    {
        "plan": "shop",
        "before": [{"script": "announce", "run": "echo {{ run_type }} of {{ plan }}"}],
        "groups": [
            {"name": "data", "machines": ["db"], "before": [{"manual": "go", "instructions": "look first"}]},
            {
                "name": "front",
                "machines": ["app", {"machine": "web", "depends_on": ["app"], "start_delay": "100ms"}],
                "after": [{"wait": "settle", "for": "100ms"}, {"script": "never", "run": "exit 3"}],
            },
        ],
    }
)


async def plan_run(house: House) -> None:
    """A planned failover: a step fails, is retried and then skipped; a machine boots only the second time."""
    for machine in PLAN.machines:
        await house.replicating(machine)
    house.world.script("answer", "web", Unreachable("'web' does not answer"))
    handle = await house.plan(PLAN, "planned")
    go = await house.row(handle, "recover data/go", "waiting")
    await house.steer(handle, "approve", go.id)
    web = await house.row(handle, "recover front/web", "failed")
    await house.steer(handle, "retry", web.id)
    never = await house.row(handle, "recover front/never", "failed")
    await house.steer(handle, "retry", never.id)
    await asyncio.sleep(1)
    await house.row(handle, never.id, "failed")
    await house.steer(handle, "skip", never.id)
    assert (await house.run_ends(handle)).state == "completed"


async def cancelled_run(house: House) -> None:
    """Cancelled at the hold: everything is put back."""
    for machine in PLAN.machines:
        await house.replicating(machine)
    handle = await house.plan(PLAN, "planned")
    await house.row(handle, "recover data/go", "waiting")
    await house.cancel(handle)
    assert (await house.run_ends(handle)).state == "cancelled"


async def life_of_a_machine(house: House) -> None:
    """Protected, halted, resumed, resynchronized, tested, failed over unplanned, committed, reversed, disabled."""
    world = house.world
    handle = await house.machine("db", resync="at-once")
    await house.ask("db", JobKind.ENABLE, id="protect")
    await house.phase("db", Phase.PROTECTED)
    await house.until(lambda: world.of("replicate_once"), "it replicates")
    world.script("replicate_once", "db", AuthenticationRefused("login refused", remedy="renew the password"))
    await house.job("db", JobKind.RESYNCHRONIZE, id="resync")
    await house.halted("db")
    await house.job("db", JobKind.TEST_FAILOVER, id="test")
    world.script("replicate_once", "db", ResynchronizationRequired("the log is too long"))
    await handle.execute_update("resume_replication")
    await house.until(lambda: len(world.of("replicate_once")) == 4, "it is resynchronized by itself")
    await house.job("db", JobKind.CLEANUP_TEST, id="cleanup")
    world.script("fail_over", "db", AuthenticationRefused("login refused"))
    await house.job("db", JobKind.PLANNED_FAILOVER, id="undone")
    for kind in (JobKind.UNPLANNED_FAILOVER, JobKind.COMMIT, JobKind.REVERSE):
        assert (await house.job("db", kind, id=kind.value)).state == "done"
    await house.ask("db", JobKind.DISABLE, id="disable")
    await handle.result()


SCENARIOS = {
    plan_run: ("plan/shop", "plan/shop/5-recover-front", "job/web/1-PlannedFailover"),
    cancelled_run: ("plan/shop", "job/app/1-PlannedFailover"),
    life_of_a_machine: ("machine/db", "job/db/8-PlannedFailover", "job/db/9-UnplannedFailover"),
}


async def record(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.json"):
        old.unlink()
    for scenario, wanted in SCENARIOS.items():
        with pytest.MonkeyPatch.context() as patches:
            async with open_house(patches) as house:
                await scenario(house)
                histories = {history.workflow_id: history for history in await house.histories()}
        for workflow_id in wanted:
            name = f"{scenario.__name__}.{workflow_id.replace('/', '~')}.json"
            (folder / name).write_text(json.dumps(_clean(histories[workflow_id]), indent=1) + "\n")


def _clean(history: WorkflowHistory) -> dict[str, Any]:
    """Without what tells about the recording machine."""

    def cleaned(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: cleaned(inner) for key, inner in value.items() if key not in {"stackTrace", "identity"}}
        return [cleaned(inner) for inner in value] if isinstance(value, list) else value

    return {"workflow_id": history.workflow_id, "history": cleaned(history.to_json_dict())}


def version_folder() -> Path:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    return HERE / "histories" / f"v{'.'.join(version.split('.')[:2])}"


if __name__ == "__main__":
    asyncio.run(record(version_folder()))
