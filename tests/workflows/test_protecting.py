"""Protecting a machine, and the replication that follows (requirements §C.1-4)."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from house import PATIENCE_S, House, open_house
from lab_support import make_inventory
from temporalio.client import WorkflowUpdateFailedError

from console.client import Leeward
from vault.domain import Finding, ReplicaSpace, Severity
from vault.errors import AuthenticationRefused, InvalidState, ResynchronizationRequired, Unreachable
from vault.lifecycle import JobKind, Phase
from workflows.model import MachineState

pytestmark = pytest.mark.workflow

GONE = Unreachable("no answer", where="site primary", remedy="check the link")
REFUSED = AuthenticationRefused("login refused", where="site primary", remedy="renew the password")
BROKEN = ResynchronizationRequired("the change log reached half of the disk", remedy="leeward resync db")


def minutes(calls: list[object]) -> list[float]:
    """Between each call and the one before, on the server's clock."""
    times = [call.at for call in calls]  # type: ignore[attr-defined]
    return [round((later - earlier).total_seconds() / 60, 1) for earlier, later in pairwise(times)]


async def test_one_request_leads_to_a_protected_machine(house: House) -> None:
    await house.machine("db")
    await house.ask("db", JobKind.ENABLE, id="protect-1")
    state = await house.phase("db", Phase.PROTECTED)
    await house.until(lambda: house.world.of("replicate_once"), "deltas are replicated")
    assert [(job.kind.value, job.id, job.state) for job in state.jobs] == [
        ("EnableProtection", "job/db/1-EnableProtection", "done"),
        ("InitialReplication", "job/db/2-InitialReplication", "done"),
        ("FinalizeProtection", "job/db/3-FinalizeProtection", "done"),
    ]
    assert house.world.names()[:5] == ["check_source", "check_target", "enable", "copy_initial", "finalize"]
    assert state.health.level == "ok"
    assert state.last_point is not None


async def test_why_protecting_failed_is_told_after_the_machine_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """With --detach nobody was there to hear it, and only the job's workflow in Temporal knew."""
    async with open_house(monkeypatch, real_server=True) as house:
        leeward = Leeward(house.client, make_inventory(), house.timings)
        assert await leeward.why_not_protected("db") == ""
        house.world.script("check_source", "db", REFUSED)
        why = "site primary: login refused — renew the password"
        machine = await house.machine("db")
        await house.ask("db", JobKind.ENABLE)
        await asyncio.wait_for(machine.result(), PATIENCE_S)
        assert await leeward.machine_status("db") is None
        assert await leeward.why_not_protected("db") == f"EnableProtection failed: {why}"

        async def listed() -> bool:
            return [(job.status, job.message) for job in await leeward.jobs("db")] == [("failed", why)]

        await house.until(listed, "visibility has the job")
        assert await leeward.jobs("d'b", "a\\") == []  # whatever is typed, it is a name and no query
        await house.machine("db")
        await house.ask("db", JobKind.ENABLE, id="again")
        await house.phase("db", Phase.PROTECTED)
        assert await leeward.why_not_protected("db") == ""
        await house.until(all_told_nothing(leeward), "the jobs that went well have nothing to tell")


def all_told_nothing(leeward: Leeward) -> Callable[[], Awaitable[bool]]:
    async def told() -> bool:
        jobs = await leeward.jobs("db")
        return {job.message for job in jobs if job.status == "completed"} == {""}

    return told


async def test_a_failed_check_refuses_protection_and_changes_nothing(house: House) -> None:
    full = Finding(severity=Severity.FAIL, subject="recovery", what="no space left", remedy="free 20 GiB")
    house.world.findings["target", "db"] = [full]
    handle = await house.machine("db")
    await house.ask("db", JobKind.ENABLE)
    await asyncio.wait_for(handle.result(), PATIENCE_S)
    state = await house.state("db")
    assert state.phase is Phase.UNPROTECTED
    assert state.jobs[0].message == (
        "protecting 'db' refused, nothing was changed: recovery: no space left — free 20 GiB"
    )
    assert house.world.names() == ["check_source", "check_target"]


