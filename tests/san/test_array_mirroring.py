"""The simulated arrays' promise: what is acknowledged is at both sides, and one side at most is active."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.smis.values import CopyState, Operation, ReturnValue
from simulation.arrays.array import Array
from simulation.arrays.operations import create_mirror, modify
from simulation.arrays.refusal import ArrayRefusal, WriteProtected
from tests.san.pairs import MIB, POOL, ArrayPair, arrays, done, until, until_state

pytestmark = pytest.mark.contract


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[ArrayPair]:
    with arrays(tmp_path) as made:
        yield made


def test_an_acknowledged_write_is_at_both_sides(pair: ArrayPair) -> None:
    group, (log, data) = pair.mirrored("log", "data")
    for number in range(50):
        pair.east.write(log.id, number * 512, bytes([number]) * 512)
        pair.east.write(data.id, number * 4096, bytes([number]) * 4096)
        theirs = group.peer_volumes[group.volumes.index(data.id)]
        assert pair.west.media.read(theirs, number * 4096, 4096) == bytes([number]) * 4096
    assert pair.both_hold(group)


def test_the_first_copy_takes_writes_meanwhile(pair: ArrayPair) -> None:
    volume = pair.east.create_volume("log", POOL, 8 * 2**20)
    pair.east.write(volume.id, 0, b"before" * 10000)
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            pair.east.write(volume.id, (number % 2000) * 4096, number.to_bytes(4, "big") * 1024)
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    group = pair.east.create_group("payments", [volume.id])
    done(create_mirror(pair.east, group, "west", POOL, blocks_on_failure=False))
    stop.set()
    writer.join()
    assert group.state is CopyState.SYNCHRONIZED
    assert pair.both_hold(group)


def test_a_cut_link_suspends_the_mirror_and_resuming_makes_both_equal_again(pair: ArrayPair) -> None:
    group, (log,) = pair.mirrored("log")
    pair.link.is_cut = True
    pair.east.write(log.id, 0, b"x" * 4096)
    assert group.state is CopyState.BROKEN
    assert group.in_sync_until is not None
    assert not pair.both_hold(group)
    until_state(pair.at_west, CopyState.BROKEN)
    pair.link.is_cut = False
    pair.do(pair.east, Operation.RESYNC_REPLICA)
    assert (group.state, pair.at_west.state) == (CopyState.SYNCHRONIZED, CopyState.SYNCHRONIZED)
    assert pair.both_hold(group)


def test_a_cut_link_blocks_writes_when_the_group_says_so(pair: ArrayPair) -> None:
    group, (log,) = pair.mirrored("log", blocks_on_failure=True)
    pair.link.is_cut = True
    written = threading.Event()

    def write() -> None:
        pair.east.write(log.id, 0, b"x" * 4096)
        written.set()

    threading.Thread(target=write, daemon=True).start()
    until_state(group, CopyState.BROKEN)
    assert not written.wait(0.3)
    pair.link.is_cut = False
    assert written.wait(5)
    assert pair.both_hold(group)
    assert group.state is CopyState.SYNCHRONIZED


def test_a_failover_stops_the_source_first(pair: ArrayPair) -> None:
    group, (log,) = pair.mirrored("log")
    pair.do(pair.west, Operation.FAILOVER)
    assert (group.active, pair.at_west.active) == (False, True)
    with pytest.raises(WriteProtected):
        pair.east.write(log.id, 0, b"x")
    pair.west.write(pair.at_west.volumes[0], 0, b"new" * 100)
    pair.do(pair.west, Operation.REVERSE_ROLES)
    assert pair.both_hold(group)
    pair.west.write(pair.at_west.volumes[0], 8192, b"mirrored back")
    assert pair.both_hold(group)


def test_a_failed_over_group_can_be_failed_back(pair: ArrayPair) -> None:
    group, (log,) = pair.mirrored("log")
    pair.do(pair.west, Operation.FAILOVER)
    pair.west.write(pair.at_west.volumes[0], 0, b"new" * 100)
    pair.do(pair.west, Operation.FAILBACK)
    assert (group.active, pair.at_west.active, group.state) == (True, False, CopyState.SYNCHRONIZED)
    assert pair.east.read(log.id, 0, 300) == b"new" * 100


def test_a_lost_source_is_only_passed_over_by_force_and_yields_when_it_comes_back(pair: ArrayPair) -> None:
    group, (log,) = pair.mirrored("log")
    pair.link.is_cut = True
    until_state(pair.at_west, CopyState.BROKEN)
    job = modify(pair.west, pair.at_west, Operation.FAILOVER, force=False)
    assert job is not None
    until(lambda: job.error != "")
    assert "does not answer" in job.error
    assert not pair.at_west.active
    pair.do(pair.west, Operation.FAILOVER, force=True)
    assert pair.at_west.active
    pair.link.is_cut = False
    until(lambda: not group.active)
    with pytest.raises(WriteProtected):
        pair.east.write(log.id, 0, b"x")


def test_a_target_between_two_moments_is_never_made_active(pair: ArrayPair) -> None:
    group, _ = pair.mirrored("log")
    pair.east.mirror.enter_both(group, CopyState.UNSYNCHRONIZED)
    with pytest.raises(ArrayRefusal, match="inconsistent"):
        modify(pair.west, pair.at_west, Operation.FAILOVER, force=True)


def test_a_suspended_group_is_not_failed_over_without_force(pair: ArrayPair) -> None:
    pair.mirrored("log")
    pair.do(pair.east, Operation.SUSPEND)
    job = modify(pair.west, pair.at_west, Operation.FAILOVER, force=False)
    assert job is not None
    until(lambda: job.error != "")
    assert "not a copy of now" in job.error


def test_a_clone_is_of_one_moment_over_all_its_volumes(pair: ArrayPair) -> None:
    _, volumes = pair.mirrored("log", "data")
    stop = threading.Event()

    def write() -> None:
        number = 1
        while not stop.is_set():
            for volume in volumes:
                pair.east.write(volume.id, 0, number.to_bytes(8, "big"))
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    for round_number in range(5):
        names = [f"log-{round_number}", f"data-{round_number}"]
        log, data = pair.west.clone(pair.at_west.volumes, names)
        first, second = (int.from_bytes(pair.west.read(copy.id, 0, 8), "big") for copy in (log, data))
        assert first - second in (0, 1)
    stop.set()
    writer.join()


def test_an_array_that_is_killed_goes_on_where_it_was(tmp_path: Path, pair: ArrayPair) -> None:
    pair.mirrored("log")
    pair.do(pair.west, Operation.FAILOVER)
    pair.west.close()
    again = Array(tmp_path / "west", "west")
    try:
        found = next(found for found in again.state.groups.values() if found.peer)
        assert found.active
        assert found.state is CopyState.FAILED_OVER
    finally:
        again.close()


def test_a_volume_belongs_to_one_replicated_group(pair: ArrayPair) -> None:
    _, (log,) = pair.mirrored("log")
    with pytest.raises(ArrayRefusal) as refused:
        pair.east.create_group("other", [log.id])
    assert refused.value.code is ReturnValue.IN_USE


def test_a_write_is_not_acknowledged_alone_before_the_link_has_failed_for_the_tolerated_time(pair: ArrayPair) -> None:
    """An array that dies together with its link then has nothing that the other one misses."""
    group, (log,) = pair.mirrored("log")
    pair.east.link_tolerance_s = 60.0
    pair.link.is_cut = True
    acknowledged = threading.Event()

    def write() -> None:
        pair.east.write(log.id, 0, b"x" * 4096)
        acknowledged.set()

    threading.Thread(target=write, daemon=True).start()
    assert not acknowledged.wait(0.5)
    assert group.state is CopyState.SYNCHRONIZED
    assert pair.both_hold(group)
    pair.link.is_cut = False
    assert acknowledged.wait(5)
    assert pair.both_hold(group)


def test_a_copy_that_died_with_its_array_is_not_told_as_going_on(tmp_path: Path) -> None:
    with arrays(tmp_path) as pair:
        pair.east.jobs.hold.set()
        group = pair.east.create_group("payments", [pair.east.create_volume("log", POOL, MIB).id])
        create_mirror(pair.east, group, "west", POOL, blocks_on_failure=False)
        assert group.state is CopyState.UNSYNCHRONIZED
    again = Array(tmp_path / "east", "east")
    try:
        assert again.state.groups[group.id].state is CopyState.BROKEN
    finally:
        again.close()
