"""What the Temporal UI shows stays readable; what is large fits into Temporal's limits."""

from __future__ import annotations

import pytest
from temporalio.api.common.v1 import Payload

from workers.payloads import LARGE, data_converter
from workflows.model import RunStatus, StageRow, StepRow

pytestmark = pytest.mark.unit
TEMPORAL_WARNS_AT = 256 * 1024


def status(machines: int) -> RunStatus:
    rows = [
        StepRow.model_validate(
            {
                "id": f"recover all/m{number}",
                "kind": "machine",
                "name": f"m{number}",
                "state": "done",
                "detail": "x" * 500,
            }
        )
        for number in range(machines)
    ]
    stage = StageRow(id="recover all", title="recover all", steps=rows)
    return RunStatus.model_validate(
        {
            "plan": "many",
            "run_id": "1",
            "run_type": "planned",
            "state": "running",
            "direction": "primary-to-recovery",
            "requested_by": "ada",
            "started": "2026-01-01T00:00:00Z",
            "stages": [stage],
        }
    )


async def test_small_values_are_plain_json() -> None:
    [payload] = await data_converter.encode([status(2)])
    assert payload.metadata["encoding"] == b"json/plain"
    assert await data_converter.decode([payload], [RunStatus]) == [status(2)]


async def test_the_status_of_a_large_run_fits() -> None:
    [payload] = await data_converter.encode([status(1000)])
    assert len(status(1000).model_dump_json()) > TEMPORAL_WARNS_AT > payload.ByteSize()
    assert await data_converter.decode([payload], [RunStatus]) == [status(1000)]


async def test_what_older_workers_wrote_is_read() -> None:
    assert data_converter.payload_codec is not None
    plain = Payload(metadata={"encoding": b"json/plain"}, data=b'"' + b"x" * LARGE + b'"')
    [decoded] = await data_converter.payload_codec.decode([plain])
    assert decoded == plain
