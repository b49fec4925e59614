"""A whole leeward for tests: engine, lab and small machines in one folder, and the proof that nothing of it is left."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from temporalio.client import Client, WorkflowFailureError
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RPCError

from adapters.lab import labctl
from adapters.lab.database import scan_images
from adapters.lab.definition import MachineDefinition
from adapters.lab.faults import SiteFaults
from adapters.lab.layout import LabLayout, MachineFolder
from adapters.lab.ledger import ACKNOWLEDGED, BOOTED, Entry, read_ledger
from adapters.lab.network import overlaps
from console.client import Leeward
from plans.loading import load_plan
from plans.model import Plan
from vault.domain import RunType
from vault.inventory import Inventory
from vault.lifecycle import Phase
from vault.loading import load_inventory
from workers.engine_file import Engine, Process, is_alive, read_engine
from workers.settings import Settings
from workflows.ids import plan_id
from workflows.model import JobResult, MachineState, RunStatus

HOME, AWAY = "primary", "recovery"
PLAN = "pair"
TIME_SCALE = 0.01
SMALL: dict[str, dict[str, str]] = {"db": {"log": "8MiB", "data": "16MiB"}, "app": {"system": "8MiB"}}
"""Machines and the disks of each."""
TROUBLE_IN_LOGS = ("Traceback", "Fatal Python error", "PyGILState")


def inventory_document(
    machines: dict[str, dict[str, str]], *, rate: float, policy: dict[str, Any], sites: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    networks = {"production": {"kind": "production"}, "isolated": {"kind": "isolated"}}
    return {
        "version": 1,
        "sites": {site: {"fabric": "lab", "networks": networks, **sites.get(site, {})} for site in (HOME, AWAY)},
        "policies": {"often": {"frequency": "1s", **policy}},
        "network_mappings": [
            {
                "source": f"{HOME}/production",
                "target": f"{AWAY}/production",
                "test": f"{AWAY}/isolated",
                "source_test": f"{HOME}/isolated",
            }
        ],
        "machines": {
            name: {
                "site": HOME,
                "target": AWAY,
                "network": "production",
                "policy": "often",
                "lab": {
                    "disks": [{"name": disk, "size": size} for disk, size in disks.items()],
                    "transactions_per_second": rate,
                    "transaction_size": "4KiB",
                },
            }
            for name, disks in machines.items()
        },
    }


class Command(NamedTuple):
    """How a ``leeward`` command ended. ``cpu_s`` is the user and system time that it took."""

    code: int
    out: str
    err: str
    cpu_s: float

    def json(self) -> Any:
        return json.loads(self.out)


class Window(NamedTuple):
    """What a copy made at one moment must hold: at least ``acknowledged``, at most ``begun``."""

    acknowledged: int
    begun: int


@dataclass
class House:
    """One leeward in ``root``. Everything about it is reached by files, commands and the Temporal client."""

    root: Path
    machines: list[str]
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def vault(self) -> Path:
        return self.root / "leeward.yaml"

    @property
    def settings(self) -> Settings:
        return Settings(vault=self.vault, data=self.root / "data", time_scale=TIME_SCALE)

    @property
    def lab(self) -> LabLayout:
        return LabLayout(self.settings.lab_root)

    @property
    def inventory(self) -> Inventory:
        return load_inventory(self.vault)

    @property
    def plan(self) -> Plan:
        return load_plan(self.root / f"{PLAN}.plan.yaml", self.inventory)

    # -- commands ------------------------------------------------------------------------------------------------

    def variables(self, **more: str) -> dict[str, str]:
        """The environment of every process of this house; nothing in it leads to an engine outside."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TEMPORAL_", "LEEWARD_"))}
        own = {
            "LEEWARD_VAULT": str(self.vault),
            "LEEWARD_DATA": str(self.settings.data),
            "LEEWARD_TIME_SCALE": str(TIME_SCALE),
            "LEEWARD_TEMPORAL_PORT": "0",
        }
        return kept | own | self.environment | more

    def popen(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "console", *arguments],
            cwd=self.root,
            env=self.variables(**more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, timeout_s: float = 60, **more: str) -> Command:
        """``leeward ARGUMENTS`` to its end."""
        process = self.popen(*arguments, **more)
        try:
            out, err = process.communicate(timeout=timeout_s)
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()
        times = os.times()
        return Command(process.returncode, out, err, times.children_user + times.children_system)

    def must(self, *arguments: str, timeout_s: float = 60, **more: str) -> Command:
        """As :meth:`run`, for a command that has to succeed."""
        done = self.run(*arguments, timeout_s=timeout_s, **more)
        assert done.code == 0, f"leeward {' '.join(arguments)} ended with {done.code}:\n{done.out}{done.err}"
        return done

    def up(self) -> Engine:
        self.must("up")
        engine = self.engine
        assert engine is not None
        return engine

    def down(self) -> None:
        self.must("down")
        assert self.engine is None

    @property
    def engine(self) -> Engine | None:
        return read_engine(self.settings.engine_file)

    @property
    def running_engine(self) -> Engine:
        engine = self.engine
        assert engine is not None, "the engine does not run"
        return engine

    # -- leeward -------------------------------------------------------------------------------------------------

    async def connect(self) -> Leeward:
        engine = self.running_engine
        client = await Client.connect(
            engine.address, namespace=engine.namespace, data_converter=pydantic_data_converter
        )
        return Leeward(client, self.inventory, self.settings.timings(), operator="test")

    async def protect_all(self) -> None:
        leeward = await self.connect()
        for machine in self.machines:
            await leeward.protect(machine)
        for machine in self.machines:
            await within(60, leeward.wait_until_protected(machine))

    async def state(self, machine: str) -> MachineState:
        found = await (await self.connect()).find_machine(machine)
        assert found is not None, f"{machine} is not protected"
        return found

    async def wait_for_phase(self, machine: str, phase: Phase, within_s: float = 30) -> MachineState:
        deadline = time.monotonic() + within_s
        while True:
            state = await self.state(machine)
            if state.phase is phase:
                return state
            assert time.monotonic() < deadline, f"{machine} is {state.phase}, not {phase}: {state.health}"
            await asyncio.sleep(0.1)

    async def wait_for_transactions(self, more: int = 20, within_s: float = 20) -> None:
        """Until the running production copy of each machine got so many further transactions acknowledged."""
        goals = {machine: self.last_acknowledged(machine) + more for machine in self.machines}
        deadline = time.monotonic() + within_s
        for machine, goal in goals.items():
            while self.last_acknowledged(machine) < goal:
                assert time.monotonic() < deadline, f"{machine} does not write"
                await asyncio.sleep(0.05)

    async def finished_run(self, run_type: RunType, *, within_s: float = 60, **options: Any) -> RunStatus:
        """Start a run of the plan and wait for its end, whatever happens to Temporal and its workers meanwhile."""
        leeward = await self.connect()
        await leeward.start_run(self.plan, run_type, **options)
        return await self.end_of_run(within_s=within_s)

    async def end_of_run(self, within_s: float = 60) -> RunStatus:
        async def wait() -> RunStatus:
            while True:
                try:
                    leeward = await self.connect()
                    await leeward.client.get_workflow_handle(plan_id(PLAN)).result()
                except WorkflowFailureError:
                    pass
                except (RPCError, RuntimeError):  # Temporal is being started again
                    await asyncio.sleep(0.2)
                    continue
                return await leeward.run_status(PLAN)

        return await within(within_s, wait(), self.describe_run)

    async def describe_run(self) -> str:
        status = await (await self.connect()).run_status(PLAN)
        return "\n".join(
            f"{row.id}: {row.state} {row.detail}" for stage in status.stages for row in stage.steps
        )

    async def completed_run(self, run_type: RunType, *, within_s: float = 60, **options: Any) -> dict[str, JobResult]:
        """As :meth:`finished_run`, for a run that has to complete; what it did with each machine."""
        status = await self.finished_run(run_type, within_s=within_s, **options)
        assert status.state == "completed", f"{run_type} {status.state}: {status.message}\n{status.stages}"
        return results_of(status)

    # -- evidence ------------------------------------------------------------------------------------------------

    def ledger(self, machine: str) -> list[Entry]:
        return list(read_ledger(self.lab.ledger(machine)))

    def last_acknowledged(self, machine: str) -> int:
        return max((entry.number for entry in self.ledger(machine) if entry.kind == ACKNOWLEDGED), default=0)

    def window(self, machine: str, at_ns: int, before_boot: int = -1) -> Window:
        """What clients knew at a moment, by the entries before the boot of that index (of the last boot)."""
        history = entries_before_boot(self.ledger(machine), before_boot)
        acknowledged = max((entry.number for entry in history if entry.time_ns < at_ns), default=0)
        begun = max((entry.number for entry in history if _began_ns(entry) < at_ns), default=0)
        return Window(acknowledged, max(acknowledged, begun))

    def assert_nothing_lost(self) -> int:
        """No copy ever booted without a transaction acknowledged before; returns how many were acknowledged in all.

        By the clients' ledger: each boot holds what was acknowledged, and no number was ever given twice."""
        total = 0
        for machine in self.machines:
            last = 0
            for entry in self.ledger(machine):
                if entry.kind == BOOTED:
                    assert entry.number >= entry.other, f"{machine} booted with {entry.number} of {entry.other}"
                else:
                    assert entry.number > last, f"{machine}: {entry.number} was acknowledged after {last}"
                    total += 1
                last = entry.number
        return total

    def copies(self, machine: str) -> list[MachineFolder]:
        """Every registered copy of a protected machine, test copies included."""
        return [
            folder
            for site in self.lab.sites()
            for folder in site.registered()
            if MachineDefinition.load(folder).identity == machine
        ]

    def assert_disks_sound(self) -> None:
        """With the lab shut down: the newest copy of each machine holds all that was acknowledged, undamaged."""
        for machine in self.machines:
            scans = [scan_images(images_of(folder)) for folder in self.copies(machine)]
            assert all(scan.damaged == 0 for scan in scans)
            assert max(scan.last for scan in scans) >= self.last_acknowledged(machine)

    def faults(self, site: str) -> SiteFaults:
        return SiteFaults(self.settings.lab_root, site)

    def processes(self) -> dict[int, str]:
        """Every living process of this house, found by its command line or its environment."""
        mark = str(self.root).encode()
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            command = _read(entry / "cmdline")
            if mark in command or mark in _read(entry / "environ"):
                found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace")
        return found

    def logs(self) -> dict[str, str]:
        """What leeward's own processes wrote; the Temporal server's log is its own affair."""
        return {
            path.name: path.read_text(errors="replace")
            for path in sorted(self.settings.logs.glob("*.log"))
            if path.name != "temporal.log"
        }

    def assert_quiet_logs(self) -> None:
        for name, text in self.logs().items():
            for trouble in TROUBLE_IN_LOGS:
                assert trouble not in text, f"{name}:\n{text[-6000:]}"

    def kill(self, name: str) -> Process:
        """SIGKILL ``temporal`` or a worker by its name in the engine's file."""
        process = self.running_engine.processes[name]
        os.kill(process.pid, signal.SIGKILL)
        return process


