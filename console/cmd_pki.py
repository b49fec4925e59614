"""``leeward pki init|issue|show|key``: certificates of sites, and keys for replicas."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from console.exits import guarded, warn
from console.options import Data, Json, Vault, settings_of
from console.output import Output

if TYPE_CHECKING:
    from replication.transport.pki import Peer, Pki

Folder = Annotated[
    Path | None, typer.Option("--pki", help="The folder of the authority.", show_default="pki in the data directory")
]


def register(pki: typer.Typer) -> None:
    pki.command()(init)
    pki.command()(issue)
    pki.command()(show)
    pki.command()(key)


def init(pki: Folder = None, vault: Vault = None, data: Data = None, json: Json = False) -> None:
    """Make an authority whose certificates the sites trust. Its key, ca.key, stays where certificates are issued.

    Example: leeward pki init && leeward pki issue primary && leeward pki issue recovery
    """

    def work() -> None:
        found = _pki(pki, vault, data)
        found.init(datetime.now(UTC))
        output = Output(json)
        output.say(f"{found.authority}: every site needs it; keep {found.authority_key.name} here")
        output.document({"authority": str(found.authority), "valid_until": found.authority_until().isoformat()})

    guarded(work)


def issue(
    site: Annotated[str, typer.Argument(help="A site of the inventory.", metavar="SITE")],
    days: Annotated[int, typer.Option("--days", help="How long it is valid.", min=1, max=3650)] = 397,
    renew: Annotated[bool, typer.Option("--renew", help="Also when the present one is valid for long.")] = False,
    pki: Folder = None,
    vault: Vault = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Issue a site's certificate, or renew it. It is renewed when it is valid for less than 60 days.

    Bring ca.pem, sites/SITE.pem and issued/ to the site's hosts. Example: leeward pki issue recovery
    """

    def work() -> None:
        found = _pki(pki, vault, data)
        peer = found.issue(site, datetime.now(UTC), days, renew=renew)
        _warn_of_unknown_site(site, vault, data)
        output = Output(json)
        output.say(f"{found.site(site)}: certificate and key of '{site}', valid until {peer.not_after:%Y-%m-%d}")
        output.document(_row(peer, datetime.now(UTC)))

    guarded(work)


def show(pki: Folder = None, vault: Vault = None, data: Data = None, json: Json = False) -> None:
    """Show the certificates that are accepted. Delete a file of issued/ to revoke one."""

    def work() -> None:
        found, now = _pki(pki, vault, data), datetime.now(UTC)
        until, peers = found.authority_until(), found.accepted()
        output = Output(json)
        output.document({"authority_until": until.isoformat(), "certificates": [_row(peer, now) for peer in peers]})
        output.say(f"authority {found.authority}: valid until {until:%Y-%m-%d}")
        output.table(
            ["site", "serial", "valid until", "state"],
            [[peer.site, peer.serial, f"{peer.not_after:%Y-%m-%d}", peer.state(now)] for peer in peers],
        )

    guarded(work)


def key(
    file: Annotated[Path, typer.Argument(help="The new file; only its owner may read it.", metavar="FILE")],
    json: Json = False,
) -> None:
    """Make a key for a site's 'replica_key'. It wraps the keys that encrypt the machines replicated to that site.

    Both sites need it. Without it, encrypted recovery points are lost. Example: leeward pki key recovery.key
    """

    def work() -> None:
        from replication.cipher import write_new_key

        write_new_key(file)
        output = Output(json)
        output.say(f"{file}: name it in the inventory as  replica_key: file:{file.resolve()}  and keep a copy of it")
        output.document({"file": str(file)})

    guarded(work)


def _warn_of_unknown_site(site: str, vault: Path | None, data: Path | None) -> None:
    """No error: the authority may be kept where there is no inventory, and the site be added later."""
    from vault.errors import LeewardError, NotFound
    from vault.loading import load_inventory
    from vault.validation import did_you_mean

    path = settings_of(vault, data).vault
    try:
        sites = load_inventory(path).sites
    except NotFound:
        return
    except LeewardError:
        warn(f"{path}: it cannot be read, so whether it knows site '{site}' is open — leeward vault check")
        return
    if site not in sites:
        warn(f"{path}: no site '{site}' in the inventory: no master target accepts it — {did_you_mean(site, sites)}")


def _pki(folder: Path | None, vault: Path | None, data: Path | None) -> Pki:
    from replication.transport.pki import Pki

    return Pki(folder or settings_of(vault, data).data / "pki")


def _row(peer: Peer, now: datetime) -> dict[str, str]:
    return {
        "site": peer.site,
        "serial": peer.serial,
        "valid_until": peer.not_after.isoformat(),
        "state": peer.state(now),
    }
