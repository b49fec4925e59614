"""What stages and the slots of a site say to each other. Import-light, as :mod:`workflows.model`."""

from __future__ import annotations

from vault.domain import Value


class SlotRequest(Value):
    """A machine that is to be failed over to a site wants one of the site's slots; ``holder`` gets the answers."""

    id: str
    holder: str
    plan: str
    machine: str
    at_once: int


class SlotReturn(Value):
    id: str


class SlotAnswer(Value):
    """``given`` False: it waits, because of ``why``; another answer will follow."""

    id: str
    given: bool
    why: str = ""


class SlotsState(Value):
    """Everything that the slots of a site know; it survives continue-as-new as this one value."""

    at_once: int
    taken: list[SlotRequest] = []
    waiting: list[SlotRequest] = []
