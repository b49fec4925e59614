"""Asynchronous mirrors: the target is always the copy of one earlier moment, and what a failover loses is measured."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapters.lab.faults import Fault, SiteFaults
from adapters.san.ports import GroupState
from adapters.smis.values import CopyState, Operation, ReturnValue
from simulation.arrays.array import Array
from simulation.arrays.operations import create_mirror
from simulation.arrays.refusal import ArrayRefusal
from tests.san.house import EAST, WEST, House, house, quiet
from tests.san.pairs import CYCLE_S, POOL, ArrayPair, arrays, until, until_state
from vault.domain import LATEST, Answering, Progress, Severity
from vault.errors import InvalidState, ResynchronizationRequired

pytestmark = pytest.mark.contract
LOAD_S = 0.4


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[ArrayPair]:
    with arrays(tmp_path) as made:
        yield made


@pytest.fixture
def san(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path, mode="asynchronous") as made:
        made.define("db", "web")
        for machine in ("db", "web"):
            made.start(EAST, machine)
        made.protect("db", "web")
        time.sleep(LOAD_S)
        yield made


class Counting:
    """A host that writes a number first to one volume, then to another, and waits for each."""

    def __init__(self, pair: ArrayPair, first: str, second: str) -> None:
        self._pair, self._volumes = pair, (first, second)
        self.number = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Counting:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.number += 1
            for volume in self._volumes:
                self._pair.east.write(volume, 4096, struct.pack("<Q", self.number))
            time.sleep(0.001)


def numbers(array: Array, volumes: list[str]) -> tuple[int, int]:
    first, second = (struct.unpack("<Q", array.media.read(volume, 4096, 8))[0] for volume in volumes)
    return first, second


# -- the arrays --------------------------------------------------------------------------------------------------


def test_writes_do_not_wait_and_arrive_in_whole_cycles(pair: ArrayPair) -> None:
    group, (log, data) = pair.mirrored("log", "data", asynchronous=True)
    seen = set()
    with Counting(pair, log.id, data.id) as host:
        for _ in range(40):
            with pair.west.writer(pair.at_west.id):
                first, second = numbers(pair.west, group.peer_volumes)
            assert first - second in (0, 1)  # a moment between the two writes is a moment, too
            seen.add(first)
            time.sleep(CYCLE_S / 4)
        written = host.number
    assert len(seen) > 3
    assert max(seen) <= written
    until(lambda: pair.both_hold(group))


def test_a_cut_link_leaves_a_whole_copy_of_the_last_cycle_and_resuming_never_breaks_it(pair: ArrayPair) -> None:
    group, (log, data) = pair.mirrored("log", "data", asynchronous=True)
    with Counting(pair, log.id, data.id) as host:
        time.sleep(3 * CYCLE_S)
        pair.link.is_cut = True
        until_state(group, CopyState.BROKEN)
        until_state(pair.at_west, CopyState.BROKEN)
        moment, held = pair.at_west.in_sync_until, numbers(pair.west, group.peer_volumes)
        assert moment is not None
        assert held[0] < host.number
        pair.link.is_cut = False
        pair.do(pair.east, Operation.SUSPEND, force=True)
        pair.do(pair.east, Operation.RESUME)
        assert pair.at_west.in_sync_until is not None
        assert pair.at_west.in_sync_until > moment
        assert pair.at_west.target_is_whole
    until(lambda: pair.both_hold(group))


def test_a_target_that_dies_while_it_applies_a_cycle_finishes_it_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with arrays(tmp_path) as pair:
        group, (log, data) = pair.mirrored("log", "data", asynchronous=True)
        target, volumes = pair.at_west.id, list(group.peer_volumes)
        real = pair.west.media.write

        def dies(volume: str, offset: int, written: bytes) -> None:
            if volume == volumes[1]:
                raise OSError("the power is gone")
            real(volume, offset, written)

        monkeypatch.setattr(pair.west.media, "write", dies)
        with pair.east.writer(group.id):
            for volume in (log, data):
                pair.east.write(volume.id, 4096, struct.pack("<Q", 7))
        until(lambda: pair.at_west.is_applying and numbers(pair.west, volumes) == (7, 0))
    again = Array(tmp_path / "west", "west")
    try:
        assert numbers(again, volumes) == (7, 7)
        assert not again.state.groups[target].is_applying
    finally:
        again.close()


def test_a_source_that_was_restarted_compares_before_it_goes_on(tmp_path: Path) -> None:
    with arrays(tmp_path) as pair:
        group, _ = pair.mirrored("log", asynchronous=True)
        moment = pair.at_west.in_sync_until
    again = Array(tmp_path / "east", "east")
    try:
        assert again.state.groups[group.id].state is CopyState.BROKEN
        assert again.state.groups[group.id].in_sync_until is not None
        assert moment is not None
    finally:
        again.close()


def test_a_failover_that_the_source_answers_ships_everything_first(pair: ArrayPair) -> None:
    group, (log, data) = pair.mirrored("log", "data", asynchronous=True)
    with Counting(pair, log.id, data.id) as host:
        time.sleep(2 * CYCLE_S)
    pair.do(pair.west, Operation.FAILOVER)
    assert numbers(pair.west, group.peer_volumes) == (host.number, host.number)


# -- the provider ------------------------------------------------------------------------------------------------


def lost(answering: Answering) -> int:
    assert answering.transactions is not None
    assert answering.transactions.damaged == 0
    return answering.transactions.lost


def test_a_planned_failover_waits_until_everything_is_shipped_and_goes_back_as_well(san: House) -> None:
    for of, back in ((san.relationship, san.back), (san.back, san.relationship)):
        told: list[Progress] = []
        for machine in ("web", "db"):
            san.shut_down(of(machine).source_site, machine)
            point = san.provider.send_last_changes(of(machine), told.append)
            san.provider.fail_over(of(machine), point.id, quiet)
        assert any("waiting until all of it is there" in one.doing for one in told)
        for machine in ("db", "web"):
            assert lost(san.start(of(machine).target_site, machine)) == 0
        for machine in ("db", "web"):
            san.shut_down(back(machine).target_site, machine)
            san.provider.prepare_reverse(back(machine))
            san.provider.enable(back(machine))
            san.provider.copy_initial(back(machine), quiet)
        time.sleep(LOAD_S)
    group = san.array(EAST).groups()[0]
    assert (group.is_source, group.asynchronous, group.state) == (True, True, GroupState.SYNCHRONIZED)


def test_an_unplanned_failover_is_of_the_last_whole_cycle_and_says_so(san: House) -> None:
    san.pair.link.is_cut = True
    until_state(san.pair.at_west, CopyState.BROKEN)
    time.sleep(LOAD_S)
    SiteFaults(san.lab_root, EAST).set(Fault.HOST_DEAD)
    died = datetime.now(UTC)
    whole_at = san.pair.at_west.in_sync_until
    assert whole_at is not None
    losses = []
    for machine in ("db", "web"):
        made = san.provider.fail_over(san.relationship(machine), LATEST, quiet)
        assert abs((made.point.time - whole_at).total_seconds()) < 0.001
        assert (died - made.point.time).total_seconds() > LOAD_S
        losses.append(lost(san.start(WEST, machine)))
    assert min(losses) > 0  # they wrote on while the link was cut


def test_the_recovery_point_tells_how_far_behind_the_copy_is(san: House) -> None:
    point = san.provider.replicate_once(san.relationship("db"), quiet, app_consistent=False)
    assert 0 < (datetime.now(UTC) - point.time).total_seconds() < 20 * CYCLE_S
    san.pair.do(san.pair.east, Operation.SUSPEND)
    (listed,) = san.provider.recovery_points(san.relationship("db"))
    time.sleep(LOAD_S)
    assert san.provider.recovery_points(san.relationship("db")) == [listed]
    with pytest.raises(ResynchronizationRequired, match="suspended"):
        san.provider.replicate_once(san.relationship("db"), quiet, app_consistent=False)
    san.shut_down(EAST, "db")
    with pytest.raises(InvalidState, match="not everything of 'db' is at recovery"):
        san.provider.send_last_changes(san.relationship("db"), quiet)
    resumed = san.provider.resynchronize(san.relationship("db"), quiet)
    assert resumed.time > listed.time


@pytest.mark.parametrize("side", ["source", "target"])
def test_readiness_holds_the_age_of_the_copy_against_the_policy(san: House, side: str) -> None:
    check = san.provider.check_source if side == "source" else san.provider.check_target
    relationship = san.relationship("db")
    found = [one for one in check(relationship) if "by its policy at most 7 s" in one.what]
    assert [one.severity for one in found] == [Severity.PASS]
    hurried = relationship.model_copy(update={"frequency_s": 1e-6})
    san.pair.east.cycles.close()
    late = san.pair.at_west.in_sync_until
    assert late is not None
    for array in (san.pair.east, san.pair.west):
        for group in array.state.groups.values():
            group.in_sync_until = datetime.fromtimestamp(late.timestamp() - 60, UTC)
    (warned,) = [one for one in check(hurried) if "by its policy" in one.what]
    assert warned.severity is Severity.WARN
    assert "s old; by its policy at most 5 s" in str(warned)


@pytest.fixture
def synchronous_only(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path, mode="asynchronous", mirrors_asynchronously=False) as opened:
        opened.define("db", "web")
        yield opened


def test_an_array_that_cannot_do_it_is_refused_before_anything_is_made(synchronous_only: House) -> None:
    san = synchronous_only
    for findings in (
        san.provider.check_source(san.relationship("db")),
        san.provider.check_target(san.relationship("db")),
    ):
        told = [str(one) for one in findings if one.severity is Severity.FAIL]
        assert len(told) == 1
        assert "cannot mirror asynchronously to another array, as 'db' is to be" in told[0]
    volume = san.pair.east.create_volume("other", POOL, 4096)
    group = san.pair.east.create_group("other", [volume.id])
    with pytest.raises(ArrayRefusal) as refused:
        create_mirror(san.pair.east, group, "west", POOL, blocks_on_failure=False, asynchronous=True)
    assert refused.value.code is ReturnValue.NOT_SUPPORTED
