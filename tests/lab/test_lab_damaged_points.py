"""Readiness for a recovery finds a point whose files are missing or cut short, before anything is shut down."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from lab_support import AWAY, counted_on, no_report, running_lab
from temporalio.testing import ActivityEnvironment

from activities import protection
from activities.contracts import ReadinessQuestion
from activities.running import BlockingRunner
from adapters.registry import Adapters
from replication.segment_reader import SegmentReader
from vault.domain import LATEST, Severity

pytestmark = pytest.mark.contract


def flip_in_last_frame(segment: Path) -> None:
    with closing(SegmentReader(segment)) as reader:
        offset, length, *_ = reader._frames[-1]
    broken = bytearray(segment.read_bytes())
    broken[offset + length - 1] ^= 1
    segment.write_bytes(broken)


@pytest.mark.parametrize("how", ["removed", "cut short", "flipped"])
async def test_a_point_that_cannot_be_opened_is_found_before_a_recovery(tmp_path: Path, how: str) -> None:
    with running_lab(tmp_path / "lab") as lab, ThreadPoolExecutor(2) as threads:
        lab.up()
        adapters, relationship = Adapters(lab.inventory, tmp_path), lab.inventory.relationship("db")
        provider, env = adapters.provider(relationship), ActivityEnvironment()
        provider.enable(relationship)
        first = provider.copy_initial(relationship, no_report)
        lab.wait_for_a_further_transaction()
        provider.replicate_once(relationship, no_report, app_consistent=False)
        activities = protection.ProtectionActivities(adapters, BlockingRunner(threads, asking=counted_on))

        async def failures(choice: str, *, recovering: bool = True) -> list[str]:
            asked = {"site": AWAY, "side": "target", "relationships": [relationship], "point": choice}
            question = ReadinessQuestion.model_validate(asked | {"recovering": recovering})
            findings = (await env.run(activities.check_readiness, question)).findings
            return [str(finding) for finding in findings if finding.severity is Severity.FAIL]

        assert await failures(LATEST) == []
        segment = sorted((lab.layout.site(AWAY).path / "replicas" / "db" / "segments").glob("*.seg"))[-1]
        if how == "removed":
            segment.unlink()
        elif how == "cut short":
            segment.write_bytes(segment.read_bytes()[:-100])
        else:
            segment = max(segment.parent.glob(f"{segment.name[:10]}-*"), key=lambda path: path.stat().st_size)
            flip_in_last_frame(segment)
        (failure,) = await failures(LATEST)
        assert failure.startswith("recovery point of 'db': ")
        assert failure.endswith("choose a recovery point before it, or resynchronize the machine")
        assert await failures(first.id) == [], "what is before the damage can be recovered"
        assert await failures(LATEST, recovering=False) == [], "replication and its repair go on"


async def test_what_a_check_had_no_time_to_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protection, "READ_CHANGES_FOR_S", 0.0)
    with running_lab(tmp_path / "lab") as lab, ThreadPoolExecutor(2) as threads:
        lab.up()
        adapters, relationship = Adapters(lab.inventory, tmp_path), lab.inventory.relationship("db")
        provider = adapters.provider(relationship)
        provider.enable(relationship)
        provider.copy_initial(relationship, no_report)
        lab.wait_for_a_further_transaction()
        provider.replicate_once(relationship, no_report, app_consistent=False)
        point = provider.recovery_points(relationship)[-1]
        asked = {"site": AWAY, "side": "target", "relationships": [relationship], "recovering": True}
        check = protection.ProtectionActivities(adapters, BlockingRunner(threads, asking=counted_on)).check_readiness
        answer = await ActivityEnvironment().run(check, ReadinessQuestion.model_validate(asked | {"point": LATEST}))
        (told,) = [finding for finding in answer.findings if finding.subject == "recovery point of 'db'"]
        assert told.severity is Severity.PASS
        assert told.what.startswith(point.id)
        assert told.what.endswith("of its changes were not read in the time that a check has")
