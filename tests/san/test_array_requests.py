"""How many requests an array's provider gets for an operation: few, and no more the more groups there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adapters.san.ports import Group, unwatched
from adapters.smis.values import CopyState, Operation
from simulation.arrays.operations import modify
from tests.san.house import EAST, WEST, House, house, quiet
from tests.san.pairs import MIB, POOL, done, until_state

pytestmark = pytest.mark.contract
OTHERS = 5
PORTS = ["port-1", "port-2"]


@pytest.fixture
def san(tmp_path: Path) -> Iterator[House]:
    """A mirrored group of three volumes, and others beside it at both arrays."""
    with house(tmp_path) as made:
        made.define("db", "web")
        made.protect("db", "web")
        for array in (made.pair.east, made.pair.west):
            for number in range(OTHERS):
                array.create_group(f"other-{number}", [array.create_volume(f"other-{number}", POOL, MIB).id])
        yield made


class Counting:
    """Looks at a job as often as it takes are not counted."""

    def __init__(self, san: House, site: str) -> None:
        self.array = san.array(site)
        self.array.check()
        self._methods = san.servers[site].methods

    def group(self, name: str = "payments") -> Group:
        (found,) = self.array.groups(name)
        return found

    def requests(self, operation: Callable[[], object]) -> int:
        before = len(self._methods)
        operation()
        return len([method for method in self._methods[before:] if method != "GetInstance"])


def test_looks_at_a_group_ask_for_no_other_one(san: House) -> None:
    west = Counting(san, WEST)
    array, group = west.array, west.group()
    assert west.requests(array.groups) <= 2 + 1 + OTHERS
    assert west.requests(lambda: array.groups("payments")) <= 3
    assert west.requests(lambda: array.volumes(["db-log", "db-data"])) <= 1
    assert west.requests(lambda: array.pools_of(group.volumes)) <= 1 + len(group.volumes)
    provider, relationship = san.provider, san.relationship("db")
    provider.recovery_points(relationship)
    assert west.requests(lambda: provider.recovery_points(relationship)) <= 3
    provider.check_target(relationship)
    assert west.requests(lambda: provider.check_target(relationship)) <= 4
    east = Counting(san, EAST)
    provider.replicate_once(relationship, quiet, app_consistent=False)
    assert east.requests(lambda: provider.replicate_once(relationship, quiet, app_consistent=False)) <= 3


def test_moving_and_resuming_a_group_looks_it_up_once(san: House) -> None:
    east, west = Counting(san, EAST), Counting(san, WEST)
    mine = next(group for group in san.pair.east.state.groups.values() if group.peer)
    here, there = east.group(), west.group()
    done(modify(san.pair.east, mine, Operation.SUSPEND, force=False))
    assert east.requests(lambda: east.array.resume(here, unwatched)) <= 3
    until_state(mine, CopyState.SYNCHRONIZED)
    assert west.requests(lambda: west.array.fail_over(there, unwatched)) <= 3


def test_volumes_are_looked_up_once_whatever_is_done_to_them(san: House) -> None:
    west = Counting(san, WEST)
    array, group = west.array, west.group()
    views = 3 * len(PORTS)
    assert west.requests(lambda: array.expose(group.volumes, PORTS)) <= 4
    assert west.requests(lambda: array.expose(group.volumes, PORTS)) <= 2 + views
    assert west.requests(lambda: array.hide(group.volumes, PORTS)) <= 2 + views + 1 + len(PORTS)
    assert west.requests(lambda: array.clone(group.volumes, ["a", "b", "c"])) <= 5
    looks_at_views = 1
    assert west.requests(lambda: array.delete_volumes(["a", "b", "c"])) <= 2 + looks_at_views + 4 * 3
    assert west.requests(lambda: array.delete_volumes(["a", "b", "c"])) <= 1
    other = west.group("other-1")
    assert west.requests(lambda: array.empty_group(other)) <= 4
    assert west.requests(lambda: array.delete_group(other)) <= 3
