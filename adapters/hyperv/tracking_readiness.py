"""Whether a machine can be followed by resilient change tracking: said before it is protected, not by its first cut."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from adapters.hyperv.discovery import unknown_exclusions
from adapters.hyperv.disk_folders import located
from adapters.hyperv.facts import VirtualDisk, VirtualMachine
from adapters.hyperv.virtual_disks.opening import Locate
from vault.domain import Finding, Relationship, Severity
from vault.errors import BadInput, LeewardError

if TYPE_CHECKING:
    from adapters.hyperv.hypervisor import HyperVHypervisor

LEAST_VERSION = (6, 2)
"""The first configuration version of virtual machines with change tracking; Windows Server 2016 makes 8.0. Source: IBM,
"Virtual machine backups with resilient change tracking (RCT)"."""


def of_source(fabric: HyperVHypervisor, relationship: Relationship) -> list[Finding]:
    """The machine is new enough, and each of its disks is a file whose changes are tracked and that a worker finds."""
    name = relationship.machine
    try:
        there = fabric.find(name)
    except LeewardError as error:
        return [Finding.of_error(name, error)]
    site = fabric.inventory.sites[fabric.site].hyperv
    locate = located(site.disk_folders if site else [], there.host)
    excluded = fabric.settings(name).excluded_disks
    disks = [disk for disk in there.vm.disks if not disk.is_among(excluded)]
    findings = [
        *_of_version(name, there.vm),
        *_of_disks(name, disks, locate),
        *unknown_exclusions(name, there.vm.disks, excluded),
    ]
    if all(finding.severity is Severity.PASS for finding in findings):
        its_disks = f"its {len(disks)} disks" if len(disks) != 1 else "its disk"
        findings.append(Finding.passed(name, f"the changes of {its_disks} can be tracked and read"))
    return findings


def _of_version(name: str, vm: VirtualMachine) -> Iterator[Finding]:
    parts = [int(part) for part in vm.version.split(".") if part.isdigit()]
    if tuple(parts) < LEAST_VERSION:
        yield Finding.failed(
            name,
            f"its configuration version {vm.version or 'unknown'} has no change tracking",
            f"on Windows Server 2016 or later, while it is off: Update-VMVersion -Name '{vm.name}'",
        )


def _of_disks(name: str, disks: list[VirtualDisk], locate: Locate) -> Iterator[Finding]:
    if not disks:
        yield Finding.failed(name, "it has no disk to replicate", "give it a virtual disk")
    for disk in disks:
        place = f"disk {disk.controller} ({disk.path})"
        if disk.pass_through:
            remedy = "exclude it ('excluded_disks'), or convert it into a virtual disk"
            yield Finding.failed(name, f"{place} is a physical disk of the host", remedy)
        elif disk.problem:
            yield Finding.failed(name, f"{place} cannot be read: {disk.problem}", "repair or detach it")
        elif disk.shared or disk.format == "VHDSet":
            remedy = "exclude it ('excluded_disks'), or stop sharing it"
            yield Finding.failed(name, f"{place} is shared with other machines", remedy)
        elif disk.format != "VHDX":
            remedy = "convert it while the machine is off (Convert-VHD), or exclude it ('excluded_disks')"
            yield Finding.failed(name, f"{place} is a {disk.format}: only changes of VHDX are tracked", remedy)
        else:
            try:
                locate(disk.path)
            except BadInput as nowhere:
                yield Finding.failed(name, f"{nowhere.what}: {disk.path}", nowhere.remedy)