async def test_the_target_judges_the_space_that_the_source_asks_for(house: House) -> None:
    house.world.space["db"] = ReplicaSpace(pool="silver", size=4096)
    handle = await house.machine("db")
    await house.ask("db", JobKind.ENABLE)
    await asyncio.wait_for(handle.result(), PATIENCE_S)
    state = await house.state("db")
    assert state.jobs[0].message == "protecting 'db' refused, nothing was changed: silver: no room for 4,096 bytes"
    assert house.world.names() == ["check_source", "check_target"]


async def test_initial_replication_starts_at_its_scheduled_time(house: House) -> None:
    await house.machine("db", Phase.ENABLED, initial_replication={"start": "22:00"})
    await house.ask("db", JobKind.INITIAL_REPLICATION)
    async with house.time_flies():
        await house.phase("db", Phase.PROTECTED)
    at = house.world.of("copy_initial")[0].at
    assert (at.hour, at.minute, at.second) == (22, 0, 0)


async def test_recoverable_errors_are_retried_by_the_products_rule(house: House) -> None:
    house.world.script("copy_initial", "db", *[GONE] * 7)
    await house.machine("db", Phase.ENABLED)
    await house.ask("db", JobKind.INITIAL_REPLICATION)
    async with house.time_flies():
        await house.phase("db", Phase.PROTECTED)
    assert minutes(house.world.of("copy_initial")) == [1, 2, 4, 8, 10, 30, 30]


async def test_time_scale_shortens_the_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_house(monkeypatch, time_scale=0.5) as house:
        house.world.script("copy_initial", "db", *[GONE] * 6)
        await house.machine("db", Phase.ENABLED)
        await house.ask("db", JobKind.INITIAL_REPLICATION)
        async with house.time_flies():
            await house.phase("db", Phase.PROTECTED)
        assert minutes(house.world.of("copy_initial")) == [0.5, 1, 2, 4, 5, 15]


async def test_an_error_that_is_not_recoverable_is_not_retried(house: House) -> None:
    house.world.always("copy_initial", "db", REFUSED)
    await house.machine("db", Phase.ENABLED)
    record = await house.job("db", JobKind.INITIAL_REPLICATION)
    await house.skip(hours=2)
    assert len(house.world.of("copy_initial")) == 1
    assert (record.state, record.message) == ("failed", "site primary: login refused — renew the password")
    state = await house.state("db")
    assert state.phase is Phase.ENABLED
    assert (state.health.level, state.health.reason) == (
        "warning",
        "InitialReplication failed: site primary: login refused — renew the password",
    )


async def test_failures_in_a_row_are_counted_from_the_last_good_cycle(house: House) -> None:
    house.world.script("replicate_once", "db", GONE, GONE, GONE, None, GONE, GONE)
    await house.machine("db", Phase.PROTECTED, frequency="50ms")
    async with house.time_flies():
        await house.until(lambda: len(house.world.of("replicate_once")) > 6, "replication goes on")
    assert minutes(house.world.of("replicate_once")[:7]) == [1, 2, 4, 0, 1, 2]
    assert (await house.state("db")).health.level == "ok"


async def test_a_refused_login_halts_replication_until_the_operator_resumes_it(house: House) -> None:
    house.world.script("replicate_once", "db", REFUSED)
    handle = await house.machine("db", Phase.PROTECTED)
    await house.halted("db")
    await house.skip(days=1)
    state = await house.state("db")
    assert len(house.world.of("replicate_once")) == 1
    assert state.health.level == "critical"
    assert state.health.reason == "replication halted: site primary: login refused — renew the password"

    resumed = await handle.execute_update("resume_replication", result_type=MachineState)
    assert (resumed.halted, resumed.health.level) == (False, "ok")
    await house.until(lambda: len(house.world.of("replicate_once")) == 2, "replication starts again")


async def test_the_newest_point_is_known_after_a_halt(house: House) -> None:
    house.world.script("replicate_once", "db", None, None, REFUSED)
    await house.machine("db", Phase.PROTECTED, frequency="50ms")
    await house.halted("db")
    assert (await house.state("db")).last_point == house.world.points["db"][-1]
    assert house.world.points["db"][-1].sequence == 3


async def test_the_newest_point_is_known_when_a_job_ends_the_replication(house: House) -> None:
    house.world.script("resynchronize", "db", REFUSED)
    await house.replicating("db")
    made = house.world.points["db"][-1]
    assert (await house.job("db", JobKind.RESYNCHRONIZE)).state == "failed"
    assert (await house.state("db")).last_point == made


