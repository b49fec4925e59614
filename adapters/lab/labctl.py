"""What the ``lab`` command does, without printing."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from adapters.lab import guest_client
from adapters.lab.definition import MachineDefinition
from adapters.lab.faults import Fault, SiteFaults
from adapters.lab.guest_state import BOOTING, RUNNING
from adapters.lab.hypervisor import LabHypervisor, transactions
from adapters.lab.layout import LabLayout, MachineFolder
from adapters.lab.network import PRODUCTION
from adapters.lab.space import allocated_bytes
from adapters.ports import Beat
from vault.domain import GuestTransactions, PowerState
from vault.errors import InvalidState, Unreachable
from vault.inventory import Inventory

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0


class MachineStatus(NamedTuple):
    """One machine at one site. ``transactions`` and ``rate`` (per second) are None unless its guest answers."""

    site: str
    machine: str
    identity: str
    power: PowerState
    network: str
    address: str | None
    transactions: GuestTransactions | None
    rate: float | None
    log_bytes: int
    disk_bytes: int


def _ignore(_: str) -> None:
    return


def up(inventory: Inventory, lab_root: Path, beat: Beat = _ignore) -> list[str]:
    """Bring every machine of the lab to life, once, where it belongs; return the ``site/machine`` that answer.

    A machine that nobody made yet is made and started at its home site. One that was failed over is started where it
    was last active, so that never two copies run."""
    started = []
    for name, described in inventory.machines.items():
        if inventory.sites[described.site].fabric != "lab":
            continue
        site = _active_site(inventory, lab_root, name)
        hypervisor = LabHypervisor(lab_root, site, inventory)
        copy = _production_copies(lab_root, name).get(site)
        if copy is None:
            hypervisor.define(name)
        machine = copy.name if copy else name
        hypervisor.start(machine)
        hypervisor.wait_until_answering(machine, START_TIMEOUT_S, beat)
        started.append(f"{site}/{machine}")
    return started


def host_returns(inventory: Inventory, lab_root: Path, site: str) -> list[str]:
    """A dead host is back, and starts by itself what ran when it died, as hosts do; return those machines.

    It asks nobody: so comes an old copy back beside the machine that was recovered in its place."""
    SiteFaults(lab_root, site).clear(Fault.HOST_DEAD)
    hypervisor, started = LabHypervisor(lab_root, site, inventory), []
    for folder in LabLayout(lab_root).site(site).registered():
        last = guest_client.last_state(folder)
        if last and last.state in {BOOTING, RUNNING} and not last.alive():
            hypervisor.start(folder.name)
            started.append(folder.name)
    return started


def _production_copies(lab_root: Path, identity: str) -> dict[str, MachineFolder]:
    """Per site the registered copy of a protected machine that is connected to a production network."""
    found = {}
    for site in LabLayout(lab_root).sites():
        for folder in site.registered():
            definition = MachineDefinition.load(folder)
            if definition.identity == identity and definition.network_kind == PRODUCTION:
                found[site.name] = folder
    return found


def _active_site(inventory: Inventory, lab_root: Path, identity: str) -> str:
    """Where the machine runs, else where it last booted on a production network, else where it is, else its home."""
    home = inventory.machines[identity].site
    copies = _production_copies(lab_root, identity)

    def activity(site: str) -> tuple[bool, int, bool]:
        last = guest_client.last_state(copies[site])
        booted = last.booted_at_ns if last and last.in_production else 0
        return bool(last and last.alive()), booted, site == home

    return max(copies, key=activity, default=home)


def status(lab_root: Path) -> list[MachineStatus]:
    """Every machine of the lab, by site and name. It looks past faults: it is the lab's own view."""
    return [_status(site.name, folder) for site in LabLayout(lab_root).sites() for folder in site.registered()]


def _status(site: str, folder: MachineFolder) -> MachineStatus:
    definition = MachineDefinition.load(folder)
    guest = guest_client.running_guest(folder)
    held, rate = None, None
    if guest and guest.state == RUNNING:
        try:
            answer = guest_client.call(guest, "GET", "/transactions")
            held, rate = transactions(answer), float(answer["rate"])
        except (Unreachable, InvalidState):
            held, rate = None, None  # shown as a running machine that does not answer
    total = allocated_bytes(folder.path)
    logs = sum(path.stat().st_blocks * 512 for path in folder.path.glob("*.hrl"))
    return MachineStatus(
        site=site,
        machine=folder.name,
        identity=definition.identity,
        power=PowerState.RUNNING if guest else PowerState.OFF,
        network=definition.network,
        address=guest.address or None if guest else None,
        transactions=held,
        rate=rate,
        log_bytes=logs,
        disk_bytes=total - logs,
    )


def down(inventory: Inventory, lab_root: Path, beat: Beat = _ignore) -> list[str]:
    """Shut every guest of the lab down gracefully; return the ``site/machine`` that ran."""
    stopped = []
    for row in status(lab_root):
        if row.power is PowerState.RUNNING:
            LabHypervisor(lab_root, row.site, inventory).shut_down(row.machine, STOP_TIMEOUT_S, beat)
            stopped.append(f"{row.site}/{row.machine}")
    return stopped


def kill_all(lab_root: Path) -> None:
    """SIGKILL every guest of the lab, whatever its site."""
    for site in LabLayout(lab_root).sites():
        for folder in site.registered():
            guest_client.kill(folder)
