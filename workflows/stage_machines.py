"""What a stage does with its machines: it asks them for jobs by signal and waits for their answers."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, FailureError

from activities import contracts
from activities.contracts import StartMachine, site_queue
from plans.context import MachineInRun
from plans.model import PlanMachine
from plans.stages import StageKind
from vault.domain import Answering, TargetSettings
from vault.lifecycle import WITH_RECOVERY_POINTS, JobKind, Phase
from workflows.already import COMMITTED_ALREADY, FAILED_OVER
from workflows.calls import call, is_cancellation, reason
from workflows.ids import machine_id
from workflows.jobs import GRACE
from workflows.model import AnswersNow, HeldJob, JobEvent, JobRequest, JobResult
from workflows.progress import StageProgress, StepFailed
from workflows.readiness import MAIN_JOB
from workflows.signalling import reached, send
from workflows.slots import Slots

CHECK_HOLDS_FOR = timedelta(minutes=15)
"""Jobs asked for so soon after the run's readiness check rely on it: an outage should not wait for another one."""
TELLS_THAT_IT_ANSWERS = "tells-machines-that-they-answer"
"""Patch: a machine that was started again went on warning that it did not answer."""
ASKED_AGAIN = 6
"""A source whose site was silent before in the run is asked for that part of the usual time."""
JOB_OF_STAGE = {
    StageKind.CLEAN_UP: JobKind.CLEANUP_TEST,
    StageKind.COMMIT: JobKind.COMMIT,
    StageKind.REVERSE: JobKind.REVERSE,
}

RECOVERS = frozenset({JobKind.TEST_FAILOVER, JobKind.PLANNED_FAILOVER, JobKind.UNPLANNED_FAILOVER})


