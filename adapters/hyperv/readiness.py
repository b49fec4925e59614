"""Whether a machine can be protected, or failed over, from one site to another by Hyper-V Replica."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

from adapters.hyperv import certificates
from adapters.hyperv.discovery import end_extension, extended, obstacles, unknown_exclusions
from adapters.hyperv.facts import HostFacts, ReplicaServer
from adapters.hyperv.host_check import START_BROKER, USE_NEWER, is_too_old
from adapters.hyperv.hosts import Located
from adapters.hyperv.hypervisor import HyperVHypervisor
from adapters.hyperv.settings import host_name, site, thumbprint
from adapters.hyperv.states import ROLES, Role
from adapters.hyperv.watching import place, waits_for_its_first_copy
from vault.domain import Finding, NetworkKind, Relationship
from vault.errors import LeewardError, NotFound
from vault.hyperv import MOST_RECOVERY_POINTS, HyperVSite
from vault.inventory import Inventory
from vault.words import counted, size


def of_source(fabric: HyperVHypervisor, relationship: Relationship) -> list[Finding]:
    machine = relationship.machine
    try:
        there = fabric.find(machine)
    except LeewardError as error:
        subject = machine if isinstance(error, NotFound) else f"site {fabric.site}"
        return [Finding.of_error(subject, error)]
    excluded = fabric.settings(machine).excluded_disks
    findings = list(obstacles(there.vm, excluded))
    at_home = fabric.inventory.machines.get(machine)
    if at_home is not None and relationship.source_site == at_home.site:
        unknown = unknown_exclusions(machine, there.vm.disks, excluded)
        findings += [finding.at_most_warned() if there.vm.replication else finding for finding in unknown]
    is_protected = there.vm.replication is not None and ROLES[there.vm.replication.mode] is Role.SOURCE
    of_host = _sends_replicas(fabric, there, relationship)
    findings += [finding.at_most_warned() for finding in of_host] if is_protected else of_host
    runs = f"{there.vm.state} on {there.host}, {counted(len(there.vm.disks), 'disk')}"
    return [Finding.passed(machine, runs), *findings]


def _sends_replicas(fabric: HyperVHypervisor, there: Located, relationship: Relationship) -> Iterator[Finding]:
    """What the host of the machine needs, to replicate it to a site of Hyper-V hosts."""
    target = fabric.inventory.sites[relationship.target_site].hyperv
    if target is None:
        return
    subject = f"host {there.host}"
    try:
        facts = fabric.hosts.facts(there.host)
        if is_too_old(facts):
            yield Finding.failed(subject, f"its Windows, {facts.os_version}, is too old", USE_NEWER)
        if target.replica.authentication == "certificate":
            shown = thumbprint(site(fabric.inventory, fabric.site), facts)
            yield from certificates.judge(subject, shown, facts, facts.time)
    except LeewardError as error:
        yield Finding.of_error(subject, error)


def of_target(fabric: HyperVHypervisor, inventory: Inventory, relationship: Relationship) -> list[Finding]:
    """Once the replica is there, what only a new one needs stands in no failover's way, and neither do other hosts."""
    target = site(inventory, relationship.target_site)
    answers = fabric.hosts.on_all(fabric.hosts.facts)
    subject = f"replica of {relationship.machine}"
    try:
        there = fabric.find_if_there(relationship.machine)
    except LeewardError as error:
        return [Finding.of_error(subject, error)]
    replica = there if there is not None and _is_complete(there) else None
    findings, server = [], ""
    if there is not None and place(there)[0] is Role.NONE and not relationship.existing_replica:
        what = f"there is a virtual machine '{there.vm.name}' on {there.host} already, which is no replica"
        findings.append(Finding.failed(subject, what, "rename or remove it, or begin with it: 'initial_replication'"))
    try:
        server = fabric.replica_server(relationship)
    except LeewardError as nowhere:
        findings.append(Finding.of_error(f"site {fabric.site}", nowhere))
    of_host: dict[str, list[Finding]] = {}
    for host, facts in _that_receive(server, answers).items():
        if isinstance(facts, LeewardError):
            of_host[host] = [Finding.of_error(f"host {host}", facts)]
        else:
            findings += _accepts_replicas(host, facts, target, server)
            findings += _authorizes(host, facts, site(inventory, relationship.source_site), relationship.source_site)
            findings += _has_room(fabric, host, facts, relationship)
            of_host[host] = list(_has_networks(fabric, host, facts, relationship))
    if replica is not None:
        if replica.vm.replication is not None and replica.vm.replication.extended_to:
            what, remedy = extended(replica.vm.replication), end_extension(replica.vm.name)
            findings.append(Finding.warned(subject, what, remedy))
        findings = [finding.at_most_warned() for finding in findings]
        for host in of_host.keys() - {replica.host}:
            of_host[host] = [finding.at_most_warned() for finding in of_host[host]]
        facts = answers[replica.host]
        if replica.host not in of_host and isinstance(facts, HostFacts):
            of_host[replica.host] = list(_has_networks(fabric, replica.host, facts, relationship))
    findings += [finding for found in of_host.values() for finding in found]
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


