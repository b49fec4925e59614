"""``leeward init``, ``leeward vault check|show``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from console.exits import guarded
from console.options import Data, Json, Vault, settings_of
from console.output import Output, counted, seconds, size

if TYPE_CHECKING:
    from vault.inventory import Inventory


def register(app: typer.Typer, vault: typer.Typer) -> None:
    app.command()(init)
    vault.command()(check)
    vault.command()(show)


def init(
    lab: Annotated[bool, typer.Option("--lab", help="Two sites on this computer, four machines and a plan.")] = False,
    folder: Annotated[Path, typer.Argument(help="Where to write.")] = Path(),
) -> None:
    """Write a commented inventory and a plan to begin with. Never overwrites a file.

    Example: leeward init --lab && leeward up && leeward lab up
    """
    from vault.errors import BadInput, InvalidState

    def work() -> None:
        from plans.template import LAB_PLAN
        from vault.template import LAB_INVENTORY

        if not lab:
            raise BadInput("say what kind of inventory to write", where="leeward init", remedy="leeward init --lab")
        files = {folder / "leeward.yaml": LAB_INVENTORY, folder / "payments.plan.yaml": LAB_PLAN}
        for path in files:
            if path.exists():
                raise InvalidState(
                    "exists already; nothing was written", where=str(path), remedy="choose another folder"
                )
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            path.write_text(text)
            print(f"wrote {path}")

    guarded(work)


def check(vault: Vault = None, data: Data = None, json: Json = False) -> None:
    """Check the inventory file. Every mistake is named with its line and what to do."""

    def work() -> None:
        from vault.loading import load_inventory

        settings = settings_of(vault, data)
        inventory = load_inventory(settings.vault)
        output = Output(json)
        machines, sites = counted(len(inventory.machines), "machine"), counted(len(inventory.sites), "site")
        output.say(f"{settings.vault}: {machines} at {sites}: all is well")
        output.document({"ok": True, "machines": len(inventory.machines), "sites": len(inventory.sites)})

    guarded(work)


def show(vault: Vault = None, data: Data = None, json: Json = False) -> None:
    """Show what the inventory says."""

    def work() -> None:
        from vault.loading import load_inventory

        inventory = load_inventory(settings_of(vault, data).vault)
        output = Output(json)
        output.document(inventory)
        output.table(
            ["site", "fabric", "networks"],
            [[name, site.fabric, ", ".join(site.networks)] for name, site in inventory.sites.items()],
        )
        output.say("")
        output.table(
            ["policy", "frequency", "recovery points", "resynchronization"],
            [
                [
                    name,
                    seconds(policy.frequency),
                    f"{policy.retention.count}, {policy.retention.hours:g} h",
                    policy.resync,
                ]
                for name, policy in inventory.policies.items()
            ],
        )
        output.say("")
        output.table(["network", "is", "mapped to", "which is"], _mappings(inventory))
        output.say("")
        if inventory.storage_mappings:
            output.table(
                ["storage pool", "mapped to"], [[one.source, one.target] for one in inventory.storage_mappings]
            )
            output.say("")
        output.table(
            ["machine", "runs at", "recovered at", "network", "policy", "disks"],
            [
                [
                    name,
                    machine.site,
                    machine.target,
                    f"{machine.network} → {inventory.relationship(name).target_network}",
                    machine.policy,
                    size(sum(disk.size for disk in machine.lab.disks)) if machine.lab else "-",
                ]
                for name, machine in inventory.machines.items()
            ],
        )

    guarded(work)


def _mappings(inventory: Inventory) -> list[list[str]]:
    """Each mapping by its production networks, then by its isolated ones, as the fabrics at both ends know them."""
    from vault.azure_networks import described_network

    def kind(site: str, network: str) -> str:
        return inventory.sites[site].networks[network].kind.value

    def end(name: str) -> list[str]:
        site, network = name.split("/", 1)
        return [name, described_network(inventory.sites[site], network) or kind(site, network)]

    return [
        [*end(source), *end(target)]
        for mapping in inventory.network_mappings
        for source, target in ((mapping.source, mapping.target), (mapping.source_test, mapping.test))
    ]
