"""Who may do what: roles of people, as the inventory names them (requirements §D: operators start, approve, cancel).

Names are those that operators' commands carry: the operating system's user, or the identity that the connection to
Temporal authenticated. Without an ``access`` section everybody may do everything, as on one person's own machine.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Protocol

from pydantic import Field

from vault.domain import MachineName, Value

EVERYBODY = "*"
OF_GROUP = "@"
"""Before the name of a group, in a list of the inventory."""
Person = Annotated[str, Field(pattern=r"^[^@*\s].*$")]
"""Neither a group nor everybody."""


class Role(StrEnum):
    VIEWER = "viewer"
    OPERATOR = "operator"
    APPROVER = "approver"
    ADMIN = "admin"


class Action(StrEnum):
    VIEW = "view"
    RUN = "run a plan"
    STEER = "retry, skip, pause or cancel"
    APPROVE = "approve"
    PROTECT = "protect, resynchronize or disable"


ALLOWED: dict[Action, frozenset[Role]] = {
    Action.VIEW: frozenset(Role),
    Action.RUN: frozenset({Role.OPERATOR, Role.ADMIN}),
    Action.STEER: frozenset({Role.OPERATOR, Role.ADMIN}),
    Action.APPROVE: frozenset({Role.APPROVER, Role.ADMIN}),
    Action.PROTECT: frozenset({Role.OPERATOR, Role.ADMIN}),
}


class Authorizer(Protocol):
    """Says who may do what. Workflows' validators ask it, so that going around the command line does not help.

    Pure and complete in itself: validators are replayed, so the same question has to get the same answer on any worker
    at any later time, without a file, a clock or a directory to look into. What has to be looked up (groups of a
    directory) is looked up before a request is sent (``Inventory.authorizer``), and travels with it as names.
    """

    def roles(self, identity: str) -> frozenset[Role]:
        """Those that ``identity`` has; a plan's ``approvers`` may name them."""
        ...

    def refusal(self, identity: str, action: Action) -> str | None:
        """Why ``identity`` may not, and what to do; None when it may."""
        ...


class _Lists(Value):
    """Names by role; ``"*"`` stands for everybody."""

    viewers: list[str] = [EVERYBODY]
    operators: list[str] = []
    approvers: list[str] = []
    admins: list[str] = []


class Access(_Lists):
    """The default :class:`Authorizer`. Requests carry it, and workflows keep it in their state."""

    def roles(self, identity: str) -> frozenset[Role]:
        lists = {
            Role.VIEWER: self.viewers,
            Role.OPERATOR: self.operators,
            Role.APPROVER: self.approvers,
            Role.ADMIN: self.admins,
        }
        return frozenset(role for role, names in lists.items() if identity in names or EVERYBODY in names)

    def refusal(self, identity: str, action: Action) -> str | None:
        if self.roles(identity) & ALLOWED[action]:
            return None
        needed = " or ".join(sorted(ALLOWED[action]))
        return f"'{identity}' may not {action}: that needs the role {needed} — ask an admin to add it to the inventory"


class AccessSection(_Lists):
    """The inventory's ``access``: its lists may name groups, ``@oncall``."""

    groups: dict[MachineName, Annotated[list[Person], Field(min_length=1)]] = {}

    def resolved(self) -> Access:
        """With people in place of the groups: what may be asked, and travels."""
        return Access(**{role: list(dict.fromkeys(self.people(getattr(self, role)))) for role in Access.model_fields})

    def people(self, names: list[str]) -> list[str]:
        """A group that is not there stands for nobody; loading the inventory refuses it."""
        groups = {OF_GROUP + group: people for group, people in self.groups.items()}
        return [one for name in names for one in groups.get(name, [] if name.startswith(OF_GROUP) else [name])]
