"""Operations that take long: a job on the host that outlives the connection, found again by its id.

The job is a process of its own with its call and answer in files (``scripts/_job*.ps1``). The host starts it once
however often it is asked; whoever asks again with the same operation and input waits for the same job.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING

from pydantic import Field, SecretStr

from adapters.hyperv.call import Answer, decode_answer, encode_call, powershell, secrets_in
from adapters.hyperv.loader import JOB
from adapters.hyperv.operation import Input, Operation, Output
from vault.domain import Value
from vault.errors import Busy, Unreachable

if TYPE_CHECKING:
    from adapters.hyperv.session import HostSession

logger = logging.getLogger(__name__)

CALL_TIMEOUT_S = 120.0
"""For one of the short operations that start, look at and remove a job."""
FIRST_POLL_S, LAST_POLL_S = 0.5, 15.0
KEEP_S = 3600.0
"""An answer that nobody fetched for so long belongs to a caller that gave up: the operation is begun anew."""


class JobState(StrEnum):
    ABSENT = "absent"
    STARTING = "starting"
    RUNNING = "running"
    FINISHED = "finished"
    LOST = "lost"
    """Its process is gone without an answer: the host was restarted, or somebody ended it."""


class JobId(Value):
    id: str = Field(pattern=r"^[0-9a-f]{32}$")


class JobCall(JobId):
    call: SecretStr
    """Holds the parameters, and so what is secret in them."""
    command: str


class JobStarted(Value):
    started: bool
    """False when a job of this id was there already."""


class JobStatus(Value):
    state: JobState
    age_s: float
    """Since the host last changed the job's files."""
    answer: str | None = None


class JobRemoved(Value):
    removed: bool


START = Operation("_job_start", JobCall, JobStarted)
POLL = Operation("_job_poll", JobId, JobStatus)
REMOVE = Operation("_job_remove", JobId, JobRemoved)


def job_id(call: bytes) -> str:
    """The same for the same script, text and parameters: a new version of leeward does not take up an old job."""
    return hashlib.sha256(call).hexdigest()[:32]


def run_job(
    session: HostSession,
    operation: Operation[Input, Output],
    given: Input,
    beat: Callable[[str], None],
    timeout_s: float,
) -> Output:
    """See :meth:`adapters.hyperv.session.HostSession.run_job`."""
    call = encode_call(operation.script, given)
    job = JobId(id=job_id(call))
    where = session.host.where
    _forget_what_is_over(session, job)
    start = JobCall(id=job.id, call=SecretStr(call.decode("ascii")), command=powershell(JOB))
    session.run(START, start, timeout_s=CALL_TIMEOUT_S)
    status = _wait(session, operation.script, job, beat, timeout_s)
    if status.state is JobState.ABSENT:
        raise Busy(
            f"somebody else fetched the result of the job '{operation.script}'",
            where=where,
            remedy="let one worker at a time drive the machine; the operation is begun anew",
        )
    _remove(session, job)
    if status.answer is None:
        raise Unreachable(
            f"the job '{operation.script}' is gone without a result",
            where=where,
            remedy="the host was probably restarted; the operation is begun anew",
        )
    answer: Answer = decode_answer(status.answer, where)
    return session.result(operation, answer, secrets_in(given.model_dump()))


def _forget_what_is_over(session: HostSession, job: JobId) -> None:
    found = session.run(POLL, job, timeout_s=CALL_TIMEOUT_S)
    is_stale = found.state is JobState.FINISHED and found.age_s > KEEP_S
    if found.state is JobState.LOST or is_stale:
        session.run(REMOVE, job, timeout_s=CALL_TIMEOUT_S)


def _remove(session: HostSession, job: JobId) -> None:
    """Tried twice: were the job removed and only the host's word of it lost, its result would be lost with it."""
    try:
        session.run(REMOVE, job, timeout_s=CALL_TIMEOUT_S)
    except Unreachable as error:
        logger.info("%s; removing job %s again", error, job.id)
        session.run(REMOVE, job, timeout_s=CALL_TIMEOUT_S)


def _wait(session: HostSession, name: str, job: JobId, beat: Callable[[str], None], timeout_s: float) -> JobStatus:
    started = time.monotonic()
    pause = FIRST_POLL_S
    while True:
        status = session.run(POLL, job, timeout_s=CALL_TIMEOUT_S)
        if status.state not in (JobState.STARTING, JobState.RUNNING):
            return status
        waited = time.monotonic() - started
        if waited > timeout_s:
            raise Busy(
                f"the job '{name}' still runs after {timeout_s:g} s",
                where=session.host.where,
                remedy="it goes on; whoever asks for the same operation again waits for it",
            )
        beat(f"{session.host.where}: '{name}' runs for {waited:.0f} s")
        time.sleep(min(pause, max(timeout_s - waited, 0.05)))
        pause = min(pause * 1.5, LAST_POLL_S)
