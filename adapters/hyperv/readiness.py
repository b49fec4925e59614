"""Whether a machine can be protected, or failed over, from one site to another by Hyper-V Replica."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from adapters.hyperv.discovery import obstacles
from adapters.hyperv.facts import HostFacts, ReplicaServer
from adapters.hyperv.hypervisor import HyperVHypervisor
from adapters.hyperv.settings import host_name, site
from adapters.hyperv.states import ROLES, STATES, Role, Standing
from vault.domain import Finding, NetworkKind, Relationship
from vault.errors import LeewardError, NotFound
from vault.hyperv import MOST_RECOVERY_POINTS, HyperVSite
from vault.inventory import Inventory

EXPIRES_SOON = timedelta(days=30)


def of_source(fabric: HyperVHypervisor, relationship: Relationship) -> list[Finding]:
    machine = relationship.machine
    try:
        there = fabric.find(machine)
    except LeewardError as error:
        subject = machine if isinstance(error, NotFound) else f"site {fabric.site}"
        return [Finding.of_error(subject, error)]
    findings = list(obstacles(there.vm, fabric.settings(machine).excluded_disks))
    if there.vm.replication is not None:
        role, standing = ROLES[there.vm.replication.mode], STATES[there.vm.replication.state].standing
        if role is Role.TARGET and standing not in (Standing.FAILED_OVER, Standing.COMMITTED):
            findings.append(Finding.failed(machine, f"it is a replica at {fabric.site}", "name the site where it runs"))
    return [Finding.passed(machine, f"{there.vm.state} on {there.host}, {len(there.vm.disks)} disks"), *findings]


def of_target(fabric: HyperVHypervisor, inventory: Inventory, relationship: Relationship) -> list[Finding]:
    target = site(inventory, relationship.target_site)
    answers = fabric.hosts.on_all(fabric.hosts.facts)
    findings, server = [], ""
    try:
        server = fabric.replica_server(relationship)
    except LeewardError as nowhere:
        findings.append(Finding.of_error(f"site {fabric.site}", nowhere))
    for host, facts in _that_receive(server, answers).items():
        if isinstance(facts, LeewardError):
            findings.append(Finding.of_error(f"host {host}", facts))
        else:
            findings += [
                *_accepts_replicas(host, facts, target, server),
                *_has_networks(fabric, host, facts, relationship),
            ]
    if relationship.retention.count - 1 > MOST_RECOVERY_POINTS:
        findings.append(
            Finding.warned(
                relationship.machine,
                f"its policy keeps {relationship.retention.count} recovery points, "
                f"Hyper-V Replica keeps the newest and {MOST_RECOVERY_POINTS} hourly ones",
                "lower 'retention' of its policy",
            )
        )
    return findings


def _that_receive(server: str, answers: dict[str, HostFacts | LeewardError]) -> dict[str, HostFacts | LeewardError]:
    """All nodes of a cluster, because its broker chooses one; else the replica server alone."""
    if any(isinstance(facts, HostFacts) and facts.cluster for facts in answers.values()):
        return answers

    def is_the_server(host: str, facts: HostFacts | LeewardError) -> bool:
        names = [host_name(host)]
        if isinstance(facts, HostFacts):
            names += [facts.computer_name, facts.fully_qualified_name]
        return server.casefold() in {name.casefold() for name in names}

    return {host: facts for host, facts in answers.items() if is_the_server(host, facts)} or answers


def _accepts_replicas(host: str, facts: HostFacts, target: HyperVSite, replica_server: str) -> Iterator[Finding]:
    subject, server = f"host {host}", facts.replica_server
    if server is None:
        yield Finding.failed(subject, "it does not say whether it accepts replicas", "leeward hyperv check")
        return
    wanted = target.replica.authentication
    if not server.enabled:
        yield Finding.failed(subject, "it accepts no replicas", "Set-VMReplicationServer -ReplicationEnabled $true")
    if wanted not in server.authentication.casefold():
        yield Finding.failed(
            subject,
            f"it accepts replicas by {server.authentication}, but the inventory says {wanted}",
            "Set-VMReplicationServer -AllowedAuthenticationType, or change 'authentication' below 'replica'",
        )
    elif (port := _port(server, wanted)) != target.replica.listens_on:
        yield Finding.failed(
            subject,
            f"it accepts replicas on port {port}, but the inventory says {target.replica.listens_on}",
            f"set 'port: {port}' below 'replica' of the site",
        )
    if not server.from_any_server and not server.authorizations:
        yield Finding.failed(subject, "no primary server may replicate to it", "New-VMReplicationAuthorizationEntry")
    if not facts.replica_firewall_open:
        yield Finding.warned(
            subject,
            "its firewall rules for Hyper-V Replica are off",
            "Enable-NetFirewallRule -Name VIRT-HVRHTTPL-In-TCP-NoScope, or VIRT-HVRHTTPSL-In-TCP-NoScope",
        )
    if facts.cluster and replica_server.casefold() != facts.replica_broker.casefold():
        yield Finding.failed(
            subject,
            f"it is a node of cluster '{facts.cluster}'; primary servers have to connect to its broker",
            f"set 'server: {facts.replica_broker}' below 'replica' of the site"
            if facts.replica_broker
            else "add the role Hyper-V Replica Broker to the cluster",
        )
    if wanted == "certificate":
        yield from _certificate(subject, facts, server)
    if server.enabled:
        yield Finding.passed(subject, f"accepts replicas by {server.authentication}")


def _port(server: ReplicaServer, authentication: str) -> int:
    return server.certificate_port if authentication == "certificate" else server.kerberos_port


def _certificate(subject: str, facts: HostFacts, server: ReplicaServer) -> Iterator[Finding]:
    thumbprint = server.certificate_thumbprint.casefold()
    found = next((each for each in facts.certificates if each.thumbprint.casefold() == thumbprint), None)
    if found is None:
        yield Finding.failed(
            subject,
            "the certificate it accepts replicas with is not in its store, with a key",
            "Set-VMReplicationServer -CertificateThumbprint",
        )
    elif found.not_after <= facts.time:
        yield Finding.failed(subject, f"its certificate expired on {found.not_after:%Y-%m-%d}", "renew it")
    elif found.not_after - facts.time < EXPIRES_SOON:
        yield Finding.warned(subject, f"its certificate expires on {found.not_after:%Y-%m-%d}", "renew it")


def _has_networks(
    fabric: HyperVHypervisor, host: str, facts: HostFacts, relationship: Relationship
) -> Iterator[Finding]:
    for network, wanted in (
        (relationship.target_network, NetworkKind.PRODUCTION),
        (relationship.test_network, NetworkKind.ISOLATED),
    ):
        subject = f"network {network}"
        try:
            kind, switch = fabric.network_kind(network), fabric.required_switch(network)
        except NotFound as missing:
            yield Finding.of_error(subject, missing)
            continue
        there = {found.name for found in facts.switches}
        of_itself = "each test run gets a private switch" if fabric.networks.is_made(network) else "VMM connects it"
        if kind != wanted:
            yield Finding.failed(
                subject, f"is of kind {kind}, but the mapping needs kind {wanted}", "correct the mapping"
            )
        elif switch is not None and switch not in there:
            known = ", ".join(sorted(there)) or "none"
            yield Finding.failed(
                subject, f"{host} has no virtual switch '{switch}'", f"it has: {known}; set the 'switch'"
            )
        else:
            yield Finding.passed(subject, f"{kind}, switch '{switch}' on {host}" if switch else f"{kind}, {of_itself}")
