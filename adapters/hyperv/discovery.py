"""What is on the hosts of a site, and of each machine whether it can be protected, and why not.

Two operations a host: what it says about itself, and all of its machines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from adapters.hyperv.facts import HostFacts, Replication, VirtualDisk, VirtualMachine
from adapters.hyperv.hosts import HyperVHosts
from adapters.hyperv.operations import INVENTORY, InventoryRequest
from adapters.hyperv.states import HEALTH, ROLES, STATES, Role, Standing
from vault.domain import Finding, Severity, Value
from vault.errors import LeewardError

HEARTBEAT = "84EAAE65-2F2E-45F5-9BB5-0E857DC8EB47"
SHUTDOWN = "9F8233AC-BE49-4C79-8EE3-E7E1985B2077"
VSS = "5CED1297-4598-4915-A5FC-AD21BB4D02A4"
"""The components of the integration services; their names depend on the host's language."""
_NEEDED = {
    HEARTBEAT: "leeward cannot see whether its guest answers",
    SHUTDOWN: "it cannot be shut down cleanly, only turned off",
    VSS: "it has no app-consistent recovery points",
}


class MachineFound(Value):
    """A virtual machine and what stands in the way of its protection: nothing of severity ``fail``, and it can be."""

    host: str
    machine: VirtualMachine
    findings: list[Finding]
    cloud: str = ""
    """Its private cloud in VMM; empty: it is in none, or the site has no VMM server."""

    @property
    def can_be_protected(self) -> bool:
        return all(finding.severity is not Severity.FAIL for finding in self.findings)


class HostFound(Value):
    """A host as discovery met it. ``trouble`` is empty when it answered."""

    host: str
    facts: HostFacts | None = None
    machines: list[MachineFound] = []
    trouble: str = ""


RESYNC = "resynchronize it: leeward resync, or wait for the window of its policy"
Excluded = Mapping[str, list[str]]
"""Paths of disks that the inventory excludes, by the machine's name in Hyper-V."""


def discover(hosts: HyperVHosts, excluded: Excluded | None = None) -> list[HostFound]:
    """All hosts at once, in the order of the inventory. A host that does not answer is told, and hides no other."""
    left_out = by_name(excluded)

    def ask(host: str) -> HostFound:
        facts = hosts.facts(host)
        machines = hosts.run(host, INVENTORY, InventoryRequest()).machines
        found = [MachineFound(host=host, machine=vm, findings=against(vm, left_out(vm.name))) for vm in machines]
        return HostFound(host=host, facts=facts, machines=found)

    answers = hosts.on_all(ask)
    return [
        answer if isinstance(answer, HostFound) else HostFound(host=host, trouble=_said(answer))
        for host, answer in answers.items()
    ]


def by_name(excluded: Excluded | None) -> Callable[[str], list[str]]:
    """Names of machines are the same in either case."""
    folded = {name.casefold(): paths for name, paths in (excluded or {}).items()}
    return lambda name: folded.get(name.casefold(), [])


def against(vm: VirtualMachine, excluded: list[str]) -> list[Finding]:
    """All that a site's discovery says of a machine."""
    return [*obstacles(vm, excluded), *unknown_exclusions(vm.name, vm.disks, excluded)]


def _said(error: LeewardError) -> str:
    return f"{error.what} — {error.remedy}" if error.remedy else error.what


def obstacles(vm: VirtualMachine, excluded_disks: list[str] | None = None) -> Iterator[Finding]:
    """What keeps a machine from being protected by Hyper-V Replica, or from being protected well."""
    replicated = vm.disks_without(excluded_disks or [])
    if not replicated:
        yield _finding(vm, Severity.FAIL, "it has no disk to replicate", "give it a virtual disk")
    for disk in replicated:
        yield from _of_disk(vm, disk)
    for component, consequence in _NEEDED.items():
        service = next((service for service in vm.integration_services if service.component == component), None)
        if service is not None and not service.enabled:
            yield _finding(
                vm,
                Severity.WARN,
                f"integration service '{service.name}' is off: {consequence}",
                f"Enable-VMIntegrationService -VMName '{vm.name}' -Name '{service.name}'",
            )
    if vm.state.value.endswith("Critical"):
        yield _finding(vm, Severity.FAIL, f"it is {vm.state}: its storage is gone", "bring its storage back")
    yield from _of_replication(vm)
    yield from _left_behind(vm, replicated)


