"""Sites with VMM in the inventory: clouds and their mappings, and mistakes by line."""

from __future__ import annotations

from pathlib import Path

import pytest

from vault.clouds import cloud_of
from vault.errors import InputErrors
from vault.inventory import Inventory
from vault.loading import load_inventory

pytestmark = pytest.mark.unit

GOOD = """\
version: 1
sites:
  east:
    fabric: hyperv
    hyperv: {hosts: [hv1.east.example]}
    vmm: {server: vmm.east.example, cloud: Gold Cloud}
    networks: {production: {vm_network: Production VMs}, isolated: {kind: isolated}}
  west:
    fabric: hyperv
    hyperv: {}
    vmm: {server: 'vmm.west.example:5986', cloud: Recovery, user: WEST\\vmm, credentials: env:VMM}
    networks: {production: {}, isolated: {kind: isolated}}
  plain:
    fabric: hyperv
    hyperv: {hosts: [hv1.plain.example]}
    networks: {production: {}, isolated: {kind: isolated}}
policies: {gold: {frequency: 30s}}
network_mappings:
  - {source: east/production, target: west/production, test: west/isolated, source_test: east/isolated}
  - {source: east/production, target: plain/production, test: plain/isolated, source_test: east/isolated}
  - {source: plain/production, target: west/production, test: west/isolated, source_test: plain/isolated}
cloud_mappings:
  - {source: east/Dev/Test, target: west/Cheap}
machines:
  db: {site: east, target: west, network: production, policy: gold}
  dev: {site: east, target: west, network: production, policy: gold, hyperv: {cloud: Dev/Test}}
  out: {site: east, target: plain, network: production, policy: gold}
  into: {site: plain, target: west, network: production, policy: gold}
"""


def load(folder: Path, text: str) -> Inventory:
    path = folder / "leeward.yaml"
    path.write_text(text)
    return load_inventory(path)


def test_a_machine_is_in_its_cloud_at_home_and_in_the_mapped_one_elsewhere(tmp_path: Path) -> None:
    inventory = load(tmp_path, GOOD)
    assert cloud_of(inventory, "db", "east") == "Gold Cloud"
    assert cloud_of(inventory, "db", "west") == "Recovery"
    assert cloud_of(inventory, "dev", "east") == "Dev/Test"
    assert cloud_of(inventory, "dev", "west") == "Cheap"


def test_a_site_without_vmm_has_no_clouds_and_a_machine_from_it_gets_the_targets_own(tmp_path: Path) -> None:
    inventory = load(tmp_path, GOOD)
    assert cloud_of(inventory, "out", "east") == "Gold Cloud"
    assert cloud_of(inventory, "out", "plain") is None
    assert cloud_of(inventory, "into", "plain") is None
    assert cloud_of(inventory, "into", "west") == "Recovery"


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("hyperv: {hosts: [hv1.plain.example]}", "hyperv: {}", "neither 'hosts' nor a VMM server"),
        (
            "[hv1.plain.example]}\n    networks: {production: {}",
            "[hv1.plain.example]}\n    networks: {production: {vm_network: Prod}",
            "'production' is a VM network, but site 'plain' has no VMM server",
        ),
        ("source: east/Dev/Test", "source: esat/Dev/Test", "unknown site 'esat'"),
        ("source: east/Dev/Test", "source: plain/Dev", "site 'plain' has no VMM server, and so no clouds"),
        ("target: west/Cheap", "target: east/Cheap", "the mapping leads from site 'east' to itself"),
        ("target: west/Cheap", "target: Cheap", "does not name a cloud — write it as 'site/cloud'"),
        (
            "west/Cheap}\n",
            "west/Cheap}\n  - {source: west/Other, target: east/Dev/Test}\n",
            "cloud 'east/Dev/Test' is mapped to site 'west' twice, first in line 23",
        ),
        ("{cloud: Dev/Test}", "{cloud: Silver}", "no cloud mapping leads from east/Silver to site 'west'"),
        (
            "target: west, network: production, policy: gold}\n$",
            "target: west, network: production, policy: gold, hyperv: {cloud: Gold}}\n",
            "is in a cloud, but site 'plain' has no VMM server",
        ),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    changed = f"{GOOD}$".replace(old, new).removesuffix("$")
    assert changed != GOOD, "the test changes what is there"
    lines = zip(f"{GOOD}\n".splitlines(), changed.splitlines(), strict=False)
    line = next(number for number, (before, after) in enumerate(lines, 1) if before != after)
    with pytest.raises(InputErrors) as told:
        load(tmp_path, changed)
    assert any(f"leeward.yaml:{line}:" in str(error) and complaint in str(error) for error in told.value.errors), told


def test_a_site_of_another_fabric_has_no_vmm_server(tmp_path: Path) -> None:
    lab = "  lab:\n    fabric: lab\n    vmm: {server: vmm, cloud: Gold}\n    networks: {production: {}}\npolicies:"
    with pytest.raises(InputErrors, match=r"leeward.yaml:19:.*site 'lab' has a VMM server, but its fabric is 'lab'"):
        load(tmp_path, GOOD.replace("policies:", lab))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("source: east/Dev/Test", "source: eastt/Dev/Test", "23:14: unknown site 'eastt' — did you mean 'east'?"),
        ("target: west/Cheap", "target: wst/Cheap", "23:37: unknown site 'wst' — did you mean 'west'?"),
    ],
)
def test_an_unknown_site_of_a_mapping_is_told_once_and_with_what_else_is_wrong(
    tmp_path: Path, old: str, new: str, told: str
) -> None:
    with pytest.raises(InputErrors) as alone:
        load(tmp_path, GOOD.replace(old, new))
    (error,) = alone.value.errors
    assert str(error).endswith(told)
    with pytest.raises(InputErrors) as beside:
        load(tmp_path, GOOD.replace(old, new).replace("30s", "30"))
    assert [error.what for error in beside.value.errors] == ["'30' has no unit", alone.value.errors[0].what]