def entries_before_boot(entries: list[Entry], boot: int) -> list[Entry]:
    boots = [index for index, entry in enumerate(entries) if entry.kind == BOOTED]
    return entries[: boots[boot]]


def _began_ns(entry: Entry) -> int:
    return entry.other if entry.kind == ACKNOWLEDGED else entry.time_ns


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""


def images_of(folder: MachineFolder) -> list[Path]:
    return [folder.image(disk.name) for disk in MachineDefinition.load(folder).disks]


def results_of(status: RunStatus) -> dict[str, JobResult]:
    return {
        row.machine: row.result
        for stage in status.stages
        for row in stage.steps
        if row.machine is not None and row.result is not None
    }


async def within(seconds: float, work: Any, describe: Any = None) -> Any:
    """The result of ``work``, or a failure that says what was going on when its time was over."""
    try:
        return await asyncio.wait_for(work, seconds)
    except TimeoutError:
        what = await describe() if describe else ""
    raise AssertionError(f"not done after {seconds:g} s\n{what}")


@contextmanager
def open_house(
    root: Path,
    *,
    machines: dict[str, dict[str, str]] | None = None,
    rate: float = 40,
    policy: dict[str, Any] | None = None,
    sites: dict[str, dict[str, Any]] | None = None,
    plan: dict[str, Any] | None = None,
    lab_up: bool = True,
    quiet_logs: bool = True,
) -> Iterator[House]:
    """An engine and a running lab; afterwards no process of them is left and no two copies ever ran in production.

    ``quiet_logs``: no process of leeward may have logged a traceback.
    """
    chosen = machines or SMALL
    house = House(root, list(chosen))
    root.mkdir(parents=True, exist_ok=True)
    document = inventory_document(chosen, rate=rate, policy=policy or {}, sites=sites or {})
    house.vault.write_text(json.dumps(document, indent=2))
    groups = [{"name": "all", "machines": list(chosen)}]
    (root / f"{PLAN}.plan.yaml").write_text(json.dumps({"plan": PLAN, "groups": groups, **(plan or {})}, indent=2))
    try:
        house.up()
        if lab_up:
            labctl.up(house.inventory, house.settings.lab_root)
        yield house
        if house.engine is not None:
            house.down()
        no_overlaps(house)
        if quiet_logs:
            house.assert_quiet_logs()
        labctl.kill_all(house.settings.lab_root)
        house_is_empty(house)
    finally:
        _clear_away(house)


def no_overlaps(house: House) -> None:
    found = overlaps(house.settings.lab_root)
    assert not found, f"two copies of a machine ran on production networks: {found}"


def house_is_empty(house: House, within_s: float = 5) -> None:
    deadline = time.monotonic() + within_s
    while left := house.processes():
        assert time.monotonic() < deadline, f"processes are left: {left}"
        time.sleep(0.05)


def _clear_away(house: House) -> None:
    """After a failed test: the supervisor first, so that it starts nothing again, then everything else."""
    engine = house.engine
    if engine is not None and is_alive(engine.supervisor):
        os.kill(engine.supervisor.pid, signal.SIGKILL)
    while left := house.processes():
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.05)
