"""Whom to tell about plan runs and machines: webhooks, as the inventory names them."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from vault.domain import Value


class Occasion(StrEnum):
    """What is worth telling somebody who is not looking."""

    WAITING = "waiting"
    """A step waits for approval."""
    FAILED_STEP = "failed-step"
    """A step failed and waits for a decision."""
    FINISHED = "finished"
    """The run has ended, however."""
    OLD_COPY = "old-copy"
    """After a failover without proof the copy at the old site ran again, and was powered off."""


class Webhook(Value):
    """Gets a signed POST for each occasion.

    ``secret`` is a reference; with it every request carries
    ``X-Leeward-Signature: sha256=<hex HMAC of the body>``, so that the receiver can tell it from a forged one.
    """

    url: str = Field(pattern=r"^https?://[^\s/]+")
    on: list[Occasion] = Field(default=list(Occasion), min_length=1)
    secret: str | None = Field(default=None, pattern=r"^(env|file):.+$")