class MachineWork:
    """Does with a machine what its stage is for; each way returns the sentence for the machine's row.

    They raise ``StepFailed``. Doing a machine again after a failure goes on from where it is.
    """

    def __init__(self, progress: StageProgress, slots: Slots) -> None:
        self._progress = progress
        self._given = progress.given
        self._slots = slots

    async def do(self, entry: PlanMachine) -> str:
        kind = self._given.stage.kind
        if entry.machine in self._progress.already and self._given.stage.run_type == self._given.facts.run_type:
            return self._progress.already[entry.machine]
        if kind is StageKind.RECOVER and entry.start_delay:
            row_id = self._progress.row_id(entry.machine)
            await self._progress.pause(entry.start_delay, row_id, f"start delay of {entry.machine}")
        async with self._slots.of(entry.machine):
            if kind is StageKind.SHUT_DOWN:
                return await self._shut_down(entry)
            if kind is StageKind.RECOVER:
                return await self._recover(entry)
            return await self._plain_job(entry)

    async def _shut_down(self, entry: PlanMachine) -> str:
        """First half of a planned failover: source off, last changes at the target; then the machine holds."""
        request = self._request(entry, JobKind.PLANNED_FAILOVER, hold=True)
        await self._ask(entry.machine, request)
        event = await self._event(entry.machine, request.id, {"held", "failed", "refused"}, abandon_on_cancel=True)
        if self._was_done_meanwhile(entry, event):
            return self._progress.already[entry.machine]
        if event.kind != "held":
            raise StepFailed(event.message)
        self._progress.held[entry.machine] = request.id
        return "off, last changes sent"

    async def _recover(self, entry: PlanMachine) -> str:
        row_id = self._progress.row_id(entry.machine)
        earlier = self._progress.rows[row_id].result
        if earlier is not None and earlier.recovered is not None:
            return await self._start_again(entry, row_id, earlier)
        if self._given.facts.run_type in {"planned", "failback"}:
            event = await self._proceed(entry)
        else:
            request = self._request(entry, MAIN_JOB[self._given.facts.run_type])
            await self._ask(entry.machine, request)
            event = await self._event(entry.machine, request.id, {"finished", "failed", "refused"})
        if self._was_done_meanwhile(entry, event):
            return self._progress.already[entry.machine]
        if event.result is None:
            raise StepFailed(event.message)
        return self._take_result(entry, row_id, event.result)

    def _was_done_meanwhile(self, entry: PlanMachine, event: JobEvent) -> bool:
        """It had something to do when the run began, and is refused now because another run was quicker."""
        if event.kind != "refused" or event.phase not in FAILED_OVER or self._given.facts.run_type == "test":
            return False
        self._progress.already[entry.machine] = "already recovered: by another run, meanwhile"
        return True

    async def _proceed(self, entry: PlanMachine) -> JobEvent:
        request_id = self._given.held.get(entry.machine)
        if request_id is None:
            raise StepFailed(f"'{entry.machine}' was not shut down in this run, so it is not started — skip it")
        word = HeldJob(request_id=request_id, reply_to=workflow.info().workflow_id)
        await send(machine_id(entry.machine), "proceed", word)
        return await self._event(entry.machine, request_id, {"finished", "failed"})

    async def _start_again(self, entry: PlanMachine, row_id: str, earlier: JobResult) -> str:
        """The replica exists but did not answer: retrying means starting it again."""
        recovered = earlier.recovered
        assert recovered is not None
        try:
            answering: Answering = await call(
                contracts.START_MACHINE,
                StartMachine(site=recovered.site, machine=recovered.name, timeout_s=entry.boot_timeout),
                queue=site_queue(recovered.site),
                summary=f"start {recovered.name} again",
                timings=self._given.facts.timings,
                at_most=timedelta(seconds=entry.boot_timeout) + GRACE,
            )
        except ActivityError as error:
            raise StepFailed(reason(error)) from error
        if earlier.trouble is not None and workflow.patched(TELLS_THAT_IT_ANSWERS):
            await self._tell_that_it_answers(entry.machine, AnswersNow(trouble=earlier.trouble, answering=answering))
        result = earlier.model_copy(update={"answering": answering, "answered_at": workflow.now(), "trouble": None})
        return self._take_result(entry, row_id, result)

    async def _tell_that_it_answers(self, machine: str, told: AnswersNow) -> None:
        """The machine warns of its trouble until somebody tells it that this is over."""
        await reached(machine_id(machine), "answers_now", told)

    def _take_result(self, entry: PlanMachine, row_id: str, result: JobResult) -> str:
        self._progress.set(row_id, result=result)
        if result.silent_site and result.silent_site not in self._progress.silent_sites:
            self._progress.silent_sites.append(result.silent_site)
        if result.recovered is not None:
            made = result.recovered
            self._progress.machines[entry.machine] = MachineInRun(
                name=made.name,
                site=made.site,
                network=made.network,
                address=result.answering.address if result.answering else None,
                recovery_point=made.point.id,
            )
        if result.trouble is not None:
            raise StepFailed(result.trouble)
        return (result.sentences or ["done"])[-1]

    async def _plain_job(self, entry: PlanMachine) -> str:
        request = self._request(entry, JOB_OF_STAGE[self._given.stage.kind])
        await self._ask(entry.machine, request)
        event = await self._event(entry.machine, request.id, {"finished", "failed", "refused"})
        if event.kind == "refused" and event.phase in self._done_for(entry):
            return f"already {event.phase}: by another run"
        if event.kind == "refused" and request.kind is JobKind.COMMIT and event.phase is Phase.FAILED_OVER:
            return COMMITTED_ALREADY
        if event.result is None:
            raise StepFailed(event.message)
        self._progress.set(self._progress.row_id(entry.machine), result=event.result)
        return (event.result.sentences or ["done"])[-1]

    def _done_for(self, entry: PlanMachine) -> frozenset[Phase]:
        """Of a machine that another run recovered, the phases in which it has also done what follows."""
        if entry.machine not in self._progress.already:
            return frozenset()
        if self._given.stage.kind is StageKind.COMMIT:
            return WITH_RECOVERY_POINTS | {Phase.FAILED_OVER}
        return WITH_RECOVERY_POINTS if self._given.stage.kind is StageKind.REVERSE else frozenset()

    def _request(self, entry: PlanMachine, kind: JobKind, *, hold: bool = False) -> JobRequest:
        facts = self._given.facts
        row_id = self._progress.row_id(entry.machine)
        return JobRequest(
            id=f"{facts.run_id}/{row_id}/{self._progress.rounds[row_id]}",
            kind=kind,
            requested_by=f"plan {facts.plan} ({facts.requested_by})",
            plan=facts.plan,
            run_type=facts.run_type,
            reply_to=workflow.info().workflow_id,
            run_id=facts.run_id,
            execution=_execution(),
            of_run=facts.of_run,
            point=facts.point,
            source_unreachable=facts.source_unreachable,
            source_answer_s=self._source_answer_s(entry.machine),
            checked=facts.checked_at is not None and workflow.now() - facts.checked_at < CHECK_HOLDS_FOR,
            hold_before_start=hold,
            start=entry.start,
            target=self._target(entry, kind),
            shut_down_timeout_s=entry.shutdown_timeout,
            boot_timeout_s=entry.boot_timeout,
        )

    def _source_answer_s(self, machine: str) -> float | None:
        """A site that is gone must not cost each group of the plan the full wait; one that is back answers at once."""
        where = self._progress.machines.get(machine)
        if where is None or where.site not in self._progress.silent_sites:
            return None
        return self._given.facts.timings.site_answer_s / ASKED_AGAIN

    def _target(self, entry: PlanMachine, kind: JobKind) -> TargetSettings | None:
        """On the way back machines are what they were."""
        facts = self._given.facts
        if kind not in RECOVERS or facts.direction != "primary-to-recovery":
            return None
        target = entry.target.in_run(facts.run_type)
        return target if target.wanted else None

    async def _ask(self, machine: str, request: JobRequest) -> None:
        try:
            await send(machine_id(machine), "ask", request)
        except FailureError as error:
            if is_cancellation(error):
                raise
            raise StepFailed(f"machine '{machine}' is not protected — leeward protect {machine}") from error

    async def _event(
        self, machine: str, request_id: str, kinds: set[str], *, abandon_on_cancel: bool = False
    ) -> JobEvent:
        def arrived() -> JobEvent | None:
            return next((event for event in self._progress.events.get(request_id, []) if event.kind in kinds), None)

        if abandon_on_cancel:
            await workflow.wait_condition(lambda: arrived() is not None or self._progress.cancelled)
            if arrived() is None:
                held = HeldJob(request_id=request_id, reason="the plan run was cancelled")
                await workflow.get_external_workflow_handle(machine_id(machine)).signal("abandon", held)
                kinds = {"finished", "failed", "refused"}
        await workflow.wait_condition(lambda: arrived() is not None)
        event = arrived()
        assert event is not None
        return event


def _execution() -> str:
    run = workflow.info().parent
    return run.run_id if run is not None else ""
