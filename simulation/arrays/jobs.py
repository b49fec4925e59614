"""Jobs of an array: what takes time runs in a thread, and says how far it is (CIM_ConcreteJob)."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from adapters.smis.values import JobState, ReturnValue
from simulation.arrays.refusal import ArrayRefusal


@dataclass
class Job:
    id: str
    name: str
    state: JobState = JobState.RUNNING
    percent: int = 0
    error_code: int = 0
    error: str = ""
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    ended: threading.Event = field(default_factory=threading.Event)


class Jobs:
    """``hold`` stops every job that begins before its end: a job that is stuck."""

    def __init__(self) -> None:
        self.all: dict[str, Job] = {}
        self.hold = threading.Event()
        self._lock = threading.Lock()

    def start(self, name: str, work: Callable[[Job], None]) -> Job:
        with self._lock:
            job = Job(f"job-{len(self.all) + 1}", name)
            self.all[job.id] = job
        threading.Thread(target=self._run, args=(job, work), daemon=True, name=f"array job {name}").start()
        return job

    def is_running(self, name: str) -> bool:
        with self._lock:
            return any(job.name == name and job.state is JobState.RUNNING for job in self.all.values())

    def _run(self, job: Job, work: Callable[[Job], None]) -> None:
        if self.hold.is_set():
            return
        try:
            work(job)
        except ArrayRefusal as refusal:
            job.error_code, job.error, job.state = int(refusal.code), refusal.what, JobState.EXCEPTION
        except OSError as error:
            traceback.print_exc()
            job.error_code, job.error, job.state = int(ReturnValue.FAILED), str(error), JobState.EXCEPTION
        else:
            job.percent, job.state = 100, JobState.COMPLETED
        finally:
            job.ended.set()
