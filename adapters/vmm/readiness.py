"""What VMM knows against protecting a machine, or failing it over: its cloud, its networks, its hosts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from adapters.vmm.facts import Cloud, ManagedHost, ManagedMachine
from vault.azure_networks import subnet_of
from vault.clouds import cloud_of
from vault.domain import Finding, Relationship, Severity
from vault.errors import LeewardError, NotFound, Recoverable

if TYPE_CHECKING:
    from adapters.vmm.hypervisor import VmmHypervisor


def of_server(fabric: VmmHypervisor) -> list[Finding]:
    """Whether VMM answers, has the site's own cloud, and manages the site's hosts. Nothing of it is a failure: what a
    machine really needs is judged for the machine."""
    try:
        known = fabric.server.fabric()
        own = fabric.inventory.sites[fabric.site].vmm
        assert own is not None, "only a site with a VMM server has this fabric"
        cloud = fabric.server.cloud(own.cloud)
    except LeewardError as error:
        return [Finding.warned(fabric.server.where, error.what, error.remedy or "see that it runs")]
    answers = Finding.passed(fabric.server.where, f"VMM {known.version} answers: {len(known.hosts)} hosts")
    return [answers, *_as_rules([*_of_cloud(cloud), *_of_hosts(fabric, cloud)], protected=True)]


def of_source(fabric: VmmHypervisor, relationship: Relationship) -> list[Finding]:
    """The machine is where the inventory says: in its cloud, and on the network whose mapping is used.

    A failover needs nothing of the source's VMM server; that it is away is only told."""
    name = relationship.machine
    try:
        machines = fabric.server.machines([fabric.vm_name(name)])
        cloud = fabric.server.cloud(fabric.cloud(name))
    except Recoverable as away:
        return [
            Finding.warned(
                fabric.server.where, away.what, away.remedy or "see that it runs; the hosts are asked instead"
            )
        ]
    except LeewardError as error:
        return [Finding.of_error(fabric.server.where, error)]
    machine = next((one for one in machines if _is_ours(fabric, one) and not one.is_replica), None)
    if machine is None:
        remedy = "refresh its host in VMM; if VMM does not manage it, add the host"
        return [Finding.warned(name, f"VMM does not know virtual machine '{fabric.vm_name(name)}'", remedy)]
    rules = [*_of_cloud(cloud), *_of_membership(name, machine, cloud), *_of_mapping(fabric, cloud, relationship)]
    return [*_as_rules(rules, protected=machine.is_primary), *_of_network(fabric, name, machine, relationship)]


def of_target(fabric: VmmHypervisor, relationship: Relationship) -> list[Finding]:
    """The mappings are complete: a cloud for Hyper-V, and VM networks that its hosts carry."""
    try:
        cloud = fabric.server.cloud(fabric.cloud(relationship.machine))
        there = fabric.server.machines([fabric.vm_name(relationship.machine)])
    except LeewardError as error:
        return [Finding.of_error(fabric.server.where, error)]
    rules = list(_of_cloud(cloud))
    for network in (relationship.target_network, relationship.test_network):
        rules += _of_logical_network(fabric, cloud, network)
    replica_on = {one.host for one in there if _is_ours(fabric, one)}
    findings = _as_rules(rules, protected=bool(replica_on))
    for network in (relationship.target_network, relationship.test_network):
        findings += _of_vm_network(fabric, cloud, network, replica_on)
    if all(finding.severity is not Severity.FAIL for finding in findings):
        source = _source_cloud(fabric, relationship)
        findings.append(
            Finding.passed(relationship.machine, f"mappings complete: {source}cloud '{cloud.name}', VM networks")
        )
    return findings


def _as_rules(findings: list[Finding], *, protected: bool) -> list[Finding]:
    """What must be right before a machine is protected. Once it is, nothing of it stands in a failover's way."""
    return [finding.at_most_warned() for finding in findings] if protected else findings


def _of_cloud(cloud: Cloud) -> Iterator[Finding]:
    subject = f"cloud {cloud.name}"
    if not cloud.is_for_hyperv:
        has = ", ".join(profile.name for profile in cloud.capability_profiles) or "none"
        yield Finding.failed(
            subject,
            f"it has no Hyper-V capability profile ({has})",
            "choose 'Hyper-V' among the capability profiles in the cloud's properties",
        )
    if not cloud.host_groups:
        yield Finding.failed(subject, "it is made of no host group", "add one in the cloud's properties")


