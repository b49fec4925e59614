"""Waiting for an array ends when it stands still, however long it has taken before."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from adapters.san import watching
from adapters.san.patience import Patience
from adapters.san.ports import Group, GroupState, Volume
from vault.domain import Progress
from vault.errors import InvalidState

pytestmark = pytest.mark.unit


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """``[now]``; sleeping moves it on."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


def group(percent: int, state: GroupState = GroupState.COPYING, **more: Any) -> Group:
    return Group(id="g", name="payments", volumes=[], state=state, percent=percent, **more)


class Seen:
    """Answers as :class:`adapters.san.places.Places` with one group after another; the last one stays."""

    def __init__(self, *groups: Group) -> None:
        self._groups = list(groups)

    def group_at(self, *_: str) -> tuple[SimpleNamespace, Group]:
        found = self._groups.pop(0) if len(self._groups) > 1 else self._groups[0]
        return SimpleNamespace(name="east"), found


def quiet(_: Progress) -> None: ...


def test_what_gets_on_is_waited_for_and_what_stands_is_not(clock: list[float]) -> None:
    patience = Patience(10)
    for percent in range(5):
        clock[0] += 9
        assert not patience.ran_out(percent)
    clock[0] += 10
    assert not patience.ran_out(4)
    clock[0] += 1
    assert patience.ran_out(4)


def test_a_copy_that_stands_still_is_told_with_where_it_stands(clock: list[float]) -> None:
    seen: Any = Seen(group(1), group(2), group(3))
    with pytest.raises(InvalidState, match="stands at 3 % for 600 s"):
        watching.until_synchronized(seen, "db", "east", quiet)
    assert clock[0] == pytest.approx(600, abs=2)


def test_a_percent_of_much_may_take_longer(clock: list[float]) -> None:
    """An array tells its progress in whole percents: those of 8 TB take most of an hour at 32 MB/s."""
    much = [Volume(id="1", name="data", size=8 * 10**12)]
    large = group(3).model_copy(update={"volumes": much})
    seen: Any = Seen(*[large] * (4 * 3000), group(100, GroupState.SYNCHRONIZED))
    assert watching.until_synchronized(seen, "db", "east", quiet).state is GroupState.SYNCHRONIZED
    assert clock[0] == pytest.approx(3000, abs=2)


def test_a_copy_whose_progress_is_not_told_is_waited_for(clock: list[float]) -> None:
    """``PercentSynced`` is null where an array does not know it."""
    told: list[Progress] = []
    seen: Any = Seen(*[group(1).model_copy(update={"percent": None})] * 4000, group(100, GroupState.SYNCHRONIZED))
    watching.until_synchronized(seen, "db", "east", told.append)
    assert clock[0] > watching.STANDS_STILL_S
    assert told[0].doing == "group payments is being copied"


def test_an_asynchronous_group_that_ships_nothing_is_told(clock: list[float]) -> None:
    seen: Any = Seen(group(100, GroupState.SYNCHRONIZED, asynchronous=True))
    with pytest.raises(InvalidState, match="has shipped nothing for 600 s"):
        watching.until_all_is_shipped(seen, "db", "east", quiet)
    assert clock[0] == pytest.approx(600, abs=2)
