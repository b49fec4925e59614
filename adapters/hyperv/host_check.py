"""What a host says about itself, held against what leeward needs: each line in an operator's words.

Reads only. One operation a host.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from adapters.hyperv import certificates
from adapters.hyperv.errors import TRIED_AGAIN
from adapters.hyperv.facts import HostFacts, ReplicaServer
from adapters.hyperv.operations import CHECK_HOST, Nothing
from adapters.hyperv.session import HostSession
from vault.domain import Finding, Severity, Value
from vault.errors import LeewardError

CHECK_TIMEOUT_S = 120.0
LARGEST_SKEW = timedelta(minutes=5)
"""Kerberos' default "Maximum tolerance for computer clock synchronization"."""
LEAST_FREE = 0.1
"""Of a volume that takes replicas."""
WINDOWS_2012_R2 = (6, 3)
"""The first with a choice of replication frequency, and the oldest that leeward's scripts are meant for."""
USE_NEWER = "use Windows Server 2012 R2 or newer"
WINDOWS_2016 = (10, 0)
"""The first with resilient change tracking, which replication to Azure reads."""
POWERSHELL = (5, 1)
START_BROKER = "bring its role online: Start-ClusterGroup"


class HostChecked(Value):
    host: str
    findings: list[Finding]
    facts: HostFacts | None = None
    """None: the host did not answer, or refused."""

    @property
    def passes(self) -> bool:
        return all(finding.severity is not Severity.FAIL for finding in self.findings)


def check_host(session: HostSession) -> tuple[HostChecked, LeewardError | None]:
    """Ask the host and judge what it says. A host that does not answer is a finding, and the error beside it."""
    host = session.host
    try:
        facts = session.run(CHECK_HOST, Nothing(), timeout_s=CHECK_TIMEOUT_S)
    except LeewardError as error:
        elsewhere = "" if host.where in error.where else error.where  # a secret, say
        what = f"{elsewhere}: {error.what}" if elsewhere else error.what
        refused = Finding.failed("connection", what, _of_who_asks_once(error.remedy))
        return HostChecked(host=host.where, findings=[refused]), error
    login = Finding(
        severity=Severity.PASS if host.verify else Severity.WARN,
        subject="connection",
        what=f"{facts.fully_qualified_name} answers; {host.authentication} is accepted"
        + ("" if host.verify else ", its certificate was not checked"),
        remedy="" if host.verify else "name the authority of its certificate with 'ca' instead of 'verify: false'",
    )
    return HostChecked(host=host.where, findings=[login, *judge(facts, datetime.now(UTC))], facts=facts), None


def _of_who_asks_once(remedy: str) -> str:
    """Nobody tries a check again but who gave the command."""
    if remedy == TRIED_AGAIN:
        return "wait a little, then check again"
    return remedy.replace(TRIED_AGAIN, "then check again")


def judge(facts: HostFacts, now: datetime) -> list[Finding]:
    """The findings about a host that answered at the moment ``now``."""
    return [*_login(facts, now), *_software(facts), *_replica_server(facts, now)]


def _login(facts: HostFacts, now: datetime) -> Iterator[Finding]:
    if facts.administrator:
        yield Finding.passed("rights", "the login may manage Hyper-V")
    else:
        yield Finding.failed(
            "rights",
            "the login may not manage Hyper-V",
            "make it a member of Hyper-V Administrators and Remote Management Users, or of Administrators",
        )
    skew = abs(facts.time - now)
    if skew > LARGEST_SKEW:
        yield Finding.failed(
            "clock", f"differs by {skew.total_seconds():.0f} s from this machine's", "let both use the same time"
        )
    else:
        yield Finding.passed("clock", f"differs by {skew.total_seconds():.0f} s at most")


