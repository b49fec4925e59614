"""What only Temporal itself can tell about its workflows."""

from __future__ import annotations

from temporalio import activity
from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from activities import contracts
from activities.contracts import RunFound, RunQuestion


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
