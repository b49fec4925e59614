"""Who may do what: roles of people, as the inventory names them (requirements §D: operators start, approve, cancel).

Names are those that operators' commands carry: the operating system's user, or the identity that the connection to
Temporal authenticated. Without an ``access`` section everybody may do everything, as on one person's own machine.
"""

from __future__ import annotations

from enum import StrEnum

from vault.domain import Value

EVERYBODY = "*"


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


class Access(Value):
    """Lists in the inventory; ``"*"`` stands for everybody. Asked by the workflows' validators, so that going around
    the command line does not help."""

    viewers: list[str] = [EVERYBODY]
    operators: list[str] = []
    approvers: list[str] = []
    admins: list[str] = []

    def roles(self, identity: str) -> frozenset[Role]:
        lists = {
            Role.VIEWER: self.viewers,
            Role.OPERATOR: self.operators,
            Role.APPROVER: self.approvers,
            Role.ADMIN: self.admins,
        }
        return frozenset(role for role, names in lists.items() if identity in names or EVERYBODY in names)

    def refusal(self, identity: str, action: Action) -> str | None:
        """Why ``identity`` may not; None when it may. Pure: the same answer whenever it is asked again."""
        if self.roles(identity) & ALLOWED[action]:
            return None
        needed = " or ".join(sorted(ALLOWED[action]))
        return f"'{identity}' may not {action}: that needs the role {needed} — ask an admin to add it to the inventory"
