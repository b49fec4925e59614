"""What is on a site's hosts, as VMM knows it: two questions to the VMM server, however many hosts there are.

VMM does not tell everything that a host tells: whether a disk is shared with another machine, and how replication
goes, is looked at on the machine's host when it is protected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

from adapters.hyperv.discovery import HEARTBEAT, SHUTDOWN, VSS, Excluded, HostFound, MachineFound, against, by_name
from adapters.hyperv.facts import IntegrationService, NetworkAdapter, VirtualDisk, VirtualMachine
from adapters.hyperv.states import VmState
from adapters.vmm.facts import Adapter, Cloud, DiskDrive, ManagedHost, ManagedMachine
from adapters.vmm.hosts import VmmHosts
from vault.domain import Finding

KINDS: dict[str, Literal["Fixed", "Dynamic", "Differencing"]] = {
    "FixedSize": "Fixed",
    "DynamicallyExpanding": "Dynamic",
    "Differencing": "Differencing",
}
FORMATS: dict[str, Literal["VHD", "VHDX"]] = {"VHD": "VHD", "VHDX": "VHDX"}
"""VMM's words for ``VHDType`` and ``VHDFormatType``; others are unknown, which stands in nobody's way."""
STATES = {"PowerOff": VmState.OFF}
"""VMM's words for states that Hyper-V calls otherwise."""


def discover(hosts: VmmHosts, excluded: Excluded | None = None) -> list[HostFound]:
    """The site's hosts in the order of the inventory, with their machines. A host that VMM does not manage, or that
    does not respond to it, is told, and hides no other."""
    fabric = hosts.server.fabric()
    clouds = {cloud.name: cloud for cloud in fabric.clouds}
    machines = hosts.server.machines()
    managed = {hosts.called(host): host for host in fabric.hosts}
    left_out = by_name(excluded)

    def judge(machine: ManagedMachine) -> list[Finding]:
        return [*_of_vmm(machine, clouds), *against(as_seen_by_hyperv(machine), left_out(machine.name))]

    return [_found(name, managed.get(name), machines, judge) for name in hosts.names]


def _found(
    name: str,
    host: ManagedHost | None,
    machines: list[ManagedMachine],
    judge: Callable[[ManagedMachine], list[Finding]],
) -> HostFound:
    if host is None:
        return HostFound(host=name, trouble="VMM does not manage it — add it to VMM")
    return HostFound(
        host=name,
        machines=[
            MachineFound(host=name, machine=as_seen_by_hyperv(one), findings=judge(one), cloud=one.cloud)
            for one in machines
            if one.host == host.name
        ],
        trouble="" if host.responding else f"it does not respond to VMM ({host.state}) — this is what VMM saw last",
    )


def _of_vmm(machine: ManagedMachine, clouds: dict[str, Cloud]) -> Iterator[Finding]:
    def failed(what: str, remedy: str) -> Finding:
        return Finding.failed(machine.name, what, remedy)

    cloud = clouds.get(machine.cloud)
    if machine.is_replica:
        yield failed("it is a replica", "name the site where it runs")
    if not machine.cloud:
        yield failed("it is in no cloud", "Set-SCVirtualMachine -VM … -Cloud …")
    elif cloud is not None and not cloud.is_for_hyperv:
        yield failed(
            f"its cloud '{cloud.name}' has no Hyper-V capability profile",
            "choose 'Hyper-V' among the capability profiles in the cloud's properties",
        )


def as_seen_by_hyperv(machine: ManagedMachine) -> VirtualMachine:
    """The machine in the words of its host, by which obstacles are judged the same with VMM and without."""
    return VirtualMachine(
        id=machine.vm_id,
        name=machine.name,
        state=STATES.get(machine.status) or VmState(machine.status),
        generation=machine.generation,
        version="",
        clustered=machine.highly_available,
        disks=[_disk(drive) for drive in machine.disks],
        integration_services=[
            IntegrationService(name="Heartbeat", component=HEARTBEAT, enabled=machine.heartbeat, ok=True),
            IntegrationService(name="Shutdown", component=SHUTDOWN, enabled=machine.shutdown, ok=True),
            IntegrationService(name="VSS", component=VSS, enabled=machine.backup, ok=True),
        ],
        network_adapters=[_adapter(adapter) for adapter in machine.adapters],
    )


def _disk(drive: DiskDrive) -> VirtualDisk:
    return VirtualDisk(
        path=drive.path,
        size=drive.size,
        file_size=drive.file_size,
        kind=KINDS.get(drive.kind, "Unknown"),
        format=FORMATS.get(drive.format, "Unknown"),
        controller=drive.controller,
        pass_through=drive.pass_through,
    )


def _adapter(adapter: Adapter) -> NetworkAdapter:
    return NetworkAdapter(id=adapter.id, name=adapter.name, switch=adapter.switch, addresses=adapter.addresses)
