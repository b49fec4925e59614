"""Which recovery point a choice means, for machines in and outside a consistency group."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from replication.groups import choose, common_moments, group_in, moment_choice
from vault.domain import RecoveryPoint
from vault.errors import NotFound

pytestmark = pytest.mark.unit

START = datetime(2026, 1, 1, tzinfo=UTC)


def point(machine: str, minute: int, group: str = "") -> RecoveryPoint:
    return RecoveryPoint(
        id=f"{machine}-{minute}", sequence=minute + 1, time=START + timedelta(minutes=minute), group=group
    )


POINTS = {
    "a": [point("a", 0), point("a", 1, "g"), point("a", 2, "g"), point("a", 4), point("a", 5, "g")],
    "b": [point("b", 0), point("b", 1, "g"), point("b", 2, "g"), point("b", 3, "g")],
    "alone": [point("alone", 0), point("alone", 7)],
}
MEMBERS = {name: POINTS[name] for name in ("a", "b")}


def chosen(machine: str, choice: str, members: dict[str, list[RecoveryPoint]] | None = None) -> str:
    group = "" if machine == "alone" else "g"
    found = choose(
        POINTS[machine], choice, group=group, of_members=lambda: MEMBERS if members is None else members, where="away"
    )
    return found.id


def test_a_common_moment_is_one_that_every_member_has() -> None:
    assert common_moments(MEMBERS, "g") == [START + timedelta(minutes=1), START + timedelta(minutes=2)]
    assert common_moments({**MEMBERS, "c": []}, "g") == []
    assert common_moments({}, "g") == []
    assert common_moments(MEMBERS, "h") == []


def test_the_newest_common_moment() -> None:
    assert chosen("a", "latest-consistent:g") == "a-2"
    assert chosen("b", "latest-consistent:g") == "b-2"
    assert chosen("a", "latest") == "a-5"


def test_a_fixed_moment_means_the_same_later_on() -> None:
    choice = moment_choice("g", START + timedelta(minutes=1))
    assert choice == "consistent:g@2026-01-01T00:01:00+00:00"
    assert (chosen("a", choice), chosen("b", choice)) == ("a-1", "b-1")
    with pytest.raises(NotFound, match="no recovery point of consistency group 'g' at 2026-01-01 00:03:00Z any more"):
        chosen("a", moment_choice("g", START + timedelta(minutes=3)))
    with pytest.raises(NotFound, match="names no moment"):
        chosen("a", "consistent:g@yesterday")


def test_the_id_of_another_members_point_means_the_own_point_of_that_moment() -> None:
    assert (chosen("a", "b-1"), chosen("b", "b-1")) == ("a-1", "b-1")
    with pytest.raises(NotFound, match=r"b-0 is another machine's own point, no common moment of 'g'"):
        chosen("a", "b-0")
    with pytest.raises(NotFound, match="any more"):
        chosen("a", "b-3")
    with pytest.raises(NotFound, match="no recovery point is 'b-99'"):
        chosen("a", "b-99")


def test_a_machine_outside_the_group_is_bound_to_no_moment() -> None:
    for choice in ("latest-consistent:g", moment_choice("g", START)):
        assert chosen("alone", choice) == "alone-7"
    with pytest.raises(NotFound):
        chosen("alone", "a-1")


def test_without_a_common_moment_nothing_is_guessed() -> None:
    with pytest.raises(NotFound, match="no common moment yet"):
        chosen("a", "latest-consistent:g", {**MEMBERS, "c": [point("c", 9, "g")]})


def test_other_choices_do_not_look_at_other_machines() -> None:
    def unexpected() -> dict[str, list[RecoveryPoint]]:
        raise AssertionError("looked at other machines")

    found = choose(POINTS["a"], "a-4", group="g", of_members=unexpected, where="away")
    assert found.id == "a-4"
    found = choose(POINTS["alone"], "2026-01-01T00:05:00Z", group="", of_members=unexpected, where="away")
    assert found.id == "alone-0"


def test_the_group_that_a_choice_names() -> None:
    assert group_in("latest-consistent:g") == "g"
    assert group_in(moment_choice("g", START)) == "g"
    assert group_in("latest") == group_in("rp-000001-aa") == ""
