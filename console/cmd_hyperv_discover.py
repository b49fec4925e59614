"""``leeward hyperv discover``: what runs on a site's hosts, and what of it can be protected. Reads only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from console.exits import Exit, guarded
from console.options import Data, Json, Vault, settings_of
from console.output import Output, size

if TYPE_CHECKING:
    from adapters.hyperv.discovery import HostFound, MachineFound


def register(hyperv: typer.Typer) -> None:
    hyperv.command()(discover)


def discover(
    site: Annotated[str, typer.Option("--site", help="A Hyper-V site of the inventory.")],
    vault: Vault = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """List the virtual machines of a site. Where each is, whether it can be protected, and why not.

    Example: leeward hyperv discover --site east
    """

    def work() -> list[HostFound]:
        from adapters.hyperv.fabrics import HyperVFabrics
        from vault.errors import BadInput
        from vault.loading import load_inventory
        from vault.validation import did_you_mean

        path = settings_of(vault, data).vault
        inventory = load_inventory(path)
        known = [name for name, described in inventory.sites.items() if described.fabric == "hyperv"]
        if site not in known:
            remedy = did_you_mean(site, known) or "add a site of 'fabric: hyperv' to the inventory"
            raise BadInput(f"there is no Hyper-V site '{site}'", where=str(path), remedy=remedy)
        return HyperVFabrics(inventory).discover(site)

    found = guarded(work)
    _show(found, Output(json))
    if any(host.trouble for host in found):
        raise typer.Exit(int(Exit.UNREACHABLE))


def _show(found: list[HostFound], output: Output) -> None:
    output.document({"hosts": found})
    rows = [_row(machine) for host in found for machine in host.machines]
    output.table(["machine", "host", "cloud", "state", "disks", "can be protected", "why not, and what to do"], rows)
    for host in found:
        if host.trouble:
            output.say(f"host {host.host}: {host.trouble}")


def _row(found: MachineFound) -> list[str]:
    vm = found.machine
    return [
        vm.name,
        found.host,
        found.cloud or "-",
        vm.state.value,
        f"{len(vm.disks)}, {size(sum(disk.size for disk in vm.disks))}",
        "yes" if found.can_be_protected else "no",
        "; ".join(str(finding).removeprefix(f"{vm.name}: ") for finding in found.findings),
    ]
