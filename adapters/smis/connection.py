"""One array's SMI-S provider: requests by pywbem, jobs awaited, errors translated."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pywbem

from adapters.san.ports import Watch
from adapters.smis.errors import of_exception, of_return_value
from adapters.smis.values import JobState, ReturnValue
from vault import secrets
from vault.errors import InvalidState
from vault.san import SmisStorage

TIMEOUT_S = 30
JOB_PATIENCE_S = 300.0
"""So long a job of an array may stand still."""
POLL_S = 0.1
OVER = frozenset({JobState.COMPLETED, JobState.TERMINATED, JobState.KILLED, JobState.EXCEPTION})


class SmisConnection:
    """Thread-safe: each thread has a connection of its own, because pywbem's keeps its last request and answer."""

    def __init__(self, storage: SmisStorage, *, job_patience_s: float = JOB_PATIENCE_S) -> None:
        self._job_patience_s = job_patience_s
        self.array = storage.array
        self._storage = storage
        self._threads = threading.local()

    def enumerate(self, class_name: str) -> list[pywbem.CIMInstance]:
        with self._translated(f"listing {class_name}") as connection:
            return list(connection.EnumerateInstances(class_name))

    def get(self, path: pywbem.CIMInstanceName) -> pywbem.CIMInstance:
        with self._translated(f"reading {path.classname}") as connection:
            return connection.GetInstance(path)

    def associated(self, path: pywbem.CIMInstanceName, through: str) -> list[pywbem.CIMInstance]:
        """The objects at the other ends of the associations of class ``through``."""
        with self._translated(f"following {through}") as connection:
            return list(connection.Associators(path, AssocClass=through))

    def references(self, path: pywbem.CIMInstanceName, through: str) -> list[pywbem.CIMInstance]:
        """The associations of class ``through`` themselves."""
        with self._translated(f"following {through}") as connection:
            return list(connection.References(path, ResultClass=through))

    def invoke(self, doing: str, method: str, target: pywbem.CIMInstanceName, **given: Any) -> Mapping[str, Any]:
        """Call a method that may go on as a job; its output, with ``Job`` when it does.

        ``doing`` is what an operator reads when it fails."""
        with self._translated(doing) as connection:
            code, out = connection.InvokeMethod(method, target, **given)
        if code not in (ReturnValue.COMPLETED, ReturnValue.JOB_STARTED):
            raise of_return_value(int(code), doing, self.array)
        return out  # type: ignore[no-any-return]

    def await_job(self, doing: str, out: Mapping[str, Any], watch: Watch, *, to_its_end: bool = True) -> None:
        """Wait for the job of :meth:`invoke`'s output, when it has one; not ``to_its_end``: until it is seen to run.

        Raises ``InvalidState`` when it fails or makes no progress."""
        path = out.get("Job")
        if path is None:
            return
        moved_at, last = time.monotonic(), (-1, -1)
        while True:
            job = self.get(path)
            state, percent = JobState(int(job["JobState"])), int(job["PercentComplete"] or 0)
            if state is JobState.COMPLETED:
                return
            if state in OVER:
                code = int(job.get("ErrorCode") or ReturnValue.FAILED)
                raise of_return_value(code, doing, self.array, job.get("ErrorDescription") or "")
            watch(doing, percent)
            if not to_its_end and (percent > 0 or time.monotonic() - moved_at > POLL_S):
                return
            if (int(state), percent) != last:
                moved_at, last = time.monotonic(), (int(state), percent)
            if time.monotonic() - moved_at > self._job_patience_s:
                raise InvalidState(
                    f"{doing}: job '{path['InstanceID']}' stands at {percent} % ({state.name.lower()}) "
                    f"for {self._job_patience_s:g} s",
                    where=f"array {self.array}",
                    remedy="look at the job on the array; the operation can be repeated once it has ended",
                )
            time.sleep(POLL_S)

    @contextmanager
    def _translated(self, doing: str) -> Iterator[pywbem.WBEMConnection]:
        try:
            yield self._connection(doing)
        except pywbem.Error as error:
            raise of_exception(error, doing, self.array) from error

    def _connection(self, doing: str) -> pywbem.WBEMConnection:
        found: pywbem.WBEMConnection | None = getattr(self._threads, "connection", None)
        if found is None:
            storage = self._storage
            if storage.ca is not None and not storage.ca_file.exists():
                raise InvalidState(
                    f"{doing}: the file with the array's authority is not there",
                    where=storage.ca,
                    remedy="correct 'ca' of the site's storage, or put the file there",
                )
            found = pywbem.WBEMConnection(
                storage.url,
                (storage.user, secrets.resolve(storage.password)),
                storage.namespace,
                ca_certs=storage.ca,
                timeout=TIMEOUT_S,
            )
            # Without this, requests lets REQUESTS_CA_BUNDLE and netrc override what the inventory says.
            found.session.trust_env = False
            self._threads.connection = found
        return found
