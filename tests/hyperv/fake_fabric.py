"""Two Hyper-V hosts as far as Hyper-V Replica goes: enough to hold the provider to the documented order.

Every operation refuses what a host refuses ("Fail over a replicated virtual machine with Hyper-V Replica", reference of
the cmdlets). A call may be made to fail before or after it took effect, as a lost connection does.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from adapters.hyperv.facts import (
    ClusterRole,
    ClusterRoles,
    GuestStatus,
    HostFacts,
    HostInventory,
    Measurement,
    Measurements,
    NetworkAdapter,
    ReplicaPoint,
    ReplicaPoints,
    ReplicaServer,
    Replication,
    Switch,
    TestMachine,
    VirtualDisk,
    VirtualMachine,
    Volume,
)
from adapters.hyperv.operations import OPERATIONS, Nothing
from adapters.hyperv.states import (
    GroupState,
    ReplicationHealth,
    ReplicationMode,
    ReplicationState,
    RoleState,
    VmState,
)
from adapters.ports import Beat
from simulation.winrm.answering import Answer, Request, Result, failure
from vault.errors import InvalidState, LeewardError, NotFound, Unreachable

State, Mode = ReplicationState, ReplicationMode


@dataclass
class Role:
    """What a machine's cluster does with it."""

    owner: str
    state: RoleState = RoleState.ONLINE
    group: GroupState = GroupState.ONLINE


@dataclass
class Vm:
    id: str
    name: str
    state: VmState = VmState.RUNNING
    mode: Mode = Mode.NONE
    replication: State = State.DISABLED
    last: datetime | None = None
    planned: bool = False
    failed_over_planned: bool = False
    failed_over_to: str | None = None
    points: list[ReplicaPoint] = field(default_factory=list)
    switch: str = ""
    test_vm: str = ""
    notes: str = ""
    partner: str = ""
    extended_to: str = ""
    policy: tuple[int, int, int] = (0, 0, 0)
    """Frequency in seconds, hourly points, hours between app-consistent ones."""
    replicated: list[str] = field(default_factory=list)
    automatic_start: str = "StartIfRunning"
    role: Role | None = None
    """None: no cluster keeps it."""
    is_copy: bool = False
    """It was enabled as a replica with contents of its own."""
    health: ReplicationHealth = ReplicationHealth.NORMAL
    disks: list[VirtualDisk] = field(
        default_factory=lambda: [VirtualDisk(path="D:\\vm\\os.vhdx", size=2**30, controller="SCSI 0:0", kind="Dynamic")]
    )


