"""A small lab for tests: two sites, machines of a few MiB, and no guest left behind."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adapters.lab import labctl
from adapters.lab.hypervisor import LabHypervisor
from adapters.lab.layout import LabLayout, MachineFolder
from adapters.lab.network import overlaps
from vault.inventory import Inventory

HOME, AWAY = "primary", "secondary"


def lab_machine(
    *,
    rate: float = 50,
    transaction_size: str = "4096B",
    disks: dict[str, str] | None = None,
    tracking: str = "log",
) -> dict[str, Any]:
    """The ``lab`` section of a machine; ``disks`` are names and sizes, the first one commits."""
    sizes = disks or {"system": "2MiB", "data": "16MiB"}
    return {
        "disks": [{"name": name, "size": size} for name, size in sizes.items()],
        "transactions_per_second": rate,
        "transaction_size": transaction_size,
        "tracking": tracking,
    }


def make_inventory(machines: dict[str, dict[str, Any]] | None = None, **site_settings: dict[str, Any]) -> Inventory:
    """Machines at ``primary``, protected to ``secondary``; ``primary={"capacity": "1MiB"}`` adds to a site."""
    networks = {"production": {}, "isolated": {"kind": "isolated"}}
    described = {"db": lab_machine()} if machines is None else machines
    return Inventory.model_validate(
        {
            "version": 1,
            "sites": {
                site: {"fabric": "lab", "networks": networks, **site_settings.get(site, {})} for site in (HOME, AWAY)
            },
            "policies": {"often": {"frequency": "1s"}},
            "network_mappings": [
                {
                    "source": f"{HOME}/production",
                    "target": f"{AWAY}/production",
                    "test": f"{AWAY}/isolated",
                    "source_test": f"{HOME}/isolated",
                }
            ],
            "machines": {
                name: {"site": HOME, "target": AWAY, "network": "production", "policy": "often", "lab": lab}
                for name, lab in described.items()
            },
        }
    )


class Lab:
    """A lab in a folder, and short ways to its parts."""

    def __init__(self, root: Path, inventory: Inventory) -> None:
        self.root = root
        self.inventory = inventory
        self.layout = LabLayout(root)

    def site(self, name: str = HOME) -> LabHypervisor:
        return LabHypervisor(self.root, name, self.inventory)

    def folder(self, machine: str = "db", site: str = HOME) -> MachineFolder:
        return self.layout.site(site).machine(machine)

    def up(self) -> list[str]:
        return labctl.up(self.inventory, self.root)

    def wait_for_transactions(self, last: int, machine: str = "db", site: str = HOME) -> None:
        """Until the running guest holds transaction ``last``."""
        deadline = time.monotonic() + 60
        while True:
            held = self.site(site).wait_until_answering(machine, 60, no_beat).transactions
            assert held is not None
            if held.last >= last:
                return
            assert time.monotonic() < deadline, f"{machine} holds {held.last} transactions after 60 s, not {last}"
            time.sleep(0.02)

    def wait_for_a_further_transaction(self, machine: str = "db", site: str = HOME) -> None:
        """So that the next recovery point has changes."""
        held = self.site(site).wait_until_answering(machine, 60, no_beat).transactions
        assert held is not None
        self.wait_for_transactions(held.last + 1, machine, site)


@contextmanager
def running_lab(root: Path, inventory: Inventory | None = None, *, overlaps_expected: bool = False) -> Iterator[Lab]:
    """Nothing runs yet; afterwards every guest is killed, and no two copies of a machine ever ran in production."""
    lab = Lab(root, inventory or make_inventory())
    try:
        yield lab
        if not overlaps_expected:
            no_overlaps(root)
    finally:
        labctl.kill_all(root)


def no_overlaps(lab_root: Path) -> None:
    found = overlaps(lab_root)
    assert not found, f"two copies of a machine ran on production networks: {found}"


def no_beat(_: str) -> None:
    """For calls that wait and need not be ended early."""


def no_report(_: object) -> None:
    """For transfers nobody watches."""


def counted_on() -> Callable[[object], Awaitable[None]]:
    """For activities that no Temporal runs: it would count on each try."""

    async def ask(_: object) -> None:
        return

    return ask
