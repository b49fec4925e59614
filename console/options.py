"""Options and arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from console.client import Leeward
    from workers.settings import Settings

Json = Annotated[bool, typer.Option("--json", help="Write JSON for machines instead of text for people.")]
Vault = Annotated[
    Path | None,
    typer.Option("--vault", "-f", help="The inventory file.", envvar="LEEWARD_VAULT", show_default="leeward.yaml"),
]
Data = Annotated[
    Path | None,
    typer.Option("--data", help="leeward's data directory.", envvar="LEEWARD_DATA", show_default=".leeward"),
]
TimeScale = Annotated[
    float | None,
    typer.Option("--time-scale", help="Lab only: shorten retry and other long waits, like 0.01.", show_default="1"),
]
Machine = Annotated[str, typer.Argument(help="A machine of the inventory.", metavar="MACHINE")]
Detach = Annotated[bool, typer.Option("--detach", help="Return at once; the work goes on in Temporal.")]


def settings_of(vault: Path | None, data: Path | None, time_scale: float | None = None) -> Settings:
    from workers.settings import load_settings

    return load_settings(vault, data, time_scale)


async def connected(settings: Settings) -> Leeward:
    """A client for the settings' inventory and Temporal."""
    from console.client import Leeward
    from vault.loading import load_inventory
    from workers.connection import connect
    from workers.engine_file import read_engine

    inventory = load_inventory(settings.vault)
    engine = read_engine(settings.engine_file)
    if engine is not None and engine.time_scale != settings.time_scale:
        settings = settings.model_copy(update={"time_scale": engine.time_scale})
    return Leeward(await connect(settings, quiet=True), inventory, settings.timings())
