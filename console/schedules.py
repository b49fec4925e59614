"""Exercises on Temporal Schedules: one schedule a plan, ``exercise/<plan>``."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import datetime, timedelta
from typing import TypeVar

from temporalio.client import (
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleHandle,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleState,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from temporalio.service import RPCError, RPCStatusCode

from activities.contracts import CONTROL_QUEUE
from console.client import Leeward
from console.plan_runs import travelling
from plans.model import Plan
from vault.domain import Value
from vault.errors import BadInput, LeewardError, NotFound, Unreachable
from vault.notifications import Delivery
from workflows.attributes import attributes
from workflows.model import ExerciseRequest

Answer = TypeVar("Answer")
OVERLAPS = {
    "skip": ScheduleOverlapPolicy.SKIP,
    "queue": ScheduleOverlapPolicy.BUFFER_ONE,
}


class Timetable(Value):
    """When a plan is exercised. ``cron`` is the usual five fields, read in ``time_zone``."""

    cron: str
    time_zone: str = "UTC"
    jitter_s: float = 0
    overlap: str = "skip"
    auto_approve: bool = False
    clean_up: bool = True
    deliver: list[Delivery] = []
    """Where the reports are brought."""


class ScheduleLine(Value):
    plan: str
    paused: bool
    note: str
    next: datetime | None
    last: datetime | None
    runs: int


class Schedules:
    """The schedules of one namespace. Errors: ``NotFound``, ``BadInput``, ``Unreachable``."""

    def __init__(self, leeward: Leeward) -> None:
        self._leeward = leeward

    async def set(self, plan: Plan, timetable: Timetable, file: bytes = b"") -> None:
        """Make the plan's schedule, or replace it: the plan's text of now is what will be exercised.

        ``file``: that text, for the reports."""
        schedule = self._schedule(plan, timetable, file)
        try:
            await self._leeward.client.create_schedule(
                _id(plan.name), schedule, search_attributes=attributes(plan=plan.name, run_type="test")
            )
        except ScheduleAlreadyRunningError:

            def replace(found: ScheduleUpdateInput) -> ScheduleUpdate:
                schedule.state.paused = found.description.schedule.state.paused
                return ScheduleUpdate(schedule=schedule)

            await _asked(self._handle(plan.name).update(replace), plan.name)
        except RPCError as error:
            raise _translated(error, plan.name) from error

    async def list(self) -> list[ScheduleLine]:
        lines = []
        async for entry in await self._leeward.client.list_schedules():
            if not entry.id.startswith("exercise/"):
                continue
            description = await _asked(self._leeward.client.get_schedule_handle(entry.id).describe(), entry.id)
            info, state = description.info, description.schedule.state
            recent = info.recent_actions
            lines.append(
                ScheduleLine(
                    plan=entry.id.removeprefix("exercise/"),
                    paused=state.paused,
                    note=state.note or "",
                    next=info.next_action_times[0] if info.next_action_times and not state.paused else None,
                    last=recent[-1].started_at if recent else None,
                    runs=info.num_actions,
                )
            )
        return sorted(lines, key=lambda line: line.plan)

    async def pause(self, plan: str, note: str) -> None:
        await _asked(self._handle(plan).pause(note=note), plan)

    async def resume(self, plan: str, note: str) -> None:
        await _asked(self._handle(plan).unpause(note=note), plan)

    async def run_now(self, plan: str) -> None:
        await _asked(self._handle(plan).trigger(overlap=ScheduleOverlapPolicy.SKIP), plan)

    async def delete(self, plan: str) -> None:
        await _asked(self._handle(plan).delete(), plan)

    def _schedule(self, plan: Plan, timetable: Timetable, file: bytes) -> Schedule:
        if timetable.overlap not in OVERLAPS:
            raise BadInput(
                f"unknown overlap policy '{timetable.overlap}'",
                where="--overlap",
                remedy=f"use {' or '.join(OVERLAPS)}",
            )
        request = ExerciseRequest(
            plan=plan,
            requested_by=f"schedule ({self._leeward.operator})",
            timings=self._leeward.timings,
            auto_approve=timetable.auto_approve,
            webhooks=self._leeward.inventory.notifications,
            clean_up=timetable.clean_up,
            limits=self._leeward.inventory.failover_limits(plan.machines),
            deliver=timetable.deliver,
            **travelling(file),
        )
        return Schedule(
            action=ScheduleActionStartWorkflow(
                "PlanExercise",
                request,
                id=_id(plan.name),
                task_queue=CONTROL_QUEUE,
                typed_search_attributes=attributes(plan=plan.name, run_type="test"),
                static_summary=f"exercise of {plan.name}",
            ),
            spec=ScheduleSpec(
                cron_expressions=[timetable.cron],
                time_zone_name=timetable.time_zone,
                jitter=timedelta(seconds=timetable.jitter_s) if timetable.jitter_s else None,
            ),
            policy=SchedulePolicy(overlap=OVERLAPS[timetable.overlap], catchup_window=timedelta(hours=1)),
            state=ScheduleState(note=f"{timetable.cron} {timetable.time_zone}, set by {self._leeward.operator}"),
        )

    def _handle(self, plan: str) -> ScheduleHandle:
        return self._leeward.client.get_schedule_handle(_id(plan))


def _id(plan: str) -> str:
    return f"exercise/{plan}"


async def _asked(call: Awaitable[Answer], plan: str) -> Answer:
    try:
        return await call
    except RPCError as error:
        raise _translated(error, plan) from error


def _translated(error: RPCError, plan: str) -> LeewardError:
    if error.status is RPCStatusCode.NOT_FOUND:
        return NotFound(
            f"plan '{plan}' has no schedule", remedy="make one: leeward schedule set PLAN --cron '0 4 * * 0'"
        )
    if error.status is RPCStatusCode.INVALID_ARGUMENT:
        return BadInput(
            f"Temporal does not take the schedule: {error.message}", where=plan, remedy="correct --cron or --time-zone"
        )
    return Unreachable(f"Temporal does not answer: {error.message}", where=plan, remedy="leeward up")
