"""Whom to tell about plan runs and machines: webhooks, as the inventory names them; and where reports are brought."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

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


class Receiver(Value):
    """Takes signed POSTs.

    ``secret`` is a reference; with it every request carries
    ``X-Leeward-Signature: sha256=<hex HMAC of the body>``, so that the receiver can tell it from a forged one.
    """

    url: str = Field(pattern=r"^https?://[^\s/]+")
    secret: str | None = Field(default=None, pattern=r"^(env|file):.+$")


class Webhook(Receiver):
    """Gets a POST for each occasion."""

    on: list[Occasion] = Field(default=list(Occasion), min_length=1)


class Delivery(Value):
    """Where a finished run's report is brought: an absolute ``folder`` on the control worker's host, or a ``webhook``
    that gets the JSON report."""

    folder: str | None = Field(default=None, pattern=r"^/")
    webhook: Receiver | None = None

    @model_validator(mode="after")
    def _names_one_place(self) -> Self:
        if (self.folder is None) == (self.webhook is None):
            raise ValueError("a delivery goes to a folder or to a webhook")
        return self

    @property
    def where(self) -> str:
        return self.webhook.url if self.webhook is not None else self.folder or ""
