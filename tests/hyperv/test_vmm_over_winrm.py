"""The whole way with VMM: inventory, registry, provider, pywinrm, HTTPS, the packaged scripts, two VMM servers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_fabric import Mode, Vm, World, answer_of
from typer.testing import CliRunner
from vmm_pair import ID, SITES, estate, quiet
from winrm_host import PASSWORD, USER

from adapters.ports import PlacesReplicas
from adapters.registry import Adapters
from adapters.vmm.hypervisor import VmmHypervisor
from console.main import app
from simulation.vmm.server import SimulatedVmm
from simulation.winrm.accounts import Account
from simulation.winrm.answering import Answer
from simulation.winrm.server import WinRMServer
from vault.domain import PowerState, Severity
from vault.errors import AuthenticationRefused, InvalidState
from vault.loading import load_inventory

pytestmark = pytest.mark.contract

NAME = "Zahlungen [DB] 'ä'"
CLOUDS = {"east": "Gold", "west": "Erholung ä"}
SITE = """\
  {site}:
    fabric: hyperv
    credentials: env:HOST_PASSWORD
    hyperv:
      hosts: {hosts}
      authentication: ntlm
      user: '{user}'
      ca: '{ca}'
    vmm: {{server: '127.0.0.1:{port}', cloud: {cloud}, ca: '{vmm_ca}', credentials: env:VMM_PASSWORD, user: 'LAB\\vmm'}}
    networks: {{production: {{vm_network: Production VMs}}, isolated: {{kind: isolated, vm_network: Test VMs}}}}
"""
REST = """\
policies: {{gold: {{frequency: 30s}}}}
network_mappings:
  - {{source: east/production, target: west/production, test: west/isolated, source_test: east/isolated}}
machines:
  db: {{site: east, target: west, network: production, policy: gold, hyperv: {{name: "{name}"}}}}
"""


class Servers:
    """Every host and VMM server behind a WinRM server of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.running: list[WinRMServer] = []
        self.world = World("hv1", "hv2", "hv3", "hv4")
        self.world.hosts["hv1"].vms = {ID: Vm(ID, NAME, switch="vProd")}
        self.vmm = {site: self._vmm(site) for site in SITES}
        certificate = self._served(answer_of(self.world.hosts["hv1"]), "hv1").certificate
        self.ca = certificate.certificate
        self.text = "version: 1\nsites:\n"
        for site, names in SITES.items():
            hosts = [self.running[0].port if name == "hv1" else self._host(name) for name in names]
            server = self._served(self.vmm[site].answer, f"vmm.{site}", user="LAB\\vmm", password="v-secret")
            self.text += SITE.format(
                site=site,
                hosts=[f"127.0.0.1:{port}" for port in hosts],
                user=USER,
                ca=self.ca,
                port=server.port,
                cloud=CLOUDS[site],
                vmm_ca=self.ca,
            )

    def _vmm(self, site: str) -> SimulatedVmm:
        answers = {f"{host}.example": answer_of(self.world.hosts[host]) for host in SITES[site]}
        vmm = SimulatedVmm(f"vmm.{site}.example", answers, estate(*SITES[site], cloud=CLOUDS[site]))
        vmm.belongs(NAME, CLOUDS[site])
        return vmm

    def _host(self, name: str) -> int:
        return self._served(answer_of(self.world.hosts[name]), name).port

    def _served(self, answer: Answer, host: str, *, user: str = USER, password: str = PASSWORD) -> WinRMServer:
        certificate = self.running[0].certificate if self.running else None
        folder = self._folder / host
        server = WinRMServer(answer, [Account(user, password)], folder=folder, host=host, certificate=certificate)
        self.running.append(server)
        return server


@pytest.fixture
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Servers]:
    monkeypatch.setenv("HOST_PASSWORD", PASSWORD)
    monkeypatch.setenv("VMM_PASSWORD", "v-secret")
    servers = Servers(tmp_path)
    yield servers
    for server in reversed(servers.running):
        server.close()


@pytest.fixture
def vault(servers: Servers, tmp_path: Path) -> Path:
    path = tmp_path / "leeward.yaml"
    path.write_text(servers.text + REST.format(name=NAME))
    return path


def test_a_machine_is_protected_and_failed_over_through_two_vmm_servers(
    servers: Servers, vault: Path, tmp_path: Path
) -> None:
    inventory = load_inventory(vault)
    adapters = Adapters(inventory, tmp_path)
    forward = inventory.relationship("db")
    provider, east, west = adapters.provider(forward), adapters.hypervisor("east"), adapters.hypervisor("west")
    east.pause = west.pause = lambda _: None
    findings = provider.check_source(forward) + provider.check_target(forward) + east.check() + west.check()
    assert {finding.severity for finding in findings} == {Severity.PASS}, findings
    assert isinstance(provider, PlacesReplicas)
    provider.enable(forward.model_copy(update={"replica_server": provider.place_replica(forward)}))
    provider.copy_initial(forward, quiet)
    assert servers.world.settings[-1].replica_server == "hv3.example"
    with pytest.raises(InvalidState, match="still runs"):
        provider.send_last_changes(forward, quiet)
    servers.world.hosts["hv2"].vms, servers.world.hosts["hv1"].vms = servers.world.hosts["hv1"].vms, {}
    assert east.shut_down("db", 60, quiet) is PowerState.OFF
    servers.world.hosts["hv1"].vms, servers.world.hosts["hv2"].vms = servers.world.hosts["hv2"].vms, {}
    point = provider.send_last_changes(forward, quiet)
    provider.fail_over(forward, point.id, quiet)
    replica = servers.world.hosts["hv3"].vms[ID]
    assert (replica.switch, replica.mode) == ("vProd", Mode.REPLICA)
    assert west.describe("db").network == "production"


def test_a_site_is_discovered_by_command_with_two_calls(servers: Servers, vault: Path) -> None:
    command = ["hyperv", "discover", "--site", "east", "--vault", str(vault)]
    told = CliRunner().invoke(app, [*command, "--json"])
    assert told.exit_code == 0, told.output
    hosts = json.loads(told.stdout)["hosts"]
    assert [[one["machine"]["name"] for one in host["machines"]] for host in hosts] == [[NAME], []]
    assert hosts[0]["machines"][0]["cloud"] == "Gold"
    table = CliRunner().invoke(app, command)
    assert NAME in table.output
    assert "Gold" in table.output


def test_a_login_that_vmm_refuses_is_told_and_never_tried_again(
    servers: Servers, vault: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VMM_PASSWORD", "wrong-one")
    fabric = Adapters(load_inventory(vault), tmp_path).hypervisor("east")
    assert isinstance(fabric, VmmHypervisor)
    with pytest.raises(AuthenticationRefused) as refused:
        fabric.server.machines()
    assert "wrong-one" not in str(refused.value)
    assert fabric.describe("db").name == NAME, "its hosts are asked"
    (finding,) = [one for one in fabric.check() if one.severity is not Severity.PASS]
    assert (finding.severity, finding.subject[:20]) == (Severity.WARN, "VMM server 127.0.0.1")
