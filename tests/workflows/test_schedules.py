"""Exercises on the schedules of a real Temporal server."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from house import House, open_house
from lab_support import make_inventory
from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError

from console.audit import audit
from console.client import Leeward
from console.schedules import Schedules
from plans.model import Plan
from plans.timetables import Calendar, Timetable
from vault.access import AccessSection
from vault.errors import BadInput, InvalidState, NotFound, Unreachable
from workflows.ids import schedule_change_id

pytestmark = pytest.mark.workflow

PLAN = Plan.model_validate({"plan": "shop", "groups": [{"name": "all", "machines": ["db"]}]})


def schedules(house: House, operator: str = "olga") -> Schedules:
    access = AccessSection(operators=["olga"], approvers=["abel"])
    inventory = make_inventory().model_copy(update={"access": access})
    return Schedules(Leeward(house.client, inventory, house.timings, operator))


async def test_a_schedules_life(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_house(monkeypatch, real_server=True) as house:
        ours = schedules(house)
        await ours.set(PLAN, Timetable(cron="0 4 * * 0", time_zone="Europe/Berlin", jitter_s=60, overlap="queue"))
        [line] = await ours.list()
        assert (line.plan, line.paused, line.runs) == ("shop", False, 0)
        assert line.note == "0 4 * * 0 Europe/Berlin, set by olga"
        assert line.next is not None and line.next.weekday() == 6

        first_sunday = Calendar(at="04:00", weekdays="sun", days="1-7")
        await ours.set(PLAN, Timetable(calendar=first_sunday))
        [line] = await ours.list()
        assert line.next is not None and line.next.weekday() == 6 and line.next.day <= 7
        assert (line.next.hour, line.next.minute) == (4, 0)
        assert line.note == "at 04:00, sun, days 1-7 UTC, set by olga"

        await ours.pause("shop", "the site moves")
        [line] = await ours.list()
        assert line.note == "at 04:00, sun, days 1-7 UTC, set by olga — paused: the site moves"
        await ours.set(PLAN, Timetable(cron="0 4 * * 0"))
        [line] = await ours.list()
        assert (line.paused, line.next) == (True, None), "another timetable does not end the pause"
        await ours.resume("shop", "it has moved")
        [line] = await ours.list()
        assert line.note == "0 4 * * 0 UTC, set by olga — resumed: it has moved"

        await house.replicating("db")
        await ours.run_now("shop")
        await house.until(lambda: house.world.of("end_test", "db"), "the exercise has cleaned up")
        [line] = await ours.list()
        assert line.runs == 1 and line.last is not None
        assert datetime.now(UTC) - line.last < timedelta(minutes=1)

        stranger = schedules(house, "mallory")
        for change in (
            stranger.set(PLAN, Timetable(cron="0 4 * * 0")),
            stranger.pause("shop", "ha"),
            stranger.run_now("shop"),
            stranger.delete("shop"),
        ):
            with pytest.raises(InvalidState, match="'mallory' may not run a plan"):
                await change
        with pytest.raises(InvalidState, match="'olga' may not approve"):
            await ours.set(PLAN, Timetable(cron="0 4 * * 0", auto_approve=True))
        with pytest.raises(BadInput, match="does not take the schedule"):
            await ours.set(PLAN, Timetable(cron="every sunday"))

        await ours.delete("shop", "no more")
        assert await ours.list() == []
        with pytest.raises(NotFound, match="'shop' has no schedule"):
            await ours.run_now("shop")

        expected = [
            ("olga", "schedule set", "0 4 * * 0 Europe/Berlin", "done"),
            ("olga", "schedule set", "at 04:00, sun, days 1-7 UTC", "done"),
            ("olga", "schedule pause", "the site moves", "done"),
            ("olga", "schedule set", "0 4 * * 0 UTC", "done"),
            ("olga", "schedule resume", "it has moved", "done"),
            ("olga", "schedule run-now", "", "done"),
            ("mallory", "schedule set", "0 4 * * 0 UTC", "refused"),
            ("mallory", "schedule pause", "ha", "refused"),
            ("mallory", "schedule run-now", "", "refused"),
            ("mallory", "schedule delete", "", "refused"),
            ("olga", "schedule set", "0 4 * * 0 UTC", "refused"),
            ("olga", "schedule set", "every sunday UTC", "failed"),
            ("olga", "schedule delete", "no more", "done"),
            ("olga", "schedule run-now", "", "failed"),
        ]
        leeward = Leeward(house.client, make_inventory(), house.timings)

        async def all_of_them() -> bool:
            lines, _ = await audit(leeward, plan="shop", since=None)
            return len([line for line in lines if line.what.startswith("schedule")]) == len(expected)

        await house.until(all_of_them, "visibility has the changes")
        lines, unreadable = await audit(leeward, plan="shop", since=None)
        changes = [line for line in lines if line.what.startswith("schedule")]
        assert [(line.who, line.what, line.note, line.outcome) for line in changes] == expected
        assert ({line.on for line in changes}, unreadable) == ({"shop"}, [])
        lines, _ = await audit(leeward, plan=None, since=changes[-2].at)
        assert [line for line in lines if line.what.startswith("schedule")] == changes[-2:]
        assert await audit(leeward, plan="another", since=None) == ([], [])


async def test_a_change_is_never_made_after_its_time_nor_beside_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a control worker; then the operator has gone, and must not be surprised by it later."""
    async with open_house(monkeypatch, real_server=True, without=["control"], site_answer_s=2) as house:
        first = asyncio.ensure_future(schedules(house).pause("shop", "the site moves"))
        handle = house.client.get_workflow_handle(schedule_change_id("shop"))

        async def is_there() -> bool:
            try:
                return (await handle.describe()).status is WorkflowExecutionStatus.RUNNING
            except RPCError:
                return False

        await house.until(is_there, "the change waits for a worker")
        with pytest.raises(InvalidState, match="somebody changes the schedule of plan 'shop' right now"):
            await schedules(house, "ada").delete("shop")
        with pytest.raises(Unreachable, match="no control worker has made the change in time"):
            await first
        assert (await handle.describe()).status is WorkflowExecutionStatus.TIMED_OUT

        unknown = {"plan": "shop", "verb": "postpone", "by": "eve"}
        await house.client.start_workflow("ChangeSchedule", unknown, id="schedule/other", task_queue="control")
        leeward = Leeward(house.client, make_inventory(), house.timings)

        async def both_are_there() -> bool:
            lines, unreadable = await audit(leeward, plan=None, since=None)
            return (len(lines), len(unreadable)) == (1, 1)

        await house.until(both_are_there, "visibility has both")
        [line], [unreadable] = await audit(leeward, plan=None, since=None)
        assert (line.who, line.what, line.outcome) == ("olga", "schedule pause", "timed out")
        assert unreadable.workflow.startswith("schedule/other ")
        assert unreadable.why == "1 values that this version does not know"
