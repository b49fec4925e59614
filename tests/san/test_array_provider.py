"""The whole way through pywbem, the arrays and real guests on their volumes: what was acknowledged is never lost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.lab.faults import Fault, SiteFaults
from adapters.lab.network import overlaps
from adapters.registry import Adapters
from adapters.san.provider import ArrayProvider
from adapters.smis.values import CopyState
from adapters.stream import StreamProvider
from tests.san.house import EAST, WEST, House, house, quiet, silent
from tests.san.pairs import until_state
from vault.domain import LATEST, Answering, PowerState
from vault.errors import InvalidState

pytestmark = pytest.mark.contract
LOAD_S = 0.3


@pytest.fixture
def san(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path) as made:
        made.define("db", "web")
        for machine in ("db", "web"):
            made.start(EAST, machine)
        made.protect("db", "web")
        time.sleep(LOAD_S)
        yield made
        assert overlaps(made.lab_root) == []


def lost(answering: Answering) -> int:
    assert answering.transactions is not None
    assert answering.transactions.held_at_boot > 0
    assert answering.transactions.damaged == 0
    return answering.transactions.lost


def plan_failover(san: House, *, back: bool = False) -> None:
    """As a plan does: all machines off, then each made at the target, then all started."""
    of = san.back if back else san.relationship
    for machine in ("web", "db"):
        relationship = of(machine)
        san.shut_down(relationship.source_site, machine)
        point = san.provider.send_last_changes(relationship, quiet)
        san.provider.fail_over(relationship, point.id, quiet)
    for machine in ("db", "web"):
        assert lost(san.start(of(machine).target_site, machine)) == 0


def reverse(san: House, *, back: bool = False) -> None:
    forward, backward = (san.back, san.relationship) if back else (san.relationship, san.back)
    for machine in ("db", "web"):
        san.shut_down(backward(machine).target_site, machine)
        san.provider.prepare_reverse(backward(machine))
        san.provider.enable(backward(machine))
        san.provider.copy_initial(backward(machine), quiet)
        san.provider.finalize(backward(machine))
        san.provider.retire_replica(forward(machine))


def test_planned_failover_reverse_replication_and_failback_lose_nothing(san: House) -> None:
    plan_failover(san)
    reverse(san)
    time.sleep(LOAD_S)
    plan_failover(san, back=True)
    reverse(san, back=True)
    group = san.array(EAST).groups()[0]
    assert (group.is_source, group.is_active) == (True, True)


def test_an_unplanned_failover_loses_nothing_when_the_host_and_its_array_die(san: House) -> None:
    SiteFaults(san.lab_root, EAST).set(Fault.HOST_DEAD)
    san.pair.link.is_cut = True
    until_state(san.pair.at_west, CopyState.BROKEN)
    for machine in ("db", "web"):
        made = san.provider.fail_over(san.relationship(machine), LATEST, quiet)
        again = san.provider.fail_over(san.relationship(machine), LATEST, quiet)
        assert again == made
        assert lost(san.start(WEST, machine)) == 0


def test_a_test_copy_is_a_clone_beside_a_mirror_that_goes_on(san: House) -> None:
    relationship = san.relationship("db")
    made = san.provider.start_test(relationship, LATEST, "db-test", quiet)
    assert san.provider.start_test(relationship, LATEST, "db-test", quiet) == made
    answering = san.start(WEST, "db-test")
    assert answering.transactions is not None
    assert answering.transactions.held_at_boot > 0
    assert san.site(WEST).describe("db-test").network == "isolated"
    assert san.array(WEST).groups()[0].state == "synchronized"
    san.provider.end_test(relationship, "db-test")
    san.provider.end_test(relationship, "db-test")
    names = [volume.name for volume in san.pair.west.state.volumes.values()]
    assert sorted(names) == ["db-data", "db-log", "web-system"]


def test_an_abandoned_planned_failover_leaves_everything_as_it_was(san: House) -> None:
    for machine in ("web", "db"):
        san.shut_down(EAST, machine)
        point = san.provider.send_last_changes(san.relationship(machine), quiet)
        san.provider.fail_over(san.relationship(machine), point.id, quiet)
    assert san.pair.at_west.active
    for machine in ("web", "db"):
        san.provider.cancel_failover(san.relationship(machine))
        san.provider.cancel_failover(san.relationship(machine))
        assert lost(san.start(EAST, machine)) == 0
    assert san.site(WEST).discover() == []
    assert san.array(EAST).groups()[0].state == "synchronized"


def test_the_group_does_not_move_before_its_last_machine_is_off(san: House) -> None:
    san.shut_down(EAST, "web")
    point = san.provider.send_last_changes(san.relationship("web"), quiet)
    san.provider.fail_over(san.relationship("web"), point.id, quiet)
    assert not san.pair.at_west.active
    san.site(WEST).start("web")
    with pytest.raises(InvalidState, match="write-protected"):
        san.site(WEST).wait_until_answering("web", 10, silent)
    assert san.site(EAST).describe("db").power is PowerState.RUNNING
    san.site(WEST).power_off("web")


def test_a_machine_of_a_moved_group_cannot_go_back_alone(san: House) -> None:
    plan_failover(san)
    with pytest.raises(InvalidState, match="where db, web of it already runs"):
        san.provider.cancel_failover(san.relationship("web"))


@pytest.fixture
def mixed(tmp_path: Path) -> Iterator[House]:
    """``db`` on the arrays, ``web`` on a disk of its host: leeward replicates it itself."""
    with house(tmp_path) as made:
        beside = made.inventory.machines["web"].model_copy(update={"san": None})
        described = made.inventory.model_copy(update={"machines": {**made.inventory.machines, "web": beside}})
        found = made._replace(inventory=described, adapters=Adapters(described, tmp_path))
        found.define("db", "web")
        yield found
        assert overlaps(found.lab_root) == []


def test_machines_on_arrays_and_others_are_failed_over_in_one_order_and_back(mixed: House) -> None:
    providers = {name: mixed.adapters.provider(mixed.relationship(name)) for name in ("db", "web")}
    assert isinstance(providers["db"], ArrayProvider)
    assert isinstance(providers["web"], StreamProvider)
    assert [one.capabilities.commits_by_itself for one in providers.values()] == [True, False]
    for name, provider in providers.items():
        mixed.start(EAST, name)
        provider.enable(mixed.relationship(name))
        provider.copy_initial(mixed.relationship(name), quiet)
        provider.finalize(mixed.relationship(name))
    for way, back in ((mixed.relationship, mixed.back), (mixed.back, mixed.relationship)):
        time.sleep(LOAD_S)
        points = {}
        for name in ("web", "db"):
            mixed.shut_down(way(name).source_site, name)
            points[name] = providers[name].send_last_changes(way(name), quiet).id
        for name in ("db", "web"):
            providers[name].fail_over(way(name), points[name], quiet)
            assert lost(mixed.start(way(name).target_site, name)) == 0
            providers[name].commit(way(name), points[name])
        for name, provider in providers.items():
            provider.prepare_reverse(back(name))
            provider.enable(back(name))
            provider.copy_initial(back(name), quiet)
            provider.finalize(back(name))
            provider.retire_replica(way(name))


def test_the_old_side_cannot_be_started_beside_the_new_one(san: House) -> None:
    plan_failover(san)
    san.site(EAST).start("db")
    with pytest.raises(InvalidState, match="write-protected"):
        san.site(EAST).wait_until_answering("db", 10, silent)
