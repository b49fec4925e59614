"""The lifecycle table, and the picture of it in the architecture document."""

from __future__ import annotations

from pathlib import Path

import pytest

from vault.lifecycle import IDLE, LIFECYCLE, JobKind, Phase, mermaid, refusal

pytestmark = pytest.mark.unit
ARCHITECTURE = Path(__file__).parents[2] / "docs" / "architecture.md"


def test_the_picture_in_the_architecture_document_is_the_table() -> None:
    assert mermaid() in ARCHITECTURE.read_text(), (
        "run: python -c 'from vault.lifecycle import mermaid; print(mermaid())'"
    )


def test_every_job_kind_has_its_way_and_starts_only_where_nothing_else_runs() -> None:
    assert set(LIFECYCLE) == set(JobKind)
    for job, way in LIFECYCLE.items():
        assert way.starts_in <= IDLE, job
        assert (way.during is None) == (way.done is None), job


def test_every_phase_can_be_reached_and_left() -> None:
    reached = {Phase.UNPROTECTED}
    ways = [way for way in LIFECYCLE.values() if way.during is not None]
    for _ in Phase:
        for way in ways:
            if way.starts_in & reached:
                reached |= {phase for phase in (way.during, way.done, way.failed) if phase is not None}
    assert reached | {Phase.RESYNC_REQUIRED} == set(Phase)
    assert {phase for way in ways for phase in way.starts_in} == IDLE


@pytest.mark.parametrize("job", list(JobKind))
@pytest.mark.parametrize("phase", list(Phase))
def test_a_refusal_names_the_machine_its_phase_and_the_next_step(phase: Phase, job: JobKind) -> None:
    why_not = refusal("payment-db", phase, job)
    if phase in LIFECYCLE[job].starts_in:
        assert why_not is None
    else:
        assert why_not is not None
        assert "payment-db" in why_not.what
        assert phase.value in why_not.what
        assert "leeward" in why_not.remedy
