"""Webhooks against a real HTTP server: signed, classified for the retry rule, never leaking the secret."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from receiver_support import Answer, Receiver, receiving

from activities.contracts import Notification
from activities.notifications import SIGNATURE_HEADER, WebhookRefused, deliver, signature
from vault.errors import AuthenticationRefused, AuthorizationRefused, BadInput, LeewardError, Unreachable
from vault.notifications import Occasion, Webhook

pytestmark = pytest.mark.unit


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving(Answer(204)) as server:
        yield server


def notification(port: int, secret: str | None = None) -> Notification:
    return Notification(
        webhook=Webhook(url=f"http://127.0.0.1:{port}/hook", secret=secret),
        id="20260101T000000-abcd/waiting/1",
        occasion=Occasion.WAITING,
        plan="payments",
        run_id="20260101T000000-abcd",
        run_type="planned",
        state="waiting",
        message="Confirm that DNS was switched",
        step="recover web/Confirm that DNS was switched",
        at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def test_the_body_says_what_happened_and_the_signature_proves_who_says_it(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_SECRET", "correct horse")
    deliver(notification(receiver.server_port, "env:HOOK_SECRET"))
    _, _, headers, body = receiver.got[0]
    assert headers[SIGNATURE_HEADER] == signature("correct horse", body)
    assert headers[SIGNATURE_HEADER] != signature("wrong horse", body)
    told = json.loads(body)
    assert (told["plan"], told["occasion"], told["state"]) == ("payments", "waiting", "waiting")
    assert "HOOK_SECRET" not in body.decode()
    assert "correct horse" not in body.decode()


def test_without_a_secret_there_is_no_signature(receiver: Receiver) -> None:
    deliver(notification(receiver.server_port))
    assert SIGNATURE_HEADER not in receiver.got[0].headers


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, AuthenticationRefused),
        (403, AuthorizationRefused),
        (404, BadInput),
        (408, Unreachable),
        (410, BadInput),
        (418, WebhookRefused),
        (429, Unreachable),
        (500, Unreachable),
        (503, Unreachable),
    ],
)
def test_each_refusal_has_its_class_of_retry(receiver: Receiver, status: int, kind: type[LeewardError]) -> None:
    receiver.usual = Answer(status)
    with pytest.raises(kind, match=str(status)) as caught:
        deliver(notification(receiver.server_port))
    assert caught.value.remedy
    assert caught.value.recoverable is (kind is Unreachable)


def test_nobody_listening_is_worth_another_try(receiver: Receiver) -> None:
    port = receiver.server_port
    receiver.socket.close()
    with pytest.raises(Unreachable, match="does not answer"):
        deliver(notification(port))
