"""``leeward up``, ``down``, ``worker``: the embedded engine, and workers for any Temporal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from console.exits import Exit, guarded, warn
from console.options import Data, Json, TimeScale, Vault, settings_of
from console.output import Output

if TYPE_CHECKING:
    from pathlib import Path

    from vault.errors import LeewardError
    from workers.engine_file import Engine
    from workers.settings import Settings

STARTS_WITHIN_S = 90
STOPS_WITHIN_S = 60
LOOK_EVERY_S = 0.1
TAKE_OVER = (
    "to take it over: leeward down, then leeward up (machines run on, replication goes on after that); settings of a "
    "protected machine besides: leeward protect MACHINE"
)


def register(app: typer.Typer) -> None:
    app.command()(up)
    app.command()(down)
    app.command()(worker)


def up(
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay, for a supervisor like systemd.")] = False,
    vault: Vault = None,
    data: Data = None,
    time_scale: TimeScale = None,
    json: Json = False,
) -> None:
    """Start everything on this machine.

    That is the Temporal dev server, one worker process a place, and the sites' master targets. Where it runs already,
    it says what of the inventory has changed since then: workers read it when they start.

    Example: leeward up && leeward status
    """
    settings = guarded(lambda: settings_of(vault, data, time_scale))
    if foreground:
        guarded(lambda: run_in_foreground(settings))
        return
    engine = guarded(lambda: start_engine(settings))
    output = Output(json)
    output.say(f"leeward runs. Temporal: {engine.address}   UI: {engine.ui}")
    changes = guarded(lambda: inventory_changes(settings))
    if changes:
        warn(f"the workers run with an earlier {settings.vault.name}: {'; '.join(changes)} — {TAKE_OVER}")
    facts = {"address": engine.address, "ui": engine.ui, "namespace": engine.namespace}
    output.document({**facts, "inventory_changes": changes})


def down(vault: Vault = None, data: Data = None, json: Json = False) -> None:
    """Stop the embedded engine cleanly. Machines of the lab go on running; protection goes on with the next 'up'."""
    settings = guarded(lambda: settings_of(vault, data))
    was_running = guarded(lambda: stop_engine(settings))
    output = Output(json)
    output.say("leeward is stopped" if was_running else "leeward does not run here; nothing to stop")
    output.document({"was_running": was_running})


def worker(
    role: Annotated[list[str], typer.Option("--role", help="control, site or replication; repeat for several.")],
    site: Annotated[str | None, typer.Option("--site", help="The place whose tasks it takes.")] = None,
    vault: Vault = None,
    data: Data = None,
    time_scale: TimeScale = None,
) -> None:
    """Run a worker against any Temporal. It is found by the standard TEMPORAL_* environment or profile.

    Example: TEMPORAL_ADDRESS=temporal:7233 leeward worker --role site --role replication --site primary
    """

    def work() -> None:
        from vault.errors import BadInput
        from workers.main import serve
        from workers.worker import Role

        known = [known_role.value for known_role in Role]
        unknown = [name for name in role if name not in known]
        if unknown:
            raise BadInput(f"unknown role '{unknown[0]}'", where="--role", remedy=f"use {', '.join(known)}")
        raise typer.Exit(serve([Role(name) for name in role], site, settings_of(vault, data, time_scale)))

    guarded(work)


def run_in_foreground(settings: Settings) -> None:
    import asyncio
    import logging

    from workers.embedded import run_engine

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings.data.mkdir(parents=True, exist_ok=True)
    asyncio.run(run_engine(settings))


def start_engine(settings: Settings) -> Engine:
    """Start the engine in the background, or find it running; returns when it is ready."""
    import os
    import subprocess
    import sys
    import time

    from vault.errors import InvalidState
    from vault.loading import load_inventory
    from workers.engine_file import read_engine

    running = read_engine(settings.engine_file)
    if running is not None and running.ready:
        return running
    load_inventory(settings.vault)
    settings.logs.mkdir(parents=True, exist_ok=True)
    log_file = settings.logs / "engine.log"
    with log_file.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "console", "up", "--foreground"],
            env={**os.environ, **settings.environment()},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < deadline:
        engine = read_engine(settings.engine_file)
        if engine is not None and engine.ready:
            return engine
        if process.poll() is not None:
            raise _why_it_ended(process.returncode, log_file)
        time.sleep(LOOK_EVERY_S)
    process.terminate()
    raise InvalidState(
        f"the engine is not ready after {STARTS_WITHIN_S} s", where=str(log_file), remedy="read that log"
    )


def inventory_changes(settings: Settings) -> list[str]:
    """What the inventory says now and did not when the running engine started."""
    from vault.errors import BadInput
    from vault.inventory_changes import changes
    from vault.loading import load_inventory

    kept = settings.loaded_inventory
    if not kept.exists() or kept.read_bytes() == settings.vault.read_bytes():
        return []
    now = load_inventory(settings.vault)
    try:
        return changes(load_inventory(kept), now)
    except BadInput:  # written for an earlier leeward, which started the engine
        return ["the file changed since the engine of an earlier leeward started"]


def _why_it_ended(code: int, log_file: Path) -> LeewardError:
    """The error with which an engine refused to start, as it would be told in the foreground."""
    from vault.errors import BadInput, InvalidState

    last_line = next(iter(log_file.read_text(errors="replace").strip().splitlines()[-1:]), "")
    what = last_line.removeprefix("error: ")
    if what == last_line:
        return InvalidState(f"the engine ended at once: {last_line}", where=str(log_file), remedy="read that log")
    return BadInput(what) if code == Exit.BAD_INPUT else InvalidState(what)


def stop_engine(settings: Settings) -> bool:
    """Stop the engine and wait until it is gone; False when it did not run."""
    import os
    import signal
    import time

    from vault.errors import InvalidState
    from workers.engine_file import is_alive, read_engine

    engine = read_engine(settings.engine_file)
    if engine is None:
        return False
    os.kill(engine.supervisor.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOPS_WITHIN_S
    while is_alive(engine.supervisor):
        if time.monotonic() > deadline:
            raise InvalidState(
                f"the engine (process {engine.supervisor.pid}) does not stop",
                where=str(settings.logs / "engine.log"),
                remedy="read that log",
            )
        time.sleep(LOOK_EVERY_S)
    return True
