"""``leeward seed export|import``: initial replication on media that people carry.

Both run at a site, with the adapters of that site, and need no Temporal: what they change is the medium and the
replica's base. The machine's workflow sees the result at the replica, and stays the only writer of its own state.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from console.exits import guarded
from console.options import Data, Json, Machine, Vault, settings_of
from console.output import Output, seconds, size

if TYPE_CHECKING:
    from adapters.ports import ReplicationProvider
    from vault.domain import Progress, Relationship


def register(seed: typer.Typer) -> None:
    seed.command("export")(export_seed)
    seed.command("import")(import_seed)


def export_seed(
    machine: Machine,
    to: Annotated[Path, typer.Option("--to", help="A new or empty folder on the medium.", show_default=False)],
    restart: Annotated[
        bool, typer.Option("--restart", help="Take a new snapshot, whatever the folder holds of this machine.")
    ] = False,
    vault: Vault = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Write a machine's disks onto a medium, at its site. As they are at one moment.

    Interrupted or out of space, the same command goes on where it stopped.
    Example: leeward seed export payment-db --to /media/disk1/payment-db
    """

    def work() -> None:
        output = Output(json)
        provider, relationship = _at_site(machine, vault, data)
        made = provider.export_seed(relationship, to, _telling(output, machine), restart=restart)
        what = f"{size(made.stored_bytes)} on the medium" if made.parts else "on the medium"
        of = f", as of {made.moment:%Y-%m-%d %H:%M:%S}Z" if made.moment else ""
        output.say(
            f"{machine}: {what}{of}; carry it to {relationship.target_site}, then there: "
            f"leeward seed import {machine} --from FOLDER"
        )
        output.document(made)

    guarded(work)


def import_seed(
    machine: Machine,
    medium: Annotated[Path, typer.Option("--from", help="The folder on the medium.", show_default=False)],
    vault: Vault = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Make a medium the base of a replica, at the target site. It is verified first.

    It becomes a recovery point only when every byte was verified. Afterwards replication sends what changed since.
    Example: leeward seed import payment-db --from /media/disk1/payment-db
    """

    def work() -> None:
        output = Output(json)
        provider, relationship = _at_site(machine, vault, data)
        point = provider.import_seed(relationship, medium, _telling(output, machine))
        output.say(f"{machine}: verified and imported; recovery point {point.id} of {point.time:%Y-%m-%d %H:%M:%S}Z")
        output.document(point)

    guarded(work)


def _at_site(machine: str, vault: Path | None, data: Path | None) -> tuple[ReplicationProvider, Relationship]:
    from adapters.registry import Adapters
    from vault.errors import NotFound
    from vault.loading import load_inventory

    settings = settings_of(vault, data)
    inventory = load_inventory(settings.vault)
    if machine not in inventory.machines:
        known = ", ".join(sorted(inventory.machines)) or "none"
        raise NotFound(f"machine '{machine}' is not in the inventory", remedy=f"known machines: {known}")
    relationship = inventory.relationship(machine)
    return Adapters(inventory, settings.data).provider(relationship), relationship


def _telling(output: Output, machine: str) -> Callable[[Progress], None]:
    """A line for each tenth, and for each new thing that is being done."""
    shown = ("", -1)

    def tell(progress: Progress) -> None:
        nonlocal shown
        tenth = 10 * progress.bytes_done // progress.bytes_total if progress.bytes_total else 0
        if (progress.doing, tenth) == shown:
            return
        shown = (progress.doing, tenth)
        line = f"{machine}: {progress.doing}"
        if progress.bytes_total:
            line += f", {10 * tenth}% of {size(progress.bytes_total)}"
            line += f", {seconds(progress.eta_s)} left" if progress.eta_s else ""
        output.say(line)

    return tell
