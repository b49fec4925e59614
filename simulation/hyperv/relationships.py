"""Operations on relationships: beginning, watching, turning round and ending them.

The states are those of "Set up Hyper-V Replica", "Fail over a replicated virtual machine with Hyper-V Replica" and the
references of the cmdlets.
"""

from __future__ import annotations

from datetime import UTC, datetime

from adapters.hyperv.facts import Measurement, Measurements, ReplicaPoint, ReplicaPoints
from adapters.hyperv.operations import (
    ChangeReplication,
    DeleteReplica,
    EnableReplication,
    MeasureRequest,
    Nothing,
    OfVm,
    ReplicationSettings,
    ResumeReplication,
    StartInitialReplication,
)
from adapters.hyperv.states import ReplicationHealth
from adapters.hyperv.states import ReplicationMode as Mode
from adapters.hyperv.states import ReplicationState as State
from simulation.hyperv import refusal
from simulation.hyperv.fabric import Handler, Here
from simulation.hyperv.machines import require_off
from simulation.hyperv.state import Host, Kind, Replication, Vm
from vault.domain import Progress

FAILED_OVER = (State.FAILED_OVER_WAITING_COMPLETION, State.FAILED_OVER)
ENDED = (State.ERROR, State.SUSPENDED, State.WAITING_FOR_START_RESYNCHRONIZE, State.RESYNCHRONIZE_SUSPENDED)


def quiet(_: Progress) -> None:
    """For work that nobody watches."""


def enable_replication(here: Here, given: EnableReplication) -> Nothing:
    """Enable-VMReplication: the replica server makes a replica without contents, or has one already."""
    vm = here.vm(given.vm_id)
    if vm.replication is not None:
        raise refusal.wrong_state("EnableVMReplication", vm.name, "replication is enabled already.")
    target = replica_server(here, given, "EnableVMReplication")
    there = target.vms.get(vm.id)
    if there is not None and (there.mode, there.state) != (Mode.REPLICA, State.WAITING_FOR_INITIAL_REPLICATION):
        raise refusal.wrong_state("EnableVMReplication", vm.name, f"'{target.name}' has it already.")
    relationship = here.fabric.ground.relationship(vm.machine, here.host.site, target.site)
    if not here.fabric.ground.has(target.site, vm.machine):
        here.fabric.ground.engine(relationship).enable(relationship)
    replica = there or here.fabric.new_vm(vm.machine, vm.name, vm.id)
    excluded = {path.casefold() for path in given.excluded_disks}
    replica.disks = [disk for disk in vm.disks if disk.path.casefold() not in excluded]
    with here.fabric.changing():
        vm.replication = end_of(here.host, given, Mode.PRIMARY, State.READY_FOR_INITIAL_REPLICATION)
        vm.replication.replicated_disks = [disk.path for disk in replica.disks]
        replica.replication = end_of(here.host, given, Mode.REPLICA, State.WAITING_FOR_INITIAL_REPLICATION)
        target.vms[vm.id] = replica
    return Nothing()


def change_replication(here: Here, given: ChangeReplication) -> Nothing:
    """Set-VMReplication on the primary: frequency and recovery points."""
    vm = here.vm(given.vm_id)
    require(vm, "SetVMReplication", Mode.PRIMARY, State.REPLICATING)
    replica = _replica_of(here, vm)
    with here.fabric.changing():
        for end in (vm.replication, replica.replication):
            assert end is not None
            end.frequency_s, end.recovery_history = given.frequency_s, given.recovery_history
            end.vss_frequency_h = given.vss_frequency_h
    here.fabric.transfers.hurry(vm.id)
    return Nothing()


def end_of(primary: Host, given: ReplicationSettings, mode: Mode, state: State) -> Replication:
    return Replication(
        mode=mode,
        state=state,
        primary_server=primary.full_name,
        replica_server=given.replica_server,
        replica_port=given.replica_port,
        authentication=given.authentication,
        frequency_s=given.frequency_s,
        recovery_history=given.recovery_history,
        vss_frequency_h=given.vss_frequency_h,
    )


