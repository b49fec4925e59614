"""Whether a failover cluster may start a machine that is off.

A host knows what a machine is now; what it will be is the cluster's to say. The cluster's resource of type "Virtual
Machine" follows the machine (off: ``Offline``), and an ``Offline`` one is left off, whatever becomes of its node. Any
other state means that the cluster runs the machine, is about to, or tries it again ("Virtual Machine",
"PersistentState", "RestartAction" in the failover cluster reference). Its group says whether it is on its way to
another node, and no more: of a machine that is off it is ``Offline`` or ``PartialOnline``, because its configuration
stays online.
"""

from __future__ import annotations

from typing import NamedTuple

from adapters.hyperv.errors import TRIED_AGAIN
from adapters.hyperv.facts import ClusterRole, ClusterRoles
from adapters.hyperv.hosts import HyperVHosts, Located
from adapters.hyperv.operations import CLUSTER_ROLES, ClusterRolesRequest
from adapters.hyperv.states import GroupState, RoleState, power
from vault.domain import PowerState
from vault.errors import AuthenticationRefused, AuthorizationRefused, Busy, LeewardError, Unreachable

COMPUTER_NAME = 15
RUNNING = "Running"
"""``Status`` of a service."""
ASK_CLUSTER = f"see that the cluster has quorum and its service runs: Get-ClusterNode, Start-ClusterNode; {TRIED_AGAIN}"
START_SERVICE = f"start it: Start-ClusterNode, or Clear-ClusterNode on a host that left its cluster; {TRIED_AGAIN}"
LOOK = f"{TRIED_AGAIN}; if it stays so, see its role on a node: Get-ClusterResource, Stop-ClusterResource"
LOOK_THERE = f"{TRIED_AGAIN}; if it stays so, see that 'hosts' names all nodes of the cluster: Get-ClusterResource"
_STOPPABLE = (RoleState.ONLINE, RoleState.FAILED)
_AT_REST = (GroupState.OFFLINE, GroupState.PARTIAL_ONLINE, GroupState.FAILED)


class Doubt(NamedTuple):
    """Why a machine that is off may run again by itself."""

    why: str
    remedy: str
    is_stoppable: bool = False
    """Stopping it again, where it is, takes its role offline."""

    def error(self, site: str) -> Busy:
        return Busy(self.why, where=f"site {site}", remedy=self.remedy)


def of_machine(hosts: HyperVHosts, there: Located) -> Doubt | None:
    """None: no cluster starts the machine, which was seen off on this host *after* its cluster was asked.

    Raises ``Unreachable`` when the cluster does not tell; ``Busy`` when the machine left the host."""
    name = there.vm.name
    if there.vm.clustered:
        answer = _asked(hosts, there.host, there.vm.id, f"'{name}'")
        if answer.roles and not _is_same_node(answer.roles[0].owner, answer.node):
            # All nodes are asked from now on: one that had the machine may show it for a while.
            hosts.forget(name)
        why, is_stoppable = _against(answer)
        return Doubt(f"'{name}' is off, but {why}", LOOK, is_stoppable) if why else None
    if there.cluster_service not in ("", RUNNING):
        why = f"'{name}' is off, but the cluster service of {there.host} does not run, and nobody says whose it is"
        return Doubt(why, START_SERVICE)
    return None


def of_absent(hosts: HyperVHosts, name: str) -> Doubt | None:
    """Of a machine that no host has: it may be on its way from one to another.

    Raises ``Unreachable`` when a node that can be asked does not tell."""
    services = hosts.cluster_services()
    if not services:
        return None
    nodes = [host for host, service in services.items() if service == RUNNING]
    if not nodes:
        return Doubt(f"no host has '{name}', but no node's cluster service runs", START_SERVICE)
    for node in nodes:
        for role in _asked(hosts, node, None, f"'{name}'").roles:
            if _is_of(role, name, hosts.last_id(name)) and (why := _may_run(role)):
                return Doubt(f"no host has '{name}' now, but {why}", LOOK_THERE)
    if hosts.find_if_there(name) is not None:
        return Doubt(f"'{name}' was moved to another host just now", LOOK)
    return None


def _asked(hosts: HyperVHosts, host: str, vm_id: str | None, what: str) -> ClusterRoles:
    try:
        return hosts.run(host, CLUSTER_ROLES, ClusterRolesRequest(vm_id=vm_id))
    except (AuthenticationRefused, AuthorizationRefused, Busy):
        raise
    except LeewardError as silent:
        raise Unreachable(
            f"the cluster does not tell whether it starts {what}: {silent.what}",
            where=f"host {host}",
            remedy=ASK_CLUSTER,
        ) from silent


def _against(answer: ClusterRoles) -> tuple[str, bool]:
    """``(why a machine that was asked for may run, whether stopping it there helps)``."""
    if not answer.roles:
        return "its host calls it clustered, and its cluster has no role of it", False
    role = answer.roles[0]
    if not _is_same_node(role.owner, answer.node):
        return f"its cluster has it {role.state} on {role.owner}, and it was seen on {answer.node}", False
    if why := _may_run(role):
        return why, role.state in _STOPPABLE
    if answer.vm_state is None or power(answer.vm_state) is not PowerState.OFF:
        return f"it is {answer.vm_state} again", False
    return "", False


def _is_same_node(name: str, other: str) -> bool:
    """Windows shows names of computers in full, and their first 15 characters."""
    return name.casefold()[:COMPUTER_NAME] == other.casefold()[:COMPUTER_NAME]


def _may_run(role: ClusterRole) -> str:
    if role.state is not RoleState.OFFLINE:
        return f"its cluster has it {role.state} on {role.owner}"
    if role.group_state not in _AT_REST:
        return f"its cluster's group '{role.group}' is {role.group_state} on {role.owner}"
    return ""


def _is_of(role: ClusterRole, name: str, vm_id: str | None) -> bool:
    """By the machine's id, when it was seen before; by the names that Failover Cluster Manager, the Hyper-V Replica
    Broker and VMM give to resources and groups."""
    names = {name, f"Virtual Machine {name}", f"SCVMM {name}", f"SCVMM {name} Resources"}
    is_named = {role.name.casefold(), role.group.casefold()} & {each.casefold() for each in names}
    return bool(is_named) or (vm_id is not None and role.vm_id.casefold() == vm_id.casefold())
