"""Failovers, real ones and tests ("Fail over a replicated virtual machine with Hyper-V Replica")."""

from __future__ import annotations

from adapters.hyperv.facts import TestMachine
from adapters.hyperv.operations import Nothing, OfVm, StartFailover
from adapters.hyperv.states import ReplicationMode as Mode
from adapters.hyperv.states import ReplicationState as State
from adapters.ports import ReplicationProvider
from simulation.hyperv import refusal
from simulation.hyperv.fabric import Handler, Here
from simulation.hyperv.machines import require_off
from simulation.hyperv.relationships import require
from simulation.hyperv.state import Kind, Replication, Vm
from vault.domain import Relationship

FAILS_OVER = (State.REPLICATING, State.ERROR, State.SUSPENDED, State.WAITING_FOR_START_RESYNCHRONIZE)
"""States of a replica from which it can be failed over: it is whole."""


def prepare_failover(here: Here, given: OfVm) -> Nothing:
    """Start-VMFailover -Prepare: the last changes are sent; the primary stays off until the failover or its end."""
    vm = here.vm(given.vm_id)
    require_off(here, vm, "StartVMFailover")
    with here.fabric.transfers.held(vm.id):
        require(vm, "StartVMFailover", Mode.PRIMARY, State.REPLICATING)
        ends = here.fabric.transfers.ends(here.host, vm)
        if ends is None or ends.replica.state is not State.REPLICATING:
            raise refusal.wrong_state("StartVMFailover", vm.name, "its replica does not take the last changes.")
        point = ends.engine.send_last_changes(ends.relationship, here.interrupt)
        here.interrupt()
        with here.fabric.changing():
            here.fabric.transfers.arrived(ends, Kind.PLANNED, point)
            ends.both[0].state = State.PREPARED_FOR_FAILOVER
    return Nothing()


def start_failover(here: Here, given: StartFailover) -> Nothing:
    vm = here.vm(given.vm_id)
    require_off(here, vm, "StartVMFailover")
    with here.fabric.transfers.held(vm.id):
        require(vm, "StartVMFailover", Mode.REPLICA, *FAILS_OVER)
        replica, relationship, engine = _stored(here, vm)
        stored = _point(vm, replica, given.point_id)
        engine.cancel_failover(relationship)  # what a host left that went down in the middle of one
        try:
            engine.fail_over(relationship, stored, here.interrupt)
            here.interrupt()
        except BaseException:
            engine.cancel_failover(relationship)  # it goes on as a replica
            raise
        with here.fabric.changing():
            replica.state, replica.failed_over_to = State.FAILED_OVER_WAITING_COMPLETION, stored
            replica.failed_over_kind = replica.last_kind if given.point_id is None else Kind.REGULAR
    return Nothing()


def cancel_failover(here: Here, given: OfVm) -> Nothing:
    """Stop-VMFailover: on the primary ends the preparation, on the replica discards what was failed over to."""
    vm = here.vm(given.vm_id)
    with here.fabric.transfers.held(vm.id):
        if vm.mode is Mode.PRIMARY:
            require(vm, "StopVMFailover", Mode.PRIMARY, State.PREPARED_FOR_FAILOVER)
        else:
            require(vm, "StopVMFailover", Mode.REPLICA, State.FAILED_OVER_WAITING_COMPLETION)
            require_off(here, vm, "StopVMFailover")
            _, relationship, engine = _stored(here, vm)
            engine.cancel_failover(relationship)
        with here.fabric.changing():
            assert vm.replication is not None
            vm.replication.state = State.REPLICATING
            vm.replication.failed_over_to, vm.replication.failed_over_kind = "", Kind.NONE
    return Nothing()


def complete_failover(here: Here, given: OfVm) -> Nothing:
    """Complete-VMFailover: the other recovery points go."""
    vm = here.vm(given.vm_id)
    with here.fabric.transfers.held(vm.id):
        require(vm, "CompleteVMFailover", Mode.REPLICA, State.FAILED_OVER_WAITING_COMPLETION)
        replica, relationship, engine = _stored(here, vm)
        engine.commit(relationship, replica.failed_over_to)
        with here.fabric.changing():
            replica.state, replica.points = State.FAILED_OVER, []
    return Nothing()


# --- tests ------------------------------------------------------------------------------------------------------


def start_test_failover(here: Here, given: StartFailover) -> TestMachine:
    """Start-VMFailover -AsTest: a copy without a network; replication goes on."""
    vm = here.vm(given.vm_id)
    with here.fabric.transfers.held(vm.id):
        require(vm, "StartVMFailover", Mode.REPLICA, *FAILS_OVER)
        replica, relationship, engine = _stored(here, vm)
        if replica.test_vm_id:
            raise refusal.wrong_state("StartVMFailover", vm.name, "a test failover is in progress.")
        machine = f"{vm.machine}-test"
        here.fabric.ground.remove(here.host.site, machine)
        engine.start_test(relationship, _point(vm, replica, given.point_id), machine, here.interrupt)
        here.interrupt()
        copy = here.fabric.new_vm(vm.machine, f"{vm.name} - Test")
        copy.machine, copy.disks = machine, vm.disks
        copy.replication = Replication(
            mode=Mode.TEST_REPLICA,
            state=State.DISABLED,
            primary_server=replica.primary_server,
            replica_server=replica.replica_server,
        )
        with here.fabric.changing():
            here.host.vms[copy.id] = copy
            replica.test_vm_id = copy.id
    return TestMachine(vm_id=copy.id, name=copy.name)


def stop_test_failover(here: Here, given: OfVm) -> Nothing:
    vm = here.vm(given.vm_id)
    if vm.replication is None or not vm.replication.test_vm_id:
        return Nothing()
    copy = here.vm(vm.replication.test_vm_id)
    here.fabric.ground.remove(here.host.site, copy.machine)
    with here.fabric.changing():
        del here.host.vms[copy.id]
        vm.replication.test_vm_id = ""
    return Nothing()


# --- what a replica consists of -----------------------------------------------------------------------------------


def _stored(here: Here, vm: Vm) -> tuple[Replication, Relationship, ReplicationProvider]:
    """The lab's replica behind a simulated one; reached without its primary."""
    assert vm.replication is not None
    primary = here.fabric.other_end(vm, Mode.PRIMARY)
    source = primary[0].site if primary else here.host.site
    relationship = here.fabric.ground.relationship(vm.machine, source, here.host.site)
    return vm.replication, relationship, here.fabric.ground.engine(relationship)


def _point(vm: Vm, replica: Replication, point_id: str | None) -> str:
    if point_id is None:
        return replica.newest
    for point in replica.points:
        if point.id == point_id:
            return point.stored
    raise refusal.operation_failed("StartVMFailover", f"'{vm.name}' has no recovery point with id {point_id}.")


OPERATIONS: dict[str, Handler] = {
    "prepare_failover": prepare_failover,
    "start_failover": start_failover,
    "cancel_failover": cancel_failover,
    "complete_failover": complete_failover,
    "start_test_failover": start_test_failover,
    "stop_test_failover": stop_test_failover,
}