def replica_server(here: Here, given: ReplicationSettings, cmdlet: str) -> Host:
    """The host that a replica server's name leads to, when it lets this one replicate to it."""
    known = here.fabric.known_as(given.replica_server)
    if not known:
        raise refusal.unconnected(cmdlet, given.replica_server, refusal.UNKNOWN_NAME)
    host = next((host for host in known if given.vm_id in host.vms), known[0])
    listens = (host.accepts_replicas, host.port, host.authentication) == (
        True,
        given.replica_port,
        given.authentication,
    )
    if not listens or not here.fabric.ground.is_connected(here.host.site, host.site):
        raise refusal.unconnected(cmdlet, given.replica_server)
    allowed = {entry.server.casefold() for entry in host.authorizations}
    if not host.from_any_server and here.host.full_name.casefold() not in allowed:
        raise refusal.unauthorized(cmdlet, given.replica_server)
    return host


def enable_as_replica(here: Here, given: OfVm) -> Nothing:
    """Enable-VMReplication -AsReplica: a copy that was restored here waits for its primary server."""
    vm = here.vm(given.vm_id)
    if vm.replication is not None:
        raise refusal.wrong_state("EnableVMReplication", vm.name, "replication is enabled already.")
    require_off(here, vm, "EnableVMReplication")
    if not here.host.accepts_replicas:
        raise refusal.wrong_state("EnableVMReplication", vm.name, f"'{here.host.name}' accepts no replicas.")
    with here.fabric.changing():
        vm.replication = Replication(
            mode=Mode.REPLICA,
            state=State.WAITING_FOR_INITIAL_REPLICATION,
            primary_server="",
            replica_server=here.host.full_name,
        )
    return Nothing()


def start_initial_replication(here: Here, given: StartInitialReplication) -> Nothing:
    vm = here.vm(given.vm_id)
    require(vm, "StartVMInitialReplication", Mode.PRIMARY, State.READY_FOR_INITIAL_REPLICATION)
    with here.fabric.transfers.held(vm.id):
        _replica_of(here, vm)
        _begin_with(here, vm, use_copy=given.use_backup)
        _begin_copy(here, vm, State.INITIAL_REPLICATION_IN_PROGRESS)
    return Nothing()


def _begin_with(here: Here, vm: Vm, *, use_copy: bool) -> None:
    """``use_copy``: the disks of the copy that is at the replica server become the replica's, to be compared; otherwise
    they are overwritten."""
    ends = here.fabric.transfers.ends(here.host, vm)
    if ends is None:
        return
    ground, site = here.fabric.ground, ends.replica_host.site
    has_copy = ground.has(site, vm.machine)
    if use_copy and not has_copy:
        raise refusal.wrong_state("StartVMInitialReplication", vm.name, "the replica is no copy of it.")
    if use_copy:
        ends.engine.prepare_reverse(ends.relationship)
    elif has_copy:
        ground.remove(site, vm.machine)
    if has_copy:
        ends.engine.enable(ends.relationship)


def resume_replication(here: Here, given: ResumeReplication) -> Nothing:
    vm = here.vm(given.vm_id)
    if given.resynchronize:
        require(vm, "ResumeVMReplication", Mode.PRIMARY, *ENDED)
        _begin_copy(here, vm, State.RESYNCHRONIZING)
        return Nothing()
    require(vm, "ResumeVMReplication", Mode.PRIMARY, State.ERROR, State.SUSPENDED)
    with here.fabric.changing():
        assert vm.replication is not None
        vm.replication.state = vm.replication.resumes_as
    here.fabric.transfers.hurry(vm.id)
    return Nothing()


def _replica_of(here: Here, vm: Vm) -> Vm:
    """Raises ``Refusal``: its host is not there, or does not answer."""
    found = here.fabric.other_end(vm, Mode.REPLICA)
    if found is None or not here.fabric.ground.is_connected(here.host.site, found[0].site):
        raise refusal.unconnected(here.cmdlet, vm.replication.replica_server if vm.replication else "?")
    return found[1]


