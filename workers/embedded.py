"""The embedded engine: a supervisor that runs the Temporal dev server, one worker process a place, and master targets.

``leeward up`` starts it in the background, ``leeward up --foreground`` under another supervisor. A child that dies is
started again; SIGTERM stops the workers first (their activities come to a safe point), then what those work with.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from pathlib import Path

from temporalio.client import Client
from temporalio.service import RPCError

from vault.errors import Busy, InvalidState
from vault.inventory import Inventory
from vault.loading import load_inventory
from workers.children import end_with_parent
from workers.connection import register_search_attributes
from workers.engine_file import Engine, Process, process_of, read_engine, this_process, write_engine
from workers.payloads import data_converter
from workers.settings import Settings
from workers.temporal_errors import in_words
from workers.temporal_server import choose_ports, find_binary, start_server

NAMESPACE = "default"
SERVER_STARTS_WITHIN_S = 60
STOPS_WITHIN_S = 25
OLD_CHILDREN_END_WITHIN_S = 45
LOOK_EVERY_S = 0.2
RESTART_PAUSES_S = (0.2, 1, 2, 5, 10)
"""Pause before a dead child is started again; the last one repeats. A child that ran for a while starts over."""
RAN_WELL_S = 10

log = logging.getLogger(__name__)
Start = Callable[[], subprocess.Popen[bytes]]


class Child:
    """A process that should always run."""

    def __init__(self, name: str, start: Start) -> None:
        self.name = name
        self._start = start
        self._deaths = 0
        self._start_at = 0.0
        self._started_at = 0.0
        self.process: subprocess.Popen[bytes] | None = None

    def ensure_running(self, now: float) -> bool:
        """Start it when it does not run and its pause is over; True when it was started just now."""
        if self.process is not None:
            code = self.process.poll()
            if code is None:
                return False
            log.warning("%s ended with code %s; it is started again", self.name, code)
            if now - self._started_at > RAN_WELL_S:
                self._deaths = 0
            self._start_at = now + RESTART_PAUSES_S[min(self._deaths, len(RESTART_PAUSES_S) - 1)]
            self._deaths += 1
            self.process = None
        if now < self._start_at:
            return False
        self.process = self._start()
        self._started_at = now
        return True

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL when that was not enough."""
        process = self.process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.to_thread(process.wait), STOPS_WITHIN_S)
        if process.poll() is None:
            log.warning("%s did not stop within %s s and is killed", self.name, STOPS_WITHIN_S)
            process.kill()
            await asyncio.to_thread(process.wait)


