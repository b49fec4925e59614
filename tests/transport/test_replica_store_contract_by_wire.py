"""Promises of ``ReplicaStore`` that the local store's own tests leave to the contract, held through the wire."""

from __future__ import annotations

import pytest
from test_replica_store_contract import (  # collected here once more
    Opener,
    pair,  # noqa: F401
    replicated,  # noqa: F401
    test_a_resync_replaces_what_differs,  # noqa: F401
    test_a_view_reads_any_range_of_its_moment,  # noqa: F401
    test_an_abandoned_segment_leaves_nothing,  # noqa: F401
    test_blocks_that_the_replica_has_are_not_sent_again,  # noqa: F401
    test_checksums_are_those_of_the_newest_point,  # noqa: F401
    test_segments_take_extents_of_any_size_and_place,  # noqa: F401
    test_what_is_not_there_is_told_with_its_place_and_what_to_do,  # noqa: F401
)
from transport_wire import Wire

pytestmark = pytest.mark.contract


@pytest.fixture(params=["wire", "encrypted"])
def opener(request: pytest.FixtureRequest) -> Opener:
    wire: Wire = request.getfixturevalue(request.param)
    return wire.remote
