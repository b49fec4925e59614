"""What a machine makes of the answers to its claims, whenever they come: here they come by the test's hand."""

from __future__ import annotations

from collections.abc import AsyncIterator

import house as house_module
import pytest
from house import PATIENCE, House, open_house
from temporalio import workflow

from vault.domain import Relationship
from vault.lifecycle import JobKind
from workflows.claim_model import Claim, ClaimAnswer, ClaimReturn, ClaimsState
from workflows.group_claims import GroupClaims
from workflows.ids import group_claims_id, machine_id
from workflows.model import JobRequest

pytestmark = pytest.mark.workflow

TOLD = "external_workflow_execution_signaled_event_attributes"


@workflow.defn(name="GroupClaims")
class SilentClaims:
    """Hears everything, and answers nothing."""

    def __init__(self) -> None:
        self._asked: list[str] = []
        self._given_back: list[str] = []

    @workflow.run
    async def run(self, _: ClaimsState) -> None:
        await workflow.wait_condition(lambda: False)

    @workflow.signal
    def claim(self, wanted: Claim) -> None:
        self._asked.append(wanted.id)

    @workflow.signal
    def begun(self, claim: Claim) -> None:
        """Nothing of it is looked at."""

    @workflow.signal
    def give_back(self, back: ClaimReturn) -> None:
        self._given_back.append(back.id)

    @workflow.query
    def asked(self) -> list[str]:
        return self._asked

    @workflow.query
    def given_back(self) -> list[str]:
        return self._given_back


@pytest.fixture
async def house(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    real = house_module.relationship
    others = [each for each in house_module.WORKFLOWS if each is not GroupClaims]
    monkeypatch.setattr(house_module, "WORKFLOWS", [*others, SilentClaims])

    def relationship(machine: str, frequency_s: float = 60) -> Relationship:
        return real(machine, frequency_s).model_copy(update={"replication_group": "payments"})

    monkeypatch.setattr(house_module, "relationship", relationship)
    async with open_house(monkeypatch, real_server=True) as opened:
        yield opened


async def heard(house: House, query: str) -> list[str]:
    handle = house.client.get_workflow_handle(group_claims_id("payments"))
    told: list[str] = await handle.query(query, result_type=list[str], rpc_timeout=PATIENCE)
    return told


async def has_asked(house: House, *claims: str) -> None:
    async def all_of_them() -> bool:
        history = await house.client.get_workflow_handle(machine_id("db")).fetch_history()
        told = [event for event in history.events if event.HasField(TOLD)]
        return len(told) >= len(claims) and sorted(await heard(house, "asked")) == sorted(claims)

    await house.until(all_of_them, f"{claims} are asked for")


async def given_back(house: House, *claims: str) -> None:
    async def all_of_them() -> bool:
        return sorted(await heard(house, "given_back")) == sorted(claims)

    await house.until(all_of_them, f"{claims} are given back")


async def test_of_two_jobs_that_get_the_group_at_once_one_begins_and_one_is_refused(house: House) -> None:
    """As after a moment without control workers: both answers are in one task of the machine's workflow.

    Which of them begins is open: both start the group's claims, and whose attempt wins asks last."""
    kinds = (JobKind.DISABLE, JobKind.UNPLANNED_FAILOVER)
    db = await house.replicating("db")
    for kind in kinds:
        await db.signal("ask", JobRequest(id=kind, kind=kind, requested_by="test"))
    await has_asked(house, *(f"db/{kind}" for kind in kinds))
    await house.stop_work("control")
    for kind in kinds:
        await db.signal("group_claim", ClaimAnswer(id=f"db/{kind}"))
    await house.work("control")
    await given_back(house, *(f"db/{kind}" for kind in kinds))
    (job,) = (await house.state("db")).jobs
    assert job.kind in kinds


async def test_a_claim_that_is_given_too_late_is_given_back(house: House) -> None:
    """It was asked for twice, refused, and given: nobody waits for it, and it would keep all others out for good."""
    db = await house.replicating("db")
    await db.signal("ask", JobRequest(id="one", kind=JobKind.DISABLE, requested_by="test"))
    await has_asked(house, "db/one")
    await db.signal("group_claim", ClaimAnswer(id="db/one", refusal="not now"))
    assert (await house.state("db")).jobs == [], "the refusal has been taken before the next answer comes"
    await db.signal("group_claim", ClaimAnswer(id="db/one"))
    await given_back(house, "db/one")
    assert (await house.state("db")).jobs == []
