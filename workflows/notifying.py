"""Telling a webhook about a run or a machine: a workflow of its own, so that a dead one never holds a recovery up."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.workflow import ParentClosePolicy

from activities import contracts
from activities.contracts import CONTROL_QUEUE, Done, Notification
from workflows.attributes import attributes

GIVES_UP_AFTER = timedelta(hours=6)


@workflow.defn(name="Notify")
class Notify:
    """One notification to one webhook, tried again under the product's retry rule."""

    @workflow.run
    async def run(self, notification: Notification) -> Done:
        done: Done = await workflow.execute_activity(
            contracts.NOTIFY.name,
            notification,
            result_type=contracts.NOTIFY.gives,
            task_queue=CONTROL_QUEUE,
            summary=f"{notification.occasion}: {notification.webhook.url}",
            start_to_close_timeout=timedelta(minutes=1),
            schedule_to_close_timeout=GIVES_UP_AFTER,
            retry_policy=RetryPolicy(maximum_interval=timedelta(minutes=1)),
        )
        return done


async def notify(notification: Notification) -> None:
    """Start telling; the run goes on and may end before the webhook has answered."""
    await workflow.start_child_workflow(
        "Notify",
        notification,
        id=f"notify/{notification.id}",
        parent_close_policy=ParentClosePolicy.ABANDON,
        search_attributes=attributes(
            plan=notification.plan or None,
            machine=notification.machine or None,
            run_type=notification.run_type,
        ),
        static_summary=f"tell {notification.webhook.url}: {notification.occasion}",
    )
