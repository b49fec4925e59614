"""A simulated Hyper-V fabric for tests: small machines with real guests, reached through WinRM by the real provider."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from adapters.hyperv.hypervisor import HyperVHypervisor
from adapters.hyperv.provider import HyperVReplicaProvider
from adapters.hyperv.states import RoleState
from adapters.lab import labctl
from adapters.lab.faults import Fault, SiteFaults
from adapters.lab.layout import LabLayout
from adapters.lab.ledger import last_acknowledged
from adapters.registry import Adapters
from simulation.free_ports import free_ports
from simulation.hyperv.hosts import Hosts, certificate_path
from simulation.hyperv.state import Vm
from vault.domain import Answering, GuestTransactions, Progress, Relationship
from vault.inventory import Inventory
from vault.loading import load_inventory

USER, PASSWORD, GUEST_PASSWORD = "LAB\\operator", "corr3ct-horse-battery", "gu3st-staple-lamp"
HOST, OTHER_HOST, FAR_HOST = "east-hv1", "east-hv2", "west-hv1"
TIME_SCALE = 0.01
"""A cycle of 30 s takes 0.3 s, an hour 36 s."""


def quiet(_: Progress | str) -> None:
    pass


def held(answering: Answering) -> GuestTransactions:
    assert answering.transactions is not None
    return answering.transactions


class SmallFabric:
    """``east`` (one host, or a cluster of two) replicates to ``west``; machine ``db`` runs at east."""

    def __init__(self, root: Path, *, east_hosts: int = 1, rate: int = 50, first_copy: str = "network") -> None:
        self.root = root
        self.vault = root / "leeward.yaml"
        (root / "password").write_text(PASSWORD)
        (root / "guest-password").write_text(GUEST_PASSWORD)
        document = self.document(root, east_hosts, rate)
        document["policies"] = {"gold": {"frequency": "30s", "initial_replication": {"method": first_copy}}}
        self.vault.write_text(json.dumps(document))
        self.inventory: Inventory = load_inventory(self.vault)
        self.hosts = Hosts(root, self.inventory, time_scale=TIME_SCALE)
        self.fabric = self.hosts.fabric
        self.fabric.start_all()
        self.forward: Relationship = self.inventory.relationship("db")
        self.backward = self.forward.reversed("production", "isolated")
        self.work_anew()

    def document(self, root: Path, east_hosts: int, rate: int) -> dict[str, object]:
        """What the inventory says."""
        *east, west = free_ports(east_hosts + 1)
        return _document(root, east, west, rate)

    def work_anew(self) -> None:
        """As a worker that was started just now."""
        adapters = Adapters(self.inventory, self.root)
        self.provider = adapters.provider(self.forward)
        assert isinstance(self.provider, HyperVReplicaProvider)
        self.east, self.west = self._fabric(adapters, "east"), self._fabric(adapters, "west")

    def _fabric(self, adapters: Adapters, site: str) -> HyperVHypervisor:
        fabric = adapters.hypervisor(site)
        assert isinstance(fabric, HyperVHypervisor)
        fabric.pause = lambda seconds: time.sleep(min(seconds, 0.1))
        return fabric

    def protect(self) -> None:
        self.provider.enable(self.forward)
        self.provider.copy_initial(self.forward, quiet)
        self.provider.finalize(self.forward)

    def set_fault(self, site: str, fault: Fault, bytes_per_second: float | None = None) -> None:
        SiteFaults(self.fabric.ground.lab_root, site).set(fault, bytes_per_second)

    def clear_faults(self, site: str) -> None:
        SiteFaults(self.fabric.ground.lab_root, site).clear()

    def recover(self, relationship: Relationship, point_id: str) -> GuestTransactions:
        """From the recovery point to a machine that answers."""
        self.provider.fail_over(relationship, point_id, quiet)
        fabric = self.west if relationship.target_site == "west" else self.east
        fabric.start("db")
        return held(fabric.wait_until_answering("db", 20, quiet))

    def vm(self, host: str, name: str = "db") -> Vm:
        return self.fabric.vm_named(host, name)

    def bring_online(self, host: str) -> None:
        """As its cluster does: the role first, then the machine."""
        self.vm(host).role = RoleState.ONLINE
        self.fabric.ground.start(self.fabric.state.hosts[host].site, "db")

    def acknowledged(self) -> int:
        """The last transaction that the machine's clients were told is safe."""
        return last_acknowledged(LabLayout(self.fabric.ground.lab_root).ledger("db"))

    def wait_for(self, reached: Callable[[], object], within_s: float = 10.0) -> None:
        deadline = time.monotonic() + within_s
        while not reached():
            assert time.monotonic() < deadline, "it did not come to it in time"
            time.sleep(0.02)

    def close(self) -> None:
        self.hosts.close()
        labctl.kill_all(self.fabric.ground.lab_root)


def _document(root: Path, east: list[int], west: int, rate: int) -> dict[str, object]:
    def site(name: str, ports: list[int]) -> dict[str, object]:
        server = f"{name}-broker" if len(ports) > 1 else f"{name}-hv1"
        return {
            "fabric": "hyperv",
            "credentials": f"file:{root / 'password'}",
            "hyperv": {
                "hosts": [f"127.0.0.1:{port}" for port in ports],
                "authentication": "ntlm",
                "user": USER,
                "ca": str(certificate_path(root)),
                "replica": {"server": server},
            },
            "networks": {"production": {"switch": "vProd"}, "isolated": {"kind": "isolated", "switch": "vTest"}},
        }

    return {
        "version": 1,
        "sites": {"east": site("east", east), "west": site("west", [west])},
        "policies": {"gold": {"frequency": "30s"}},
        "network_mappings": [
            {
                "source": "east/production",
                "target": "west/production",
                "test": "west/isolated",
                "source_test": "east/isolated",
            }
        ],
        "machines": {
            "db": {
                "site": "east",
                "target": "west",
                "network": "production",
                "policy": "gold",
                "lab": {"disks": [{"name": "os", "size": "8MiB"}], "transactions_per_second": rate},
                "hyperv": {"guest_user": ".\\operator", "guest_password": f"file:{root / 'guest-password'}"},
            }
        },
    }
