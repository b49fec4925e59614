from __future__ import annotations

from pathlib import Path

import pytest

from vault.access import ALLOWED, Access, Action, Role
from vault.errors import InputErrors
from vault.inventory import Inventory
from vault.loading import load_inventory
from vault.template import LAB_INVENTORY
from workflows.model import PlanRequest
from workflows.steering import why_not, why_not_start

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


class Closed:
    """Another authorizer than the inventory's list."""

    def roles(self, identity: str) -> frozenset[Role]:
        return frozenset()

    def refusal(self, identity: str, action: Action) -> str | None:
        return f"'{identity}' may not {action}: closed until Monday"


def test_the_validators_rules_ask_whatever_authorizer_there_is() -> None:
    assert (
        why_not(Closed(), "ada", Action.STEER, "why")
        == "'ada' may not retry, skip, pause or cancel: closed until Monday"
    )
    assert why_not_start(Closed(), "ada", auto_approve=False) == "'ada' may not run a plan: closed until Monday"


def loaded(tmp_path: Path, access: str) -> Inventory:
    file = tmp_path / "leeward.yaml"
    file.write_text(f"{LAB_INVENTORY.rstrip()}\n{access}")
    return load_inventory(file)


GROUPS = """access:
  groups:
    leads: [abel]
    oncall: [ada, bob]
  operators: ["@oncall", olga, ada]
  approvers: ["@leads"]
"""


def test_a_group_stands_for_its_people_once_the_inventory_is_loaded(tmp_path: Path) -> None:
    access = loaded(tmp_path, GROUPS).authorizer
    assert access == Access(operators=["ada", "bob", "olga"], approvers=["abel"])
    assert access is not None
    assert access.refusal("bob", Action.RUN) is None
    assert access.refusal("@oncall", Action.RUN) is not None, "a group's name is nobody's"
    assert why_not_start(access, "bob", auto_approve=True) is not None


def test_requests_carry_people_and_no_groups_so_that_workers_of_before_can_read_them(tmp_path: Path) -> None:
    access = loaded(tmp_path, GROUPS).authorizer
    plan = {"plan": "shop", "groups": [{"name": "all", "machines": ["web"]}]}
    request = PlanRequest.model_validate(
        {"plan": plan, "run_id": "r", "run_type": "test", "requested_by": "ada", "access": access}
    )
    travels = PlanRequest.model_validate_json(request.model_dump_json())
    assert travels.access == Access(operators=["ada", "bob", "olga"], approvers=["abel"])


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ('"@oncall", olga', '"@oncal", olga', 5, "unknown group '@oncal' — did you mean '@oncall'?"),
        ("    leads: [abel]\n    oncall", "    oncall", 5, "unknown group '@leads' — known are '@oncall'"),
        ("[ada, bob]", "[]", 4, "'oncall' must not be empty — add something, or remove the key"),
        ("[ada, bob]", '["@leads"]', 4, "'@leads' is nobody's name — a group names people: no other group, and no '*'"),
        ("[ada, bob]", '["*"]', 4, "entry 1 of 'oncall': '*' is nobody's name"),
        ("[ada, bob]", "ada", 4, "'oncall' must be a list, not 'ada' — begin each entry with '- '"),
    ],
)
def test_mistakes_about_groups_are_told_with_their_line(
    tmp_path: Path, old: str, new: str, line: int, says: str
) -> None:
    assert old in GROUPS
    with pytest.raises(InputErrors) as refused:
        loaded(tmp_path, GROUPS.replace(old, new, 1))
    line += LAB_INVENTORY.rstrip().count("\n") + 1
    assert f"leeward.yaml:{line}:" in str(refused.value) and says in str(refused.value), str(refused.value)


def test_without_any_group_a_remedy_says_where_groups_are_written(tmp_path: Path) -> None:
    with pytest.raises(InputErrors, match="unknown group '@oncall' — add it to 'groups' of 'access'"):
        loaded(tmp_path, 'access:\n  operators: ["@oncall"]\n')
