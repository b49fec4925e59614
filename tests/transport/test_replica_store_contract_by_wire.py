"""Promises of ``ReplicaStore`` that the local store's own tests leave to the contract, held through the wire."""

from __future__ import annotations

import pytest
from test_replica_store_contract import (  # collected here once more
    Opener,
    OwnOpener,
    pair,  # noqa: F401
    replicated,  # noqa: F401
    test_a_failover_is_committed_to_its_point_and_to_no_other,  # noqa: F401
    test_a_failover_may_be_begun_again_but_not_to_another_point,  # noqa: F401
    test_a_failover_waits_for_no_writer_and_refuses_what_was_under_way,  # noqa: F401
    test_a_replica_that_is_made_anew_knows_of_no_failover,  # noqa: F401
    test_a_resync_replaces_what_differs,  # noqa: F401
    test_a_view_reads_any_range_of_its_moment,  # noqa: F401
    test_after_a_cancelled_failover_deltas_go_on_from_where_they_were,  # noqa: F401
    test_after_a_failover_the_source_changes_nothing,  # noqa: F401
    test_an_abandoned_segment_leaves_nothing,  # noqa: F401
    test_blocks_that_the_replica_has_are_not_sent_again,  # noqa: F401
    test_checksums_are_those_of_the_newest_point,  # noqa: F401
    test_nobody_fails_over_to_what_is_not_there,  # noqa: F401
    test_nothing_is_sealed_or_dropped_behind_a_failover_that_comes_at_any_moment,  # noqa: F401
    test_segments_take_extents_of_any_size_and_place,  # noqa: F401
    test_what_is_not_there_is_told_with_its_place_and_what_to_do,  # noqa: F401
    test_what_was_sealed_before_a_failover_stays,  # noqa: F401
)
from transport_wire import Wire

pytestmark = pytest.mark.contract


@pytest.fixture(params=["wire", "encrypted"])
def opener(request: pytest.FixtureRequest) -> Opener:
    wire: Wire = request.getfixturevalue(request.param)
    return wire.remote


@pytest.fixture
def own(opener: Opener) -> OwnOpener:
    wire: Wire = opener.__self__  # type: ignore[attr-defined]
    return wire.local
