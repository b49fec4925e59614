"""The first copy on media: a drive is a folder that the hosts of every site see, as if its medium had been carried."""

from __future__ import annotations

from pathlib import Path

from adapters.hyperv.operations import Nothing, OfVm, OnMedium
from adapters.hyperv.states import ReplicationMode as Mode
from adapters.hyperv.states import ReplicationState as State
from simulation.hyperv import refusal
from simulation.hyperv.fabric import Handler, Here
from simulation.hyperv.relationships import require
from simulation.hyperv.state import Kind


def export_initial_replication(here: Here, given: OnMedium) -> Nothing:
    """Start-VMInitialReplication -DestinationPath: the primary waits until the replica server has imported it."""
    vm = here.vm(given.vm_id)
    with here.fabric.transfers.held(vm.id):
        require(vm, "StartVMInitialReplication", Mode.PRIMARY, State.READY_FOR_INITIAL_REPLICATION)
        ends = here.fabric.transfers.ends(here.host, vm)
        if ends is None:
            raise refusal.wrong_state("StartVMInitialReplication", vm.name, "it has no replica.")
        folder = _folder(here, given.path, "StartVMInitialReplication")
        ends.engine.export_seed(ends.relationship, folder / vm.id, here.interrupt, restart=True)
        here.interrupt()
        with here.fabric.changing():
            ends.both[0].state = State.WAITING_FOR_INITIAL_REPLICATION
    return Nothing()


def import_initial_replication(here: Here, given: OnMedium) -> Nothing:
    """Import-VMInitialReplication, on the replica server; the primary then sends what changed since the export."""
    vm = here.vm(given.vm_id)
    with here.fabric.transfers.held(vm.id):
        require(vm, "ImportVMInitialReplication", Mode.REPLICA, State.WAITING_FOR_INITIAL_REPLICATION)
        folder = _folder(here, given.path, "ImportVMInitialReplication") / vm.id
        found = here.fabric.other_end(vm, Mode.PRIMARY)
        if found is None or not folder.exists():
            raise refusal.no_such_path("ImportVMInitialReplication", given.path)
        host, primary = found
        relationship = here.fabric.ground.relationship(vm.machine, host.site, here.host.site)
        point = here.fabric.ground.engine(relationship).import_seed(relationship, folder, here.interrupt)
        here.interrupt()
        with here.fabric.changing():
            assert vm.replication is not None
            assert primary.replication is not None
            vm.replication.state, vm.replication.last_kind = State.REPLICATING, Kind.REGULAR
            vm.replication.last, vm.replication.newest = point.time, point.id
            primary.replication.state = State.INITIAL_REPLICATION_IN_PROGRESS
    here.fabric.transfers.hurry(vm.id)
    return Nothing()


def stop_initial_replication(here: Here, given: OfVm) -> Nothing:
    vm = here.vm(given.vm_id)
    with here.fabric.transfers.held(vm.id):
        under_way = (State.INITIAL_REPLICATION_IN_PROGRESS, State.WAITING_FOR_INITIAL_REPLICATION)
        require(vm, "StopVMInitialReplication", Mode.PRIMARY, *under_way)
        found = here.fabric.other_end(vm, Mode.REPLICA)
        with here.fabric.changing():
            assert vm.replication is not None
            vm.replication.state = State.READY_FOR_INITIAL_REPLICATION
            if found is not None and found[1].replication is not None:
                found[1].replication.state = State.WAITING_FOR_INITIAL_REPLICATION
    return Nothing()


def _folder(here: Here, path: str, cmdlet: str) -> Path:
    """A drive is made by whoever puts a medium into the host: a folder of its letter below the fabric's ``media``."""
    drive, _, rest = path.partition(":")
    if not (here.fabric.media / drive).is_dir():
        raise refusal.no_such_path(cmdlet, path)
    return here.fabric.media.joinpath(drive, *rest.split("\\"))


OPERATIONS: dict[str, Handler] = {
    "export_initial_replication": export_initial_replication,
    "import_initial_replication": import_initial_replication,
    "stop_initial_replication": stop_initial_replication,
}
