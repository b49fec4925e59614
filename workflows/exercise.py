"""An exercise: a test failover of a plan that nobody has to watch, with its clean-up (requirements §D; schedules).

It runs the same plan run that an operator would start, under the same id and therefore the same lock: while the plan
runs for another reason, the exercise says so and ends.
"""

from __future__ import annotations

from temporalio import workflow
from temporalio.exceptions import ApplicationError, ChildWorkflowError, WorkflowAlreadyStartedError

from plans.model import Group, Plan, PlanMachine
from plans.steps import Step
from vault.domain import RunType
from workflows.attributes import attributes
from workflows.calls import reason
from workflows.ids import plan_id
from workflows.model import ExerciseRequest, ExerciseResult, PlanRequest, RunStatus
from workflows.steering import why_not_start

OWNER_IS_ASKED = "owner-of-exercise-is-asked"
"""Patch: an exercise that had begun goes on, whoever had set it."""


@workflow.defn(name="PlanExercise")
class PlanExercise:
    """Test failover, then clean-up whatever came of it; fails when the test did, so that schedules show it."""

    @workflow.run
    async def run(self, given: ExerciseRequest) -> ExerciseResult:
        why_not = why_not_start(given.access, given.set_by, auto_approve=given.auto_approve)
        if why_not is not None and workflow.patched(OWNER_IS_ASKED):
            raise ApplicationError(
                f"exercise of {given.plan.name}: {why_not}; nothing was changed", type="Refused", non_retryable=True
            )
        test, trouble = await self._run_plan(given, "test")
        cleaned_up: RunStatus | None = None
        if given.clean_up and test is not None:
            cleaned_up, not_cleaned = await self._run_plan(given, "cleanup")
            trouble = "; ".join(filter(None, [trouble, not_cleaned]))
        if trouble:
            raise ApplicationError(
                f"exercise of {given.plan.name}: {trouble}", type="ExerciseFailed", non_retryable=True
            )
        return ExerciseResult(test=test, cleanup=cleaned_up)

    async def _run_plan(self, given: ExerciseRequest, run_type: RunType) -> tuple[RunStatus | None, str]:
        """The run's final status and what went wrong; no status when it could not even start."""
        started = workflow.now()
        request = PlanRequest(
            plan=unattended(given.plan),
            run_id=f"{started:%Y%m%dT%H%M%S}-{workflow.uuid4().hex[:4]}",
            run_type=run_type,
            requested_by=given.requested_by,
            timings=given.timings,
            auto_approve=given.auto_approve,
            access=given.access,
            webhooks=given.webhooks,
            limits=given.limits,
            deliver=given.deliver,
            plan_text=given.plan_text,
            plan_sha256=given.plan_sha256,
        )
        try:
            status: RunStatus = await workflow.execute_child_workflow(
                "PlanRun",
                request,
                result_type=RunStatus,
                id=plan_id(given.plan.name),
                search_attributes=attributes(plan=given.plan.name, run_type=run_type),
                static_summary=f"{run_type} of {given.plan.name}, asked by {given.requested_by}",
            )
        except WorkflowAlreadyStartedError:
            return None, "the plan is running already, so there was no exercise"
        except ChildWorkflowError as error:
            return None, reason(error)
        return status, "" if status.state == "completed" else f"{run_type} {status.state}: {status.message}"


def unattended(plan: Plan) -> Plan:
    """The plan with ``stop`` wherever it would wait for an operator after a failure: nobody is there."""
    return plan.model_copy(
        update={
            "on_failure": _without_waiting(plan.on_failure),
            "before": [_step(step) for step in plan.before],
            "groups": [_group(group) for group in plan.groups],
            "after": [_step(step) for step in plan.after],
        }
    )


def _group(group: Group) -> Group:
    return group.model_copy(
        update={
            "on_failure": _without_waiting(group.on_failure),
            "before": [_step(step) for step in group.before],
            "machines": [_machine(entry) for entry in group.machines],
            "after": [_step(step) for step in group.after],
        }
    )


def _machine(entry: PlanMachine) -> PlanMachine:
    steps = {"before": [_step(step) for step in entry.before], "after": [_step(step) for step in entry.after]}
    return entry.model_copy(update=steps)


def _step(step: Step) -> Step:
    return step.model_copy(update={"on_failure": _without_waiting(step.on_failure)})


def _without_waiting(rule: str | None) -> str | None:
    return "stop" if rule == "wait" else rule
