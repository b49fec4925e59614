"""What a replica store promises, kept by a store at the other end of the wire: the local store's tests, through it."""

from __future__ import annotations

from pathlib import Path

import pytest
import test_local_store
import test_stream
from test_local_store import (  # collected here once more
    pair,  # noqa: F401
    test_a_full_disk_loses_no_point,  # noqa: F401
    test_a_missing_or_exchanged_segment_is_damage,  # noqa: F401
    test_a_newer_manifest_is_not_called_damage,  # noqa: F401
    test_a_second_writer_is_kept_out_and_told_who_writes,  # noqa: F401
    test_an_open_reader_postpones_the_merge_and_sees_its_point_unchanged,  # noqa: F401
    test_commit_to_an_older_point_ends_the_deltas,  # noqa: F401
    test_commit_to_the_newest_point_lets_deltas_go_on,  # noqa: F401
    test_disks_that_changed_are_named_with_both_sizes,  # noqa: F401
    test_every_point_can_be_materialised,  # noqa: F401
    test_leftovers_of_a_crash_are_cleared_when_a_writer_comes,  # noqa: F401
    test_pruning_merges_the_oldest_and_skips_points_in_use,  # noqa: F401
    test_remove_leaves_nothing_and_may_be_repeated,  # noqa: F401
    test_sealing_twice_gives_the_same_point_and_a_gap_is_refused,  # noqa: F401
    test_seeding_rules,  # noqa: F401
    test_the_old_source_is_adopted_by_moving_its_images,  # noqa: F401
)
from test_stream import (
    protected,  # noqa: F401
    setup,  # noqa: F401
    test_a_commit_between_two_tries_of_a_resynchronization_drops_what_was_kept,  # noqa: F401
    test_a_cut_that_a_crash_left_is_sent_once,  # noqa: F401
    test_a_disk_that_grew_is_refused,  # noqa: F401
    test_a_lost_snapshot_starts_the_seed_again_so_that_no_point_mixes_moments,  # noqa: F401
    test_a_stopped_resynchronization_goes_on_after_what_was_kept,  # noqa: F401
    test_a_stopped_resynchronization_leaves_the_points_and_can_be_repeated,  # noqa: F401
    test_an_unreachable_source_stops_the_transfer_with_its_error,  # noqa: F401
    test_deltas_that_do_not_follow_ask_for_a_resync,  # noqa: F401
    test_initial_replication_copies_what_is_there_and_then_what_changed,  # noqa: F401
    test_resynchronization_heals_a_damaged_block,  # noqa: F401
    test_resynchronization_of_an_incomplete_replica_seeds_it_again,  # noqa: F401
    test_resynchronization_sends_only_what_differs_and_keeps_the_points,  # noqa: F401
    test_the_last_changes_end_with_an_empty_cut,  # noqa: F401
    test_the_report_may_stop_a_transfer_and_leaves_nothing_behind,  # noqa: F401
    test_two_transfers_of_one_machine_never_run_together,  # noqa: F401
)
from transport_wire import Wire

from replication.local import LocalReplicaStore
from replication.transport.remote import RemoteReplicaStore

pytestmark = pytest.mark.contract


@pytest.fixture(autouse=True, params=["wire", "encrypted"])
def through_the_wire(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests make a store of a folder: here it is a remote one, whose master target has the folder."""
    wire: Wire = request.getfixturevalue(request.param)

    def store(root: Path, *, machine: str) -> RemoteReplicaStore:
        wire.store_of = lambda name: LocalReplicaStore(root, machine=name, site_key=wire.site_key)
        return wire.remote(machine)

    for module in (test_local_store, test_stream):
        monkeypatch.setattr(module, "LocalReplicaStore", store)
