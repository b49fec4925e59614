"""What is said before a machine is protected from Hyper-V to Azure: about its disks, and about VMM's networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tracked_host import TrackedHost
from vmm_pair import ID, SITES, Pair

from adapters.hyperv.hosts import HyperVHosts
from adapters.hyperv.hypervisor import HyperVHypervisor
from adapters.vmm.hosts import VmmHosts
from adapters.vmm.hypervisor import VmmHypervisor
from adapters.vmm.server import VmmServer
from vault.domain import Severity
from vault.errors import Unreachable
from vault.inventory import Inventory

pytestmark = pytest.mark.unit

ACCOUNT = {"kind": "azure", "account_url": "https://account.blob.core.windows.net"}
SUBSCRIPTION = "00000000-1111-2222-3333-444444444444"
CLOUD = {
    "fabric": "azure",
    "azure": {"subscription": SUBSCRIPTION, "resource_group": "dr"},
    "replica_store": ACCOUNT,
    "networks": {
        "production": {"azure": {"virtual_network": "recovery", "subnet": "servers"}},
        "isolated": {"kind": "isolated", "azure": {"virtual_network": "bubble", "subnet": "servers"}},
    },
}
MAPPING = {
    "source": "east/production",
    "target": "cloud/production",
    "test": "cloud/isolated",
    "source_test": "east/isolated",
}


def to_azure(east: dict[str, Any]) -> Inventory:
    return Inventory.model_validate(
        {
            "version": 1,
            "sites": {"east": east, "cloud": CLOUD},
            "policies": {"gold": {"frequency": "1m"}},
            "network_mappings": [MAPPING],
            "machines": {"db": {"site": "east", "target": "cloud", "network": "production", "policy": "gold"}},
        }
    )


@pytest.fixture
def host(tmp_path: Path) -> Iterator[TrackedHost]:
    host = TrackedHost(tmp_path / "host", {"SCSI 0:0": 1 << 20})
    yield host
    host.disks.close()


def told(host: TrackedHost, folder: str = "D:\\VMs") -> list[tuple[Severity, str]]:
    settings = {"hosts": ["hv1"], "disk_folders": [{"path": folder, "folder": "/mnt"}]}
    networks = {"production": {}, "isolated": {"kind": "isolated"}}
    inventory = to_azure({"fabric": "hyperv", "hyperv": settings, "networks": networks})
    fabric = HyperVHypervisor(HyperVHosts("east", {"hv1": host}), inventory)
    findings = fabric.readiness(inventory.relationship("db"))
    assert all(finding.remedy for finding in findings if finding.severity is not Severity.PASS)
    return [(finding.severity, finding.what) for finding in findings]


def test_a_machine_whose_disks_are_tracked_and_found_is_ready(host: TrackedHost) -> None:
    assert told(host) == [(Severity.PASS, "the changes of its disk can be tracked and read")]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda host: setattr(host, "version", "5.0"), "its configuration version 5.0 has no change tracking"),
        (lambda host: setattr(host, "format", "VHD"), "is a VHD: only changes of VHDX are tracked"),
    ],
)
def test_what_cannot_be_tracked_is_said(host: TrackedHost, change: Callable[[TrackedHost], None], what: str) -> None:
    change(host)
    ((severity, said),) = told(host)
    assert severity is Severity.FAIL
    assert what in said


def test_a_disk_that_no_worker_finds_is_said(host: TrackedHost) -> None:
    ((severity, said),) = told(host, folder="E:\\Other")
    assert severity is Severity.FAIL
    assert said.startswith("no worker of the site knows where this virtual disk is: D:\\VMs\\")


def test_a_host_that_does_not_answer_is_said(host: TrackedHost) -> None:
    host.lose = 0
    ((severity, said),) = told(host)
    assert (severity, said) == (Severity.FAIL, Unreachable("the connection broke").what)


# --- with VMM (requirement A3) ----------------------------------------------------------------------------------


class PairToAzure(Pair):
    def readiness(self) -> dict[str, list[tuple[Severity, str]]]:
        networks = {
            "production": {"vm_network": "Production VMs"},
            "isolated": {"kind": "isolated", "vm_network": "Test VMs"},
        }
        settings = {"hosts": list(SITES["east"]), "disk_folders": [{"path": "D:\\", "folder": "/mnt"}]}
        vmm = {"server": "vmm.east.example", "cloud": "Gold"}
        inventory = to_azure({"fabric": "hyperv", "hyperv": settings, "networks": networks, "vmm": vmm})
        server = VmmServer("vmm.east.example", self.servers["east"])
        sessions = {name: self.sessions[name] for name in SITES["east"]}
        fabric = VmmHypervisor(VmmHosts("east", sessions, server), inventory)
        found: dict[str, list[tuple[Severity, str]]] = {}
        for finding in fabric.readiness(inventory.relationship("db")):
            found.setdefault(finding.subject, []).append((finding.severity, finding.what))
        return found


def test_a_vm_network_is_told_with_its_logical_network_and_its_subnet() -> None:
    pair = PairToAzure()
    found = pair.readiness()
    mapped = (
        "VM network 'Production VMs' on logical network 'Frontend' → subnet 'servers' of virtual network 'recovery'"
    )
    assert found["network production"] == [(Severity.PASS, f"{mapped}, group 'dr'")]
    assert (Severity.PASS, "in cloud 'Gold', on hv1.example") in found["db"]


def test_a_logical_network_outside_of_the_cloud_is_refused() -> None:
    pair = PairToAzure()
    pair.vmm["east"].estate.clouds["Gold"].logical_networks.remove("Frontend")
    what = "logical network 'Frontend' of VM network 'Production VMs' is not in cloud 'Gold'"
    assert pair.readiness()["network production"] == [(Severity.FAIL, what)]


def test_a_vm_network_that_vmm_does_not_have_is_refused() -> None:
    pair = PairToAzure()
    pair.vmm["east"].estate.vm_networks.pop("Production VMs")
    pair.world.hosts["hv1"].vms[ID].switch = ""
    ((severity, what),) = pair.readiness()["network production"]
    assert severity is Severity.FAIL
    assert "there is no VM network 'Production VMs'" in what
