"""What a fabric cannot do is said when the inventory is read, with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from vault.errors import InputErrors
from vault.loading import load_inventory

pytestmark = pytest.mark.unit

GOOD = """\
version: 1
sites:
  east:
    fabric: hyperv
    credentials: env:EAST
    hyperv: {hosts: [hv1.east.example], authentication: ntlm, user: 'EAST\\dr'}
    networks:
      production: {switch: vSwitch Production}
      isolated: {kind: isolated}
  west:
    fabric: hyperv
    hyperv: {hosts: ['hv1.west.example:5986', 'hv2.west.example'], replica: {server: broker.west.example}}
    networks: {production: {}, isolated: {kind: isolated}}
  lab:
    fabric: lab
    networks: {production: {}, isolated: {kind: isolated}}
policies:
  gold:
    frequency: 30s
    app_consistent_every: 4h
network_mappings:
  - {source: east/production, target: west/production, test: west/isolated, source_test: east/isolated}
  - {source: east/production, target: lab/production, test: lab/isolated, source_test: east/isolated}
machines:
  db: {site: east, target: west, network: production, policy: gold, hyperv: {name: 'Zahlungen [DB]', port: 5432}}
  app: {site: east, target: west, network: production, policy: gold}
"""


def load(folder: Path, text: str) -> str:
    """What is wrong with the text; empty: nothing."""
    path = folder / "leeward.yaml"
    path.write_text(text)
    try:
        load_inventory(path)
    except InputErrors as errors:
        return str(errors)
    return ""


def test_hyper_v_sites_are_read(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD) == ""
    inventory = load_inventory(tmp_path / "leeward.yaml")
    settings = inventory.sites["west"].hyperv
    assert settings is not None
    assert (settings.replica.listens_on, settings.replica.server) == (80, "broker.west.example")


@pytest.mark.parametrize(
    ("line", "old", "new", "complaint"),
    [
        (
            26,
            "app: {site: east, target: west",
            "app: {site: east, target: lab",
            "site 'lab', which keeps no replicas in Azure — add 'replica_store'",
        ),
        (
            6,
            "app: {site: east, target: west",
            "app: {site: east, target: lab",
            "where workers find them is not said — mount their folders",
        ),
        (19, "frequency: 30s", "frequency: 1m", "knows no frequency of 60 s — choose one of 30s, 300s, 900s"),
        (20, "every: 4h", "every: 90m", "every whole number of hours — choose 1h to 12h"),
        (20, "every: 4h", "every: 13h", "choose 1h to 12h"),
        (
            10,
            "    hyperv: {hosts: ['hv1.w",
            "    description: x  # {hosts: ['hv1.w",
            "site 'west' has no 'hyperv' settings",
        ),
        (16, "fabric: lab", "fabric: lab\n    hyperv: {hosts: [a]}", "but its fabric is 'lab'"),
        (3, "    credentials: env:EAST\n", "", "site 'east' has no 'credentials'"),
        (6, "hosts: [hv1.east.example]", "hosts: ['https://hv1/']", "'https://hv1/' is not a host"),
        (6, ", user: 'EAST\\dr'", "", "authentication 'ntlm' needs more — add 'user'"),
        (26, "machines:\n", "consistency_groups: {pay: [db, app]}\nmachines:\n", "replicates each machine on its own"),
    ],
)
def test_what_hyper_v_cannot_do_is_refused_at_its_line(
    tmp_path: Path, line: int, old: str, new: str, complaint: str
) -> None:
    assert old in GOOD
    said = load(tmp_path, GOOD.replace(old, new, 1))
    assert complaint in said
    assert f"leeward.yaml:{line}:" in next(each for each in said.splitlines() if complaint in each)


def test_machines_of_hyper_v_are_replicated_to_azure(tmp_path: Path) -> None:
    azure = "replica_store: {kind: azure, account_url: 'https://dr.blob.core.windows.net'}"
    text = GOOD.replace("    fabric: lab\n", f"    fabric: lab\n    {azure}\n")
    text = text.replace("app: {site: east, target: west", "app: {site: east, target: lab")
    text = text.replace("user: 'EAST\\dr'}", "user: 'EAST\\dr', disk_folders: [{path: 'D:\\', folder: /mnt/d}]}")
    assert load(tmp_path, text) == ""
    assert "frequency" not in load(
        tmp_path, text.replace("db: {site: east, target: west", "db: {site: east, target: lab")
    )
    grouped = text.replace("machines:\n", "consistency_groups: {pay: [app]}\nmachines:\n")
    assert "cannot cut machines together" in load(tmp_path, grouped)
    missing = text.replace("folder: /mnt/d}]", "folder: /mnt/d, host: hv9}]")
    assert "'disk_folders' names 'hv9'" in load(tmp_path, missing)
    assert "from a site of fabric 'lab' to one of 'hyperv'" in load(
        tmp_path,
        text.replace(
            "app: {site: east, target: lab, network: production", "app: {site: lab, target: east, network: production"
        ),
    )


def test_only_hyper_v_replica_begins_with_an_existing_machine(tmp_path: Path) -> None:
    text = GOOD.replace("app_consistent_every: 4h", "initial_replication: {method: existing}")
    assert load(tmp_path, text) == ""
    inventory = load_inventory(tmp_path / "leeward.yaml")
    assert inventory.relationship("db").existing_replica
    said = load(tmp_path, text.replace("app: {site: east, target: west", "app: {site: east, target: lab"))
    (complaint,) = (each for each in said.splitlines() if "begin with a machine that exists" in each)
    assert "leeward.yaml:20:" in complaint
    assert "machine 'app'" in complaint
    assert "choose 'method: network' or 'method: media'" in complaint