def unknown_exclusions(subject: str, disks: list[VirtualDisk], excluded: list[str]) -> Iterator[Finding]:
    """A name that means no disk excludes nothing."""
    for path in excluded:
        if not any(disk.is_among([path]) for disk in disks):
            yield Finding.failed(
                subject,
                f"'{path}', which 'excluded_disks' names, is none of its disks",
                f"it has: {', '.join(disk.base_path or disk.path for disk in disks)}; correct the inventory",
            )


def _left_behind(vm: VirtualMachine, wanted: list[VirtualDisk]) -> Iterator[Finding]:
    """A disk that is attached to a machine after it was protected is not replicated by itself."""
    replication = vm.replication
    if replication is None or ROLES[replication.mode] is not Role.SOURCE or not replication.replicated_disks:
        return
    for disk in wanted:
        if not disk.is_among(replication.replicated_disks):
            yield _finding(
                vm,
                Severity.WARN,
                f"disk {disk.controller} ({disk.path}) is not replicated: after a failover the machine lacks it",
                f"Set-VMReplication -VMName '{vm.name}' -ReplicatedDisks (Get-VMHardDiskDrive -VMName '{vm.name}') "
                "on the host, or name it in 'excluded_disks'",
            )


def _of_disk(vm: VirtualMachine, disk: VirtualDisk) -> Iterator[Finding]:
    """Hyper-V Replica carries the files of virtual disks, each of one machine."""
    place = f"disk {disk.controller} ({disk.path})"
    if disk.pass_through:
        yield _finding(
            vm,
            Severity.FAIL,
            f"{place} is a physical disk of the host",
            "exclude it, or convert it into a virtual disk",
        )
    elif disk.problem:
        yield _finding(vm, Severity.FAIL, f"{place} cannot be read: {disk.problem}", "repair or detach it")
    elif disk.shared or disk.format == "VHDSet":
        yield _finding(vm, Severity.FAIL, f"{place} is shared with other machines", "exclude it, or stop sharing it")


def _of_replication(vm: VirtualMachine) -> Iterator[Finding]:
    if vm.replication is None:
        return
    role, standing = ROLES[vm.replication.mode], STATES[vm.replication.state].standing
    if role is Role.OTHER or standing is Standing.FOREIGN:
        yield _finding(
            vm,
            Severity.FAIL,
            f"it is in a relationship of another system ({vm.replication.mode}, {vm.replication.state})",
            "end that relationship first",
        )
    elif role is Role.TEST_COPY:
        yield _finding(vm, Severity.FAIL, "it is the copy of a test failover", "protect the machine itself")
    elif role is Role.TARGET and standing not in (Standing.FAILED_OVER, Standing.COMMITTED):
        yield _finding(
            vm, Severity.FAIL, f"it is a replica, of {vm.replication.primary_server}", "name the site where it runs"
        )
    elif role is Role.TARGET and vm.replication.extended_to:
        yield _finding(vm, Severity.FAIL, extended(vm.replication), end_extension(vm.name))
    elif role is Role.SOURCE:
        severity = HEALTH[vm.replication.health]
        yield _finding(
            vm,
            severity,
            f"it is replicated to {vm.replication.replica_server}: {standing}, health {vm.replication.health}",
            "" if severity is Severity.PASS else _mend(vm.name, standing),
        )


def _mend(name: str, standing: Standing) -> str:
    if standing in (Standing.RESYNC_REQUIRED, Standing.RESYNCHRONIZING):
        return RESYNC
    return (
        go_on(name) if standing is Standing.PAUSED else "see its replication health on the host: Measure-VMReplication"
    )


def go_on(name: str) -> str:
    return f"Resume-VMReplication -VMName '{name}' on the host"


def extended(replication: Replication) -> str:
    """Why a replica that is replicated further cannot be turned round: a machine has one replica. Source: "Mastering
    Windows Server 2016 Hyper-V", on failing back with extended replication."""
    return f"it is replicated further, to {replication.extended_to}: it cannot be replicated back, too"


def end_extension(name: str) -> str:
    return f"Remove-VMReplication -VMName '{name}' -ReplicationRelationshipType Extended on the host"


def _finding(vm: VirtualMachine, severity: Severity, what: str, remedy: str = "") -> Finding:
    return Finding(severity=severity, subject=vm.name, what=what, remedy=remedy)
