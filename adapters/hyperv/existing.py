"""The first copy of Hyper-V Replica from a copy of the machine that somebody restored at the replica's host.

The order is that of the reference of Start-VMInitialReplication (its example with ``-UseBackup``): the copy is enabled
as a replica, then the primary, then the first copy begins, which sends the differences.
"""

from __future__ import annotations

from adapters.hyperv.hosts import Located
from adapters.hyperv.hypervisor import HyperVHypervisor
from adapters.hyperv.operations import ENABLE_AS_REPLICA, OfVm
from adapters.hyperv.readiness import receiving_hosts
from adapters.hyperv.states import ReplicationState, Role, power
from adapters.hyperv.watching import place, waits_for_its_first_copy
from vault.domain import Finding, PowerState, Relationship
from vault.errors import InvalidState, LeewardError


def findings(fabric: HyperVHypervisor, relationship: Relationship) -> list[Finding]:
    """Whether the machine of that name at the replica's host can become the replica, or did and waits."""
    subject = f"replica of {relationship.machine}"
    try:
        there = fabric.find_if_there(relationship.machine)
        receiving = receiving_hosts(fabric, relationship)
    except LeewardError as error:
        return [Finding.of_error(subject, error)]
    refused = _refusal(fabric, there, receiving, relationship)
    if refused is not None:
        return [Finding.of_error(subject, refused)]
    assert there is not None
    waits = "waits for its first copy" if _is_adopted(there) else "can become the replica"
    return [Finding.passed(subject, f"'{there.vm.name}' on {there.host} {waits}")]


def adopt(fabric: HyperVHypervisor, relationship: Relationship) -> None:
    """See :meth:`adapters.ports.AdoptsReplicas.adopt_replica`."""
    there = fabric.find_if_there(relationship.machine)
    refused = _refusal(fabric, there, receiving_hosts(fabric, relationship), relationship)
    if refused is not None:
        raise refused
    assert there is not None
    if not _is_adopted(there):
        fabric.hosts.run(there.host, ENABLE_AS_REPLICA, OfVm(vm_id=there.vm.id))


def _refusal(
    fabric: HyperVHypervisor, there: Located | None, receiving: list[str], relationship: Relationship
) -> InvalidState | None:
    name, hosts = fabric.vm_name(relationship.machine), ", ".join(receiving)
    if there is None:
        return InvalidState(
            f"there is no virtual machine '{name}' that the first copy could begin with",
            where=f"site {fabric.site}",
            remedy=f"restore a copy of it on {hosts}, with its identity, or choose another 'method' of "
            "'initial_replication' in its policy",
        )
    name = f"'{name}' on {there.host}"
    where, (role, _) = f"host {there.host}", place(there)
    if there.host not in receiving:
        return InvalidState(
            f"{name} is not where replicas are received: on {hosts}",
            where=where,
            remedy="move it there, or name its host as 'server' below 'replica' of the site",
        )
    if relationship.identity not in ("", there.vm.id):
        return InvalidState(
            f"{name} is another machine: its id is {there.vm.id}, the source's is {relationship.identity}",
            where=where,
            remedy="restore or import the copy without a new id",
        )
    if role is not Role.NONE and not _is_adopted(there):
        return InvalidState(
            f"{name} is in a replication relationship already: {role}, {_state(there)}",
            where=where,
            remedy="Remove-VMReplication on this host, once nobody needs that relationship",
        )
    if power(there.vm.state) is not PowerState.OFF:
        return InvalidState(
            f"{name} is {there.vm.state}, and would be overwritten by its source",
            where=where,
            remedy="shut it down, when it is the copy that was restored",
        )
    return None


def _is_adopted(there: Located) -> bool:
    return place(there)[0] is Role.TARGET and waits_for_its_first_copy(there)


def _state(there: Located) -> ReplicationState | None:
    return there.vm.replication.state if there.vm.replication is not None else None
