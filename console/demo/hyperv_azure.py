"""Scenario ``hyperv-azure``: the demo's machines on one simulated Hyper-V site, replicated to page blobs on Azurite
(``docs/hyperv.md``, requirements A4)."""

from __future__ import annotations

import json
from pathlib import Path

from console.demo import hyperv
from vault.inventory import AzureReplicas, Inventory
from workers.settings import Settings

PRIMARY, AZURE = "primary", "azure"
POLICY = {"frequency": "10s", "app_consistent_every": "20s", "resync": "manual"}
"""Quick, to have something to look at; the resynchronization is the operator's to start, so that it is seen."""
IN_AZURE = {"subscription": "00000000-0000-0000-0000-000000000000", "resource_group": "recovery"}
SUBNETS = {
    "production": {"virtual_network": "recovery-vnet", "subnet": "servers"},
    "isolated": {"virtual_network": "bubble-vnet", "subnet": "servers"},
}


def inventory(folder: Path) -> str:
    """The inventory for a host and an Azurite on free ports; their secrets are files below ``folder``.

    Raises ``NotFound`` when Azurite or Node.js is not installed: before anything is started."""
    from simulation.azure import azurite
    from simulation.hyperv.fabric import FOLDER, disk_folder

    azurite.require_installed()
    document = hyperv.as_data(folder)
    del document["sites"]["recovery"]
    primary = document["sites"][PRIMARY]
    primary["hyperv"] |= {"disk_folders": [{"path": FOLDER, "folder": str(disk_folder(folder / "data", PRIMARY))}]}
    account = azurite.prepare(_account(folder))
    connection = folder / "storage-account"
    connection.touch(mode=0o600)
    connection.write_text(account.connection_string)
    networks = {name: primary["networks"][name] | {"azure": subnet} for name, subnet in SUBNETS.items()}
    document["sites"][AZURE] = {
        "fabric": "azure",
        "description": "where replicas are kept",
        "azure": IN_AZURE,
        "replica_store": {
            "kind": "azure",
            "account_url": account.url,
            "credential": f"file:{connection}",
            "ca_file": str(account.ca_file),
        },
        "networks": networks,
    }
    for policy in document["policies"].values():
        policy.update(POLICY)
    for mapping in document["network_mappings"]:
        mapping.update(target=f"{AZURE}/production", test=f"{AZURE}/isolated")
    for machine in document["machines"].values():
        machine["target"] = AZURE
    return json.dumps(document, indent=2) + "\n"


def begin(settings: Settings, inventory: Inventory) -> list[str]:
    """Azurite with its two containers, then the host and the machines on it."""
    from adapters.azure.connection import connect
    from simulation.azure import azurite

    store = replica_store(inventory)
    azurite.start(_account(settings.vault.parent))
    service = connect(store)
    for container in (store.container, store.cache_container):
        service.create_container(container)
    return hyperv.begin(settings, inventory)


def end(settings: Settings) -> None:
    from simulation.azure import azurite

    hyperv.end(settings)
    azurite.stop(_account(settings.vault.parent))


def ended_by(settings: Settings) -> str:
    return f"{hyperv.ended_by(settings)}; python -m simulation.azure {_account(settings.vault.parent)} --stop"


def replica_store(inventory: Inventory) -> AzureReplicas:
    """The storage account of the scenario's site in Azure."""
    store = inventory.sites[AZURE].replica_store
    assert store is not None, "the scenario's own inventory has one"
    return store


def _account(folder: Path) -> Path:
    return folder / "azurite"
