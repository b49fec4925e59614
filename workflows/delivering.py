"""Bringing a finished run's report to where people look for it: a workflow of its own, so that no run waits for it."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.workflow import ParentClosePolicy

from activities import contracts
from activities.contracts import CONTROL_QUEUE, Done, ReportDelivery
from workflows.attributes import attributes
from workflows.model import PlanRequest

GIVES_UP_AFTER = timedelta(days=1)


@workflow.defn(name="DeliverReport")
class DeliverReport:
    """One report to one place, tried again under the product's retry rule; fails when it never got there."""

    @workflow.run
    async def run(self, given: ReportDelivery) -> Done:
        done: Done = await workflow.execute_activity(
            contracts.DELIVER_REPORT.name,
            given,
            result_type=contracts.DELIVER_REPORT.gives,
            task_queue=CONTROL_QUEUE,
            summary=f"bring the report of run {given.run_id} to {given.delivery.where}",
            heartbeat_timeout=timedelta(minutes=1),
            start_to_close_timeout=timedelta(minutes=10),
            schedule_to_close_timeout=GIVES_UP_AFTER,
            retry_policy=RetryPolicy(maximum_interval=timedelta(minutes=1)),
        )
        return done


async def deliver_report(given: PlanRequest) -> None:
    """Start delivering to every place that the run was given; the run goes on and may end before that is done."""
    for number, delivery in enumerate(given.deliver):
        await workflow.start_child_workflow(
            "DeliverReport",
            ReportDelivery(plan=given.plan.name, run_id=given.run_id, delivery=delivery),
            id=f"report/{given.plan.name}/{given.run_id}/{number}",
            parent_close_policy=ParentClosePolicy.ABANDON,
            search_attributes=attributes(plan=given.plan.name, run_type=given.run_type),
            static_summary=f"report of {given.run_type} of {given.plan.name} to {delivery.where}",
        )
