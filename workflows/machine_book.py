"""What a machine's workflow knows: its state, its jobs, its story; shown in the Temporal UI at every change."""

from __future__ import annotations

from temporalio import workflow

from vault.lifecycle import Phase
from workflows.attributes import HEALTH, PHASE, SITE
from workflows.ids import job_id
from workflows.model import Health, JobRecord, JobRequest, MachineState, StoryLine

JOBS_REMEMBERED = 20
"""Of as many requests the ids are known, so that a repeated one finds its job. Open ones are never forgotten."""
FORGETS_NO_OPEN_JOB = "no-open-job-is-forgotten"
"""Patch: one of more than twenty ended without a word, and whoever had asked for it waited for ever."""
STORY_REMEMBERED = 20


class MachineBook:
    """Holds the state; changed through its methods only, so that what is shown is what is known."""

    def __init__(self, state: MachineState) -> None:
        self.state = state
        self.requests: dict[str, JobRequest] = {}
        """Those whose jobs this run of the workflow knows."""

    # -- the machine ---------------------------------------------------------------------------------------------

    def update(self, **changes: object) -> None:
        self.state = self.state.model_copy(update=changes)

    def enter(self, phase: Phase) -> None:
        self.update(phase=phase)
        self.show()

    def halt(self, why: str) -> None:
        """Nothing goes on by itself until the operator says so."""
        self.update(halted=True)
        self.set_health(Health(level="critical", reason=why))

    def set_health(self, health: Health) -> None:
        self.update(health=health)
        self.show()

    def tell(self, what: str) -> None:
        """Something happened to the machine outside of its jobs."""
        line = StoryLine(at=workflow.now(), what=what)
        self.update(story=[*self.state.story, line][-STORY_REMEMBERED:])

    def show(self) -> None:
        state = self.state
        workflow.upsert_search_attributes(
            [
                PHASE.value_set(state.phase.value),
                HEALTH.value_set(state.health.level),
                SITE.value_set(state.active_site),
            ]
        )
        relationship = state.relationship
        why = f" — {state.health.reason}" if state.health.reason else ""
        workflow.set_current_details(
            f"**{state.name}**: {state.phase.value}, {relationship.source_site} → {relationship.target_site}\n\n"
            f"health: {state.health.level}{why}"
        )

    # -- its jobs ------------------------------------------------------------------------------------------------

    def accept(self, wanted: JobRequest) -> None:
        number = self.state.jobs_started + 1
        record = JobRecord(
            id=job_id(self.state.name, number, wanted.kind.value),
            kind=wanted.kind,
            request_id=wanted.id,
            requested_by=wanted.requested_by,
            plan=wanted.plan,
            state="running",
            started=workflow.now(),
        )
        self.requests[wanted.id] = wanted
        jobs = _remembered([*self.state.jobs, record])
        self.update(jobs_started=number, jobs=jobs, seen_requests=[job.request_id for job in jobs])

    def record(self, request_id: str, *, state: str, message: str = "") -> None:
        finished = workflow.now() if state in {"done", "failed"} else None
        self.update(
            jobs=[
                record.model_copy(update={"state": state, "message": message, "finished": finished})
                if record.request_id == request_id
                else record
                for record in self.state.jobs
            ]
        )

    def knows(self, request_id: str) -> bool:
        return request_id in self.state.seen_requests

    def job_of(self, request_id: str) -> str:
        """The id of the job's workflow."""
        return next(record.id for record in self.state.jobs if record.request_id == request_id)

    def is_held(self, request_id: str) -> bool:
        return any(job.request_id == request_id and job.state == "held" for job in self.state.jobs)

    def is_open(self, request_id: str) -> bool:
        return any(job.request_id == request_id and job.is_open for job in self.state.jobs)

    def answers_to(self, request_id: str, reply_to: str) -> None:
        """Somebody else than who asked wants to hear of the job's end."""
        self.requests[request_id] = self.requests[request_id].model_copy(update={"reply_to": reply_to})


def _remembered(jobs: list[JobRecord]) -> list[JobRecord]:
    too_many = len(jobs) - JOBS_REMEMBERED
    if not any(job.is_open for job in jobs[: max(0, too_many)]) or not workflow.patched(FORGETS_NO_OPEN_JOB):
        return jobs[-JOBS_REMEMBERED:]
    forgotten = [job.id for job in jobs if not job.is_open][:too_many]
    return [job for job in jobs if job.id not in forgotten]
