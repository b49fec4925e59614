"""A change of a plan's schedule is a short workflow: Temporal keeps no record of who changed a schedule, and nobody
validates what is asked of it. Here the roles are asked, and the history stays when the schedule is deleted."""

from __future__ import annotations

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from activities import contracts
from activities.contracts import CONTROL_QUEUE, Done, ScheduleChange
from workflows.attributes import attributes
from workflows.calls import call
from workflows.schedule_model import ScheduleRequest
from workflows.steering import why_not_start


@workflow.defn(name="ChangeSchedule")
class ChangeSchedule:
    """Runs as ``schedule/<plan>``: one change at a time."""

    @workflow.run
    async def run(self, given: ScheduleRequest) -> Done:
        approves = given.exercise is not None and given.exercise.auto_approve
        why_not = why_not_start(given.access, given.by, auto_approve=approves)
        if why_not is not None:
            raise ApplicationError(f"{why_not}; nothing was changed", type="Refused", non_retryable=True)
        return await call(
            contracts.CHANGE_SCHEDULE,
            _change(given),
            queue=CONTROL_QUEUE,
            summary=f"{given.verb} the schedule of {given.plan}",
            timings=given.timings,
        )


def _change(given: ScheduleRequest) -> ScheduleChange:
    if given.timetable is None or given.exercise is None:
        return ScheduleChange(plan=given.plan, verb=given.verb, note=given.note)
    exercise = given.exercise.model_copy(update={"set_by": given.by, "access": given.access})
    return ScheduleChange(
        plan=given.plan,
        verb=given.verb,
        note=f"{given.timetable.when}, set by {given.by}",
        timetable=given.timetable,
        exercise=exercise.model_dump(mode="json"),
        attributes={pair.key.name: pair.value for pair in attributes(plan=given.plan, run_type="test")},
    )
