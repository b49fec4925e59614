"""Operations on hosts and machines: what they are, power, networks, guests."""

from __future__ import annotations

from datetime import UTC, datetime

from adapters.hyperv.facts import (
    Checkpoint,
    ClusterRole,
    ClusterRoles,
    GuestResult,
    GuestStatus,
    HostFacts,
    HostInventory,
    NetworkAdapter,
    ReplicaServer,
    Switch,
    VirtualMachine,
    Volume,
)
from adapters.hyperv.facts import Replication as ReplicationFacts
from adapters.hyperv.operations import (
    ClusterRolesRequest,
    ConnectNetwork,
    InventoryRequest,
    Nothing,
    OfVm,
    RemoveSwitches,
    RenameVm,
    RunInGuest,
    StopVm,
)
from adapters.hyperv.states import ReplicationMode as Mode
from adapters.hyperv.states import ReplicationState as State
from adapters.hyperv.states import RoleState, VmState
from simulation.hyperv import refusal
from simulation.hyperv.fabric import FOLDER, Handler, Here
from simulation.hyperv.state import Replication, Vm
from simulation.winrm.answering import failure
from vault.domain import NetworkKind
from vault.inventory import Network

RUNS_WITHIN_S = 3600.0
STARTABLE = {State.FAILED_OVER_WAITING_COMPLETION, State.FAILED_OVER}


def check_host(here: Here, _: Nothing) -> HostFacts:
    host, fabric = here.host, here.fabric
    networks = fabric.inventory.sites[host.site].networks
    switches = [
        Switch(name=switch, kind="External" if _is_production(networks.get(network)) else "Private")
        for switch, network in fabric.switches(host).items()
    ]
    certificates = host.authentication == "Certificate"
    return HostFacts(
        computer_name=host.name,
        fully_qualified_name=host.full_name,
        time=datetime.now(UTC),
        os_version="10.0.26100",
        powershell_version="5.1.26100.1",
        hyperv_module_version="2.0.0.0",
        administrator=True,
        cluster=host.cluster,
        replica_broker=host.broker,
        replica_server=ReplicaServer(
            enabled=host.accepts_replicas,
            kerberos_port=80 if certificates else host.port,
            certificate_port=host.port if certificates else 443,
            authentication="Certificate" if certificates else "Kerberos",
            from_any_server=host.from_any_server,
            storage=FOLDER if host.from_any_server else "",
            authorizations=host.authorizations,
        ),
        replica_firewall_open=True,
        virtual_disk_path=FOLDER,
        volumes=[Volume(path="D:\\", free=fabric.ground.free_bytes(host.site), size=2**40)],
        switches=switches,
    )


def _is_production(network: Network | None) -> bool:
    return network is not None and network.kind is NetworkKind.PRODUCTION


def inventory(here: Here, given: InventoryRequest) -> HostInventory:
    with here.fabric.lock:
        vms = list(here.host.vms.values())
    names = None if given.names is None else {name.casefold() for name in given.names}
    wanted = [vm for vm in vms if names is None or vm.name.casefold() in names]
    uptime_s = here.fabric.uptime_s(here.host)
    service = here.host.cluster_service if here.host.cluster else ""
    return HostInventory(machines=[_described(here, vm) for vm in wanted], uptime_s=uptime_s, cluster_service=service)


def cluster_roles(here: Here, given: ClusterRolesRequest) -> ClusterRoles:
    _require_cluster(here, "GetResource")
    hosts = here.fabric.state.hosts.values()
    with here.fabric.lock:
        owned = [(host, vm) for host in hosts if host.cluster == here.host.cluster for vm in host.vms.values()]
    roles = [
        ClusterRole(
            name=f"Virtual Machine {vm.name}",
            group=vm.name,
            vm_id=vm.id,
            state=vm.role,
            group_state=vm.group,
            owner=host.name,
        )
        for host, vm in owned
        if given.vm_id is None or vm.id == given.vm_id
    ]
    state = None if given.vm_id is None else here.fabric.power(here.host, here.vm(given.vm_id))
    return ClusterRoles(node=here.host.name, roles=roles, vm_state=state)


def _require_cluster(here: Here, cmdlet: str) -> None:
    if not here.host.cluster or here.host.cluster_service != "Running":
        raise refusal.no_cluster(cmdlet)


