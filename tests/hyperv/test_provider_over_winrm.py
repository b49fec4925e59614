"""The whole way: inventory, registry, provider, pywinrm, HTTPS, the packaged scripts' calls, a host that answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_fabric import FakeHost, Mode, Vm, World, answer_of
from typer.testing import CliRunner
from winrm_host import PASSWORD, USER

from adapters.registry import Adapters
from console.main import app
from simulation.winrm.accounts import Account
from simulation.winrm.server import WinRMServer
from vault.domain import PowerState, Progress, Severity
from vault.errors import BadInput, InvalidState
from vault.loading import load_inventory

pytestmark = pytest.mark.contract

ID = "6f3c4b7e-0000-4000-8000-00000000000a"
NAME = "Zahlungen [DB] 'ä'"
SITE = """\
  {site}:
    fabric: hyperv
    credentials: env:HOST_PASSWORD
    hyperv:
      hosts: ['127.0.0.1:{port}']
      authentication: ntlm
      user: '{user}'
      ca: '{ca}'
      replica: {{server: {host}}}
    networks: {{production: {{switch: vProd}}, isolated: {{kind: isolated}}}}
"""
REST = """\
  lab:
    fabric: lab
    networks: {{production: {{}}, isolated: {{kind: isolated}}}}
policies: {{gold: {{frequency: 30s}}}}
network_mappings:
  - {{source: east/production, target: west/production, test: west/isolated, source_test: east/isolated}}
machines:
  db: {{site: east, target: west, network: production, policy: gold, hyperv: {{name: "{name}"}}}}
"""


def served(host: FakeHost, folder: Path) -> WinRMServer:
    return WinRMServer(answer_of(host), [Account(USER, PASSWORD)], folder=folder)


@pytest.fixture
def world() -> World:
    world = World("hv1", "hv2")
    world.hosts["hv1"].vms = {ID: Vm(ID, NAME, switch="vProd")}
    return world


@pytest.fixture
def vault(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("HOST_PASSWORD", PASSWORD)
    text = "version: 1\nsites:\n"
    servers = []
    for site, host in (("east", "hv1"), ("west", "hv2")):
        server = served(world.hosts[host], tmp_path / host)
        servers.append(server)
        ca = server.certificate.certificate
        text += SITE.format(site=site, port=server.port, user=USER, ca=ca, host=host)
    path = tmp_path / "leeward.yaml"
    path.write_text(text + REST.format(name=NAME))
    yield path
    for server in servers:
        server.close()


def quiet(_: Progress | str) -> None:
    pass


def test_a_machine_is_protected_and_failed_over_through_the_wire(world: World, vault: Path, tmp_path: Path) -> None:
    inventory = load_inventory(vault)
    adapters = Adapters(inventory, tmp_path)
    forward = inventory.relationship("db")
    provider, east, west = adapters.provider(forward), adapters.hypervisor("east"), adapters.hypervisor("west")
    findings = provider.check_source(forward) + provider.check_target(forward)
    assert {finding.severity for finding in findings} == {Severity.PASS}, findings
    provider.enable(forward)
    provider.copy_initial(forward, quiet)
    with pytest.raises(InvalidState, match="still runs"):
        provider.send_last_changes(forward, quiet)
    assert east.shut_down("db", 60, quiet) is PowerState.OFF
    point = provider.send_last_changes(forward, quiet)
    provider.fail_over(forward, point.id, quiet)
    west.start("db")
    provider.commit(forward, point.id)
    backward = forward.reversed("production", "isolated")
    provider.prepare_reverse(backward)
    provider.enable(backward)
    provider.copy_initial(backward, quiet)
    assert (world.hosts["hv2"].vm(ID).mode, world.hosts["hv1"].vm(ID).mode) == (Mode.PRIMARY, Mode.REPLICA)


def test_a_site_is_discovered_by_command(world: World, vault: Path) -> None:
    told = CliRunner().invoke(app, ["hyperv", "discover", "--site", "east", "--vault", str(vault), "--json"])
    assert told.exit_code == 0, told.output
    (host,) = json.loads(told.stdout)["hosts"]
    assert host["machines"][0]["machine"]["name"] == NAME
    assert world.hosts["hv1"].ran == ["check_host", "inventory"]
    table = CliRunner().invoke(app, ["hyperv", "discover", "--site", "east", "--vault", str(vault)])
    assert NAME in table.output
    assert "yes" in table.output
    wrong = CliRunner().invoke(app, ["hyperv", "discover", "--site", "lab", "--vault", str(vault)])
    assert wrong.exit_code == 2


def test_nothing_replicates_between_hyper_v_and_the_lab(vault: Path, tmp_path: Path) -> None:
    inventory = load_inventory(vault)
    mixed = inventory.relationship("db").model_copy(update={"target_site": "lab"})
    with pytest.raises(BadInput, match="from a site of fabric 'hyperv' to one of 'lab'"):
        Adapters(inventory, tmp_path).provider(mixed)
