"""The simulated fabric of the tests with two hosts and a VMM server at each site."""

from __future__ import annotations

from pathlib import Path

from small_fabric import SmallFabric

from adapters.vmm.hypervisor import VmmHypervisor
from simulation.free_ports import free_ports
from simulation.vmm.servers import VmmServers
from vault.domain import Relationship

VMM_USER, VMM_PASSWORD = "LAB\\vmm", "v-corr3ct-horse"
CLOUDS = {"east": "Gold", "west": "Recovery"}


class FabricWithVmm(SmallFabric):
    """The machine ``db`` runs at ``east``, in its cloud."""

    def __init__(self, root: Path, *, first_copy: str = "network") -> None:
        super().__init__(root, first_copy=first_copy)
        self.vmm = VmmServers(self.hosts, self.inventory)

    def document(self, root: Path, east_hosts: int, rate: int) -> dict[str, object]:
        document = super().document(root, east_hosts, rate)
        (root / "vmm-password").write_text(VMM_PASSWORD)
        sites = document["sites"]
        assert isinstance(sites, dict)
        for name, site in sites.items():
            *hosts, vmm = (f"127.0.0.1:{port}" for port in free_ports(3))
            site["hyperv"] |= {"hosts": hosts, "replica": {}}
            login = {"user": VMM_USER, "credentials": f"file:{root / 'vmm-password'}"}
            site["vmm"] = {"server": vmm, "cloud": CLOUDS[name]} | login
            for network, described in site["networks"].items():
                described["vm_network"] = f"{network} VMs"
                del described["switch"]
        return document

    def managed(self, site: str) -> VmmHypervisor:
        fabric = self.west if site == "west" else self.east
        assert isinstance(fabric, VmmHypervisor)
        return fabric

    def placed(self, relationship: Relationship) -> Relationship:
        """As the job does after it asked the target."""
        server = self.provider.place_replica(relationship)
        return relationship.model_copy(update={"replica_server": server})

    def protect(self) -> None:
        self.provider.enable(self.placed(self.forward))
        self.provider.copy_initial(self.forward, lambda _: None)
        self.provider.finalize(self.forward)

    def close(self) -> None:
        self.vmm.close()
        super().close()
