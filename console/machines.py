"""What an operator asks of one machine: its protection, and single jobs."""

from __future__ import annotations

import asyncio
import secrets
from datetime import timedelta
from typing import Any

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import ResetActivityRequest
from temporalio.client import WithStartWorkflowOperation, WorkflowFailureError
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode

from activities.contracts import CONTROL_QUEUE, PointList
from console.asking import LOOK_EVERY_S, Answer, JobFailed, translated
from console.machine_status import MachineViews, PendingActivity
from vault.domain import Value
from vault.errors import InvalidState, NotFound
from vault.lifecycle import JobKind, Phase
from workflows.attributes import attributes
from workflows.calls import reason
from workflows.ids import machine_id, machine_of
from workflows.model import ChangedSettings, JobAccepted, JobRequest, JobResult, MachineSettings, MachineState, Resume


class Resumed(Value):
    """``tried_now``: activities that were waiting for their next try."""

    state: MachineState
    tried_now: list[str] = []


class Machines(MachineViews):
    """Protects machines and asks them for jobs."""

    def settings(self, machine: str) -> MachineSettings:
        """What the inventory says about a machine's replication, both ways."""
        if machine not in self.inventory.machines:
            known = ", ".join(sorted(self.inventory.machines))
            raise NotFound(f"machine '{machine}' is not in the inventory", remedy=f"known machines: {known}")
        entry = self.inventory.machines[machine]
        forward = self.inventory.relationship(machine)
        network, test_network = self.inventory.mapped_networks(entry.target, forward.target_network, entry.site)
        return MachineSettings(
            name=machine,
            forward=forward,
            backward=forward.reversed(network, test_network),
            policy=self.inventory.policies[entry.policy],
            timings=self.timings,
            access=self.inventory.authorizer,
            webhooks=self.inventory.notifications,
        )

    async def protect(self, machine: str) -> str:
        """Start protecting a machine, or go on where an earlier try stopped; returns the first job's id."""
        settings = self.settings(machine)
        initial = MachineState(**{name: getattr(settings, name) for name in MachineSettings.model_fields})
        start: WithStartWorkflowOperation[Any, Any] = WithStartWorkflowOperation(
            "Machine",
            initial,
            id=machine_id(machine),
            task_queue=CONTROL_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            search_attributes=attributes(machine=machine, site=initial.active_site, phase=initial.phase.value),
            static_summary=f"{machine}: {settings.forward.source_site} → {settings.forward.target_site}",
            task_timeout=timedelta(seconds=self.timings.decision_s),
        )
        known = await self.find_machine(machine)
        next_job = {Phase.ENABLED: JobKind.INITIAL_REPLICATION, Phase.COPIED: JobKind.FINALIZE}
        kind = next_job.get(known.phase, JobKind.ENABLE) if known else JobKind.ENABLE
        accepted: JobAccepted = await self.asked(
            self.client.execute_update_with_start_workflow(
                "request", self._job_request(kind), start_workflow_operation=start, result_type=JobAccepted
            )
        )
        return accepted.job_id

    async def request(self, machine: str, kind: JobKind, **options: Any) -> str:
        """Ask a machine for one job; returns the job's workflow id."""
        accepted: JobAccepted = await self._machine_update(
            machine, "request", JobAccepted, self._job_request(kind, **options)
        )
        return accepted.job_id

    async def resume_replication(self, machine: str) -> Resumed:
        """Go on with replication that was halted, and try at once what waits for its next try."""
        status = await self.machine_status(machine)
        activities = status.activities if status is not None else []
        kept = [one for one in activities if one.pulse is not None and one.pulse.waiting is not None]
        resume = Resume(by=self.operator, try_now=bool(kept))
        state = await self._machine_update(machine, "resume_replication", MachineState, resume)
        waiting = [one for one in activities if one.waits_for_its_try and one not in kept]
        tried = [one for one in waiting if await self._try_now(one)]
        return Resumed(state=state, tried_now=[one.name for one in [*kept, *tried]])

    async def _try_now(self, activity: PendingActivity) -> bool:
        """Temporal's own word for it: the wait ends, what was reached stays. False: it is over meanwhile."""
        request = ResetActivityRequest(
            namespace=self.client.namespace,
            execution=WorkflowExecution(workflow_id=activity.workflow_id),
            identity=self.operator,
            id=activity.id,
        )
        try:
            await self.client.workflow_service.reset_activity(request)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return False
            raise translated(error, activity.workflow_id) from error
        return True

    async def configure(self, machine: str) -> MachineState:
        """Bring changed settings of the inventory to the machine."""
        settings = self.settings(machine)
        given = {name: getattr(settings, name) for name in MachineSettings.model_fields}
        return await self._machine_update(
            machine, "configure", MachineState, ChangedSettings(**given, by=self.operator)
        )

    async def recovery_points(self, machine: str) -> PointList:
        return await self._machine_update(machine, "recovery_points", PointList)

    async def job_result(self, job_id: str) -> JobResult:
        """Wait for a job's end, and until its machine is what the job made of it. Raises ``JobFailed`` with its reason.

        A job that was accepted may not have begun yet, because replication comes to its safe end first.
        """
        is_open = True
        while True:
            try:
                result = await self._result_of_latest(job_id)
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND or not is_open:
                    raise translated(error, job_id) from error
                is_open = await self._is_open(job_id)  # one that began and ended meanwhile is there now
                await asyncio.sleep(LOOK_EVERY_S if is_open else 0)
            else:
                if result is not None:
                    return result

    async def _result_of_latest(self, job_id: str) -> JobResult | None:
        """None: that was a job of the same name of an earlier protection, seen before the one asked for began."""
        latest = await self.client.get_workflow_handle(job_id).describe()
        job = self.client.get_workflow_handle(job_id, run_id=latest.run_id, result_type=JobResult)
        try:
            result: JobResult | WorkflowFailureError = await job.result()
        except WorkflowFailureError as error:
            result = error
        await self._taken_over(job_id)
        if (await self.client.get_workflow_handle(job_id).describe()).run_id != latest.run_id:
            return None
        if isinstance(result, WorkflowFailureError):
            raise JobFailed(reason(result.cause), where=job_id) from result
        return result

    async def _taken_over(self, job_id: str) -> None:
        """Until the machine knows that the job has ended; it needs a moment for that."""
        while await self._is_open(job_id):  # noqa: ASYNC110 - a workflow has no event to wait for
            await asyncio.sleep(LOOK_EVERY_S)

    async def _is_open(self, job_id: str) -> bool:
        """Whether the machine still means to run, or runs, the job. Raises ``JobFailed`` when it knows that it failed:
        one that something came in the way of before it began has no workflow that could tell."""
        state = await self.find_machine(machine_of(job_id))
        job = next((job for job in state.jobs if job.id == job_id), None) if state is not None else None
        if job is not None and job.state == "failed":
            raise JobFailed(job.message, where=job_id)
        return job is not None and job.is_open

    async def wait_until_protected(self, machine: str, first_job: str) -> MachineState:
        """Until the chain of jobs that ``protect`` started has ended. Raises ``JobFailed``.

        ``first_job``: its id. When enabling fails, the machine's own workflow is over as well, and only the job tells
        why.
        """
        working = {Phase.ENABLING, Phase.REPLICATING_INITIALLY, Phase.FINALIZING}
        await self.job_result(first_job)
        while True:
            state = await self.find_machine(machine)
            if state is None:
                raise JobFailed("the machine is not protected any more", where=machine)
            if state.phase is Phase.PROTECTED:
                return state
            last = state.jobs[-1] if state.jobs else None
            if state.phase not in working and last is not None and last.state == "failed":
                raise JobFailed(last.message, where=machine)
            if last is not None and last.state == "running":
                await self.job_result(last.id)
            else:
                await asyncio.sleep(LOOK_EVERY_S)

    def _job_request(self, kind: JobKind, **options: Any) -> JobRequest:
        return JobRequest(id=secrets.token_hex(6), kind=kind, requested_by=self.operator, **options)

    async def _machine_update(self, machine: str, update: str, gives: type[Answer], *given: Value) -> Answer:
        if await self.find_machine(machine) is None:
            raise InvalidState(
                f"machine '{machine}' is not protected", remedy=f"protect it first: leeward protect {machine}"
            )
        return await self.asked(self._machine(machine).execute_update(update, args=list(given), result_type=gives))
