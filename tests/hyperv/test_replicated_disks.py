"""Which disks of a machine are replicated: those that are left out on purpose, and those that nobody meant to."""

from __future__ import annotations

from typing import Any

import pytest
from test_provider_failover import ID, Pair, inventory

from adapters.hyperv.discovery import discover
from adapters.hyperv.facts import VirtualDisk
from vault.domain import Finding, Severity

pytestmark = pytest.mark.unit

PAGEFILE = "D:\\vm\\pagefile.vhdx"
AFTER_A_CHECKPOINT = "D:\\vm\\pagefile_7D1D.avhdx"


def disk(path: str, **changes: Any) -> VirtualDisk:
    return VirtualDisk.model_validate(
        {"path": path, "size": 2**20, "controller": "SCSI 0:1", "format": "VHDX"} | changes
    )


def pair_with(*disks: VirtualDisk, excluded: list[str]) -> Pair:
    pair = Pair(inventory(hyperv={"excluded_disks": excluded}))
    pair.source.vm(ID).disks += disks
    return pair


def told(pair: Pair, severity: Severity) -> list[Finding]:
    return [finding for finding in pair.provider.check_source(pair.forward) if finding.severity is severity]


@pytest.mark.parametrize("path", [PAGEFILE, AFTER_A_CHECKPOINT])
def test_an_excluded_disk_is_the_same_after_a_checkpoint(path: str) -> None:
    """A checkpoint makes a new file that is written from then on; people go on naming the disk by its own."""
    excluded = disk(path, base_path=PAGEFILE if path != PAGEFILE else "", pass_through=True)
    pair = pair_with(excluded, excluded=[PAGEFILE.upper()])
    assert told(pair, Severity.FAIL) == told(pair, Severity.WARN) == []
    pair.provider.enable(pair.forward)
    assert pair.world.settings[0].excluded_disks == [path]


def test_an_excluded_disk_that_the_machine_does_not_have_is_said_before_everything_is_replicated() -> None:
    pair = pair_with(disk(PAGEFILE), excluded=["D:\\vm\\pagefiel.vhdx"])
    (unknown,) = told(pair, Severity.FAIL)
    assert unknown.what == "'D:\\vm\\pagefiel.vhdx', which 'excluded_disks' names, is none of its disks"
    assert unknown.remedy == f"it has: D:\\vm\\os.vhdx, {PAGEFILE}; correct the inventory"
    pair.protect()
    assert told(pair, Severity.FAIL) == [], "once it is protected it is in no failover's way"
    assert [finding.what for finding in told(pair, Severity.WARN)] == [unknown.what]


def test_the_other_site_need_not_know_the_disks_that_are_excluded_at_home() -> None:
    pair = pair_with(disk(PAGEFILE), excluded=[PAGEFILE])
    pair.protect().fail_over_planned()
    pair.provider.commit(pair.forward, "any")
    pair.target.vm(ID).disks = [disk("D:\\Replicas\\os.vhdx")]
    findings = pair.provider.check_source(pair.backward)
    assert {finding.severity for finding in findings} == {Severity.PASS}


def test_a_disk_that_was_added_after_the_machine_was_protected_is_said() -> None:
    pair = pair_with(disk(PAGEFILE), excluded=[PAGEFILE])
    pair.protect()
    assert told(pair, Severity.WARN) == []
    pair.source.vm(ID).disks.append(disk("D:\\vm\\archive.vhdx", controller="SCSI 0:2"))
    (added,) = told(pair, Severity.WARN)
    assert "disk SCSI 0:2 (D:\\vm\\archive.vhdx) is not replicated" in added.what
    assert "Set-VMReplication -VMName 'db' -ReplicatedDisks" in added.remedy
    assert "'excluded_disks'" in added.remedy


def test_discovery_knows_what_the_inventory_excludes() -> None:
    physical = disk("\\\\.\\PhysicalDrive3", pass_through=True)
    pair = pair_with(physical, excluded=[physical.path])
    hosts = pair.fabrics["east"].hosts
    assert [machine.can_be_protected for host in discover(hosts) for machine in host.machines] == [False]
    known = {"DB": [physical.path]}
    assert [machine.can_be_protected for host in discover(hosts, known) for machine in host.machines] == [True]
    unknown = discover(hosts, {"db": [physical.path, "D:\\gone.vhdx"]})[0].machines[0].findings
    assert ["which 'excluded_disks' names" in finding.what for finding in unknown] == [True]
