"""Changing Temporal's schedules, as the workflow that keeps the record of it wants."""

from __future__ import annotations

from datetime import timedelta

from temporalio import activity
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleCalendarSpec,
    ScheduleHandle,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleRange,
    ScheduleSpec,
    ScheduleState,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.service import RPCError, RPCStatusCode

from activities import contracts
from activities.contracts import CONTROL_QUEUE, Done, ScheduleChange
from activities.failures import as_failure
from plans.timetables import Times, Timetable
from vault.errors import BadInput, LeewardError, NotFound, Unreachable

OVERLAPS = {"skip": ScheduleOverlapPolicy.SKIP, "queue": ScheduleOverlapPolicy.BUFFER_ONE}


def schedule_id(plan: str) -> str:
    """Of the plan's schedule; the workflows that it starts have the same, with the time."""
    return f"exercise/{plan}"


class ScheduleActivities:
    @activity.defn(name=contracts.CHANGE_SCHEDULE.name)
    async def change_schedule(self, given: ScheduleChange) -> Done:
        attempt = activity.info().attempt
        try:
            await _change(activity.client(), given)
        except LeewardError as error:
            raise as_failure(error, failures_in_a_row=attempt, time_scale=1) from error
        except RPCError as error:
            if given.verb == "delete" and attempt > 1 and error.status is RPCStatusCode.NOT_FOUND:
                return Done()  # the worker that deleted it did not live to say so
            why = schedule_error(error, given.plan)
            raise as_failure(why, failures_in_a_row=attempt, time_scale=1) from error
        return Done()


def schedule_error(error: RPCError, plan: str) -> LeewardError:
    """What Temporal's refusal of a call about the plan's schedule means."""
    if error.status is RPCStatusCode.NOT_FOUND:
        return NotFound(
            f"plan '{plan}' has no schedule", remedy="make one: leeward schedule set PLAN --cron '0 4 * * 0'"
        )
    if error.status is RPCStatusCode.INVALID_ARGUMENT:
        return BadInput(
            f"Temporal does not take the schedule: {error.message}",
            where=plan,
            remedy="correct --cron, --at or --time-zone",
        )
    return Unreachable(f"Temporal does not answer: {error.message}", where=plan, remedy="leeward up")


async def _change(client: Client, given: ScheduleChange) -> None:
    handle = client.get_schedule_handle(schedule_id(given.plan))
    match given.verb:
        case "set":
            await _set(client, handle, given)
        case "pause":
            await handle.pause(note=await _noted(handle, "paused", given.note))
        case "resume":
            await handle.unpause(note=await _noted(handle, "resumed", given.note))
        case "run-now":
            await handle.trigger(overlap=ScheduleOverlapPolicy.SKIP)
        case "delete":
            await handle.delete()


async def _noted(handle: ScheduleHandle, what: str, why: str) -> str:
    """Temporal keeps one note for a schedule: what it is stays before what happened last."""
    held = (await handle.describe()).schedule.state.note or ""
    return f"{held.partition(' — ')[0]} — {what}" + (f": {why}" if why else "")


async def _set(client: Client, handle: ScheduleHandle, given: ScheduleChange) -> None:
    """Make the schedule, or replace it; another timetable does not end a pause."""
    schedule, attributes = _schedule(given), _keywords(given.attributes)

    def replace(found: ScheduleUpdateInput) -> ScheduleUpdate:
        schedule.state.paused = found.description.schedule.state.paused
        return ScheduleUpdate(schedule=schedule)

    try:
        await client.create_schedule(handle.id, schedule, search_attributes=attributes)
    except ScheduleAlreadyRunningError:
        await handle.update(replace)


def _schedule(given: ScheduleChange) -> Schedule:
    timetable = given.timetable
    if timetable is None:
        raise BadInput("no timetable was given", where=given.plan, remedy="say when: --cron or --at")
    timetable.check()
    return Schedule(
        action=ScheduleActionStartWorkflow(
            "PlanExercise",
            given.exercise,
            id=schedule_id(given.plan),
            task_queue=CONTROL_QUEUE,
            typed_search_attributes=_keywords(given.attributes),
            static_summary=f"exercise of {given.plan}",
        ),
        spec=_spec(timetable),
        policy=SchedulePolicy(overlap=OVERLAPS[timetable.overlap], catchup_window=timedelta(hours=1)),
        state=ScheduleState(note=given.note),
    )


def _spec(timetable: Timetable) -> ScheduleSpec:
    return ScheduleSpec(
        cron_expressions=[timetable.cron] if timetable.cron else [],
        calendars=[_calendar(times) for times in timetable.calendar.times()] if timetable.calendar else [],
        time_zone_name=timetable.time_zone,
        jitter=timedelta(seconds=timetable.jitter_s) if timetable.jitter_s else None,
    )


def _calendar(times: Times) -> ScheduleCalendarSpec:
    return ScheduleCalendarSpec(
        hour=[ScheduleRange(times.hour)],
        minute=[ScheduleRange(times.minute)],
        day_of_week=[ScheduleRange(*span) for span in times.day_of_week],
        day_of_month=[ScheduleRange(*span) for span in times.day_of_month],
        month=[ScheduleRange(*span) for span in times.month],
    )


def _keywords(attributes: dict[str, str]) -> TypedSearchAttributes:
    pairs = [SearchAttributePair(SearchAttributeKey.for_keyword(name), value) for name, value in attributes.items()]
    return TypedSearchAttributes(pairs)
