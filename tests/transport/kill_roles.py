"""The processes that a test kills. They are forked from a process that has imported all of this: they start at once."""

from __future__ import annotations

import time
from pathlib import Path

import workers  # noqa: F401  # its settings for TLS come before gRPC
from adapters.registry import Adapters
from replication.transport import connection, remote  # noqa: F401  # which the product imports when it needs them
from vault.domain import Progress, Retention
from vault.errors import Recoverable
from vault.loading import load_inventory
from workers import master_target
from workers.settings import Settings

PAUSE_S = 0.02


def quiet(_: Progress) -> None: ...


def run_master_target(site: str, vault: Path, data: Path) -> None:
    master_target.serve(site, Settings(vault=vault, data=data))


def run_process_server(vault: Path, data: Path, keep_points: int) -> None:
    """What the activity of steady-state replication does, again and again until somebody kills it.

    No kill may ever make a resynchronization necessary: that would end it."""
    inventory = load_inventory(vault)
    relationship = inventory.relationship("db").model_copy(update={"retention": Retention(count=keep_points)})
    provider = Adapters(inventory, data).provider(relationship)
    while True:
        try:
            provider.replicate_once(relationship, quiet, app_consistent=False)
        except Recoverable:
            provider.keep_changes(relationship, quiet, app_consistent=False)
        time.sleep(PAUSE_S)
