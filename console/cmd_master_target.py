"""``leeward master-target``: the process that keeps a site's replicas, for process servers of other sites."""

from __future__ import annotations

from typing import Annotated

import typer

from console.exits import guarded
from console.options import Data, Vault, settings_of


def register(app: typer.Typer) -> None:
    app.command("master-target")(master_target)


def master_target(
    site: Annotated[str, typer.Option("--site", help="The site whose replicas it keeps.")],
    listen: Annotated[
        str | None,
        typer.Option("--listen", help="host:port to listen at.", show_default="the site's master_target"),
    ] = None,
    vault: Vault = None,
    data: Data = None,
) -> None:
    """Serve a site's replicas over mutual TLS. Runs until it is told to stop.

    The process server at the other end is a replication worker: leeward worker --role replication --site SITE.
    Example: leeward master-target --site recovery --listen 0.0.0.0:7443
    """

    def work() -> None:
        from workers.master_target import serve

        serve(site, settings_of(vault, data), listen)

    guarded(work)