class FakeHost:
    """Runs operations as :class:`adapters.hyperv.session.HostSession` does."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self.name = name
        self.vms: dict[str, Vm] = {}
        self.made_switches: set[str] = set()
        self.ran: list[str] = []
        self.unreachable = False
        self.uptime_s: float | None = None
        self.cluster_service = ""
        self.fails: dict[str, LeewardError] = {}
        """Raised by the next call of an operation, before it takes effect."""
        self.loses_answer_of: set[str] = set()
        """The next call of these takes effect, and its answer is lost."""
        self.facts = HostFacts(
            computer_name=name,
            fully_qualified_name=f"{name}.example",
            time=datetime.now(UTC),
            os_version="10.0.26100",
            powershell_version="5.1.26100.1",
            hyperv_module_version="2.0.0.0",
            administrator=True,
            replica_server=ReplicaServer(
                enabled=True,
                kerberos_port=80,
                certificate_port=443,
                authentication="Kerberos",
                from_any_server=True,
                storage="D:\\Replicas",
            ),
            replica_firewall_open=True,
            virtual_disk_path="C:\\VMs",
            volumes=[Volume(path="C:\\", free=2**33, size=2**40), Volume(path="D:\\", free=2**38, size=2**40)],
            switches=[Switch(name="vProd", kind="External"), Switch(name="isolated", kind="Private")],
        )

    def run(self, operation: Any, given: Any, *, timeout_s: float) -> Any:
        self.ran.append(operation.script)
        if self.unreachable:
            raise Unreachable("the host does not answer", where=self.name)
        if operation.script in self.fails:
            raise self.fails.pop(operation.script)
        assert isinstance(given, operation.takes)
        result = getattr(self, f"_{operation.script}")(given)
        if operation.script in self.loses_answer_of:
            self.loses_answer_of.discard(operation.script)
            raise Unreachable("the connection broke", where=self.name)
        return operation.gives.model_validate_json(result.model_dump_json())

    def run_job(self, operation: Any, given: Any, beat: Beat, *, timeout_s: float) -> Any:
        beat(f"{operation.script} runs")
        return self.run(operation, given, timeout_s=timeout_s)

    def vm(self, vm_id: str) -> Vm:
        if vm_id not in self.vms:
            raise NotFound(f"Hyper-V was unable to find a virtual machine with id {vm_id}", where=self.name)
        return self.vms[vm_id]

    def named(self, name: str) -> Vm:
        return next(vm for vm in self.vms.values() if vm.name == name)

    def _require(self, vm: Vm, mode: Mode, *states: State) -> None:
        if vm.mode is not mode or vm.replication not in states:
            raise InvalidState(f"not possible in {vm.mode}, {vm.replication}", where=self.name)

    def _require_off(self, vm: Vm) -> None:
        if vm.state is not VmState.OFF:
            raise InvalidState(f"'{vm.name}' is not off", where=self.name)

    # --- looking ----------------------------------------------------------------------------------------------

    def _check_host(self, _: Any) -> HostFacts:
        return self.facts

    def _inventory(self, given: Any) -> HostInventory:
        names = None if given.names is None else {name.casefold() for name in given.names}
        wanted = [vm for vm in self.vms.values() if names is None or vm.name.casefold() in names]
        machines = [self._described(vm) for vm in wanted]
        return HostInventory(machines=machines, uptime_s=self.uptime_s, cluster_service=self.cluster_service)

    def _cluster_roles(self, given: Any) -> ClusterRoles:
        """What a machine's role is without the machine being on a host, ``World.adrift`` says."""
        if given.vm_id is not None:
            vm = self.vm(given.vm_id)
            return ClusterRoles(node=self.name, roles=self._roles_of(vm), vm_state=vm.state)
        nodes = [host for host in self._world.hosts.values() if host.cluster_service]
        roles = [role for host in nodes for vm in host.vms.values() for role in self._roles_of(vm)]
        return ClusterRoles(node=self.name, roles=[*roles, *self._world.adrift])

    def _roles_of(self, vm: Vm) -> list[ClusterRole]:
        if vm.role is None:
            return []
        named = {"name": f"Virtual Machine {vm.name}", "group": vm.name, "vm_id": vm.id, "owner": vm.role.owner}
        return [ClusterRole(state=vm.role.state, group_state=vm.role.group, **named)]

    def _described(self, vm: Vm) -> VirtualMachine:
        replication = Replication(
            state=vm.replication,
            health=vm.health,
            mode=vm.mode,
            primary_server=f"{vm.partner}.example" if vm.mode is Mode.REPLICA else f"{self.name}.example",
            last_replication=vm.last,
            replicated_disks=vm.replicated,
            frequency_s=vm.policy[0],
            recovery_history=vm.policy[1],
            vss_frequency_h=vm.policy[2],
            test_vm_id=vm.test_vm,
            extended_to=vm.extended_to,
        )
        return VirtualMachine(
            id=vm.id,
            name=vm.name,
            state=vm.state,
            generation=2,
            version="12.0",
            notes=vm.notes,
            clustered=vm.role is not None,
            automatic_start=vm.automatic_start,
            disks=vm.disks,
            network_adapters=[NetworkAdapter(id="1", name="NIC", switch=vm.switch)],
            replication=None if vm.mode is Mode.NONE else replication,
        )

    def _measure_replication(self, given: Any) -> Measurements:
        wanted = [vm for vm in self.vms.values() if vm.mode is not Mode.NONE]
        measured = [
            Measurement(
                vm_id=vm.id,
                name=vm.name,
                vm_state=vm.state,
                state=vm.replication,
                health=vm.health,
                mode=vm.mode,
                last_replication=vm.last,
                last_was_planned=vm.planned,
                failed_over_planned=vm.failed_over_planned,
                percent=50,
            )
            for vm in wanted
            if given.vm_ids is None or vm.id in given.vm_ids
        ]
        self._world.time_passes()
        return Measurements(time=datetime.now(UTC), machines=measured)

    def _recovery_points(self, given: Any) -> ReplicaPoints:
        vm = self.vm(given.vm_id)
        return ReplicaPoints(latest=vm.last, points=vm.points)

    def _guest_status(self, given: Any) -> GuestStatus:
        vm = self.vm(given.vm_id)
        up = vm.state is VmState.RUNNING
        return GuestStatus(
            vm_state=vm.state,
            uptime_s=9,
            heartbeat="OkApplicationsHealthy" if up else "NoContact",
            addresses=["fe80::1", "192.0.2.7"] if up else [],
            published=self._world.published,
        )

    # --- power ------------------------------------------------------------------------------------------------

    def _start_vm(self, given: Any) -> Nothing:
        vm = self.vm(given.vm_id)
        if vm.replication is State.PREPARED_FOR_FAILOVER:
            raise InvalidState("it is prepared for a planned failover", where=self.name)
        vm.state = VmState.RUNNING
        if vm.role is not None:
            vm.role.state, vm.role.group = RoleState.ONLINE, GroupState.ONLINE
        return Nothing()

    def _stop_vm(self, given: Any) -> Nothing:
        """Its cluster may have started it again before its role is taken offline, which a plug that is pulled ends."""
        vm = self.vm(given.vm_id)
        vm.state = VmState.OFF
        self._world.on_stopped(vm)
        if given.turn_off:
            vm.state = VmState.OFF
        if vm.role is not None and vm.role.owner == self.name and vm.state is VmState.OFF:
            vm.role.state, vm.role.group = RoleState.OFFLINE, GroupState.PARTIAL_ONLINE
        return Nothing()

    def _rename_vm(self, given: Any) -> Nothing:
        self.vm(given.vm_id).name = given.name
        return Nothing()

    def _remove_vm(self, given: Any) -> Nothing:
        self._require_off(self.vm(given.vm_id))
        del self.vms[given.vm_id]
        return Nothing()

    def _connect_network(self, given: Any) -> Nothing:
        if given.private:
            self.made_switches.add(given.switch)
        self.vm(given.vm_id).switch = given.switch
        return Nothing()

    def _remove_switches(self, given: Any) -> Nothing:
        self.made_switches -= set(given.names) - {vm.switch for vm in self.vms.values()}
        return Nothing()

    # --- replication ------------------------------------------------------------------------------------------

    def _partner(self, vm: Vm) -> tuple[FakeHost, Vm]:
        host = self._world.hosts[vm.partner]
        return host, host.vm(vm.id)

    def _enable_replication(self, given: Any) -> Nothing:
        vm = self.vm(given.vm_id)
        self._require(vm, Mode.NONE, State.DISABLED)
        self._world.settings.append(given)
        vm.mode, vm.replication = Mode.PRIMARY, State.READY_FOR_INITIAL_REPLICATION
        vm.replicated = [disk.path for disk in vm.disks if disk.path not in given.excluded_disks]
        vm.policy = (given.frequency_s, given.recovery_history, given.vss_frequency_h)
        vm.partner = given.replica_server.partition(".")[0]
        there = self._world.hosts[vm.partner]
        replica = there.vms.get(vm.id)
        if replica is None:
            replica = Vm(vm.id, vm.name, VmState.OFF, Mode.REPLICA, State.WAITING_FOR_INITIAL_REPLICATION)
            if there.cluster_service:
                # The broker made it highly available.
                replica.role = Role(there.name, RoleState.OFFLINE, GroupState.PARTIAL_ONLINE)
        there._require(replica, Mode.REPLICA, State.WAITING_FOR_INITIAL_REPLICATION)
        replica.partner = self.name
        there.vms[vm.id] = replica
        return Nothing()

    def _change_replication(self, given: Any) -> Nothing:
        vm = self.vm(given.vm_id)
        self._require(vm, Mode.PRIMARY, State.REPLICATING)
        vm.policy = (given.frequency_s, given.recovery_history, given.vss_frequency_h)
        return Nothing()

    def _enable_as_replica(self, given: Any) -> Nothing:
        vm = self.vm(given.vm_id)
        self._require_off(vm)
        self._require(vm, Mode.NONE, State.DISABLED)
        vm.mode, vm.replication, vm.is_copy = Mode.REPLICA, State.WAITING_FOR_INITIAL_REPLICATION, True
        return Nothing()

    def _start_initial_replication(self, given: Any) -> Nothing:
        vm = self.vm(given.vm_id)
        self._require(vm, Mode.PRIMARY, State.READY_FOR_INITIAL_REPLICATION)
        if given.use_backup and not self._partner(vm)[1].is_copy:
            raise InvalidState(f"the replica of '{vm.name}' is no copy of it", where=self.name)
        vm.replication = State.INITIAL_REPLICATION_IN_PROGRESS
        return Nothing()

    def _export_initial_replication(self, given: Any) -> Nothing:
        vm = self.vm(given.vm_id)
        self._require(vm, Mode.PRIMARY, State.READY_FOR_INITIAL_REPLICATION)
        self._world.media[given.path] = vm.id
        vm.replication = State.WAITING_FOR_INITIAL_REPLICATION
        return Nothing()

    def _import_initial_replication(self, given: Any) -> Nothing:
        vm = self.vm(given.vm_id)
        self._require(vm, Mode.REPLICA, State.WAITING_FOR_INITIAL_REPLICATION)
        if self._world.media.get(given.path) != vm.id:
            raise NotFound(f"there is no initial replication in {given.path}", where=self.name)
        vm.replication, vm.last = State.REPLICATING, datetime.now(UTC)
        self._partner(vm)[1].replication = State.INITIAL_REPLICATION_IN_PROGRESS
        return Nothing()

    def _stop_initial_replication(self, given: Any) -> Nothing:
        vm = self.vm(given.vm_id)
        self._require(vm, Mode.PRIMARY, State.INITIAL_REPLICATION_IN_PROGRESS, State.WAITING_FOR_INITIAL_REPLICATION)
        vm.replication = State.READY_FOR_INITIAL_REPLICATION
        return Nothing()

    def _resume_replication(self, given: Any) -> Nothing:
        vm = self.vm(given.vm_id)
        goes_on = State.REPLICATING if vm.last else State.INITIAL_REPLICATION_IN_PROGRESS
        vm.replication = State.RESYNCHRONIZING if given.resynchronize else goes_on
        return Nothing()

    def _prepare_failover(self, given: Any) -> Nothing:
        vm = self.vm(given.vm_id)
        self._require_off(vm)
        self._require(vm, Mode.PRIMARY, State.REPLICATING)
        _, replica = self._partner(vm)
        vm.replication = State.PREPARED_FOR_FAILOVER
        vm.last, replica.last = datetime.now(UTC), datetime.now(UTC) + timedelta(seconds=3)
        vm.planned = replica.planned = True
        return Nothing()

    def _start_failover(self, given: Any) -> Nothing:
        vm = self.vm(given.vm_id)
        self._require(vm, Mode.REPLICA, State.REPLICATING, State.ERROR)
        vm.replication, vm.failed_over_to = State.FAILED_OVER_WAITING_COMPLETION, given.point_id or "newest"
        vm.failed_over_planned = vm.planned and given.point_id is None
        return Nothing()

    def _cancel_failover(self, given: Any) -> Nothing:
        vm = self.vm(given.vm_id)
        if vm.mode is Mode.PRIMARY:
            self._require(vm, Mode.PRIMARY, State.PREPARED_FOR_FAILOVER)
            vm.planned = False
        else:
            self._require(vm, Mode.REPLICA, State.FAILED_OVER_WAITING_COMPLETION)
            self._require_off(vm)
        vm.replication, vm.failed_over_to, vm.failed_over_planned = State.REPLICATING, None, False
        return Nothing()

    def _complete_failover(self, given: Any) -> Nothing:
        vm = self.vm(given.vm_id)
        self._require(vm, Mode.REPLICA, State.FAILED_OVER_WAITING_COMPLETION)
        vm.replication, vm.points = State.FAILED_OVER, []
        return Nothing()

    def _start_test_failover(self, given: Any) -> TestMachine:
        vm = self.vm(given.vm_id)
        self._require(vm, Mode.REPLICA, State.REPLICATING)
        if vm.test_vm:
            raise InvalidState("a test failover runs", where=self.name)
        copy = Vm(str(uuid.uuid4()), f"{vm.name} - Test", VmState.OFF, Mode.TEST_REPLICA)
        copy.failed_over_to = given.point_id or "newest"
        self.vms[copy.id], vm.test_vm = copy, copy.id
        return TestMachine(vm_id=copy.id, name=copy.name)

    def _stop_test_failover(self, given: Any) -> Nothing:
        vm = self.vm(given.vm_id)
        self.vms.pop(vm.test_vm, None)
        vm.test_vm = ""
        return Nothing()

    def _make_replica(self, given: Any) -> Nothing:
        vm = self.vm(given.vm_id)
        self._require_off(vm)
        vm.mode, vm.replication = Mode.REPLICA, State.WAITING_FOR_INITIAL_REPLICATION
        return Nothing()

    def _reverse_replication(self, given: Any) -> Nothing:
        vm = self.vm(given.vm_id)
        self._require(vm, Mode.REPLICA, State.FAILED_OVER_WAITING_COMPLETION, State.FAILED_OVER)
        host = next(host for host in self._world.hosts.values() if given.replica_server.startswith(host.name))
        old = host.vm(vm.id)
        after_planned = old.replication is State.PREPARED_FOR_FAILOVER
        if not after_planned:
            host._require(old, Mode.REPLICA, State.WAITING_FOR_INITIAL_REPLICATION)
        self._world.settings.append(given)
        vm.mode, vm.partner, old.mode, old.partner = Mode.PRIMARY, host.name, Mode.REPLICA, self.name
        vm.replication = old.replication = State.REPLICATING if after_planned else State.READY_FOR_INITIAL_REPLICATION
        vm.planned = old.planned = vm.failed_over_planned = False
        vm.replicated = [disk.path for disk in vm.disks]
        vm.policy = (given.frequency_s, given.recovery_history, given.vss_frequency_h)
        return Nothing()

    def _remove_replication(self, given: Any) -> Nothing:
        vm = self.vm(given.vm_id)
        vm.mode, vm.replication = Mode.NONE, State.DISABLED
        return Nothing()

    def _delete_replica(self, given: Any) -> Nothing:
        vm = self.vm(given.vm_id)
        self._require_off(vm)
        vm.notes = given.note
        del self.vms[given.vm_id]
        return Nothing()


