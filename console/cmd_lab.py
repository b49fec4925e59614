"""``leeward lab up|status|down`` and ``leeward lab faults set|clear|show``."""

from __future__ import annotations

from typing import Annotated

import typer

from console.exits import guarded
from console.options import Data, Json, Vault, settings_of
from console.output import Output, counted, size

Site = Annotated[str, typer.Argument(help="A site of the lab.", metavar="SITE")]


def register(lab: typer.Typer, faults: typer.Typer) -> None:
    lab.command()(up)
    lab.command()(status)
    lab.command()(down)
    faults.command("set")(set_fault)
    faults.command("clear")(clear_fault)
    faults.command("show")(show_faults)


def up(vault: Vault = None, data: Data = None, json: Json = False) -> None:
    """Make the inventory's machines and start each where it belongs. What runs already stays as it is."""

    def work() -> None:
        from adapters.lab import labctl
        from vault.loading import load_inventory

        settings = settings_of(vault, data)
        started = labctl.up(load_inventory(settings.vault), settings.lab_root)
        output = Output(json)
        output.say(f"{counted(len(started), 'machine')} answering: {', '.join(started)}")
        output.document({"answering": started})

    guarded(work)


def status(vault: Vault = None, data: Data = None, json: Json = False) -> None:
    """Show every machine of the lab as it really is. Whatever leeward thinks of it."""

    def work() -> None:
        from adapters.lab import labctl
        from adapters.lab.network import overlaps

        settings = settings_of(vault, data)
        rows = labctl.status(settings.lab_root)
        output = Output(json)
        output.document({"machines": [row._asdict() for row in rows], "overlaps": overlaps(settings.lab_root)})
        output.table(
            ["site", "machine", "power", "network", "address", "last transaction", "damaged", "rate", "logs", "disks"],
            [
                [
                    row.site,
                    row.machine,
                    row.power,
                    row.network,
                    row.address or "-",
                    row.transactions.last if row.transactions else "-",
                    row.transactions.damaged if row.transactions else "-",
                    f"{row.rate:.0f}/s" if row.rate is not None else "-",
                    size(row.log_bytes),
                    size(row.disk_bytes),
                ]
                for row in rows
            ],
            empty="the lab has no machines yet; make and start them: leeward lab up",
        )

    guarded(work)


def down(vault: Vault = None, data: Data = None, json: Json = False) -> None:
    """Shut all machines of the lab down. Their disks stay."""

    def work() -> None:
        from adapters.lab import labctl
        from vault.loading import load_inventory

        settings = settings_of(vault, data)
        stopped = labctl.down(load_inventory(settings.vault), settings.lab_root)
        output = Output(json)
        output.say(f"{counted(len(stopped), 'machine')} shut down: {', '.join(stopped) or 'none ran'}")
        output.document({"stopped": stopped})

    guarded(work)


def set_fault(
    site: Site,
    fault: Annotated[str, typer.Argument(help="host-dead, link-down, link-slow, disk-full or login-refused.")],
    rate: Annotated[str | None, typer.Option("--rate", help="For link-slow: bytes a second, like 1MiB.")] = None,
    vault: Vault = None,
    data: Data = None,
) -> None:
    """Switch a fault on.

    Example: leeward lab faults set primary host-dead
    """

    def work() -> None:
        from adapters.lab.faults import Fault, SiteFaults
        from vault.errors import BadInput
        from vault.inventory import parse_size

        settings = settings_of(vault, data)
        _must_exist(settings.vault, site)
        try:
            bytes_per_second = float(parse_size(rate)) if rate is not None else None
        except ValueError as error:
            raise BadInput(str(error), where="--rate") from error
        SiteFaults(settings.lab_root, site).set(Fault.parse(fault), bytes_per_second)
        print(f"{site}: {Fault.parse(fault)} is on")

    guarded(work)


def clear_fault(
    site: Site,
    fault: Annotated[str | None, typer.Argument(help="Which one; without it: all of the site.")] = None,
    guests_start: Annotated[
        bool, typer.Option("--guests-start", help="A dead host comes back and starts what ran on it, unasked.")
    ] = False,
    vault: Vault = None,
    data: Data = None,
) -> None:
    """Switch a fault off. Machines of a dead host stay off until somebody starts them, or with --guests-start."""

    def work() -> None:
        from adapters.lab import labctl
        from adapters.lab.faults import Fault, SiteFaults
        from vault.loading import load_inventory

        settings = settings_of(vault, data)
        _must_exist(settings.vault, site)
        if guests_start:
            started = labctl.host_returns(load_inventory(settings.vault), settings.lab_root, site)
            print(f"{site}: the host is back; it started: {', '.join(started) or 'nothing'}")
        SiteFaults(settings.lab_root, site).clear(Fault.parse(fault) if fault else None)
        print(f"{site}: {fault or 'all faults'} off")

    guarded(work)


def show_faults(vault: Vault = None, data: Data = None, json: Json = False) -> None:
    """Which faults are on."""

    def work() -> None:
        from adapters.lab.faults import SiteFaults
        from vault.loading import load_inventory

        settings = settings_of(vault, data)
        rows = [
            [site, fault.value, size(rate) + "/s" if rate else ""]
            for site in load_inventory(settings.vault).sites
            for fault, rate in SiteFaults(settings.lab_root, site).active().items()
        ]
        output = Output(json)
        output.document([{"site": site, "fault": fault, "rate": rate} for site, fault, rate in rows])
        output.table(["site", "fault", "rate"], rows)

    guarded(work)


def _must_exist(vault_file: object, site: str) -> None:
    from pathlib import Path

    from vault.errors import NotFound
    from vault.loading import load_inventory

    sites = load_inventory(Path(str(vault_file))).sites
    if site not in sites:
        raise NotFound(f"unknown site '{site}'", remedy=f"the inventory knows: {', '.join(sites)}")