def _software(facts: HostFacts) -> Iterator[Finding]:
    if is_too_old(facts):
        yield Finding.failed("Windows", f"{facts.os_version} is too old", USE_NEWER)
    elif _version(facts.os_version) < WINDOWS_2016:
        yield Finding.warned(
            "Windows",
            f"{facts.os_version} has no resilient change tracking",
            "use Windows Server 2016 to protect to Azure",
        )
    else:
        yield Finding.passed("Windows", facts.os_version)
    if _version(facts.powershell_version) < POWERSHELL:
        yield Finding.failed(
            "PowerShell", f"{facts.powershell_version} is too old", "install Windows Management Framework 5.1"
        )
    else:
        yield Finding.passed("PowerShell", facts.powershell_version)
    if facts.hyperv_module_version:
        yield Finding.passed("Hyper-V module", facts.hyperv_module_version)
    else:
        yield Finding.failed("Hyper-V module", "is not installed", "Install-WindowsFeature Hyper-V-PowerShell")
    if facts.cluster and not facts.replica_broker:
        yield Finding.warned(
            "cluster",
            f"{facts.cluster} has no Hyper-V Replica Broker, so it cannot receive replicas",
            "add the role Hyper-V Replica Broker to the cluster",
        )
    elif facts.cluster and not facts.broker_online:
        yield Finding.warned(
            "cluster", f"{facts.cluster}'s Hyper-V Replica Broker, {facts.replica_broker}, is not online", START_BROKER
        )
    elif facts.cluster:
        yield Finding.passed("cluster", f"{facts.cluster}, its Hyper-V Replica Broker is {facts.replica_broker}")


def _replica_server(facts: HostFacts, now: datetime) -> Iterator[Finding]:
    """A host that only sends needs none of this: nothing here is worse than a warning."""
    server = facts.replica_server
    if server is None:
        return
    if not server.enabled:
        yield Finding.warned(
            "replica server",
            "is off: other hosts cannot replicate to this one",
            "Set-VMReplicationServer -ReplicationEnabled $true with the authentication that you want, if they shall",
        )
        return
    yield Finding.passed("replica server", f"accepts {_authentication(server)}")
    if not facts.replica_firewall_open:
        yield Finding.warned(
            "replica firewall",
            "no inbound rule for Hyper-V Replica is enabled",
            "Enable-NetFirewallRule -Name VIRT-HVRHTTPL-In-TCP-NoScope, or VIRT-HVRHTTPSL-In-TCP-NoScope",
        )
    if not server.from_any_server and not server.authorizations:
        yield Finding.warned(
            "replica authorization",
            "no primary server is authorized",
            "New-VMReplicationAuthorizationEntry for the hosts of the other site",
        )
    if server.authentication != "Kerberos":
        judged = certificates.judge("replica certificate", server.certificate_thumbprint, facts, now)
        yield from (finding.at_most_warned() for finding in judged)
    yield from _storage(facts, server)


def _storage(facts: HostFacts, server: ReplicaServer) -> Iterator[Finding]:
    """Free space of the volumes that take replicas: of nested mount points the innermost."""
    folders = {entry.storage for entry in server.authorizations} | {server.storage}
    for folder in sorted(folder for folder in folders if folder):
        holding = [v for v in facts.volumes if folder.casefold().startswith(v.path.rstrip("\\").casefold())]
        if not holding:
            yield Finding.warned(
                "replica storage", f"{folder} is on no volume of the host", "check the folder of the replica server"
            )
            continue
        volume = max(holding, key=lambda one: len(one.path))
        text = f"{folder}: {volume.free / 2**30:.1f} of {volume.size / 2**30:.1f} GiB are free"
        if volume.free < volume.size * LEAST_FREE:
            yield Finding.warned("replica storage", text, "free space, or keep replicas on another volume")
        else:
            yield Finding.passed("replica storage", text)


def _authentication(server: ReplicaServer) -> str:
    ways = []
    if server.authentication != "Certificate":
        ways.append(f"Kerberos on port {server.kerberos_port}")
    if server.authentication != "Kerberos":
        ways.append(f"certificates on port {server.certificate_port}")
    return " and ".join(ways)


def is_too_old(facts: HostFacts) -> bool:
    """For Hyper-V Replica as leeward drives it."""
    return _version(facts.os_version) < WINDOWS_2012_R2


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdecimal())
