"""Calls of a plan: one HTTP request to another system, made so that making it again is harmless."""

from __future__ import annotations

import http.client
import re
import time
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from activities.contracts import CallDone, SendCall
from activities.programs import masked
from activities.running import Running
from plans.rendering import render_step
from plans.steps import PLACEHOLDER, CallStep
from vault.errors import BadInput, NotRecoverable
from vault.secrets import resolve

IDEMPOTENCY_HEADER = "Idempotency-Key"
"""draft-ietf-httpapi-idempotency-key-header: a quoted text, the same for every try of one request."""
ONE_TRY_S = 30.0
BODY_KEPT = 64 * 1024
"""Bytes of an answer that are kept: the first ones."""
WORTH_ANOTHER_TRY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""RFC 9110 and 6585, 8470: the other side is busy or out of order, the request itself is not refused."""
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0


class CallFailed(NotRecoverable):
    """The other system refused the request, or did not answer well in all the time it had."""


class _Answer(NamedTuple):
    """``status`` None: there was none; ``text`` says why."""

    status: int | None
    text: str
    retry_after_s: float = 0.0


def send_call(given: SendCall, running: Running) -> CallDone:
    """Send until the answer is the expected one. What is sent again has the same idempotency key.

    Raises:
        CallFailed: another answer than expected, or none in the step's time.
        BadInput: the rendered request cannot be sent.
        NotFound, AuthorizationRefused: a secret cannot be read.
    """
    step = render_step(given.step, given.context, where=given.step.name)
    assert isinstance(step, CallStep)
    _refuse_bad_address(step)
    secrets = {name: resolve(reference) for name, reference in step.secrets.items()}
    headers = _headers(step, secrets)
    headers[IDEMPOTENCY_HEADER] = f'"{idempotency_key(given)}"'
    began = time.monotonic()
    for tries, least in enumerate(_pauses(), start=1):
        running.beat(f"call '{step.name}', try {tries}")
        left = step.timeout - (time.monotonic() - began)
        answer = _send(step, headers, max(0.1, min(ONE_TRY_S, left)), secrets)
        trouble = _trouble(step, answer)
        if trouble is None:
            return CallDone(
                status=answer.status or 0, body=answer.text, tries=tries, duration_s=time.monotonic() - began
            )
        pause = max(least, answer.retry_after_s)
        if not _may_pass(step, answer) or time.monotonic() - began + pause > step.timeout:
            raise CallFailed(
                f"{step.method} {step.url[:200]} {trouble} (try {tries})",
                where=step.name,
                remedy="correct the cause, then retry or skip the step",
            )
        running.wait(pause)
    raise AssertionError("pauses never end")


def idempotency_key(given: SendCall) -> str:
    """The same for every try of one request, in whatever process; another one when an operator asks for a retry."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"leeward/{given.context.run_id}/{given.row_id}/{given.round}"))


def _pauses() -> Iterator[float]:
    pause = FIRST_PAUSE_S
    while True:
        yield pause
        pause = min(pause * 2, LONGEST_PAUSE_S)


def _refuse_bad_address(step: CallStep) -> None:
    try:
        parts = urlsplit(step.url)
        sound = parts.scheme in ("http", "https") and parts.hostname is not None and parts.port != 0
    except ValueError:
        sound = False
    if not sound or re.search(r"[^\x21-\x7e]", step.url):
        raise BadInput(
            f"'{step.url[:200]}' is not a URL", where=step.name, remedy="begin it with https://, escape other letters"
        )


def _headers(step: CallStep, secrets: dict[str, str]) -> dict[str, str]:
    headers = {"User-Agent": "leeward"}
    if step.body:
        headers["Content-Type"] = "text/plain; charset=utf-8"
    for name, template in step.headers.items():
        value = PLACEHOLDER.sub(lambda found: secrets[found[1]], template).strip()
        if re.search(r"[^\t\x20-\x7e]", value):
            # Not quoted: the library's own complaint would carry the secret.
            raise BadInput(
                f"the value of the header '{name}' has a character that HTTP does not allow",
                where=step.name,
                remedy="use letters of ASCII and no line break, in the secret too",
            )
        for known in [known for known in headers if known.lower() == name.lower()]:
            del headers[known]
        headers[name] = value
    return headers


class _NoRedirects(HTTPRedirectHandler):
    """A redirect is an answer like others: following it would take the secrets to another place."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _send(step: CallStep, headers: dict[str, str], timeout_s: float, secrets: dict[str, str]) -> _Answer:
    body = step.body.encode() if step.body else None
    request = Request(step.url, data=body, headers=headers, method=step.method)
    deadline = time.monotonic() + timeout_s
    try:
        try:
            answer: Any = build_opener(_NoRedirects).open(request, timeout=timeout_s)
        except HTTPError as error:
            answer = error
        with answer:
            retry_after = _retry_after_s(answer.headers.get("Retry-After"))
            return _Answer(answer.status, _text(answer, secrets, deadline), retry_after)
    except (URLError, OSError, http.client.HTTPException) as error:
        return _Answer(None, masked(str(getattr(error, "reason", error)), secrets.values()))


def _text(answer: Any, secrets: dict[str, str], deadline: float) -> str:
    """One secret longer than asked for, so that none is cut at the end and kept by half.

    Raises:
        TimeoutError: the answer comes so slowly that it is not complete in time.
    """
    wanted = BODY_KEPT + max((len(value.encode()) for value in secrets.values()), default=0)
    raw = b""
    while len(raw) < wanted and (piece := answer.read1(wanted - len(raw))):
        raw += piece
        if time.monotonic() > deadline:
            raise TimeoutError("the answer does not come to its end in time")
    return masked(raw.decode(errors="replace"), secrets.values())[:BODY_KEPT]


def _retry_after_s(value: str | None) -> float:
    """RFC 9110 §10.2.3, in its form of seconds; a date is left to the ordinary pauses."""
    return float(value) if value and re.fullmatch(r"[0-9]{1,6}", value.strip()) else 0.0


def _trouble(step: CallStep, answer: _Answer) -> str | None:
    if answer.status is None:
        return f"does not answer: {answer.text}"
    expected = answer.status in step.status if step.status else 200 <= answer.status < 300
    if not expected:
        wanted = ", ".join(map(str, step.status)) or "2xx"
        first_line = (answer.text.strip().splitlines() or [""])[0][:200]
        return f"answers {answer.status}, expected {wanted}{f': {first_line}' if first_line else ''}"
    if step.contains is not None and step.contains not in answer.text:
        return f"answers {answer.status}, but without '{step.contains[:80]}'"
    return None


def _may_pass(step: CallStep, answer: _Answer) -> bool:
    """Whether the same request may succeed a little later."""
    return answer.status is None or (answer.status in WORTH_ANOTHER_TRY and answer.status not in step.status)
