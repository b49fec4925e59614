"""What ``scripts/_job*.ps1`` do on a host: jobs that outlive connections, whose files outlive the host's restart."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from adapters.hyperv.call import powershell
from adapters.hyperv.loader import JOB
from simulation.winrm.answering import Result, failure


@dataclass
class _Job:
    changed: float = field(default_factory=time.monotonic)
    alive: bool = True
    answer: str | None = None


class JobFolder:
    """The folder of jobs and the processes that belong to it. Thread-safe."""

    def __init__(self) -> None:
        self._jobs: dict[str, _Job] = {}
        self._lock = threading.Condition()
        self.started = 0
        """How many processes were started."""

    def __len__(self) -> int:
        return len(self._jobs)

    def start(self, parameters: dict[str, Any], run: Callable[[bytes], str]) -> Result:
        if parameters["command"] != powershell(JOB):
            return failure("Win32_Process.Create returned 9.", identifier="Win32_Process.Create returned 9.")
        with self._lock:
            if parameters["id"] in self._jobs:
                return {"started": False}
            job = self._jobs[parameters["id"]] = _Job()
            self.started += 1
        call = parameters["call"].encode("ascii")
        threading.Thread(target=self._work, args=(job, call, run), name="simulated job", daemon=True).start()
        return {"started": True}

    def poll(self, parameters: dict[str, Any]) -> Result:
        with self._lock:
            job = self._jobs.get(parameters["id"])
            if job is None:
                return {"state": "absent", "age_s": 0.0, "answer": None}
            state = "finished" if job.answer is not None else "running" if job.alive else "lost"
            return {"state": state, "age_s": time.monotonic() - job.changed, "answer": job.answer}

    def remove(self, parameters: dict[str, Any]) -> Result:
        with self._lock:
            return {"removed": self._jobs.pop(parameters["id"], None) is not None}

    def reboot(self) -> None:
        """Every process ends where it is; the files stay."""
        with self._lock:
            for job in self._jobs.values():
                job.alive = False

    def age(self, seconds: float) -> None:
        """Make all jobs older, as if that time had passed."""
        with self._lock:
            for job in self._jobs.values():
                job.changed -= seconds

    def wait_until_idle(self, timeout_s: float) -> bool:
        """Until no job runs; False when some still do after ``timeout_s``."""
        with self._lock:
            return self._lock.wait_for(lambda: not any(job.alive for job in self._jobs.values()), timeout_s)

    def _work(self, job: _Job, call: bytes, run: Callable[[bytes], str]) -> None:
        answer = run(call)
        with self._lock:
            if job.alive:
                job.answer, job.changed, job.alive = answer, time.monotonic(), False
                self._lock.notify_all()
