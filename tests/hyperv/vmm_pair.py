"""Two sites with a VMM server and two hosts each, and sessions to them without a wire."""

from __future__ import annotations

from typing import Any

from fake_fabric import Vm, World, answer_of

from adapters.hyperv.errors import from_record
from adapters.hyperv.provider import HyperVReplicaProvider
from adapters.ports import Beat
from adapters.vmm.hosts import SessionsOfVmm, VmmHosts
from adapters.vmm.hypervisor import VmmHypervisor
from adapters.vmm.server import VmmServer
from simulation.vmm.estate import CloudSetup, Estate, HostSetup, VmNetworkSetup
from simulation.vmm.server import SimulatedVmm
from simulation.winrm.answering import Answer, Failure, Request
from vault.domain import Progress
from vault.errors import Unreachable
from vault.inventory import Inventory

ID = "6f3c4b7e-0000-4000-8000-000000000001"
SITES = {"east": ("hv1", "hv2"), "west": ("hv3", "hv4")}


class Direct:
    """Runs operations as :class:`adapters.hyperv.session.HostSession` does, and counts them."""

    def __init__(self, name: str, answer: Answer) -> None:
        self.name = name
        self.ran: list[str] = []
        self.unreachable = False
        self._answer = answer

    def run(self, operation: Any, given: Any, *, timeout_s: float) -> Any:
        self.ran.append(operation.script)
        if self.unreachable:
            raise Unreachable("it does not answer", where=self.name)
        result = self._answer(Request(self.name, "LAB\\dr", operation.script, given.model_dump(mode="json")))
        if isinstance(result, Failure):
            raise from_record(result.record, self.name)
        return operation.gives.model_validate(result)

    def run_job(self, operation: Any, given: Any, beat: Beat, *, timeout_s: float) -> Any:
        return self.run(operation, given, timeout_s=timeout_s)


def estate(*hosts: str, cloud: str) -> Estate:
    """Both hosts carry both logical networks; the cloud has all of it."""
    logical = ["Frontend", "Isolated"]
    return Estate(
        hosts={f"{host}.example": HostSetup(logical_networks=logical) for host in hosts},
        clouds={cloud: CloudSetup(logical_networks=logical)},
        vm_networks={
            "Production VMs": VmNetworkSetup(logical_network="Frontend", switch="vProd"),
            "Test VMs": VmNetworkSetup(logical_network="Isolated", switch="isolated"),
        },
        members={"db": cloud},
    )


def inventory(**of_machine: Any) -> Inventory:
    networks = {
        "production": {"vm_network": "Production VMs"},
        "isolated": {"kind": "isolated", "vm_network": "Test VMs"},
    }
    clouds = {"east": "Gold", "west": "Recovery"}
    sites = {
        site: {
            "fabric": "hyperv",
            "networks": networks,
            "hyperv": {"hosts": list(hosts)},
            "vmm": {"server": f"vmm.{site}.example", "cloud": clouds[site]},
        }
        for site, hosts in SITES.items()
    }
    mapping = {
        "source": "east/production",
        "target": "west/production",
        "test": "west/isolated",
        "source_test": "east/isolated",
    }
    machine = {"site": "east", "target": "west", "network": "production", "policy": "gold", "hyperv": of_machine}
    return Inventory.model_validate(
        {
            "version": 1,
            "sites": sites,
            "policies": {"gold": {"frequency": "30s", "retention": {"count": 13}}},
            "network_mappings": [mapping],
            "machines": {"db": machine},
        }
    )


class Pair:
    """The machine ``db`` runs on hv1, at the site ``east``."""

    def __init__(self, **of_machine: Any) -> None:
        self.world = World("hv1", "hv2", "hv3", "hv4")
        self.world.hosts["hv1"].vms = {ID: Vm(ID, "db", switch="vProd")}
        self.inventory = inventory(**of_machine)
        self.sessions = {name: Direct(name, answer_of(host)) for name, host in self.world.hosts.items()}
        self.vmm = {
            "east": self._vmm("east", estate("hv1", "hv2", cloud="Gold")),
            "west": self._vmm("west", estate("hv3", "hv4", cloud="Recovery")),
        }
        self.servers = {site: Direct(f"vmm.{site}", vmm.answer) for site, vmm in self.vmm.items()}
        self.fabrics = {site: self.fabric(site) for site in SITES}
        self.provider = HyperVReplicaProvider(self.fabrics.__getitem__, self.inventory)
        self.forward = self.inventory.relationship("db")
        self.backward = self.forward.reversed("production", "isolated")

    def _vmm(self, site: str, set_up: Estate) -> SimulatedVmm:
        answers = {f"{host}.example": answer_of(self.world.hosts[host]) for host in SITES[site]}
        return SimulatedVmm(f"vmm.{site}.example", answers, set_up)

    def fabric(self, site: str) -> VmmHypervisor:
        sessions = {name: self.sessions[name] for name in SITES[site]}
        server = VmmServer(f"vmm.{site}.example", self.servers[site])
        fabric = VmmHypervisor(VmmHosts(site, sessions, server), self.inventory)
        fabric.pause = lambda _: None
        return fabric

    def fabric_that_vmm_tells(self, site: str) -> VmmHypervisor:
        """As when the inventory names no hosts."""
        server = VmmServer(f"vmm.{site}.example", self.servers[site])
        cloud = self.inventory.sites[site].vmm
        assert cloud is not None
        sessions = SessionsOfVmm(
            lambda: [host.name for host in server.hosts_of(cloud.cloud)],
            lambda host: self.sessions[host.removesuffix(".example")],
        )
        return VmmHypervisor(VmmHosts(site, sessions, server), self.inventory)

    def move(self, host: str, to: str) -> None:
        """A live migration."""
        here, there = self.world.hosts[host], self.world.hosts[to]
        there.vms, here.vms = here.vms, {}

    def calls(self) -> dict[str, list[str]]:
        """What was asked of whom since the last look."""
        everybody = {**self.sessions, **{f"vmm {site}": server for site, server in self.servers.items()}}
        asked = {name: session.ran for name, session in everybody.items() if session.ran}
        for session in everybody.values():
            session.ran = []
        return asked


def quiet(_: Progress | str) -> None:
    pass