async def test_a_job_beside_a_halted_replication_does_not_hide_that_it_is_halted(house: House) -> None:
    house.world.script("replicate_once", "db", REFUSED)
    await house.machine("db", Phase.PROTECTED)
    await house.halted("db")
    assert (await house.job("db", JobKind.TEST_FAILOVER)).state == "done"
    state = await house.state("db")
    assert (state.halted, state.health.level) == (True, "critical")


async def test_a_resynchronization_ends_the_halt(house: House) -> None:
    house.world.script("replicate_once", "db", REFUSED)
    await house.machine("db", Phase.PROTECTED)
    await house.halted("db")
    assert (await house.job("db", JobKind.RESYNCHRONIZE)).state == "done"
    await house.until(lambda: len(house.world.of("replicate_once")) == 2, "replication goes on")
    assert (await house.state("db")).health.level == "ok"


@pytest.mark.parametrize(
    ("window", "now", "expected"),
    [
        pytest.param(("18:00", "06:00"), "12:00", "18:00", id="opens-later-today"),
        pytest.param(("18:00", "06:00"), "23:30", "23:30", id="is-open-before-midnight"),
        pytest.param(("18:00", "06:00"), "05:59", "05:59", id="is-open-after-midnight"),
        pytest.param(("18:00", "06:00"), "06:00", "18:00", id="has-just-closed"),
        pytest.param(("01:00", "03:00"), "12:00", "01:00", id="opens-tomorrow"),
        pytest.param(("01:00", "03:00"), "02:00", "02:00", id="is-open"),
    ],
)
async def test_an_automatic_resynchronization_waits_for_its_window(
    house: House, window: tuple[str, str], now: str, expected: str
) -> None:
    await skip_to(house, now)
    house.world.script("replicate_once", "db", BROKEN)
    await house.machine("db", Phase.PROTECTED, resync="window", resync_window={"from": window[0], "until": window[1]})
    await house.until(lambda: house.world.of("replicate_once"), "replication finds its log too long")
    if expected != now:
        state = await house.phase("db", Phase.RESYNC_REQUIRED)
        assert state.health.level == "warning"
        assert "half of the disk" in state.health.reason
    async with house.time_flies():
        await house.until(lambda: len(house.world.of("replicate_once")) > 1, "replication goes on after the resync")
    assert house.world.of("resynchronize")[0].at.strftime("%H:%M") == expected
    assert (await house.state("db")).jobs[-1].requested_by == "policy (window)"


async def skip_to(house: House, clock: str) -> None:
    """To a few milliseconds after ``clock``, today or tomorrow."""
    now = await house.now()
    hour, minute = clock.split(":")
    at = datetime(now.year, now.month, now.day, int(hour), int(minute), tzinfo=UTC)
    await house.env.sleep((at if at > now else at + timedelta(days=1)) - now)


async def test_resync_at_once_does_not_wait(house: House) -> None:
    house.world.script("replicate_once", "db", BROKEN)
    await house.machine("db", Phase.PROTECTED, resync="at-once")
    await house.until(lambda: len(house.world.of("replicate_once")) == 2, "replication goes on after the resync")
    assert house.world.names() == ["replicate_once", "resynchronize", "replicate_once"]


async def test_a_manual_resynchronization_waits_for_a_request(house: House) -> None:
    house.world.script("replicate_once", "db", BROKEN)
    await house.machine("db", Phase.PROTECTED, resync="manual")
    await house.phase("db", Phase.RESYNC_REQUIRED)
    await house.skip(days=2)
    assert house.world.of("resynchronize") == []
    await house.job("db", JobKind.RESYNCHRONIZE)
    assert (await house.state("db")).phase is Phase.PROTECTED


async def test_an_operator_need_not_wait_for_the_window(house: House) -> None:
    await skip_to(house, "12:00")
    house.world.script("replicate_once", "db", BROKEN)
    await house.machine("db", Phase.PROTECTED, resync="window")
    await house.phase("db", Phase.RESYNC_REQUIRED)
    await house.job("db", JobKind.RESYNCHRONIZE)
    assert house.world.of("resynchronize")[0].at.strftime("%H") == "12"


