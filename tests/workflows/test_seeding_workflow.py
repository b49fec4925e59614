"""Initial replication by media, as the machine's workflow sees it: it waits for an operator's import."""

from __future__ import annotations

from datetime import timedelta

import pytest
from fakes import FakeProvider
from house import House

from vault.domain import Progress, Relationship
from vault.errors import Unreachable
from vault.lifecycle import JobKind, Phase

pytestmark = pytest.mark.workflow

WAITING = "waiting for the seed of 'db'"


@pytest.fixture(autouse=True)
def seeds(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """Which machines' seeds were imported; the fake provider looks here."""
    imported: dict[str, bool] = {}

    def seed_missing(self: FakeProvider, relationship: Relationship) -> Progress | None:
        self._world.enter("seed_missing", relationship.machine, relationship.target_site)
        return None if imported.get(relationship.machine) else Progress(doing=WAITING)

    monkeypatch.setattr(FakeProvider, "seed_missing", seed_missing, raising=False)
    monkeypatch.setattr("activities.protection.LOOK_FOR_SEED_EVERY_S", 0.01)
    return imported


async def test_nothing_is_copied_before_the_seed_was_imported(house: House, seeds: dict[str, bool]) -> None:
    await house.machine("db", initial_replication={"method": "media"})
    await house.ask("db", JobKind.ENABLE)
    await house.until(lambda: len(house.world.of("seed_missing")) > 3, "the job looks for the seed")
    state = await house.state("db")
    assert state.phase is Phase.REPLICATING_INITIALLY
    job = house.client.get_workflow_handle(state.jobs[-1].id)

    async def says_that_it_waits() -> bool:
        pending = (await job.describe()).raw_description.pending_activities[0]
        beats = list(pending.heartbeat_details.payloads)
        told = (await house.client.data_converter.decode(beats, [Progress]))[0].doing if beats else ""
        return (pending.activity_type.name, told) == ("await_seed", WAITING)

    await house.until(says_that_it_waits, "the activity says what it waits for")
    assert house.world.of("copy_initial") == []
    seeds["db"] = True
    await house.phase("db", Phase.PROTECTED)
    assert {call.site for call in house.world.of("seed_missing")} == {"recovery"}
    assert house.world.names("seed_missing", "copy_initial", "finalize")[-3:] == [
        "seed_missing",
        "copy_initial",
        "finalize",
    ]
    sentences = (await job.result())["sentences"]
    assert sentences[0].startswith("waiting for the seed: leeward seed export db --to FOLDER at primary")
    assert sentences[1:2] == ["seed imported at recovery"]
    assert sentences[2].startswith("changes since the export copied")


async def test_the_scheduled_start_holds_for_what_is_sent_after_the_seed(house: House, seeds: dict[str, bool]) -> None:
    seeds["db"] = True
    start = (await house.now() + timedelta(hours=3)).replace(second=0, microsecond=0)
    await house.machine("db", initial_replication={"method": "media", "start": f"{start:%H:%M}"})
    await house.ask("db", JobKind.ENABLE)
    await house.until(lambda: house.world.of("seed_missing"), "the seed is seen")
    assert house.world.of("copy_initial") == []
    async with house.time_flies():
        await house.phase("db", Phase.PROTECTED)
    assert house.world.of("copy_initial")[0].at >= start


async def test_a_target_that_cannot_be_asked_for_a_while_is_asked_again(house: House, seeds: dict[str, bool]) -> None:
    seeds["db"] = True
    house.world.script("seed_missing", "db", Unreachable("no answer"), Unreachable("no answer"))
    await house.machine("db", initial_replication={"method": "media"})
    await house.ask("db", JobKind.ENABLE)
    async with house.time_flies():
        await house.phase("db", Phase.PROTECTED)
    assert [call.attempt for call in house.world.of("seed_missing")] == [1, 2, 3]
