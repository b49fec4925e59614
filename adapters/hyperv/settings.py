"""A relationship of the vault as the settings that Hyper-V Replica knows."""

from __future__ import annotations

from adapters.hyperv.facts import Authentication, HostFacts, Replication, VirtualMachine
from adapters.hyperv.operations import ChangeReplication, EnableReplication, ReplicationSettings
from adapters.hyperv.states import ROLES, Role
from vault.domain import Relationship, Retention
from vault.errors import BadInput
from vault.hyperv import MOST_RECOVERY_POINTS, HyperVSite
from vault.inventory import Inventory


def of(inventory: Inventory, relationship: Relationship, vm: VirtualMachine, host: HostFacts) -> ReplicationSettings:
    """The settings with which ``vm`` on ``host``, at the source site, is replicated to the target site.

    Raises ``BadInput`` when a certificate is wanted and neither the inventory nor the host names one, or when nobody
    says which host takes the replica."""
    source, target = site(inventory, relationship.source_site), site(inventory, relationship.target_site)
    certificates = target.replica.authentication == "certificate"
    authentication: Authentication = "Certificate" if certificates else "Kerberos"
    return ReplicationSettings(
        **of_policy(relationship, vm).model_dump(),
        replica_server=relationship.replica_server or replica_server(target, vm),
        replica_port=target.replica.listens_on,
        authentication=authentication,
        certificate_thumbprint=thumbprint(source, host) if certificates else None,
        compression=target.replica.compression,
    )


def of_policy(relationship: Relationship, vm: VirtualMachine) -> ChangeReplication:
    app_consistent_h = round((relationship.app_consistent_every_s or 0) / 3600)
    return ChangeReplication(
        vm_id=vm.id,
        frequency_s=round(relationship.frequency_s),
        recovery_history=recovery_history(relationship.retention, at_least=1 if app_consistent_h else 0),
        vss_frequency_h=app_consistent_h,
    )


def is_as_said(wanted: ChangeReplication, said: Replication) -> bool:
    """Whether the host replicates as the policy says."""
    has = (said.frequency_s, said.recovery_history, said.vss_frequency_h)
    return has == (wanted.frequency_s, wanted.recovery_history, wanted.vss_frequency_h)


def enabling(settings: ReplicationSettings, excluded_disks: list[str]) -> EnableReplication:
    return EnableReplication(**settings.model_dump(), excluded_disks=excluded_disks)


def site(inventory: Inventory, name: str) -> HyperVSite:
    settings = inventory.sites[name].hyperv
    if settings is None:
        raise BadInput(f"site '{name}' has no 'hyperv' settings", remedy="check it: leeward vault check")
    return settings


def replica_server(target: HyperVSite, vm: VirtualMachine | None = None) -> str:
    """The name that a primary server connects to. A machine that was failed over goes back to the host that it came
    from, when the target is not a cluster with a broker."""
    if target.replica.server:
        return target.replica.server
    if vm is not None and vm.replication is not None and ROLES[vm.replication.mode] is Role.TARGET:
        return vm.replication.primary_server
    if not target.hosts:
        raise BadInput("no host of the target is known", remedy="set 'hosts', or 'server' below 'replica' of its site")
    return host_name(target.hosts[0])


def host_name(host: str) -> str:
    """A host of the inventory without its port."""
    return host[1 : host.index("]")] if host.startswith("[") else host.partition(":")[0]


def recovery_history(retention: Retention, *, at_least: int = 0) -> int:
    """Hourly points besides the newest: as many as the policy keeps and Hyper-V can. App-consistent points need one."""
    return max(at_least, min(MOST_RECOVERY_POINTS, retention.count - 1, int(retention.hours)))


def thumbprint(source: HyperVSite, host: HostFacts) -> str:
    """Of the certificate that a host of ``source`` shows. Raises ``BadInput`` when nobody names one."""
    configured = host.replica_server.certificate_thumbprint if host.replica_server else ""
    shown = source.replica.certificate_thumbprint or configured
    if not shown:
        raise BadInput(
            "no certificate is known for replication",
            where=f"host {host.computer_name}",
            remedy="set 'certificate_thumbprint' below 'replica' of its site, or Set-VMReplicationServer on the host",
        )
    return shown
