"""Networks in Azure: what they are, and that mistakes about them are named with their line."""

from __future__ import annotations

from pathlib import Path

import pytest

from vault.azure_networks import described_network, subnet_of
from vault.errors import InputErrors
from vault.loading import load_inventory

pytestmark = pytest.mark.unit

SUBSCRIPTION = "00000000-1111-2222-3333-444444444444"
GROUP_ID = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/dr"
TEST_ID = f"{GROUP_ID}/providers/Microsoft.Network/virtualNetworks/bubble/subnets/default"
GOOD = f"""\
version: 1
sites:
  east:
    fabric: hyperv
    hyperv: {{hosts: [hv1], disk_folders: [{{path: 'D:\\VMs', folder: /mnt}}]}}
    vmm: {{server: vmm.east.example, cloud: Gold}}
    networks:
      production: {{vm_network: Production VMs}}
      isolated: {{kind: isolated}}
  cloud:
    fabric: azure
    azure: {{subscription: {SUBSCRIPTION}, resource_group: dr}}
    replica_store: {{kind: azure, account_url: 'https://account.blob.core.windows.net'}}
    networks:
      production: {{azure: {{virtual_network: recovery, subnet: servers}}}}
      isolated: {{kind: isolated, azure: {{id: {TEST_ID}}}}}
policies:
  gold: {{frequency: 1m}}
network_mappings:
  - {{source: east/production, target: cloud/production, test: cloud/isolated, source_test: east/isolated}}
machines:
  db: {{site: east, target: cloud, network: production, policy: gold}}
"""
PRODUCTION = "azure: {virtual_network: recovery, subnet: servers}"


def test_vm_networks_are_mapped_to_subnets_by_name_and_by_id(tmp_path: Path) -> None:
    path = tmp_path / "leeward.yaml"
    path.write_text(GOOD)
    inventory = load_inventory(path)
    cloud = inventory.sites["cloud"]
    production = f"{GROUP_ID}/providers/Microsoft.Network/virtualNetworks/recovery/subnets/servers"
    assert (subnet_of(cloud, "production").id, subnet_of(cloud, "isolated").id) == (production, TEST_ID)
    assert described_network(inventory.sites["east"], "production") == "VM network 'Production VMs'"
    assert described_network(cloud, "production") == "subnet 'servers' of virtual network 'recovery', group 'dr'"
    relationship = inventory.relationship("db")
    assert (relationship.target_network, relationship.test_network, relationship.recovers) == (
        "production",
        "isolated",
        False,
    )


@pytest.mark.parametrize(
    ("line", "old", "new", "complaint"),
    [
        (15, PRODUCTION, "", "does not say which subnet in Azure it is — add 'azure:"),
        (15, PRODUCTION, "azure: {virtual_network: recovery}", "write both, or its 'id'"),
        (15, PRODUCTION, "azure: {virtual_network: recovery, subnet: GatewaySubnet}", "name a subnet for virtual mach"),
        (15, PRODUCTION, "azure: {virtual_network: -recovery, subnet: servers}", "virtual_network"),
        (15, PRODUCTION, "azure: {virtual_network: bubble, subnet: other}", "reach each other — name a subnet of"),
        (15, PRODUCTION, f"switch: external, {PRODUCTION}", "has a 'switch', but site 'cloud' is in Azure"),
        (16, "/virtualNetworks/bubble/subnets/default", "/virtualNetworks/bubble", "not the resource id of a subnet"),
        (16, SUBSCRIPTION + "/resourceGroups/dr/", "1234/resourceGroups/dr/", "cannot be the subscription in a res"),
        (16, f"id: {TEST_ID}", f"id: {TEST_ID}, subnet: default", "remove the names beside it"),
        (15, ", resource_group: dr}", "}", "the resource group of network 'production' is not said — add"),
        (10, "    replica_store:", "    # replica_store:", "has no 'replica_store' — name the storage account"),
        (
            8,
            "{vm_network: Production VMs}",
            f"{{{PRODUCTION}}}",
            "is a network in Azure, but the fabric of site 'east'",
        ),
        (20, "target: cloud/production", "target: cloud/prodction", "did you mean 'production'?"),
        (22, "site: east, target: cloud", "site: cloud, target: east", "nothing leads back from Azure yet"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_what_to_do(
    tmp_path: Path, line: int, old: str, new: str, complaint: str
) -> None:
    path = tmp_path / "leeward.yaml"
    at = GOOD.rfind(old)
    assert at >= 0
    path.write_text(GOOD[:at] + new + GOOD[at + len(old) :])
    with pytest.raises(InputErrors) as caught:
        load_inventory(path)
    told = [error for error in str(caught.value).splitlines() if complaint in error]
    assert told, str(caught.value)
    assert f"leeward.yaml:{line + (1 if 'other}' in new else 0)}:" in told[0], told[0]
