"""One array's SMI-S provider: requests by pywbem, jobs awaited, errors translated."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pywbem

from adapters.san.patience import Patience, longest_percent_s
from adapters.san.ports import Watch
from adapters.smis.errors import of_exception, of_return_value
from adapters.smis.values import JobState, ReturnValue
from vault import secrets
from vault.errors import InvalidState, NotFound, Unreachable
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

    def await_job(
        self,
        doing: str,
        out: Mapping[str, Any],
        watch: Watch,
        *,
        to_its_end: bool = True,
        copies: int = 0,
    ) -> None:
        """Wait for the job of :meth:`invoke`'s output, when it has one; not ``to_its_end``: until it is seen to run.

        ``copies``: so many bytes, at most, which it takes its time for.

        Raises ``InvalidState`` when it fails or makes no progress, ``Unreachable`` when its end cannot be seen."""
        path = out.get("Job")
        if path is None:
            return
        longest = max(self._job_patience_s, longest_percent_s(copies))
        began, patience = time.monotonic(), Patience(longest)
        while True:
            job = self._job(doing, path)
            state, percent = int(job["JobState"]), int(job["PercentComplete"] or 0)
            if state == JobState.COMPLETED:
                return
            if state in OVER:
                code = int(job.get("ErrorCode") or ReturnValue.FAILED)
                raise of_return_value(code, doing, self.array, job.get("ErrorDescription") or "")
            watch(doing, percent)
            if not to_its_end and (percent > 0 or time.monotonic() - began > POLL_S):
                return
            if patience.ran_out((state, percent)):
                raise InvalidState(
                    f"{doing}: job '{path['InstanceID']}' stands at {percent} % ({_state_name(state)}) "
                    f"for {longest:.4g} s",
                    where=f"array {self.array}",
                    remedy="look at the job on the array; the operation can be repeated once it has ended",
                )
            time.sleep(POLL_S)

    def _job(self, doing: str, path: pywbem.CIMInstanceName) -> pywbem.CIMInstance:
        """An array may delete a job some time after its end (``DeleteOnCompletion``)."""
        try:
            return self.get(path)
        except NotFound as gone:
            raise Unreachable(
                f"{doing}: the array has forgotten job '{path['InstanceID']}' before its end was seen",
                where=f"array {self.array}",
                remedy="the operation is repeated; what is done is done",
            ) from gone

    @contextmanager
    def _translated(self, doing: str) -> Iterator[pywbem.WBEMConnection]:
        try:
            yield self._connection(doing)
        except pywbem.Error as error:
            raise of_exception(error, doing, self.array) from error

    def _connection(self, doing: str) -> pywbem.WBEMConnection:
        """A password that was renewed where it is kept is used from then on."""
        storage, password = self._storage, secrets.resolve(self._storage.password)
        found: pywbem.WBEMConnection | None = getattr(self._threads, "connection", None)
        if found is None or found.creds != (storage.user, password):
            if storage.ca is not None and not storage.ca_file.exists():
                raise InvalidState(
                    f"{doing}: the file with the array's authority is not there",
                    where=storage.ca,
                    remedy="correct 'ca' of the site's storage, or put the file there",
                )
            found = pywbem.WBEMConnection(
                storage.url,
                (storage.user, password),
                storage.namespace,
                ca_certs=storage.ca,
                timeout=TIMEOUT_S,
            )
            # Without this, requests lets REQUESTS_CA_BUNDLE and netrc override what the inventory says.
            found.session.trust_env = False
            self._threads.connection = found
        return found


def _state_name(state: int) -> str:
    """A vendor may have states of its own: then the job goes on as far as anybody knows."""
    return JobState(state).name.lower() if state in set(JobState) else f"state {state}"
