"""What whoever waits for a job hears, when names of jobs begin anew with each protection of a machine."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from lab_support import lab_machine, make_inventory
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode
from test_machine_status import NOW, status

from console.asking import JobFailed
from console.machines import Machines
from vault.lifecycle import JobKind
from workflows.model import Health, JobRecord, JobResult, MachineState, Timings

pytestmark = pytest.mark.unit

JOB = "job/db/4-DisableProtection"
WHY = "machine 'db' has a test copy, db-test — clean it up first"


class Run(NamedTuple):
    run_id: str
    says: str


class Handle:
    def __init__(self, latest: Run | None) -> None:
        self._latest = latest

    async def describe(self) -> Run:
        if self._latest is None:
            raise RPCError("workflow not found", RPCStatusCode.NOT_FOUND, b"")
        return self._latest

    async def result(self) -> JobResult:
        assert self._latest is not None
        return JobResult(sentences=[self._latest.says])


class Temporal(Client):
    """As much of it as waiting for a job asks for: ``runs`` of its name, one after another."""

    def __init__(self, *runs: Run) -> None:
        self.runs = list(runs)

    def get_workflow_handle(self, *_: Any, run_id: str | None = None, **__: Any) -> Any:
        known = [run for run in self.runs if run_id in (None, run.run_id)]
        return Handle(known[-1] if known else None)


class Known(Machines):
    """``then``: what the machine says of the job at each look; None: it is not protected."""

    def __init__(self, temporal: Temporal, *then: str | None) -> None:
        super().__init__(temporal, make_inventory({"db": lab_machine()}), Timings(), "ada")
        self._then = list(then)

    async def find_machine(self, machine: str) -> MachineState | None:
        assert machine == "db"
        state = self._then.pop(0) if len(self._then) > 1 else self._then[0]
        if state is None:
            return None
        job = JobRecord.model_validate(
            {
                "id": JOB,
                "kind": JobKind.DISABLE,
                "request_id": "r",
                "requested_by": "ada",
                "state": state,
                "started": NOW,
                "message": WHY if state == "failed" else "",
            }
        )
        return status(Health()).state.model_copy(update={"jobs": [job]})


@pytest.mark.parametrize("earlier", [[], [Run("1", "disabled long ago")]])
@pytest.mark.parametrize("looks", [["failed"], ["running", "running", "failed"]])
async def test_a_job_that_failed_before_it_began_is_told(earlier: list[Run], looks: list[str]) -> None:
    """It waited for the end of replication; meanwhile something came in its way."""
    with pytest.raises(JobFailed, match=WHY):
        await Known(Temporal(*earlier), *looks).job_result(JOB)


async def test_a_job_that_ended_with_its_machine_is_told_by_its_own_run() -> None:
    assert (await Known(Temporal(Run("1", "removed")), "running", None).job_result(JOB)).sentences == ["removed"]
