"""The hosts of a simulated fabric: one state for all of them, and what their administrators do with them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from adapters.hyperv.facts import IntegrationService, VirtualDisk
from adapters.hyperv.states import ReplicationHealth, ReplicationMode, ReplicationState, RoleState, VmState
from simulation.hyperv import refusal
from simulation.hyperv.ground import Ground
from simulation.hyperv.state import FabricState, Host, Replication, Vm, new_id
from simulation.hyperv.transfers import Transfers
from vault import secrets
from vault.errors import NotFound
from vault.inventory import Inventory, Site

SERVICES = {
    "Heartbeat": "84EAAE65-2F2E-45F5-9BB5-0E857DC8EB47",
    "Shutdown": "9F8233AC-BE49-4C79-8EE3-E7E1985B2077",
    "VSS": "5CED1297-4598-4915-A5FC-AD21BB4D02A4",
    "Key-Value Pair Exchange": "2A34B1C2-FD73-4043-8A5B-DD2159BC743F",
}
FOLDER = "D:\\Hyper-V"
LONG_S = 30 * 86400.0
Handler = Callable[["Here", Any], BaseModel]
"""What a host does when an operation is run on it."""


class Here(NamedTuple):
    """One operation on one host."""

    fabric: Fabric
    host: Host
    script: str
    reboots: int
    """Of the host when the operation began."""

    @property
    def cmdlet(self) -> str:
        """For error records: ``start_failover`` is ``StartFailover``."""
        return self.script.title().replace("_", "")

    def interrupt(self, *_: object) -> None:
        """Called by what takes long. Raises when the host went down meanwhile."""
        if self.host.reboots != self.reboots or self.fabric.ground.is_dead(self.host.site):
            raise refusal.aborted(self.cmdlet)

    def vm(self, vm_id: str) -> Vm:
        """Raises ``Refusal``: it is not on this host."""
        if vm_id not in self.host.vms:
            raise refusal.missing(vm_id)
        return self.host.vms[vm_id]


class Fabric:
    """All hosts of the Hyper-V sites of an inventory. Thread-safe; survives its process in ``root/hyperv``.

    Args:
        root: the lab's disks are in ``root/lab``.
        inventory: hosts, sites, and what its machines are made of (``lab``).
        time_scale: below 1 shortens replication cycles and the hours between recovery points.
    """

    def __init__(self, root: Path, inventory: Inventory, *, time_scale: float = 1.0) -> None:
        self.inventory = inventory
        self.ground = Ground(root, inventory)
        self.time_scale = time_scale
        self.lock = threading.RLock()
        self._root = root
        self._path = root / "hyperv" / "fabric.json"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self.state = FabricState.load(self._path) or FabricState()
        for name, site in inventory.sites.items():
            if site.hyperv is not None:
                self._add_hosts(name, site)
        self.transfers = Transfers(self)

    def _add_hosts(self, name: str, site: Site) -> None:
        assert site.hyperv is not None
        # Hosts that VMM manages stand alone, so that it has a choice where to place a replica.
        clustered = len(site.hyperv.hosts) > 1 and site.vmm is None
        for host in host_names(name, site):
            self.state.hosts.setdefault(
                host,
                Host(
                    name=host,
                    site=name,
                    cluster=f"{name}-cluster" if clustered else "",
                    broker=f"{name}-broker" if clustered else "",
                    port=site.hyperv.replica.listens_on,
                    authentication=site.hyperv.replica.authentication.capitalize(),
                ),
            )

    @contextmanager
    def changing(self) -> Iterator[None]:
        """The state is changed inside, by nobody else, and durable afterwards."""
        with self.lock:
            yield
            self.state.save(self._path)

    # --- looking ----------------------------------------------------------------------------------------------

    def power(self, host: Host, vm: Vm) -> VmState:
        return self.ground.power(host.site, vm.machine)

    def known_as(self, server: str) -> list[Host]:
        """The hosts that a server's name leads to: itself, or the nodes behind a cluster's broker."""
        name = server.partition(".")[0].casefold()
        return [host for host in self.state.hosts.values() if name in (host.name.casefold(), host.broker.casefold())]

    def other_end(self, vm: Vm, mode: ReplicationMode) -> tuple[Host, Vm] | None:
        """The end of the machine's relationship that is ``mode``, on the servers that ``vm`` knows as its other end."""
        if vm.replication is None:
            return None
        of_primary = mode is ReplicationMode.PRIMARY
        server = vm.replication.primary_server if of_primary else vm.replication.replica_server
        for host in self.known_as(server):
            found = host.vms.get(vm.id)
            if found is not None and found is not vm and found.mode is mode:
                return host, found
        return None

    def uptime_s(self, host: Host) -> float:
        """Of the fabric's own time."""
        if host.is_down:
            return 0.0
        if host.up_since is None:
            return LONG_S
        return (datetime.now(UTC) - host.up_since).total_seconds() / self.time_scale

    def switches(self, host: Host) -> dict[str, str]:
        """The host's virtual switches, and the network that each is: one of its site, or a private one of its own."""
        networks = self.inventory.sites[host.site].networks
        own = {switch: f"{switch} on {host.name}" for switch in host.private_switches}
        return {network.switch or name: name for name, network in networks.items()} | own

    @property
    def media(self) -> Path:
        """By drive letter, the media that are in the hosts."""
        return self._root / "hyperv" / "media"

    def disk_folder(self, site: str) -> Path:
        return disk_folder(self._root, site)

    def guest_login(self, vm: Vm) -> tuple[str, str] | None:
        """The account that the machine's guest knows: what the inventory says of the machine it is (a copy of)."""
        for name, machine in self.inventory.machines.items():
            settings = machine.hyperv
            if vm.machine in (name, f"{name}-test") and settings and settings.guest_user and settings.guest_password:
                return settings.guest_user, secrets.resolve(settings.guest_password)
        return None

    # --- what an administrator does ---------------------------------------------------------------------------

    def start_all(self) -> list[str]:
        """Make and start every machine of the inventory that no host has yet; ``site/machine`` of all that run."""
        for name, machine in self.inventory.machines.items():
            if self.inventory.sites[machine.site].hyperv is None or self._is_somewhere(name):
                continue
            host = next(host for host in self.state.hosts.values() if host.site == machine.site)
            self.ground.define(host.site, name)
            vm = self.new_vm(name, machine.hyperv.name or name if machine.hyperv else name)
            switches = {network: switch for switch, network in self.switches(host).items()}
            vm.switch = switches[machine.network]
            vm.role = RoleState.ONLINE if host.cluster else RoleState.OFFLINE
            with self.changing():
                host.vms[vm.id] = vm
            self.ground.start(host.site, name)
        hosts = self.state.hosts.values()
        return [
            f"{host.site}/{vm.machine}"
            for host in hosts
            for vm in host.vms.values()
            if self.power(host, vm) is VmState.RUNNING
        ]

    def _is_somewhere(self, machine: str) -> bool:
        return any(vm.machine == machine for host in self.state.hosts.values() for vm in host.vms.values())

    def new_vm(self, machine: str, name: str, vm_id: str | None = None) -> Vm:
        settings = self.inventory.machines[machine].lab if machine in self.inventory.machines else None
        disks = [
            VirtualDisk(
                path=f"{FOLDER}\\{name}\\{disk.name}.vhdx",
                size=disk.size,
                kind="Dynamic",
                format="VHDX",
                controller=f"SCSI 0:{number}",
            )
            for number, disk in enumerate(settings.disks if settings else [])
        ]
        services = [
            IntegrationService(name=service, component=component, enabled=True, ok=True)
            for service, component in SERVICES.items()
        ]
        return Vm(id=vm_id or new_id(), name=name, machine=machine, disks=disks, services=services)

    def vm_named(self, host: str, name: str) -> Vm:
        """Raises ``NotFound``."""
        for vm in self.state.hosts[host].vms.values():
            if vm.name == name:
                return vm
        raise NotFound(f"there is no '{name}'", where=host)

    def restore(self, name: str, source: str, target: str, *, with_new_id: bool = False) -> Vm:
        """A copy of a machine that is off, from its host to another site's: its disks as they are now, connected to
        nothing. ``with_new_id``: as ``Import-VM -GenerateNewId``."""
        here, there = self.state.hosts[source], self.state.hosts[target]
        vm = self.vm_named(source, name)
        self.ground.copy(here.site, there.site, vm.machine)
        copy = self.new_vm(vm.machine, vm.name, None if with_new_id else vm.id)
        with self.changing():
            there.vms[copy.id] = copy
        return copy

    def rename(self, host: str, name: str, new_name: str) -> None:
        with self.changing():
            self.vm_named(host, name).name = new_name

    def move(self, name: str, source: str, target: str) -> None:
        """Live migration between two nodes of a cluster: the disks stay, the machine runs on."""
        with self.changing():
            vm = self.vm_named(source, name)
            del self.state.hosts[source].vms[vm.id]
            self.state.hosts[target].vms[vm.id] = vm

    def go_down(self, name: str) -> None:
        """The host loses power: its guests end, and what runs on it is not finished. What their disks were written to
        just before is not known for certain: "a virtual machine requires resynchronization if the primary server shuts
        down abruptly" (reference of Enable-VMReplication, ``-AutoResynchronizeEnabled``)."""
        host = self.state.hosts[name]
        with self.changing():
            host.reboots += 1
            host.is_down = True
            for vm in host.vms.values():
                vm.starts_with_host = self.power(host, vm) is VmState.RUNNING
                self.ground.turn_off(host.site, vm.machine)
                if vm.starts_with_host and vm.mode is ReplicationMode.PRIMARY and vm.replication is not None:
                    self._needs_comparison(vm.replication)

    def _needs_comparison(self, end: Replication) -> None:
        if end.state is ReplicationState.REPLICATING:
            end.state, end.health = ReplicationState.WAITING_FOR_START_RESYNCHRONIZE, ReplicationHealth.CRITICAL
            end.details = ["the host was shut down unexpectedly"]

    def come_up(self, name: str) -> None:
        """The host is back, and starts what ran before; in a cluster, what is online there."""
        host = self.state.hosts[name]
        with self.changing():
            host.is_down, host.up_since = False, datetime.now(UTC)
        for vm in list(host.vms.values()):
            if vm.starts_with_host:
                if not host.cluster or vm.role is not RoleState.OFFLINE:
                    self.ground.start(host.site, vm.machine)
                with self.changing():
                    vm.starts_with_host = False

    def close(self) -> None:
        """Stop replicating. Guests run on."""
        self.transfers.close()


def disk_folder(root: Path, site: str) -> Path:
    """What the hosts of a site call :data:`FOLDER`, for those that read virtual disks near them."""
    return root / "hyperv" / "disks" / site


def host_names(site_name: str, site: Site) -> list[str]:
    """What the hosts of a site are called, in the order of the inventory."""
    assert site.hyperv is not None
    return [f"{site_name}-hv{number}" for number in range(1, len(site.hyperv.hosts) + 1)]
