"""The room that a machine's test copies take at a site, counted and waited for by its failover, with real disks."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from lab_support import AWAY, Lab, counted_on, make_inventory, no_beat, no_report, running_lab
from temporalio.testing import ActivityEnvironment

from activities.contracts import FailOver, ReadinessQuestion
from activities.protection import ProtectionActivities
from activities.running import BlockingRunner
from adapters.lab.space import allocated_bytes
from adapters.registry import Adapters
from vault.domain import LATEST, Finding, Severity
from vault.errors import NoSpace
from vault.words import size

pytestmark = pytest.mark.contract


SLACK = 64 * 1024
"""Bytes that the replica's changes take, which a copy merges into its disks."""


def full_of_copies(lab: Lab, root: Path) -> Adapters:
    """A site that holds a replica of ``db`` and one test copy of it, and next to nothing more."""
    lab.up()
    lab.wait_for_transactions(100)
    lab.site().shut_down("db", 10, no_beat)
    adapters, relationship = Adapters(lab.inventory, root), lab.inventory.relationship("db")
    provider = adapters.provider(relationship)
    provider.enable(relationship)
    provider.copy_initial(relationship, no_report)
    provider.start_test(relationship, LATEST, "db-test", no_report)
    full = allocated_bytes(lab.layout.site(AWAY).path)
    return Adapters(make_inventory(secondary={"capacity": f"{full + SLACK}B"}), root)


def room(findings: list[Finding]) -> tuple[Severity, str]:
    (found,) = [finding for finding in findings if finding.subject == f"space at {AWAY}"]
    return found.severity, found.what


async def test_a_failover_counts_and_gets_the_room_of_the_copies_that_it_removes(tmp_path: Path) -> None:
    with running_lab(tmp_path / "lab") as lab, ThreadPoolExecutor(2) as threads:
        adapters, env = full_of_copies(lab, tmp_path), ActivityEnvironment()
        relationship = lab.inventory.relationship("db")
        protection = ProtectionActivities(adapters, BlockingRunner(threads, asking=counted_on))
        question = ReadinessQuestion(site=AWAY, side="target", relationships=[relationship])
        severity, what = room((await env.run(protection.check_readiness, question)).findings)
        assert severity is Severity.FAIL
        assert f"{size(SLACK)} are free" in what and "more" not in what

        leaving = question.model_copy(update={"leaving": ["db-test", "never-there"]})
        answer = await env.run(protection.check_readiness, leaving)
        severity, what = room(answer.findings)
        assert severity is Severity.PASS, what
        assert f"{size(SLACK)} are free" in what and "more once the machines' test copies are removed" in what
        assert all(finding.severity is not Severity.FAIL for finding in answer.findings)

        remover = threading.Timer(1.0, lambda: adapters.provider(relationship).end_test(relationship, "db-test"))
        began = time.monotonic()
        remover.start()
        made = await env.run(
            protection.fail_over, FailOver(relationship=relationship, choice=LATEST, leaving=["db-test"])
        )
        assert made.name == "db" and 1.0 <= time.monotonic() - began < 60
        assert [machine.name for machine in lab.site(AWAY).discover()] == ["db"]
        remover.join()


async def test_what_does_not_fit_without_the_copies_is_refused_at_once(tmp_path: Path) -> None:
    with running_lab(tmp_path / "lab") as lab, ThreadPoolExecutor(2) as threads:
        adapters = full_of_copies(lab, tmp_path)
        relationship = lab.inventory.relationship("db")
        protection = ProtectionActivities(adapters, BlockingRunner(threads, asking=counted_on))
        began = time.monotonic()
        with pytest.raises(Exception, match="do not fit") as refusal:
            await ActivityEnvironment().run(
                protection.fail_over, FailOver(relationship=relationship, choice=LATEST, leaving=["gone"])
            )
        assert getattr(refusal.value, "type", "") == NoSpace.__name__
        assert time.monotonic() - began < 30


def test_a_half_made_or_half_removed_copy_counts_as_the_copy(tmp_path: Path) -> None:
    with running_lab(tmp_path / "lab") as lab:
        adapters = full_of_copies(lab, tmp_path)
        away, folder = adapters.hypervisor(AWAY), lab.folder("db-test", AWAY)
        whole = away.free_space_without(["db-test"])  # type: ignore[attr-defined]
        assert whole > 2**17
        for left in ("making", "removed"):
            folder.path.rename(folder.beside(left).path)
            assert away.free_space_without(["db-test"]) == whole  # type: ignore[attr-defined]
            folder.beside(left).path.rename(folder.path)
