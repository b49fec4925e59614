"""What all job workflows share: the story they tell, checks before anything changes, starting a machine."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError

from activities import contracts
from activities.contracts import Findings, ReadinessQuestion, ShutDown, StartMachine, replication_queue, site_queue
from vault.domain import LATEST, Answering, Finding, PowerState, RecoveredMachine, Relationship, Severity
from vault.errors import InvalidState
from vault.lifecycle import JobKind
from workflows.calls import call, is_cancellation, reason, refused
from workflows.model import JobInput, JobResult, Timings

GRACE = timedelta(minutes=1)


class Story:
    """The sentences an operator reads afterwards; the newest is shown in the Temporal UI while the job runs."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def tell(self, sentence: str) -> None:
        self.sentences.append(sentence)
        workflow.set_current_details("\n".join(f"- {line}" for line in self.sentences))


def source_site_queue(relationship: Relationship) -> str:
    return site_queue(relationship.source_site)


def target_site_queue(relationship: Relationship) -> str:
    return site_queue(relationship.target_site)


def source_replication_queue(relationship: Relationship) -> str:
    return replication_queue(relationship.source_site)


async def check_target(given: JobInput, point: str = LATEST) -> list[Finding]:
    """``given.copies``: of a test failover what the machine has already, of others what is removed."""
    copies, is_test = [copy.machine for copy in given.copies], given.request.kind is JobKind.TEST_FAILOVER
    tested, leaving = ([given.relationship.machine] if copies else [], []) if is_test else ([], copies)
    answer = await ask_target(given.relationship, given.timings, point, tested, leaving, recovering=True)
    return answer.findings


async def ask_target(
    relationship: Relationship,
    timings: Timings,
    point: str = LATEST,
    tested: Sequence[str] = (),
    leaving: Sequence[str] = (),
    *,
    recovering: bool = False,
    protecting: bool = False,
) -> Findings:
    question = ReadinessQuestion(
        site=relationship.target_site,
        side="target",
        relationships=[relationship],
        point=point,
        recovering=recovering,
        tested=list(tested),
        leaving=list(leaving),
        protecting=protecting,
    )
    return await call(
        contracts.CHECK_READINESS,
        question,
        queue=target_site_queue(relationship),
        summary=f"is {relationship.target_site} ready?",
        timings=timings,
        once=True,
        site_must_answer=True,
    )


async def check_source(relationship: Relationship, timings: Timings) -> list[Finding]:
    return (await ask_source(relationship, timings)).findings


async def ask_source(relationship: Relationship, timings: Timings, *, protecting: bool = False) -> Findings:
    question = ReadinessQuestion(
        site=relationship.source_site, side="source", relationships=[relationship], protecting=protecting
    )
    return await call(
        contracts.CHECK_READINESS,
        question,
        queue=source_site_queue(relationship),
        summary=f"is {relationship.source_site} ready?",
        timings=timings,
        once=True,
        site_must_answer=True,
    )


async def ask_both(relationship: Relationship, timings: Timings, *, protecting: bool = False) -> Findings:
    """Of a machine that is going to be protected, for the first time or the other way round: the target judges what the
    source says that it will take."""
    here = await ask_source(relationship, timings, protecting=protecting)
    told = {
        "replica_space": here.replica_space.get(relationship.machine),
        "identity": here.identities.get(relationship.machine, ""),
    }
    there = await ask_target(relationship.model_copy(update=told), timings, protecting=protecting)
    return there.model_copy(update={"findings": [*here.findings, *there.findings]})


def placed(relationship: Relationship, ready: Findings) -> Relationship:
    """With the host that the target's fabric chose for the replica, if it chooses one."""
    return relationship.model_copy(update={"replica_server": ready.replica_servers.get(relationship.machine, "")})


def refuse_on_failures(findings: list[Finding], doing: str) -> None:
    """Raises when a check failed. Called before anything was changed, and says so."""
    failures = dict.fromkeys(str(finding) for finding in findings if finding.severity is Severity.FAIL)
    if failures:
        raise refused(InvalidState(f"{doing} refused, nothing was changed: {'; '.join(failures)}"))


async def shut_down(site: str, given: JobInput, *, once: bool) -> None:
    """Shut the machine down at ``site`` and insist on the proof that it is off."""
    machine, timeout = given.relationship.machine, given.request.shut_down_timeout_s or given.timings.shut_down_s
    seen = await call(
        contracts.SHUT_DOWN,
        ShutDown(site=site, machine=machine, timeout_s=timeout),
        queue=site_queue(site),
        summary=f"shut down {machine} at {site}",
        timings=given.timings,
        at_most=timedelta(seconds=timeout) + GRACE,
        once=once,
        site_must_answer=once,
    )
    if seen.power is not PowerState.OFF:
        raise refused(InvalidState(f"machine '{machine}' is still {seen.power}", where=f"site {site}"))


async def start(site: str, machine: str, given: JobInput) -> tuple[Answering | None, str | None]:
    """Power a machine on and wait until it answers; ``(answer, None)`` or ``(None, what went wrong)``.

    It does not raise, because at this point the machine exists and may be running: that has to be told as it is.
    """
    timeout = given.request.boot_timeout_s or given.timings.boot_s
    try:
        answer = await call(
            contracts.START_MACHINE,
            StartMachine(site=site, machine=machine, timeout_s=timeout),
            queue=site_queue(site),
            summary=f"start {machine} at {site} and wait until it answers",
            timings=given.timings,
            at_most=timedelta(seconds=timeout) + GRACE,
            counts_when_cancelled=True,
        )
    except ActivityError as error:
        if is_cancellation(error):
            return None, f"cancelled before '{machine}' answered at {site} — see whether it runs there"
        return None, reason(error)
    return answer, None


async def start_recovered(
    recovered: RecoveredMachine, given: JobInput, story: Story, outage_began: datetime
) -> JobResult:
    """Start the machine that was made at the target, as :func:`start`, unless it is to stay off; what the job did."""
    answering, trouble = None, None
    if given.request.start:
        answering, trouble = await start(recovered.site, recovered.name, given)
        story.tell(trouble or f"{recovered.name} answers at {recovered.site}, network {recovered.network}")
    else:
        story.tell(f"{recovered.name} stays off at {recovered.site}, as was asked")
    if recovered.committed:
        story.tell("committed by itself: this kind of replication keeps no other recovery point")
    return JobResult(
        sentences=story.sentences,
        point=recovered.point,
        recovered=recovered,
        answering=answering,
        trouble=trouble,
        outage_began=outage_began,
        answered_at=workflow.now() if answering else None,
    )
