"""A first copy that begins with a machine that exists at the target, as the machine's workflow sees it."""

from __future__ import annotations

import pytest
from fakes import FakeProvider
from house import House

from vault.domain import Finding, Relationship
from vault.errors import Unreachable
from vault.lifecycle import JobKind, Phase

pytestmark = pytest.mark.workflow

EXISTING = {"method": "existing"}


@pytest.fixture(autouse=True)
def copies(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """By machine, the id of its copy at the target; the fake provider looks here."""
    there = {"db": "id of db"}

    def identity(self: FakeProvider, relationship: Relationship) -> str:
        return f"id of {relationship.machine}"

    def check_adoption(self: FakeProvider, relationship: Relationship) -> list[Finding]:
        self._world.enter("check_adoption", relationship.machine, relationship.target_site)
        if there.get(relationship.machine) == relationship.identity:
            return []
        return [Finding.failed(relationship.machine, "there is no copy of it", "restore one")]

    def adopt_replica(self: FakeProvider, relationship: Relationship) -> None:
        self._world.enter("adopt_replica", relationship.machine, relationship.target_site)

    for method in (identity, check_adoption, adopt_replica):
        monkeypatch.setattr(FakeProvider, method.__name__, method, raising=False)
    return there


async def test_the_copy_is_checked_and_becomes_the_replica_before_the_source_is_enabled(house: House) -> None:
    await house.machine("db", initial_replication=EXISTING)
    house.world.script("enable", "db", Unreachable("no answer"))
    await house.ask("db", JobKind.ENABLE)
    async with house.time_flies():
        await house.phase("db", Phase.PROTECTED)
    steps = ["check_adoption", "adopt_replica", "enable", "enable", "copy_initial"]
    assert house.world.names("check_adoption", "adopt_replica", "enable", "copy_initial") == steps
    assert {call.site for call in house.world.of("adopt_replica")} == {"recovery"}
    disabled = await house.job("db", JobKind.DISABLE)
    told = (await house.client.get_workflow_handle(disabled.id).result())["sentences"]
    assert told[-1] == "replication ended at recovery; the machine that existed there stays, off"


async def test_without_a_copy_nothing_is_changed(house: House, copies: dict[str, str]) -> None:
    copies["db"] = "id of another"
    await house.machine("db", initial_replication=EXISTING)
    job = await house.job("db", JobKind.ENABLE)
    assert job.state == "failed"
    assert "there is no copy of it" in str(job)
    assert house.world.names("adopt_replica", "enable") == []
    assert (await house.state("db")).phase is Phase.UNPROTECTED