def _described(here: Here, vm: Vm) -> VirtualMachine:
    state = here.fabric.power(here.host, vm)
    used = here.fabric.ground.used_bytes(here.host.site, vm.machine)
    share = sum(disk.size for disk in vm.disks) or 1
    return VirtualMachine(
        id=vm.id,
        name=vm.name,
        state=state,
        status="Operating normally",
        generation=vm.generation,
        version="12.0",
        notes=vm.notes,
        clustered=bool(here.host.cluster),
        automatic_start="StartIfRunning",
        disks=[disk.model_copy(update={"file_size": used * disk.size // share}) for disk in vm.disks],
        checkpoints=_checkpoints(vm),
        integration_services=vm.services,
        network_adapters=[
            NetworkAdapter(
                id=f"Microsoft:{vm.id}\\1",
                name="Network Adapter",
                switch=vm.switch,
                addresses=["127.0.0.1"] if state is VmState.RUNNING else [],
            )
        ],
        replication=_replication(vm.replication) if vm.replication else None,
    )


def _checkpoints(vm: Vm) -> list[Checkpoint]:
    points = vm.replication.points if vm.replication else []
    return [
        Checkpoint(
            id=point.id,
            name=point.name,
            kind="AppConsistentReplica" if point.application_consistent else "Replica",
            time=point.time,
        )
        for point in points
    ]


def _replication(end: Replication) -> ReplicationFacts:
    return ReplicationFacts(
        state=end.state,
        health=end.health,
        mode=end.mode,
        primary_server=end.primary_server,
        replica_server=end.replica_server,
        replica_port=end.replica_port,
        authentication=end.authentication,
        frequency_s=end.frequency_s,
        recovery_history=end.recovery_history,
        vss_frequency_h=end.vss_frequency_h,
        last_replication=end.last,
        replicated_disks=end.replicated_disks,
        test_vm_id=end.test_vm_id,
    )


# --- power ------------------------------------------------------------------------------------------------------


def start_vm(here: Here, given: OfVm) -> Nothing:
    vm = here.vm(given.vm_id)
    if vm.mode is Mode.PRIMARY and vm.state is State.PREPARED_FOR_FAILOVER:
        raise refusal.wrong_state("StartVM", vm.name, "it is prepared for a planned failover.")
    if vm.mode is Mode.REPLICA and vm.state not in STARTABLE:
        raise refusal.wrong_state("StartVM", vm.name, "it is a replica.")
    _set_role(here, vm, RoleState.ONLINE)
    here.fabric.ground.start(here.host.site, vm.machine)
    return Nothing()


def stop_vm(here: Here, given: StopVm) -> Nothing:
    vm = here.vm(given.vm_id)
    if given.turn_off:
        here.fabric.ground.turn_off(here.host.site, vm.machine)
    else:
        here.fabric.ground.shut_down(here.host.site, vm.machine, here.interrupt)
    _set_role(here, vm, RoleState.OFFLINE)
    return Nothing()


def _set_role(here: Here, vm: Vm, state: RoleState) -> None:
    """The role of a machine of a cluster: the resource that scripts start and stop with it."""
    if here.host.cluster:
        _require_cluster(here, "SetResource")
        here.vm(vm.id)
        with here.fabric.changing():
            vm.role = state


def rename_vm(here: Here, given: RenameVm) -> Nothing:
    with here.fabric.changing():
        here.vm(given.vm_id).name = given.name
    return Nothing()


def remove_vm(here: Here, given: OfVm) -> Nothing:
    vm = here.vm(given.vm_id)
    require_off(here, vm, "RemoveVM")
    if vm.replication is not None:
        raise refusal.wrong_state("RemoveVM", vm.name, "replication is enabled for it.")
    here.fabric.ground.remove(here.host.site, vm.machine)
    with here.fabric.changing():
        del here.host.vms[vm.id]
    return Nothing()


def require_off(here: Here, vm: Vm, cmdlet: str) -> None:
    if here.fabric.power(here.host, vm) is not VmState.OFF:
        raise refusal.wrong_state(cmdlet, vm.name, "the virtual machine is running.")


# --- networks and guests ----------------------------------------------------------------------------------------


def connect_network(here: Here, given: ConnectNetwork) -> Nothing:
    vm = here.vm(given.vm_id)
    with here.fabric.changing():
        if given.private and given.switch not in here.fabric.switches(here.host):
            here.host.private_switches.append(given.switch)
        networks = here.fabric.switches(here.host)
    if given.switch not in networks:
        raise refusal.operation_failed(
            "ConnectVMNetworkAdapter", f"Hyper-V was unable to find a virtual switch with name '{given.switch}'."
        )
    if here.fabric.ground.has(here.host.site, vm.machine):
        here.fabric.ground.connect(here.host.site, vm.machine, networks[given.switch])
    with here.fabric.changing():
        vm.switch = given.switch
    return Nothing()


def remove_switches(here: Here, given: RemoveSwitches) -> Nothing:
    with here.fabric.changing():
        used = {vm.switch for vm in here.host.vms.values()}
        gone = set(given.names) - used
        here.host.private_switches = [switch for switch in here.host.private_switches if switch not in gone]
    return Nothing()


def guest_status(here: Here, given: OfVm) -> GuestStatus:
    vm = here.vm(given.vm_id)
    state = here.fabric.power(here.host, vm)
    published = here.fabric.ground.published(here.host.site, vm.machine)
    return GuestStatus(
        vm_state=state,
        uptime_s=0,
        heartbeat="OkApplicationsHealthy" if published else "NoContact",
        addresses=["127.0.0.1"] if published else [],
        published=published,
    )


def run_in_guest(here: Here, given: RunInGuest) -> GuestResult:
    vm = here.vm(given.vm_id)
    if here.fabric.guest_login(vm) != (given.user, given.password.get_secret_value()):
        raise refusal.Refusal(
            failure(
                "The credential is invalid.",
                identifier="InvalidUsernameOrPassword,PSSessionStateBroken",
                category="AuthenticationError",
                exception="System.Management.Automation.Remoting.PSDirectException",
                target=vm.name,
            )
        )
    ended = here.fabric.ground.run_in_guest(
        here.host.site, vm.machine, given.command, given.environment, RUNS_WITHIN_S, here.interrupt
    )
    return GuestResult(exit_code=ended.exit_code, output=ended.output)


OPERATIONS: dict[str, Handler] = {
    "check_host": check_host,
    "inventory": inventory,
    "cluster_roles": cluster_roles,
    "start_vm": start_vm,
    "stop_vm": stop_vm,
    "rename_vm": rename_vm,
    "remove_vm": remove_vm,
    "connect_network": connect_network,
    "remove_switches": remove_switches,
    "guest_status": guest_status,
    "run_in_guest": run_in_guest,
}
