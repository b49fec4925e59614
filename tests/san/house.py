"""Two lab sites with an array each: real guests on mirrored volumes, and the provider between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from adapters.lab.hypervisor import LabHypervisor
from adapters.lab.labctl import kill_all
from adapters.registry import Adapters
from adapters.san.provider import ArrayProvider
from adapters.smis.array import SmisArray
from simulation.arrays.cim_server import CimServer
from simulation.arrays.swordfish import SwordfishServer
from tests.san.pairs import MIB, POOL, ArrayPair, arrays
from vault.domain import Answering, Progress, Relationship
from vault.inventory import Inventory
from vault.san import StorageMapping

EAST, WEST = "primary", "recovery"
BOOT_S = 20.0


class House(NamedTuple):
    pair: ArrayPair
    servers: dict[str, CimServer] | dict[str, SwordfishServer]
    inventory: Inventory
    adapters: Adapters
    lab_root: Path

    @property
    def provider(self) -> ArrayProvider:
        found = self.adapters.provider(self.relationship("db"))
        assert isinstance(found, ArrayProvider)
        return found

    def relationship(self, machine: str) -> Relationship:
        return self.inventory.relationship(machine)

    def back(self, machine: str) -> Relationship:
        return self.relationship(machine).reversed("production", "isolated")

    def site(self, name: str) -> LabHypervisor:
        found = self.adapters.hypervisor(name)
        assert isinstance(found, LabHypervisor)
        return found

    def array(self, name: str, *, job_patience_s: float = 300) -> SmisArray:
        storage = self.inventory.sites[name].storage
        assert storage is not None
        return SmisArray(storage, job_patience_s=job_patience_s)

    def mapping(self, *mappings: tuple[str, str]) -> House:
        """The same house, with storage mappings in its inventory."""
        described = mapped(self.inventory, *mappings)
        return self._replace(inventory=described, adapters=Adapters(described, self.lab_root.parent))

    def define(self, *machines: str) -> None:
        for machine in machines:
            self.site(EAST).define(machine)

    def start(self, site: str, machine: str) -> Answering:
        self.site(site).start(machine)
        return self.site(site).wait_until_answering(machine, BOOT_S, silent)

    def shut_down(self, site: str, machine: str) -> None:
        self.site(site).shut_down(machine, BOOT_S, silent)

    def protect(self, *machines: str) -> None:
        for machine in machines:
            relationship = self.relationship(machine)
            self.provider.enable(relationship)
            self.provider.copy_initial(relationship, quiet)
            self.provider.finalize(relationship)


def silent(_: str) -> None:
    return


def quiet(_: Progress) -> None:
    return


def mapped(inventory: Inventory, *mappings: tuple[str, str]) -> Inventory:
    """With storage mappings from pools of the primary site to pools of the recovery site."""
    found = [StorageMapping(source=f"{EAST}/{source}", target=f"{WEST}/{target}") for source, target in mappings]
    return inventory.model_copy(update={"storage_mappings": found})


def inventory(
    sites: dict[str, dict[str, object]], machines: dict[str, Sequence[str]], group: str, mode: str = "synchronous"
) -> Inventory:
    """``machines``: by name, the disks of each; volume ``<machine>-<disk>`` is its disk."""
    networks = {"production": {"kind": "production"}, "isolated": {"kind": "isolated"}}
    return Inventory.model_validate(
        {
            "version": 1,
            "sites": {
                name: {"fabric": "lab", "networks": networks, "storage": storage} for name, storage in sites.items()
            },
            "policies": {"mirrored": {"frequency": "1s"}},
            "network_mappings": [
                {
                    "source": f"{EAST}/production",
                    "target": f"{WEST}/production",
                    "test": f"{WEST}/isolated",
                    "source_test": f"{EAST}/isolated",
                }
            ],
            "machines": {
                name: {
                    "site": EAST,
                    "target": WEST,
                    "network": "production",
                    "policy": "mirrored",
                    "lab": {
                        "disks": [{"name": disk, "size": "1MiB"} for disk in disks],
                        "transactions_per_second": 200,
                        "transaction_size": "512B",
                    },
                    "san": {"group": group, "mode": mode, "volumes": {disk: f"{name}-{disk}" for disk in disks}},
                }
                for name, disks in machines.items()
            },
        }
    )


DEFAULT: dict[str, Sequence[str]] = {"db": ("log", "data"), "web": ("system",)}


@contextmanager
def house(
    folder: Path,
    machines: dict[str, Sequence[str]] | None = None,
    *,
    mode: str = "synchronous",
    has_groups: bool = True,
    mirrors_asynchronously: bool = True,
    **storage: object,
) -> Iterator[House]:
    folder.mkdir(exist_ok=True)
    password = folder / "password"
    password.write_text("secret\n")
    wanted = machines or DEFAULT
    with (
        arrays(folder / "arrays", has_groups=has_groups, mirrors_asynchronously=mirrors_asynchronously) as pair,
        CimServer(pair.east, folder / "east", user="leeward", password="secret") as east,
        CimServer(pair.west, folder / "west", user="leeward", password="secret") as west,
    ):
        servers = {EAST: east, WEST: west}
        for name, disks in wanted.items():
            for disk in disks:
                volume = pair.east.create_volume(f"{name}-{disk}", POOL, MIB)
                pair.east.expose([volume.id], f"{EAST}-host")
        described = inventory(
            {
                site: {
                    "kind": "smis",
                    "url": server.url,
                    "user": "leeward",
                    "password": f"file:{password}",
                    "ca": str(server.certificate.certificate),
                    "array": server.array.name,
                    "pool": f"{server.array.name}:{POOL}",
                    "initiators": [f"{site}-host"],
                    "portal": f"127.0.0.1:{server.array.data.port}",
                    **storage,
                }
                for site, server in servers.items()
            },
            wanted,
            "payments",
            mode,
        )
        try:
            yield House(pair, servers, described, Adapters(described, folder), folder / "lab")
        finally:
            kill_all(folder / "lab")
