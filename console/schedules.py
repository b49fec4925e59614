"""Exercises on Temporal Schedules: one schedule a plan, changed by a workflow that keeps the record of it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ActivityError, ApplicationError, TimeoutError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from activities.contracts import CONTROL_QUEUE, Done, FailureDetails, ScheduleVerb
from activities.schedules import schedule_error, schedule_id
from console.asking import JobFailed, translated
from console.client import Leeward
from console.plan_runs import travelling
from plans.model import Plan
from plans.timetables import Timetable
from vault.domain import Value
from vault.errors import BadInput, InvalidState, LeewardError, NotFound, Unreachable
from workers.temporal_errors import is_no_answer
from workflows.attributes import attributes
from workflows.calls import reason
from workflows.ids import schedule_change_id
from workflows.model import ExerciseRequest, ScheduleRequest

ERRORS: dict[str, type[LeewardError]] = {kind.__name__: kind for kind in (BadInput, NotFound, Unreachable)}


class ScheduleLine(Value):
    plan: str
    paused: bool
    note: str
    next: datetime | None
    last: datetime | None
    runs: int


class Schedules:
    """The schedules of one namespace. Errors: ``NotFound``, ``BadInput``, ``Unreachable``, and ``InvalidState`` for who
    may not start runs: the workflow that makes the change asks the roles, so that a refusal is on record, too."""

    def __init__(self, leeward: Leeward) -> None:
        self._leeward = leeward

    async def set(self, plan: Plan, timetable: Timetable, file: bytes = b"") -> None:
        """Make the plan's schedule, or replace it: the plan's text of now is what will be exercised.

        ``file``: that text, for the reports."""
        timetable.check()
        exercise = self._exercise(plan, timetable, file)
        await self._change(plan.name, "set", timetable.when, timetable=timetable, exercise=exercise)

    async def list(self) -> list[ScheduleLine]:
        lines = []
        async for entry in await self._leeward.client.list_schedules():
            if not entry.id.startswith(schedule_id("")):
                continue
            try:
                description = await self._leeward.client.get_schedule_handle(entry.id).describe()
            except RPCError as error:
                if error.status is RPCStatusCode.NOT_FOUND:
                    continue  # deleted a moment ago: the list lags behind
                known = translated(error, entry.id) if is_no_answer(error) else schedule_error(error, entry.id)
                raise known from error
            info, state = description.info, description.schedule.state
            recent = info.recent_actions
            lines.append(
                ScheduleLine(
                    plan=entry.id.removeprefix(schedule_id("")),
                    paused=state.paused,
                    note=state.note or "",
                    next=info.next_action_times[0] if info.next_action_times and not state.paused else None,
                    last=recent[-1].started_at if recent else None,
                    runs=info.num_actions,
                )
            )
        return sorted(lines, key=lambda line: line.plan)

    async def pause(self, plan: str, note: str) -> None:
        await self._change(plan, "pause", note)

    async def resume(self, plan: str, note: str) -> None:
        await self._change(plan, "resume", note)

    async def run_now(self, plan: str, note: str = "") -> None:
        await self._change(plan, "run-now", note)

    async def delete(self, plan: str, note: str = "") -> None:
        await self._change(plan, "delete", note)

    async def _change(self, plan: str, verb: ScheduleVerb, note: str, **new: Any) -> None:
        leeward = self._leeward
        request = ScheduleRequest(
            plan=plan,
            verb=verb,
            by=leeward.operator,
            note=note,
            access=leeward.inventory.authorizer,
            timings=leeward.timings,
            **new,
        )
        try:
            await leeward.client.execute_workflow(
                "ChangeSchedule",
                request,
                id=schedule_change_id(plan),
                task_queue=CONTROL_QUEUE,
                result_type=Done,
                execution_timeout=timedelta(seconds=leeward.timings.site_answer_s),
                search_attributes=attributes(plan=plan),
                static_summary=f"{verb} the schedule of {plan}, asked by {leeward.operator}",
            )
        except WorkflowAlreadyStartedError as error:
            raise InvalidState(
                f"somebody changes the schedule of plan '{plan}' right now; nothing was changed",
                remedy="see who: leeward audit; then give the command again",
            ) from error
        except WorkflowFailureError as error:
            raise _failure(error.cause, plan) from error
        except RPCError as error:
            raise translated(error, plan) from error

    def _exercise(self, plan: Plan, timetable: Timetable, file: bytes) -> ExerciseRequest:
        leeward = self._leeward
        return ExerciseRequest(
            plan=plan,
            requested_by=f"schedule ({leeward.operator})",
            set_by=leeward.operator,
            access=leeward.inventory.authorizer,
            timings=leeward.timings,
            auto_approve=timetable.auto_approve,
            webhooks=leeward.inventory.notifications,
            clean_up=timetable.clean_up,
            limits=leeward.inventory.failover_limits(plan.machines),
            deliver=timetable.deliver,
            **travelling(file),
        )


def _failure(cause: BaseException, plan: str) -> LeewardError:
    """Why the schedule was not changed, as the error that it was where it happened."""
    if isinstance(cause, TimeoutError):
        return Unreachable(
            "no control worker has made the change in time; it will not be made later",
            where=plan,
            remedy="let one of this version run: leeward up, or leeward worker --role control",
        )
    if isinstance(cause, ApplicationError) and cause.type == "Refused":
        return InvalidState(cause.message)
    failed = cause.cause if isinstance(cause, ActivityError) else None
    if isinstance(failed, ApplicationError) and failed.type in ERRORS and failed.details:
        details = FailureDetails.model_validate(failed.details[0])
        return ERRORS[failed.type](details.what, where=details.where, remedy=details.remedy)
    return JobFailed(reason(cause), where=plan)