def answer_of(host: FakeHost) -> Answer:
    """What a host answers behind a simulated WinRM server, or to the VMM server that manages it."""

    def answer(request: Request) -> Result:
        operation = OPERATIONS[request.script]
        try:
            given = operation.takes.model_validate(request.parameters)
            result: dict[str, Any] = host.run(operation, given, timeout_s=0).model_dump(mode="json")
        except NotFound as error:
            return failure(error.what, identifier="ObjectNotFound,Get-VM", category="ObjectNotFound")
        except LeewardError as error:
            return failure(error.what, identifier="InvalidState,Start-VM", category="InvalidOperation")
        return result

    return answer


class World:
    """Hosts that know each other, and the time that passes between two looks at them."""

    def __init__(self, *names: str) -> None:
        self.hosts = {name: FakeHost(self, name) for name in names}
        self.settings: list[Any] = []
        self.media: dict[str, str] = {}
        """By path, whose first copy is there."""
        self.published: dict[str, str] = {}
        self.adrift: list[ClusterRole] = []
        """Roles of machines that no host has."""
        self.on_stopped: Callable[[Vm], None] = lambda _: None
        self.on_time: Callable[[], None] = self._copies_finish

    def time_passes(self) -> None:
        self.on_time()

    def _copies_finish(self) -> None:
        under_way = (State.INITIAL_REPLICATION_IN_PROGRESS, State.RESYNCHRONIZING)
        for host in self.hosts.values():
            for vm in host.vms.values():
                if vm.mode is Mode.PRIMARY and vm.replication in under_way:
                    replica = self.hosts[vm.partner].vms[vm.id]
                    vm.replication = replica.replication = State.REPLICATING
                    vm.last = replica.last = datetime.now(UTC)