def _begin_copy(here: Here, vm: Vm, state: State) -> None:
    replica = _replica_of(here, vm)
    with here.fabric.changing():
        for end in (vm.replication, replica.replication):
            assert end is not None
            end.state = state
    here.fabric.transfers.hurry(vm.id)


def require(vm: Vm, cmdlet: str, mode: Mode, *states: State) -> None:
    if vm.mode is not mode or vm.state not in states:
        raise refusal.wrong_state(cmdlet, vm.name, f"its replication mode is {vm.mode}, its state {vm.state}.")


# --- watching ---------------------------------------------------------------------------------------------------


def measure_replication(here: Here, given: MeasureRequest) -> Measurements:
    with here.fabric.lock:
        vms = [vm for vm in here.host.vms.values() if vm.replication is not None]
    wanted = [vm for vm in vms if given.vm_ids is None or vm.id in given.vm_ids]
    return Measurements(time=datetime.now(UTC), machines=[_measured(here, vm) for vm in wanted])


def _measured(here: Here, vm: Vm) -> Measurement:
    end = vm.replication
    assert end is not None
    is_primary = end.mode is Mode.PRIMARY
    return Measurement(
        vm_id=vm.id,
        name=vm.name,
        vm_state=here.fabric.power(here.host, vm),
        state=end.state,
        health=end.health,
        mode=end.mode,
        health_details=end.details,
        last_replication=end.last,
        last_was_application_consistent=end.last_kind is Kind.APPLICATION_CONSISTENT,
        last_was_planned=end.last_kind is Kind.PLANNED,
        failed_over_planned=end.failed_over_kind is Kind.PLANNED,
        pending_bytes=here.fabric.ground.log_bytes(here.host.site, vm.machine) if is_primary else 0,
        errors=end.errors,
        missed=end.missed,
        percent=here.fabric.transfers.percent(vm.id),
    )


def recovery_points(here: Here, given: OfVm) -> ReplicaPoints:
    vm = here.vm(given.vm_id)
    if vm.replication is None:
        raise refusal.wrong_state("GetVMReplication", vm.name, "replication is not enabled.")
    with here.fabric.lock:
        points = [
            ReplicaPoint(
                id=point.id,
                name=point.name,
                time=point.time,
                application_consistent=point.application_consistent,
            )
            for point in vm.replication.points
        ]
        return ReplicaPoints(latest=vm.replication.last, points=points)


# --- turning round ----------------------------------------------------------------------------------------------


def make_replica(here: Here, given: OfVm) -> Nothing:
    """Set-VMReplication -AsReplica, on the old primary after an unplanned failover."""
    vm = here.vm(given.vm_id)
    require_off(here, vm, "SetVMReplication")
    if vm.mode is not Mode.PRIMARY:
        raise refusal.wrong_state("SetVMReplication", vm.name, f"its replication mode is {vm.mode}.")
    with here.fabric.transfers.held(vm.id), here.fabric.changing():
        assert vm.replication is not None
        vm.replication.mode, vm.replication.state = Mode.REPLICA, State.WAITING_FOR_INITIAL_REPLICATION
        vm.replication.health, vm.replication.details = ReplicationHealth.NORMAL, []
    return Nothing()


