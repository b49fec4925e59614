"""What only Temporal itself can tell about its workflows."""

from __future__ import annotations

import asyncio

from pydantic import JsonValue
from temporalio import activity
from temporalio.client import WorkflowExecutionStatus, WorkflowQueryRejectedError
from temporalio.common import QueryRejectCondition
from temporalio.service import RPCError, RPCStatusCode

from activities import contracts
from activities.contracts import RunFound, RunQuestion, WorkflowsAnswers, WorkflowsQuestion

QUERIES_AT_ONCE = 20


class RunActivities:
    @activity.defn(name=contracts.FIND_RUN.name)
    async def find_run(self, given: RunQuestion) -> RunFound:
        """Whether that very run goes on; one that Temporal does not know any more has ended."""
        handle = activity.client().get_workflow_handle(given.workflow_id, run_id=given.execution)
        try:
            status = (await handle.describe()).status
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return RunFound(goes_on=False, how="is not known any more")
        if status is WorkflowExecutionStatus.RUNNING:
            return RunFound(goes_on=True, how="goes on")
        return RunFound(goes_on=False, how=f"was {status.name.lower()}" if status is not None else "has ended")

    @activity.defn(name=contracts.QUERY_WORKFLOWS.name)
    async def query_workflows(self, given: WorkflowsQuestion) -> WorkflowsAnswers:
        """A query leaves no trace in a history; asked by signal, a machine would cost Temporal a dozen writes."""
        client, at_once = activity.client(), asyncio.Semaphore(QUERIES_AT_ONCE)

        async def ask(workflow_id: str) -> tuple[str, JsonValue] | None:
            handle = client.get_workflow_handle(workflow_id)
            async with at_once:
                activity.heartbeat()
                try:
                    answer: JsonValue = await handle.query(given.query, reject_condition=QueryRejectCondition.NOT_OPEN)
                except WorkflowQueryRejectedError:
                    return None
                except RPCError as error:
                    if error.status is not RPCStatusCode.NOT_FOUND:
                        raise
                    return None
            return workflow_id, answer

        answers = await asyncio.gather(*map(ask, given.ids))
        return WorkflowsAnswers(answers=dict(answer for answer in answers if answer is not None))
