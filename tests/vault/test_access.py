from __future__ import annotations

import pytest

from vault.access import ALLOWED, Access, Action, Role

pytestmark = pytest.mark.unit
ACCESS = Access(operators=["olga"], approvers=["abel"], admins=["ada"])


@pytest.mark.parametrize(
    ("identity", "may"),
    [
        ("olga", {Action.VIEW, Action.RUN, Action.STEER, Action.PROTECT}),
        ("abel", {Action.VIEW, Action.APPROVE}),
        ("ada", set(Action)),
        ("nobody", {Action.VIEW}),
    ],
)
def test_roles_allow_what_they_say_and_nothing_else(identity: str, may: set[Action]) -> None:
    assert {action for action in Action if ACCESS.refusal(identity, action) is None} == may


def test_a_refusal_names_who_what_and_the_missing_role() -> None:
    why_not = ACCESS.refusal("olga", Action.APPROVE)
    assert why_not is not None
    assert "'olga' may not approve" in why_not
    assert "admin or approver" in why_not


def test_a_star_stands_for_everybody_and_an_empty_list_for_nobody() -> None:
    assert Access(operators=["*"]).refusal("anybody", Action.RUN) is None
    assert Access(viewers=[]).refusal("anybody", Action.VIEW) is not None


def test_every_action_is_decided() -> None:
    assert set(ALLOWED) == set(Action)
    assert all(Role.ADMIN in roles for roles in ALLOWED.values())
