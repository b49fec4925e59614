"""What simulated hosts stand on: lab sites, whose disks, guests and replication are real."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from adapters.hyperv.guests import ADDRESS, TRANSACTIONS
from adapters.hyperv.states import VmState
from adapters.lab import guest_client
from adapters.lab.definition import MachineDefinition
from adapters.lab.documents import locked_file
from adapters.lab.faults import Fault, SiteFaults, link_guard
from adapters.lab.guest_state import RUNNING
from adapters.lab.hypervisor import LabHypervisor, transactions
from adapters.lab.layout import LabLayout, MachineFolder
from adapters.lab.maps import LabBlockMapDevice
from adapters.lab.space import allocated_bytes
from adapters.ports import Beat, ReplicationProvider, ScriptResult
from adapters.registry import Adapters
from vault.domain import NetworkKind, Relationship, Retention
from vault.errors import Unreachable
from vault.inventory import Inventory

SHUTS_DOWN_WITHIN_S = 60.0
EVERYTHING = Retention(count=2880, hours=24 * 366)
"""The simulated host decides which recovery points there are; the lab's replica keeps all that may be asked for."""


def as_lab(inventory: Inventory) -> Inventory:
    """The same sites and machines with the lab as their fabric."""
    lab = {"fabric": "lab", "hyperv": None, "vmm": None, "credentials": None}
    sites = {name: site.model_copy(update=lab) for name, site in inventory.sites.items()}
    return inventory.model_copy(update={"sites": sites})


class Ground:
    """All lab sites of a fabric. Thread-safe."""

    def __init__(self, root: Path, inventory: Inventory) -> None:
        self.inventory = as_lab(inventory)
        self.lab_root = root / "lab"
        self._layout = LabLayout(self.lab_root)
        self._adapters = Adapters(self.inventory, root)
        self._hypervisors = {site: LabHypervisor(self.lab_root, site, self.inventory) for site in inventory.sites}
        self._faults = {site: SiteFaults(self.lab_root, site) for site in inventory.sites}

    # --- sites ------------------------------------------------------------------------------------------------

    def is_dead(self, site: str) -> bool:
        return Fault.HOST_DEAD in self._faults[site].active()

    def is_connected(self, site: str, other: str) -> bool:
        """Whether something gets from one site to the other now."""
        try:
            link_guard(self.lab_root, site, other)(0)
        except Unreachable:
            return False
        return True

    def free_bytes(self, site: str) -> int:
        return self._hypervisors[site].free_space()

    # --- machines ---------------------------------------------------------------------------------------------

    def _folder(self, site: str, machine: str) -> MachineFolder:
        return self._layout.site(site).machine(machine)

    def has(self, site: str, machine: str) -> bool:
        return self._folder(site, machine).definition.exists()

    def define(self, site: str, machine: str) -> None:
        self._hypervisors[site].define(machine)

    def copy(self, source_site: str, target_site: str, machine: str) -> None:
        """A second machine with the same disks, on an isolated network. The first is off, so that they hold still."""
        source, target = self._folder(source_site, machine), self._folder(target_site, machine)
        definition = MachineDefinition.load(source)
        target.path.mkdir(parents=True)
        for disk in definition.disks:
            shutil.copyfile(source.image(disk.name), target.image(disk.name))
        network = self.isolated(target_site)
        kind = self.inventory.sites[target_site].networks[network].kind
        replace(definition, site=target_site, network=network, network_kind=kind).save(target)

    def power(self, site: str, machine: str) -> VmState:
        return VmState.RUNNING if guest_client.running_guest(self._folder(site, machine)) else VmState.OFF

    def used_bytes(self, site: str, machine: str) -> int:
        folder = self._folder(site, machine)
        return allocated_bytes(folder.path) if folder.path.exists() else 0

    def log_bytes(self, site: str, machine: str) -> int:
        """What was written to the machine's disks and not replicated yet; a log that is sent meanwhile is."""
        return sum(_allocated(path) for path in self._folder(site, machine).path.glob("*.hrl"))

    def start(self, site: str, machine: str) -> None:
        self._hypervisors[site].start(machine)

    def shut_down(self, site: str, machine: str, beat: Beat) -> None:
        self._hypervisors[site].shut_down(machine, SHUTS_DOWN_WITHIN_S, beat)

    def turn_off(self, site: str, machine: str) -> None:
        guest_client.kill(self._folder(site, machine))

    def remove(self, site: str, machine: str) -> None:
        self._hypervisors[site].remove(machine)

    def connect(self, site: str, machine: str, network: str) -> None:
        """Put a machine that is off into another network; one that the site does not name is isolated."""
        folder = self._folder(site, machine)
        with locked_file(folder.power_lock):
            known = self.inventory.sites[site].networks.get(network)
            kind = known.kind if known else NetworkKind.ISOLATED
            replace(MachineDefinition.load(folder), network=network, network_kind=kind).save(folder)

    def isolated(self, site: str) -> str:
        """A network of the site for machines that are connected to no switch."""
        networks = self.inventory.sites[site].networks
        return next(name for name, network in networks.items() if network.kind is NetworkKind.ISOLATED)

    def block_maps(self, site: str, machine: str) -> LabBlockMapDevice:
        """Which blocks of the machine's disks were written, and snapshots of them."""
        return LabBlockMapDevice(self._folder(site, machine))

    # --- guests -----------------------------------------------------------------------------------------------

    def published(self, site: str, machine: str) -> dict[str, str]:
        """What the guest offers to its host by data exchange; empty until it is up."""
        guest = guest_client.running_guest(self._folder(site, machine))
        if guest is None or guest.state != RUNNING:
            return {}
        try:
            answer = guest_client.call(guest, "GET", "/transactions")
        except Unreachable:
            return {}
        return {ADDRESS: guest.address, TRANSACTIONS: transactions(answer).model_dump_json()}

    def run_in_guest(
        self, site: str, machine: str, command: list[str], environment: dict[str, str], timeout_s: float, beat: Beat
    ) -> ScriptResult:
        return self._hypervisors[site].run_in_guest(machine, command, environment, timeout_s, beat)

    # --- replication ------------------------------------------------------------------------------------------

    def relationship(self, machine: str, source_site: str, target_site: str) -> Relationship:
        """Recovered machines come up on the isolated network, until their host connects them."""
        isolated = self.isolated(target_site)
        return Relationship(
            machine=machine,
            source_site=source_site,
            target_site=target_site,
            target_network=isolated,
            test_network=isolated,
            frequency_s=1,
            retention=EVERYTHING,
        )

    def engine(self, relationship: Relationship) -> ReplicationProvider:
        """What really moves the bytes."""
        return self._adapters.provider(relationship)


def _allocated(path: Path) -> int:
    """0 for a file that is gone."""
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


Interrupt = Callable[[], None]
"""Called often by whatever takes long; raises when the host it runs on went down."""
