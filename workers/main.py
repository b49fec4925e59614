"""``python -m workers.main``: how the supervisor starts a worker process."""

from __future__ import annotations

import argparse
import asyncio

from temporalio.service import RPCError

from vault.errors import LeewardError
from vault.loading import load_inventory
from workers.connection import connect, register_search_attributes
from workers.leaving import leave
from workers.logs import log_to_stderr, tell
from workers.memory import keep_freed_memory
from workers.settings import Settings, load_settings
from workers.temporal_errors import of_a_worker
from workers.versions import worker_identity
from workers.worker import Role, run_worker

EXIT_BAD_INPUT = 2
EXIT_UNREACHABLE = 4


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="leeward worker")
    parser.add_argument("--role", action="append", choices=[role.value for role in Role], default=[])
    parser.add_argument("--site")
    given = parser.parse_args(arguments)
    return serve([Role(role) for role in given.role], given.site, load_settings())


def serve(roles: list[Role], site: str | None, settings: Settings) -> int:
    """Run a worker until it is told to stop; the exit code says how it ended."""
    log_to_stderr()
    keep_freed_memory()
    try:
        asyncio.run(_serve(roles, site, settings))
    except LeewardError as error:
        tell(error)
        return EXIT_UNREACHABLE if error.recoverable else EXIT_BAD_INPUT
    return 0


async def _serve(roles: list[Role], site: str | None, settings: Settings) -> None:
    inventory = load_inventory(settings.vault)
    client = await connect(settings, identity=worker_identity())
    try:
        if Role.CONTROL in roles:
            await register_search_attributes(client)
        await run_worker(client, settings, inventory, roles, site)
    except (RPCError, RuntimeError) as error:
        told = of_a_worker(error)
        if told is None:
            raise
        raise told from error


if __name__ == "__main__":
    leave(main())
