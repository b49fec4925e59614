"""What is on the hosts of a site, and of each machine whether it can be protected, and why not.

Two operations a host: what it says about itself, and all of its machines.
"""

from __future__ import annotations

from collections.abc import Iterator

from adapters.hyperv.facts import HostFacts, VirtualDisk, VirtualMachine
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


def discover(hosts: HyperVHosts) -> list[HostFound]:
    """All hosts at once, in the order of the inventory. A host that does not answer is told, and hides no other."""

    def ask(host: str) -> HostFound:
        facts = hosts.facts(host)
        machines = hosts.run(host, INVENTORY, InventoryRequest()).machines
        found = [MachineFound(host=host, machine=vm, findings=list(obstacles(vm))) for vm in machines]
        return HostFound(host=host, facts=facts, machines=found)

    answers = hosts.on_all(ask)
    return [
        answer if isinstance(answer, HostFound) else HostFound(host=host, trouble=_said(answer))
        for host, answer in answers.items()
    ]


def _said(error: LeewardError) -> str:
    return f"{error.what} — {error.remedy}" if error.remedy else error.what


def obstacles(vm: VirtualMachine, excluded_disks: list[str] | None = None) -> Iterator[Finding]:
    """What keeps a machine from being protected by Hyper-V Replica, or from being protected well."""
    excluded = {path.casefold() for path in excluded_disks or []}
    replicated = [disk for disk in vm.disks if disk.path.casefold() not in excluded]
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
    elif role is Role.SOURCE:
        severity = HEALTH[vm.replication.health]
        yield _finding(
            vm,
            severity,
            f"it is replicated to {vm.replication.replica_server}: {standing}, health {vm.replication.health}",
            "" if severity is Severity.PASS else "see its replication health on the host: Measure-VMReplication",
        )


def _finding(vm: VirtualMachine, severity: Severity, what: str, remedy: str = "") -> Finding:
    return Finding(severity=severity, subject=vm.name, what=what, remedy=remedy)
