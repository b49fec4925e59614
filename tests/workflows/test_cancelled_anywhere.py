"""Every job of a machine, cancelled over each of its activities, that ends well nevertheless, or fails.

The machine is where its phase says, one copy of it runs in production, no copy is left that nobody knows, and the job
can be asked for again.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import pytest
from house import House
from temporalio.service import RPCError, RPCStatusCode

from vault.errors import InvalidState
from vault.lifecycle import AT_TARGET, IDLE, JobKind, Phase
from workflows.model import JobRecord

pytestmark = pytest.mark.workflow

STEPS: dict[JobKind, list[str]] = {
    JobKind.ENABLE: ["check_source", "check_target", "enable"],
    JobKind.INITIAL_REPLICATION: ["copy_initial"],
    JobKind.FINALIZE: ["finalize"],
    JobKind.RESYNCHRONIZE: ["resynchronize"],
    JobKind.TEST_FAILOVER: ["check_target", "start_test", "start", "answer"],
    JobKind.CLEANUP_TEST: ["end_test"],
    JobKind.PLANNED_FAILOVER: [
        "check_source",
        "check_target",
        "shut_down",
        "send_last_changes",
        "fail_over",
        "start",
        "answer",
    ],
    JobKind.UNPLANNED_FAILOVER: ["check_target", "shut_down", "send_last_changes", "fail_over", "start", "answer"],
    JobKind.COMMIT: ["commit"],
    JobKind.REVERSE: [
        "check_source",
        "check_target",
        "shut_down",
        "prepare_reverse",
        "enable",
        "copy_initial",
        "finalize",
        "retire_replica",
    ],
    JobKind.DISABLE: ["disable_source", "disable_target"],
}
BEGINS_IN = {
    JobKind.ENABLE: Phase.UNPROTECTED,
    JobKind.INITIAL_REPLICATION: Phase.ENABLED,
    JobKind.FINALIZE: Phase.COPIED,
}
BEFORE = {
    JobKind.CLEANUP_TEST: [JobKind.TEST_FAILOVER],
    JobKind.COMMIT: [JobKind.PLANNED_FAILOVER],
    JobKind.REVERSE: [JobKind.PLANNED_FAILOVER, JobKind.COMMIT],
}
HOWS = ("ends well", "fails")
BROKEN = InvalidState("broken")


class Case(NamedTuple):
    kind: JobKind
    step: str
    how: str

    @property
    def machine(self) -> str:
        return f"{self.kind.value}-{self.step.replace('_', '-')}-{self.how.replace(' ', '-')}".lower()

    @property
    def copy(self) -> str:
        """Whose power the step changes."""
        is_of_test = self.kind is JobKind.TEST_FAILOVER and self.step in {"start", "answer"}
        return f"{self.machine}-test" if is_of_test else self.machine


@pytest.mark.parametrize("kind", STEPS)
async def test_a_job_that_is_cancelled_leaves_a_machine_that_can_go_on(house: House, kind: JobKind) -> None:
    await asyncio.gather(*(lives_on(house, Case(kind, step, how)) for step in STEPS[kind] for how in HOWS))


async def lives_on(house: House, case: Case) -> None:
    name, world = case.machine, house.world
    await house.machine(name, BEGINS_IN.get(case.kind, Phase.PROTECTED))
    for kind in BEFORE.get(case.kind, []):
        assert (await house.job(name, kind)).state == "done"

    seen = len(world.of(case.step, case.copy))
    gate = world.hold(case.step, case.copy, stubborn=True)
    if case.how == "fails":
        world.script(case.step, case.copy, BROKEN)
    accepted = await house.ask(name, case.kind)
    await house.until(lambda: len(world.of(case.step, case.copy)) > seen, f"{case} begins")
    await house.cancel_job(accepted.job_id)
    gate.set()
    record = await ended(house, case, accepted.job_id)
    if record is None or case.kind is JobKind.ENABLE:
        return  # the machine's workflow has ended: it is not protected

    await house.until(lambda: no_job_goes_on(house, name), f"{case} has no open job")
    state = await house.state(name)
    assert state.phase in IDLE, case
    at = "recovery" if state.phase in AT_TARGET else "primary"
    is_off = any(words in record.message for words in ("broken", "stays off", "see whether it runs"))
    assert world.runs_at(name) == ({at} if not is_off else world.runs_at(name) & {at}), (case, record)
    assert world.most_copies_on_production[name] <= 1, case
    known = {(copy.site, copy.machine) for copy in state.tests}
    stored = {one for one in world.stored if one[1].startswith(f"{name}-test")}
    assert stored == known or (case.kind is JobKind.CLEANUP_TEST and stored < known), (case, record)
    assert (("recovery", name) in world.stored) == (at == "recovery"), (case, record)

    if record.state == "failed":
        again = await house.ask(name, case.kind)
        record = await ended(house, case, again.job_id)
        assert record is None or record.state == "done", (case, record)


async def ended(house: House, case: Case, job_id: str) -> JobRecord | None:
    """None: the machine's workflow has ended with its protection."""
    try:
        return await house.ended(case.machine, job_id)
    except RPCError as gone:
        assert gone.status is RPCStatusCode.NOT_FOUND and case.kind in {JobKind.ENABLE, JobKind.DISABLE}, case
        return None


async def no_job_goes_on(house: House, name: str) -> bool:
    return not any(job.is_open for job in (await house.state(name)).jobs)