def reverse_replication(here: Here, given: ReplicationSettings) -> Nothing:
    """Set-VMReplication -Reverse, on the host where the machine was failed over to."""
    vm = here.vm(given.vm_id)
    require(vm, "SetVMReplication", Mode.REPLICA, *FAILED_OVER)
    target = replica_server(here, given, "SetVMReplication")
    with here.fabric.transfers.held(vm.id):
        old = target.vms.get(vm.id) or here.fabric.new_vm(vm.machine, vm.name, vm.id)
        was_planned = _may_follow(here, target, old)
        ground = here.fabric.ground
        backward = ground.relationship(vm.machine, here.host.site, target.site)
        forward = ground.relationship(vm.machine, target.site, here.host.site)
        engine = ground.engine(backward)
        engine.prepare_reverse(backward)
        engine.enable(backward)
        engine.retire_replica(forward)
        states = (State.REPLICATING, State.REPLICATING)
        if not was_planned:
            states = (State.READY_FOR_INITIAL_REPLICATION, State.WAITING_FOR_INITIAL_REPLICATION)
        with here.fabric.changing():
            vm.replication = end_of(here.host, given, Mode.PRIMARY, states[0])
            old.replication = end_of(here.host, given, Mode.REPLICA, states[1])
            vm.replication.awaits_first_cycle = was_planned
            vm.replication.replicated_disks = [disk.path for disk in vm.disks]
            old.switch = ""
            target.vms[vm.id] = old
    here.fabric.transfers.hurry(vm.id)
    return Nothing()


def _may_follow(here: Here, host: Host, old: Vm) -> bool:
    """Whether the old primary goes on from where it was prepared; otherwise a first copy is needed.

    Raises ``Refusal`` for one that is in the way."""
    prepared = (old.mode, old.state) == (Mode.PRIMARY, State.PREPARED_FOR_FAILOVER)
    waits = (old.mode, old.state) == (Mode.REPLICA, State.WAITING_FOR_INITIAL_REPLICATION)
    if old.id in host.vms:
        require_off(Here(here.fabric, host, here.script, host.reboots), old, "SetVMReplication")
        if not prepared and not waits:
            why = f"on '{host.name}' its replication mode is {old.mode}, its state {old.state}."
            raise refusal.wrong_state("SetVMReplication", old.name, why)
    return prepared


# --- ending -----------------------------------------------------------------------------------------------------


def remove_replication(here: Here, given: OfVm) -> Nothing:
    vm = here.vm(given.vm_id)
    if vm.replication is None:
        raise refusal.wrong_state("RemoveVMReplication", vm.name, "replication is not enabled.")
    with here.fabric.transfers.held(vm.id):
        if vm.mode is Mode.PRIMARY and (ends := here.fabric.transfers.ends(here.host, vm)) is not None:
            ends.engine.disable_source(ends.relationship)
        elif vm.mode is Mode.REPLICA:
            _keep_disks(here, vm)
            _drop_stored(here, vm)
        with here.fabric.changing():
            vm.replication = None
    return Nothing()


def delete_replica(here: Here, given: DeleteReplica) -> Nothing:
    vm = here.vm(given.vm_id)
    require_off(here, vm, "RemoveVM")
    with here.fabric.transfers.held(vm.id):
        with here.fabric.changing():
            vm.notes = given.note
        if vm.mode is Mode.REPLICA:
            _drop_stored(here, vm)
        here.fabric.ground.remove(here.host.site, vm.machine)
        with here.fabric.changing():
            del here.host.vms[vm.id]
    return Nothing()


def _keep_disks(here: Here, vm: Vm) -> None:
    """Removing replication "does not delete the Replica virtual machine", which is the newest state that arrived."""
    ground, site = here.fabric.ground, here.host.site
    if vm.replication is None or not vm.replication.newest or ground.has(site, vm.machine):
        return
    relationship = ground.relationship(vm.machine, site, site)
    ground.engine(relationship).fail_over(relationship, vm.replication.newest, here.interrupt)


def _drop_stored(here: Here, vm: Vm) -> None:
    """The lab's replica, which the simulated host's replica consists of."""
    relationship = here.fabric.ground.relationship(vm.machine, here.host.site, here.host.site)
    here.fabric.ground.engine(relationship).disable_target(relationship)


OPERATIONS: dict[str, Handler] = {
    "enable_replication": enable_replication,
    "change_replication": change_replication,
    "enable_as_replica": enable_as_replica,
    "start_initial_replication": start_initial_replication,
    "resume_replication": resume_replication,
    "measure_replication": measure_replication,
    "recovery_points": recovery_points,
    "make_replica": make_replica,
    "reverse_replication": reverse_replication,
    "remove_replication": remove_replication,
    "delete_replica": delete_replica,
}