def _is_complete(there: Located) -> bool:
    """Whether it is a replica with contents that can be failed over to."""
    return place(there)[0] is Role.TARGET and not waits_for_its_first_copy(there)


def receiving_hosts(fabric: HyperVHypervisor, relationship: Relationship) -> list[str]:
    """The hosts on one of which the replica is going to be. Raises ``LeewardError`` when nobody knows."""
    server = relationship.replica_server or fabric.replica_server(relationship)
    return list(_that_receive(server, fabric.hosts.on_all(fabric.hosts.facts)))


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
    elif facts.cluster and not facts.broker_online:
        yield Finding.failed(subject, f"the broker of its cluster, {facts.replica_broker}, is not online", START_BROKER)
    if wanted == "certificate":
        yield from certificates.judge(subject, server.certificate_thumbprint, facts, facts.time)
    if is_too_old(facts):
        yield Finding.failed(subject, f"its Windows, {facts.os_version}, is too old", USE_NEWER)
    if server.enabled:
        yield Finding.passed(subject, f"accepts replicas by {server.authentication}")


def _authorizes(host: str, facts: HostFacts, source: HyperVSite, source_site: str) -> Iterator[Finding]:
    """Entries name servers in full, or all of a domain (``*.example.net``). A source's host that the inventory names
    by less than that is not judged."""
    server = facts.replica_server
    if server is None or server.from_any_server or not server.authorizations:
        return
    named = [host_name(each) for each in source.hosts] + ([source.replica.server] if source.replica.server else [])
    in_full = [name for name in named if re.search(r"\.[A-Za-z]", name)]
    entries = [entry.server.casefold() for entry in server.authorizations]
    if in_full and not any(fnmatchcase(name.casefold(), entry) for name in in_full for entry in entries):
        yield Finding.warned(
            f"host {host}",
            f"it takes replicas from {', '.join(sorted(entries))}, and from none of the hosts of {source_site}: "
            f"{', '.join(in_full)}",
            "New-VMReplicationAuthorizationEntry -AllowedPrimaryServer for them",
        )


def _has_room(fabric: HyperVHypervisor, host: str, facts: HostFacts, relationship: Relationship) -> Iterator[Finding]:
    needed, free = relationship.replica_space, fabric.room(facts)
    if needed is not None and free is not None and free < needed.size:
        yield Finding.failed(
            f"host {host}",
            f"only {size(free)} are free in {fabric.replica_folder(facts)}, but the replica of "
            f"'{relationship.machine}' takes {size(needed.size)}",
            "free space there, or keep replicas on another volume: Set-VMReplicationServer -DefaultStorageLocation",
        )


def _port(server: ReplicaServer, authentication: str) -> int:
    return server.certificate_port if authentication == "certificate" else server.kerberos_port


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
