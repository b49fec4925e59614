"""A typed client of one Swordfish service: resources in, actions out, tasks awaited, errors translated."""

from __future__ import annotations

import threading
import time
from typing import TypeVar

import requests
from pydantic import ValidationError

from adapters.san.ports import Watch
from adapters.swordfish.resources import ProblemAnswer, Resource, Task, TaskState
from vault import secrets
from vault.domain import Value
from vault.errors import (
    AuthenticationRefused,
    AuthorizationRefused,
    BadInput,
    Busy,
    Damaged,
    InvalidState,
    LeewardError,
    NotFound,
    Unreachable,
)

Found = TypeVar("Found", bound=Resource)
TIMEOUT_S = 30
POLL_S = 0.1
PATIENCE_S = 300.0
"""So long a task may stand still."""
RUNNING = frozenset({TaskState.NEW, TaskState.STARTING, TaskState.RUNNING, TaskState.PENDING})
STATUS: dict[int, type[LeewardError]] = {
    400: BadInput,
    401: AuthenticationRefused,
    403: AuthorizationRefused,
    404: NotFound,
    409: InvalidState,
    429: Busy,
    500: InvalidState,
    503: Unreachable,
}
"""HTTP status codes as Redfish uses them (DMTF DSP0266, "Status codes")."""


class SwordfishEndpoint(Value):
    """Where a service is. ``password`` is a reference; ``ca`` a PEM file of authorities to trust."""

    url: str
    user: str
    password: str
    ca: str | None = None


class SwordfishClient:
    """Thread-safe: each thread has its own session."""

    def __init__(self, endpoint: SwordfishEndpoint, *, patience_s: float = PATIENCE_S) -> None:
        self.where = endpoint.url.rstrip("/")
        self._endpoint = endpoint
        self._patience_s = patience_s
        self._of_thread = threading.local()

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._of_thread, "session", None)
        if session is None:
            session = self._of_thread.session = requests.Session()
            session.trust_env = False  # the environment's authorities and netrc do not override the inventory's
            session.auth = (self._endpoint.user, secrets.resolve(self._endpoint.password))
            session.verify = self._endpoint.ca or True
            session.headers["OData-Version"] = "4.0"
        return session

    def get(self, path: str, kind: type[Found]) -> Found:
        answer = self._request("GET", path, f"reading {path}")
        try:
            return kind.model_validate_json(answer.content)
        except ValidationError as error:
            raise Damaged(
                f"{path} is no {kind.__name__} as Swordfish describes it: {error.errors()[0]['msg']}",
                where=self.where,
                remedy="check the address of the service",
            ) from error

    def act(self, doing: str, path: str, body: dict[str, str], watch: Watch) -> None:
        """Invoke an action and wait for its task, when it makes one. Raises ``InvalidState`` when that stands still."""
        answer = self._request("POST", path, doing, body)
        if answer.status_code == requests.codes.accepted:
            self._await(doing, answer.headers["Location"], watch)

    def _await(self, doing: str, path: str, watch: Watch) -> None:
        moved_at, percent = time.monotonic(), -1
        while (task := self.get(path, Task)).state in RUNNING:
            watch(doing, task.percent)
            if task.percent != percent:
                moved_at, percent = time.monotonic(), task.percent
            if time.monotonic() - moved_at > self._patience_s:
                raise InvalidState(
                    f"{doing}: task '{task.id}' stands at {percent} % for {self._patience_s:g} s",
                    where=self.where,
                    remedy="look at the task on the array",
                )
            time.sleep(POLL_S)
        if task.state is not TaskState.COMPLETED:
            said = "; ".join(message.message for message in task.messages) or task.state.lower()
            raise InvalidState(f"{doing}: {said}", where=self.where, remedy="look at the group on the array")

    def _request(self, method: str, path: str, doing: str, body: dict[str, str] | None = None) -> requests.Response:
        try:
            answer = self._session().request(method, f"{self.where}{path}", json=body, timeout=TIMEOUT_S)
        except requests.exceptions.SSLError as error:
            raise BadInput(
                f"{doing}: the service's certificate is not trusted ({error})",
                where=self.where,
                remedy="name its authority as 'ca'",
            ) from error
        except requests.exceptions.RequestException as error:
            raise Unreachable(f"{doing}: {error}", where=self.where, remedy="check that the service runs") from error
        if answer.ok:
            return answer
        kind = STATUS.get(answer.status_code, InvalidState)
        raise kind(f"{doing}: {_said(answer)}", where=self.where, remedy="look at the array")


def _said(answer: requests.Response) -> str:
    try:
        return ProblemAnswer.model_validate_json(answer.content).error.message
    except ValidationError:
        return f"HTTP status {answer.status_code}"