async def test_a_resynchronization_that_failed_is_not_begun_again_by_itself(house: House) -> None:
    house.world.script("replicate_once", "db", BROKEN)
    house.world.script("resynchronize", "db", REFUSED)
    handle = await house.machine("db", Phase.PROTECTED, resync="at-once")
    await house.until(lambda: house.world.of("resynchronize"), "it is tried")
    await house.halted("db")
    await house.skip(days=1)
    state = await house.state("db")
    assert len(house.world.of("resynchronize")) == 1
    assert (state.phase, state.halted, state.health.level) == (Phase.RESYNC_REQUIRED, True, "critical")
    await handle.execute_update("resume_replication", result_type=MachineState)
    await house.phase("db", Phase.PROTECTED)


async def test_a_refused_request_changes_nothing(house: House) -> None:
    await house.replicating("db")
    before = await house.state("db")
    with pytest.raises(WorkflowUpdateFailedError) as refusal:
        await house.ask("db", JobKind.COMMIT)
    assert "machine 'db' is protected; Commit is not possible now" in str(refusal.value.cause)
    assert await house.state("db") == before


async def test_a_request_during_a_job_is_refused(house: House) -> None:
    gate = house.world.hold("copy_initial", "db")
    await house.machine("db", Phase.ENABLED)
    accepted = await house.ask("db", JobKind.INITIAL_REPLICATION)
    await house.phase("db", Phase.REPLICATING_INITIALLY)
    for kind in (JobKind.DISABLE, JobKind.TEST_FAILOVER, JobKind.PLANNED_FAILOVER, JobKind.INITIAL_REPLICATION):
        with pytest.raises(WorkflowUpdateFailedError) as refusal:
            await house.ask("db", kind)
        assert "wait until it is done" in str(refusal.value.cause)
    gate.set()
    assert (await house.ended("db", accepted.job_id)).state == "done"


async def test_the_same_request_runs_once(house: House) -> None:
    await house.replicating("db")
    first = await house.ask("db", JobKind.RESYNCHRONIZE, id="once")
    again = await house.ask("db", JobKind.RESYNCHRONIZE, id="once")
    await house.ended("db", first.job_id)
    later = await house.ask("db", JobKind.RESYNCHRONIZE, id="once")
    assert first == again == later
    assert len(house.world.of("resynchronize")) == 1


async def test_old_requests_are_forgotten_together_with_their_jobs(house: House) -> None:
    """A remembered request without its job would break the machine when it is repeated."""
    await house.machine("db", Phase.COPIED)
    for _ in range(22):
        await house.job("db", JobKind.CLEANUP_TEST, id=uuid.uuid4().hex)
    state = await house.state("db")
    assert state.seen_requests == [job.request_id for job in state.jobs]
    assert len(state.jobs) == 20


async def test_disabling_ends_the_machines_workflow(house: House) -> None:
    handle = await house.replicating("db")
    await house.ask("db", JobKind.DISABLE)
    await asyncio.wait_for(handle.result(), PATIENCE_S)
    assert (await house.state("db")).phase is Phase.UNPROTECTED
    assert house.world.names()[-2:] == ["disable_source", "disable_target"]


async def test_a_protected_machine_does_not_take_over_other_sites(house: House) -> None:
    """It would be told to be recovered where there is no replica of it."""
    handle = await house.replicating("db")
    state = await house.state("db")
    settings = {name: getattr(state, name) for name in ("name", "forward", "backward", "policy", "timings")}
    moved = settings | {"forward": state.forward.model_copy(update={"target_site": "elsewhere"})}
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await handle.execute_update("configure", moved)
    assert str(refused.value.cause) == (
        "Refused: machine 'db' is replicated between primary and recovery, but the inventory says primary and "
        "elsewhere — write its sites as they were; to move it, then: leeward disable db, change them, "
        "leeward protect db"
    )
    assert (await house.state("db")).forward == state.forward
    oftener = settings | {"forward": state.forward.model_copy(update={"frequency_s": 5})}
    await handle.execute_update("configure", oftener)
    assert (await house.state("db")).forward.frequency_s == 5


async def test_recovery_points_are_read_at_the_target(house: House) -> None:
    handle = await house.replicating("db")
    points = await handle.execute_update("recovery_points")
    assert [point["sequence"] for point in points["points"]] == [1, 2]
    assert house.world.of("recovery_points")[0].site == "recovery"
    house.world.script("recovery_points", "db", InvalidState("replica is damaged", where="recovery"))
    with pytest.raises(WorkflowUpdateFailedError):
        await handle.execute_update("recovery_points")
    assert (await house.state("db")).phase is Phase.PROTECTED