def _of_hosts(fabric: VmmHypervisor, cloud: Cloud) -> Iterator[Finding]:
    managed = {fabric.managed.called(host): host for host in fabric.server.fabric().hosts}
    for name in fabric.hosts.names:
        host = managed.get(name)
        if host is None:
            yield Finding.failed(f"host {name}", f"{fabric.server.where} does not manage it", "add it to VMM")
        elif not cloud.has(host):
            yield Finding.warned(
                f"host {name}",
                f"its host group '{host.host_group}' is not in cloud '{cloud.name}'",
                "no replica is placed on it; add its group to the cloud, or remove it from the site's 'hosts'",
            )
        elif not host.responding:
            yield Finding.failed(
                f"host {name}", f"it does not respond to VMM ({host.state})", "see the host's status in VMM"
            )


def _of_membership(name: str, machine: ManagedMachine, cloud: Cloud) -> Iterator[Finding]:
    if not machine.cloud:
        yield Finding.failed(
            name, "it is in no cloud", f"Set-SCVirtualMachine -VM … -Cloud … to put it into '{cloud.name}'"
        )
    elif machine.cloud.casefold() != cloud.name.casefold():
        yield Finding.failed(
            name,
            f"it is in cloud '{machine.cloud}', but the inventory says '{cloud.name}'",
            "set 'cloud' below the machine's 'hyperv', or move it to that cloud",
        )
    else:
        yield Finding.passed(name, f"in cloud '{cloud.name}', on {machine.host}")


def _of_network(
    fabric: VmmHypervisor, name: str, machine: ManagedMachine, relationship: Relationship
) -> Iterator[Finding]:
    described = fabric.inventory.machines[name]
    if relationship.source_site != described.site:
        return
    connected = fabric.network_of(machine)
    if connected != described.network:
        known = ", ".join(adapter.vm_network for adapter in machine.adapters if adapter.vm_network) or "none"
        yield Finding.warned(
            name,
            f"it is connected to VM network {known}, but its mapping is that of '{described.network}'",
            "correct the machine's 'network', or connect it to the VM network that the inventory names",
        )


def _of_mapping(fabric: VmmHypervisor, cloud: Cloud, relationship: Relationship) -> Iterator[Finding]:
    """To Azure: the VM network is on a logical network of the cloud, and mapped to a subnet (requirement A3)."""
    target = fabric.inventory.sites[relationship.target_site]
    if target.fabric != "azure":
        return
    network = fabric.inventory.machines[relationship.machine].network
    try:
        found = fabric.vm_network(network)
    except NotFound as missing:
        yield Finding.of_error(f"network {network}", missing)
        return
    wrong = list(_of_logical_network(fabric, cloud, network))
    yield from wrong
    if not wrong:
        subnet = subnet_of(target, relationship.target_network)
        what = f"VM network '{found.name}' on logical network '{found.logical_network}' → {subnet}"
        yield Finding.passed(f"network {network}", what)


def _of_logical_network(fabric: VmmHypervisor, cloud: Cloud, network: str) -> Iterator[Finding]:
    try:
        found = fabric.vm_network(network)
    except NotFound:
        return  # _of_vm_network tells it
    if found.logical_network not in cloud.logical_networks:
        yield Finding.failed(
            f"network {network}",
            f"logical network '{found.logical_network}' of VM network '{found.name}' is not in cloud '{cloud.name}'",
            "choose it among the logical networks in the cloud's properties",
        )


def _of_vm_network(fabric: VmmHypervisor, cloud: Cloud, network: str, replica_on: set[str]) -> Iterator[Finding]:
    """Without these a recovered machine cannot be connected, so they always count."""
    try:
        found = fabric.vm_network(network)
    except NotFound as missing:
        yield Finding.of_error(f"network {network}", missing)
        return
    hosts = [host for host in fabric.server.hosts_of(cloud.name) if fabric.managed.called(host) is not None]
    without = [host for host in hosts if found.logical_network not in host.logical_networks]
    for host in without:
        matters = host.name in replica_on if replica_on else without == hosts
        yield _not_on_host(host, found.logical_network, matters=matters)


def _not_on_host(host: ManagedHost, logical_network: str, *, matters: bool) -> Finding:
    what = f"logical network '{logical_network}' is not on it"
    remedy = "assign it to one of the host's network adapters in VMM"
    return (Finding.failed if matters else Finding.warned)(f"host {host.name}", what, remedy)


def _source_cloud(fabric: VmmHypervisor, relationship: Relationship) -> str:
    source = cloud_of(fabric.inventory, relationship.machine, relationship.source_site)
    return f"cloud '{source}' of {relationship.source_site} → " if source else ""


def _is_ours(fabric: VmmHypervisor, machine: ManagedMachine) -> bool:
    """One VMM server may manage both sites, and so have the machine twice."""
    host = next((host for host in fabric.server.fabric().hosts if host.name == machine.host), None)
    return host is not None and fabric.managed.called(host) is not None
