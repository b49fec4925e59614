"""The simulated VMM server: it answers the operations of :mod:`adapters.vmm.operations` from what its hosts answer.

It manages hosts through their own operations, as VMM does through its agents, and so works in front of any simulated
host. As VMM does, it answers from a database: what happens on a host behind its back is seen when it refreshes.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from adapters.hyperv import operations as of_host
from adapters.hyperv.discovery import HEARTBEAT, SHUTDOWN, VSS
from adapters.hyperv.facts import HostFacts, NetworkAdapter, VirtualDisk, VirtualMachine
from adapters.hyperv.operation import Input, Operation, Output
from adapters.hyperv.states import ROLES, Role, VmState
from adapters.vmm.facts import (
    HYPER_V,
    MISSING,
    Adapter,
    CapabilityProfile,
    Cloud,
    Connected,
    DiskDrive,
    HostGroup,
    LogicalNetwork,
    ManagedHost,
    ManagedMachine,
    ManagedMachines,
    VmmFabric,
    VmNetwork,
)
from adapters.vmm.operations import OPERATIONS, ConnectMachine, MachinesRequest
from simulation.vmm.estate import CloudSetup, Estate, HostSetup
from simulation.winrm.answering import Answer, Failure, Request, Result, failure
from vault.domain import Value

KINDS = {"Fixed": "FixedSize", "Dynamic": "DynamicallyExpanding", "Differencing": "Differencing"}
VERSION = "10.25.1073.0"


class Refused(Exception):
    """An operation that the server or a host refused."""

    def __init__(self, record: Failure) -> None:
        super().__init__(record.record.message)
        self.record = record


class SimulatedVmm:
    """Thread-safe. ``answer`` is what :class:`simulation.winrm.server.WinRMServer` calls.

    Args:
        name: the server's own.
        hosts: what each managed host answers, by its name on the network.
        estate: what was set up on the server.
    """

    def __init__(self, name: str, hosts: Mapping[str, Answer], estate: Estate) -> None:
        self.name = name
        self.estate = estate
        self.refreshes = True
        """Whether the refresher runs. When not, the server knows only what it is told to look at."""
        self._hosts = hosts
        self._clouds = dict(estate.members)
        self._networks: dict[str, str] = {}
        self._database: dict[str, list[VirtualMachine]] = {}
        self._lock = threading.RLock()
        self._operations: dict[str, Callable[[Any], Value]] = {
            "vmm_fabric": self._fabric,
            "vmm_machines": self._machines,
            "vmm_connect": self._connect,
        }

    def answer(self, request: Request) -> Result:
        operation = OPERATIONS.get(request.script)
        if operation is None:
            what = f"The term '{request.script}' needs the Hyper-V module, which is not on a VMM server."
            return failure(what, identifier="CommandNotFoundException", category="ObjectNotFound")
        try:
            given = operation.takes.model_validate(request.parameters)
            with self._lock:
                return self._operations[request.script](given).model_dump(mode="json")
        except ValidationError as wrong:
            return failure(str(wrong), identifier="ParameterArgumentValidationError", category="InvalidArgument")
        except Refused as refused:
            return refused.record

    def refresh(self, host: str) -> None:
        """Look at the host's machines, as ``Read-SCVirtualMachine -VMHost`` does."""
        inventory = self._ask(host, of_host.INVENTORY, of_host.InventoryRequest())
        with self._lock:
            self._database[host] = inventory.machines

    def belongs(self, machine: str, cloud: str | None) -> None:
        """Put a machine into a cloud by name, or out of all, as an administrator does."""
        with self._lock:
            if cloud is None:
                self._clouds.pop(machine, None)
            else:
                self._clouds[machine] = cloud

    # --- operations -------------------------------------------------------------------------------------------

    def _fabric(self, _: of_host.Nothing) -> VmmFabric:
        groups = sorted({host.group for host in self.estate.hosts.values()} | {"All Hosts"})
        return VmmFabric(
            server=self.name,
            version=VERSION,
            clouds=[self._cloud(name, setup) for name, setup in self.estate.clouds.items()],
            host_groups=[HostGroup(id=_id(group), name=group.rsplit("\\", 1)[-1], path=group) for group in groups],
            hosts=[self._host(name, setup) for name, setup in self.estate.hosts.items()],
            logical_networks=[LogicalNetwork(id=_id(name), name=name) for name in self.estate.logical_networks],
            vm_networks=[
                VmNetwork(id=_id(name), name=name, logical_network=setup.logical_network)
                for name, setup in self.estate.vm_networks.items()
            ],
        )

    def _machines(self, given: MachinesRequest) -> ManagedMachines:
        self._let_the_refresher_run()
        wanted = None if given.names is None else {name.casefold() for name in given.names}
        return ManagedMachines(
            machines=[
                self._machine(host, vm)
                for host, vms in self._database.items()
                for vm in vms
                if wanted is None or vm.name.casefold() in wanted
            ]
        )

    def _connect(self, given: ConnectMachine) -> Connected:
        if given.host not in self._hosts:
            raise Refused(failure(f"VMM cannot find host {given.host}.", category="ObjectNotFound"))
        self.refresh(given.host)
        vm = next((vm for vm in self._database[given.host] if vm.id == given.vm_id), None)
        if vm is None:
            return Connected(found=False)
        name = next((name for name in self.estate.vm_networks if _id(name) == given.vm_network_id), None)
        cloud = next((name for name in self.estate.clouds if _id(name) == given.cloud_id), None)
        if name is None or (given.cloud_id is not None and cloud is None):
            raise Refused(failure("VMM cannot find the specified object.", category="ObjectNotFound"))
        network = self.estate.vm_networks[name]
        if network.logical_network not in self.estate.hosts[given.host].logical_networks:
            what = f"Logical network {network.logical_network} is not available on host {given.host}."
            raise Refused(failure(what, category="InvalidOperation"))
        switch = given.switch or network.switch
        self._ask(given.host, of_host.CONNECT_NETWORK, of_host.ConnectNetwork(vm_id=vm.id, switch=switch))
        self._networks[vm.id] = name
        if cloud is not None:
            self._clouds[vm.name] = cloud
        self.refresh(given.host)
        return Connected(found=True)

    # --- the database -----------------------------------------------------------------------------------------

    def _let_the_refresher_run(self) -> None:
        if not self.refreshes:
            return
        for host in self._hosts:
            if self.estate.hosts[host].responding:
                self.refresh(host)

    def _ask(self, host: str, operation: Operation[Input, Output], given: Input) -> Output:
        request = Request(host, f"{self.name}$", operation.script, given.model_dump(mode="json"))
        result = self._hosts[host](request)
        if isinstance(result, Failure):
            raise Refused(result)
        return operation.gives.model_validate(result)

    def _cloud(self, name: str, setup: CloudSetup) -> Cloud:
        return Cloud(
            id=_id(name),
            name=name,
            capability_profiles=[
                CapabilityProfile(name=profile, fabric=HYPER_V if profile == "Hyper-V" else "ESX")
                for profile in setup.capability_profiles
            ],
            host_groups=setup.groups,
            logical_networks=setup.logical_networks,
        )

    def _host(self, name: str, setup: HostSetup) -> ManagedHost:
        facts = self._ask(name, of_host.CHECK_HOST, of_host.Nothing()) if setup.responding else None
        return ManagedHost(
            id=_id(name),
            name=name,
            computer_name=name.partition(".")[0],
            host_group=setup.group,
            cluster=facts.cluster if facts else "",
            platform=setup.platform,
            state=setup.state,
            responding=setup.responding,
            maintenance=setup.maintenance,
            available_for_placement=setup.available_for_placement,
            available_memory=setup.available_memory,
            available_storage=_free(facts) if facts else 0,
            logical_networks=setup.logical_networks,
        )

    def _machine(self, host: str, vm: VirtualMachine) -> ManagedMachine:
        role = ROLES[vm.replication.mode] if vm.replication is not None else Role.NONE
        services = {service.component: service.enabled for service in vm.integration_services}
        status = "PowerOff" if vm.state is VmState.OFF else vm.state.value
        return ManagedMachine(
            id=_id(f"{host}/{vm.id}"),
            vm_id=vm.id,
            name=vm.name,
            host=host,
            cloud=self._clouds.get(vm.name, ""),
            status=status if self.estate.hosts[host].responding else MISSING,
            generation=vm.generation,
            is_primary=role is Role.SOURCE,
            is_replica=role is Role.TARGET,
            highly_available=vm.clustered,
            heartbeat=services.get(HEARTBEAT, True),
            shutdown=services.get(SHUTDOWN, True),
            backup=services.get(VSS, True),
            disks=[_drive(disk) for disk in vm.disks],
            adapters=[self._adapter(vm, adapter) for adapter in vm.network_adapters],
        )

    def _adapter(self, vm: VirtualMachine, adapter: NetworkAdapter) -> Adapter:
        recorded = self._networks.get(vm.id)
        carried = [name for name, network in self.estate.vm_networks.items() if network.switch == adapter.switch]
        name = recorded if recorded in carried else next(iter(carried), "")
        logical = self.estate.vm_networks[name].logical_network if name else ""
        return Adapter(
            id=adapter.id,
            name=adapter.name,
            vm_network=name,
            logical_network=logical,
            switch=adapter.switch,
            addresses=adapter.addresses,
        )


def _drive(disk: VirtualDisk) -> DiskDrive:
    return DiskDrive(
        path="" if disk.pass_through else disk.path,
        size=disk.size,
        file_size=disk.file_size,
        kind=KINDS.get(disk.kind, disk.kind),
        format=disk.format,
        controller=disk.controller,
        pass_through=disk.pass_through,
    )


def _free(facts: HostFacts) -> int:
    return sum(volume.free for volume in facts.volumes)


def _id(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, name))