async def run_engine(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        Busy: another engine runs on this data directory.
        InvalidState: the Temporal server does not come up; names its log.
    """
    inventory = load_inventory(settings.vault)
    settings.logs.mkdir(parents=True, exist_ok=True)
    async with _only_one(settings) as lock:
        keep_inventory(settings)
        await _Supervisor(settings, inventory, lock).run()


def keep_inventory(settings: Settings) -> None:
    """What the workers are started with, for who asks later whether the file has changed: whoever may read that."""
    temporary = settings.loaded_inventory.with_suffix(".part")
    with open(temporary, "wb", opener=partial(os.open, mode=0o600)) as kept:
        kept.write(settings.vault.read_bytes())
        os.fchmod(kept.fileno(), stat.S_IMODE(settings.vault.stat().st_mode))
    temporary.replace(settings.loaded_inventory)


class _Supervisor:
    def __init__(self, settings: Settings, inventory: Inventory, lock: int) -> None:
        self._settings = settings
        self._lock = lock
        self._ports = choose_ports(_ports_of_last_time(settings.data))
        self._address = f"127.0.0.1:{self._ports[0]}"
        binary = find_binary()
        self._server = Child(
            "temporal",
            lambda: start_server(
                binary, settings.data / "temporal.db", self._ports, settings.logs / "temporal.log", lock
            ),
        )
        self._workers = [
            Child(name, lambda name=name, module=module: self._start_module(name, module))  # type: ignore[misc]
            for name, module in worker_processes(inventory).items()
        ]
        self._master_targets = [
            Child(name, lambda name=name, module=module: self._start_module(name, module))  # type: ignore[misc]
            for name, module in master_target_processes(inventory).items()
        ]
        self._stop = asyncio.Event()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        _remember_ports(self._settings.data, self._ports)
        try:
            self._server.ensure_running(loop.time())
            await self._wait_for_server()
            while not self._stop.is_set():
                started = [child.ensure_running(loop.time()) for child in self._children()]
                if any(started):
                    self._tell(ready=True)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), LOOK_EVERY_S)
        finally:
            await asyncio.gather(*(worker.stop() for worker in self._workers))
            await asyncio.gather(*(target.stop() for target in self._master_targets))
            await self._server.stop()
            self._settings.engine_file.unlink(missing_ok=True)

    async def _wait_for_server(self) -> None:
        """Until the server takes requests and has leeward's search attributes."""
        deadline = asyncio.get_running_loop().time() + SERVER_STARTS_WITHIN_S
        while not self._stop.is_set():
            try:
                client = await Client.connect(self._address, namespace=NAMESPACE, data_converter=data_converter)
                await register_search_attributes(client)
            except (RPCError, RuntimeError) as error:
                process = self._server.process
                if (process is not None and process.poll() is not None) or asyncio.get_running_loop().time() > deadline:
                    raise InvalidState(
                        f"the Temporal server does not start: {in_words(str(error))}",
                        where=str(self._settings.logs / "temporal.log"),
                        remedy="read that log",
                    ) from error
                await asyncio.sleep(LOOK_EVERY_S)
            else:
                return

    def _children(self) -> list[Child]:
        return [self._server, *self._master_targets, *self._workers]

    def _start_module(self, name: str, module: list[str]) -> subprocess.Popen[bytes]:
        variables = {**_without_temporal(os.environ), **self._settings.environment(), "TEMPORAL_ADDRESS": self._address}
        with (self._settings.logs / f"{name}.log").open("ab") as log_file:
            return subprocess.Popen(
                [sys.executable, "-m", *module],
                env=variables,
                pass_fds=(self._lock,),
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_parent,  # noqa: PLW1509 - a prctl and nothing else happens between fork and exec
            )

    def _tell(self, *, ready: bool) -> None:
        children = [child for child in self._children() if child.process is not None]
        processes: dict[str, Process] = {
            child.name: process_of(child.process.pid) for child in children if child.process is not None
        }
        write_engine(
            self._settings.engine_file,
            Engine(
                address=self._address,
                ui=f"http://127.0.0.1:{self._ports[1]}",
                namespace=NAMESPACE,
                supervisor=this_process(),
                ready=ready,
                time_scale=self._settings.time_scale,
                processes=processes,
            ),
        )


def _without_temporal(variables: Mapping[str, str]) -> dict[str, str]:
    """A profile, namespace or key that leads to another Temporal is not meant for the embedded one."""
    return {name: value for name, value in variables.items() if not name.startswith("TEMPORAL_")}


def worker_processes(inventory: Inventory) -> dict[str, list[str]]:
    """Module and options of one process for control and one for each site, which plays both of the site's roles."""
    processes = {"control": ["workers.main", "--role", "control"]}
    for site in inventory.sites:
        processes[f"site-{site}"] = ["workers.main", "--role", "site", "--role", "replication", "--site", site]
    return processes


def master_target_processes(inventory: Inventory) -> dict[str, list[str]]:
    """One for each site that has one: this machine runs all sites."""
    return {
        f"master-target-{name}": ["workers.master_target", "--site", name]
        for name, site in inventory.sites.items()
        if site.master_target is not None
    }


@contextlib.asynccontextmanager
async def _only_one(settings: Settings) -> AsyncIterator[int]:
    """Hold the data directory's lock, which the children inherit: as long as one of them lives, nobody else has it.

    After a supervisor was killed the next one waits here until the old children are gone, or two Temporal servers
    would have one database.
    """
    with (settings.data / "engine.lock").open("w") as lock:
        deadline = asyncio.get_running_loop().time() + OLD_CHILDREN_END_WITHIN_S
        while not _try_lock(lock.fileno()):
            if read_engine(settings.engine_file) is not None:
                raise Busy(
                    "another engine runs on this data directory", where=str(settings.data), remedy="leeward down"
                )
            if asyncio.get_running_loop().time() > deadline:
                raise Busy(
                    "processes of an engine that was killed do not end",
                    where=str(settings.data),
                    remedy="find them by this directory in their environment, and kill them",
                )
            await asyncio.sleep(LOOK_EVERY_S)
        yield lock.fileno()


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _ports_of_last_time(data: Path) -> tuple[int, int] | None:
    try:
        server, ui = json.loads((data / "ports.json").read_text())
    except (FileNotFoundError, ValueError):
        return None
    return int(server), int(ui)


def _remember_ports(data: Path, ports: tuple[int, int]) -> None:
    """So that a bookmarked UI and connected workers find the engine again after a restart."""
    (data / "ports.json").write_text(json.dumps(ports))
