"""What an operator asks of one machine: its protection, and single jobs."""

from __future__ import annotations

import asyncio
import secrets
from datetime import timedelta
from typing import Any

from temporalio.client import WithStartWorkflowOperation, WorkflowFailureError
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode

from activities.contracts import CONTROL_QUEUE, PointList
from console.asking import LOOK_EVERY_S, Answer, JobFailed, asked, translated
from console.machine_status import MachineViews
from vault.domain import Value
from vault.errors import InvalidState, NotFound
from vault.lifecycle import JobKind, Phase
from workflows.attributes import attributes
from workflows.calls import reason
from workflows.ids import machine_id, machine_of
from workflows.model import JobAccepted, JobRequest, JobResult, MachineSettings, MachineState


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
            access=self.inventory.access,
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
        accepted: JobAccepted = await asked(
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

    async def resume_replication(self, machine: str) -> MachineState:
        return await self._machine_update(machine, "resume_replication", MachineState)

    async def configure(self, machine: str) -> MachineState:
        """Bring changed settings of the inventory to the machine."""
        return await self._machine_update(machine, "configure", MachineState, self.settings(machine))

    async def recovery_points(self, machine: str) -> PointList:
        return await self._machine_update(machine, "recovery_points", PointList)

    async def job_result(self, job_id: str) -> JobResult:
        """Wait for a job's end, and until its machine is what the job made of it. Raises ``JobFailed`` with its reason.

        A job that was accepted may not have begun yet, because replication comes to its safe end first.
        """
        handle = self.client.get_workflow_handle(job_id, result_type=JobResult)
        is_open = True
        while True:
            try:
                result: JobResult = await handle.result()
            except WorkflowFailureError as error:
                await self._taken_over(job_id)
                raise JobFailed(reason(error.cause), where=job_id) from error
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND or not is_open:
                    raise translated(error, job_id) from error
                is_open = await self._is_open(job_id)  # one that began and ended meanwhile is there now
                await asyncio.sleep(LOOK_EVERY_S if is_open else 0)
            else:
                await self._taken_over(job_id)
                return result

    async def _taken_over(self, job_id: str) -> None:
        """Until the machine knows that the job has ended; it needs a moment for that."""
        while await self._is_open(job_id):  # noqa: ASYNC110 - a workflow has no event to wait for
            await asyncio.sleep(LOOK_EVERY_S)

    async def _is_open(self, job_id: str) -> bool:
        """Whether the machine still means to run, or runs, the job."""
        state = await self.find_machine(machine_of(job_id))
        return state is not None and any(job.id == job_id and job.state in {"running", "held"} for job in state.jobs)

    async def wait_until_protected(self, machine: str) -> MachineState:
        """Until the chain of jobs that ``protect`` starts has ended. Raises ``JobFailed``."""
        working = {Phase.ENABLING, Phase.REPLICATING_INITIALLY, Phase.FINALIZING}
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
        return await asked(self._machine(machine).execute_update(update, args=list(given), result_type=gives))
