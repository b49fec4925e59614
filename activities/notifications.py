"""Telling people about a run: signed webhooks, tried again under the product's retry rule."""

from __future__ import annotations

import hashlib
import hmac
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from temporalio import activity

from activities import contracts
from activities.contracts import Done, Notification
from activities.running import BlockingRunner
from vault.errors import AuthenticationRefused, AuthorizationRefused, BadInput, NotRecoverable, Unreachable
from vault.notifications import Receiver
from vault.secrets import resolve

ANSWERS_WITHIN_S = 10.0
SIGNATURE_HEADER = "X-Leeward-Signature"
OCCASION_HEADER = "X-Leeward-Occasion"
DELIVERY_HEADER = "X-Leeward-Delivery"
"""The same for every try of one notification, so that a receiver can drop repeats."""


class WebhookRefused(NotRecoverable):
    """The receiver answers that it will never take this."""


class NotificationActivities:
    def __init__(self, runner: BlockingRunner) -> None:
        self._run = runner.run

    @activity.defn(name=contracts.NOTIFY.name)
    async def notify(self, given: Notification) -> Done:
        await self._run(lambda _: deliver(given))
        return Done()


def deliver(given: Notification) -> None:
    """POST one notification.

    Raises:
        Unreachable: no answer, 408, 429 or 5xx: worth another try.
        AuthenticationRefused, AuthorizationRefused: 401, 403.
        WebhookRefused: any other answer that is not 2xx.
    """
    body = given.model_dump_json(exclude={"webhook"}).encode()
    post(given.webhook, body, {OCCASION_HEADER: given.occasion, DELIVERY_HEADER: given.id})


def post(receiver: Receiver, body: bytes, headers: dict[str, str]) -> None:
    """POST signed JSON. Raises as :func:`deliver`."""
    headers = {"Content-Type": "application/json", "User-Agent": "leeward", **headers}
    if receiver.secret is not None:
        headers[SIGNATURE_HEADER] = signature(resolve(receiver.secret), body)
    try:
        with urlopen(Request(receiver.url, data=body, headers=headers, method="POST"), timeout=ANSWERS_WITHIN_S):
            return
    except HTTPError as error:
        raise _refusal(error.code, receiver.url) from error
    except (URLError, OSError) as error:
        raise Unreachable(
            f"the webhook does not answer: {getattr(error, 'reason', error)}",
            where=receiver.url,
            remedy="check the address in the inventory; leeward tries again",
        ) from error


def signature(secret: str, body: bytes) -> str:
    """``sha256=<hex>``, the HMAC-SHA-256 of the body."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def _refusal(status: int, url: str) -> Exception:
    what = f"the webhook answers {status}"
    if status == 401:
        return AuthenticationRefused(what, where=url, remedy="check its secret in the inventory")
    if status == 403:
        return AuthorizationRefused(what, where=url, remedy="let the receiver accept leeward")
    if status in {408, 429} or status >= 500:
        return Unreachable(what, where=url, remedy="leeward tries again")
    if status in {404, 410}:
        return BadInput(what, where=url, remedy="correct the address in the inventory")
    return WebhookRefused(what, where=url, remedy="read the receiver's log")
