"""A typed client of one Swordfish service: resources in, actions out, tasks awaited, errors translated."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import NamedTuple, TypeVar
from urllib.parse import urljoin, urlsplit

import requests
from pydantic import ValidationError

from adapters.san.patience import Patience
from adapters.san.ports import Watch
from adapters.swordfish.resources import Message, Problem, ProblemAnswer, Resource, Task, TaskState
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
OVER = frozenset(TaskState)


class Meaning(NamedTuple):
    error: type[LeewardError]
    remedy: str


REFUSED = Meaning(InvalidState, "look at the group on the array, then try again")
SILENT = Meaning(Unreachable, "check that the service runs and can be reached; the operation is repeated")
STATUS: dict[int, Meaning] = {
    400: Meaning(BadInput, "see in the service's log what it does not accept"),
    401: Meaning(AuthenticationRefused, "correct 'user' and 'password' of the site's storage"),
    403: Meaning(AuthorizationRefused, "let the array's account manage replication"),
    404: Meaning(NotFound, "check 'url' and 'array' of the site's storage, and what is on the array"),
    405: Meaning(InvalidState, "see what the service supports"),
    408: SILENT,
    409: REFUSED,
    410: Meaning(NotFound, "look at the array"),
    429: Meaning(Busy, "the service has too much to do; the operation is repeated"),
    500: Meaning(InvalidState, "look into the service's log"),
    501: Meaning(InvalidState, "see what the service supports"),
    502: SILENT,
    503: SILENT,
    504: SILENT,
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
            session.verify = self._endpoint.ca or True
            session.headers["OData-Version"] = "4.0"
        session.auth = (self._endpoint.user, secrets.resolve(self._endpoint.password))  # it may have been renewed
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
            self._await(doing, answer, watch)

    def _await(self, doing: str, answer: requests.Response, watch: Watch) -> None:
        """The action's own answer comes from its task monitor (DSP0266, "Asynchronous operations"): 202 as long as it
        goes on, then what it would have been without a task. Some services name the task itself instead, which is
        there with 200 at any time."""
        monitor = answer.headers.get("Location")
        if monitor is None:
            raise Damaged(
                f"{doing}: the service accepted it without telling where its task is",
                where=self.where,
                remedy="look at its tasks on the array, then try again: what is done is done",
            )
        patience = Patience(self._patience_s)
        while True:
            task = _task_in(answer)
            if task is not None and task.state in OVER:
                self._require_success(doing, task)
                return
            if task is None and answer.status_code != requests.codes.accepted:
                return
            percent, name = (task.percent or 0, task.id) if task else (0, monitor)
            watch(doing, percent)
            if patience.ran_out((percent, task.state if task else "")):
                raise InvalidState(
                    f"{doing}: task '{name}' stands at {percent} % for {self._patience_s:g} s",
                    where=self.where,
                    remedy="look at the task on the array; the operation can be repeated once it has ended",
                )
            time.sleep(POLL_S)
            answer = self._look_at(doing, monitor)

    def _look_at(self, doing: str, monitor: str) -> requests.Response:
        """A monitor may end once it has told the outcome: to another request, whose answer was lost."""
        try:
            return self._request("GET", monitor, doing)
        except NotFound as gone:
            raise Unreachable(
                f"{doing}: the service has forgotten the task before its end was seen",
                where=self.where,
                remedy="the operation is repeated; what is done is done",
            ) from gone

    def _require_success(self, doing: str, task: Task) -> None:
        if task.state != TaskState.COMPLETED:
            said, advice = _told(task.messages)
            remedy = advice or "look at the group on the array"
            raise InvalidState(
                f"{doing}: {said or f'the task was {task.state.lower()}'}", where=self.where, remedy=remedy
            )

    def _request(self, method: str, path: str, doing: str, body: dict[str, str] | None = None) -> requests.Response:
        address = self._address(path, doing)
        try:
            answer = self._session().request(method, address, json=body, timeout=TIMEOUT_S)
        except requests.exceptions.SSLError as error:
            raise BadInput(
                f"{doing}: the service's certificate is not trusted ({error})",
                where=self.where,
                remedy="name its authority as 'ca' of the site's storage",
            ) from error
        except requests.exceptions.RequestException as error:
            raise SILENT.error(f"{doing}: {error}", where=self.where, remedy=SILENT.remedy) from error
        if answer.ok:
            return answer
        meaning, problem = STATUS.get(answer.status_code, REFUSED), _problem_in(answer)
        said, advice = _told(problem.details)
        raise meaning.error(
            f"{doing}: {said or problem.message or f'HTTP status {answer.status_code}'}",
            where=self.where,
            remedy="; ".join(one for one in (advice, meaning.remedy) if one),
        )

    def _address(self, path: str, doing: str) -> str:
        """Of a path or an address that the service named. The login goes nowhere else."""
        address = urljoin(f"{self.where}/", path)
        if urlsplit(address)[:2] != urlsplit(self.where)[:2]:
            raise Damaged(
                f"{doing}: the service names an address of another one: {address}",
                where=self.where,
                remedy="give the site's storage the 'url' by which the service knows itself",
            )
        return address


def _task_in(answer: requests.Response) -> Task | None:
    try:
        return Task.model_validate_json(answer.content)
    except ValidationError:
        return None


def _problem_in(answer: requests.Response) -> Problem:
    try:
        return ProblemAnswer.model_validate_json(answer.content).error
    except ValidationError:
        return Problem()


def _told(messages: Sequence[Message]) -> tuple[str, str]:
    """What the messages say, and what they advise."""
    said = "; ".join((one.message or one.id).rstrip(".") for one in messages if one.message or one.id)
    return said, "; ".join(dict.fromkeys(one.advice for one in messages if one.advice))
