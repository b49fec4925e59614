"""A whole leeward for tests: engine, lab and small machines in one folder, and the proof that nothing of it is left."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeVar

from temporalio.client import Client, WorkflowFailureError
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RPCError

from adapters.lab import labctl
from adapters.lab.database import Recovered, scan_images
from adapters.lab.definition import MachineDefinition
from adapters.lab.faults import SiteFaults
from adapters.lab.layout import LabLayout, MachineFolder
from adapters.lab.ledger import ACKNOWLEDGED, BOOTED, Entry, read_ledger
from adapters.lab.network import overlaps
from console.client import Leeward
from plans.loading import load_plan
from plans.model import Plan
from replication.local import LocalReplicaStore
from vault.domain import RecoveryPoint, RunType
from vault.errors import InvalidState, NotFound, Unreachable
from vault.inventory import Inventory
from vault.lifecycle import Phase
from vault.loading import load_inventory
from workers.engine_file import Engine, Process, is_alive, read_engine
from workers.settings import Settings
from workflows.ids import plan_id
from workflows.model import JobResult, MachineState, RunStatus

Answer = TypeVar("Answer")

HOME, AWAY = "primary", "recovery"
PLAN = "pair"
TIME_SCALE = 0.01
PATIENCE_S = 180.0
"""What takes seconds takes minutes on a machine that does ten things at once; a test that fails may be slow."""
HEARTBEAT_S = 2.0
"""A worker that was killed is missed after so long."""
SMALL: dict[str, dict[str, str]] = {"db": {"log": "32MiB", "data": "32MiB"}, "app": {"system": "32MiB"}}
"""Machines and the disks of each. Their guests write half of 8 MiB in the 20 s that an engine takes to come up again on
a busy machine, and then a machine must be resynchronized."""
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

    def plan_file(self, name: str) -> Path:
        return self.root / f"{name}.plan.yaml"

    def plan(self, name: str = PLAN) -> Plan:
        return load_plan(self.plan_file(name), self.inventory)

    def write_plan(self, name: str, machines: list[str], **more: Any) -> None:
        groups = [{"name": "all", "machines": machines}]
        self.plan_file(name).write_text(json.dumps({"plan": name, "groups": groups, **more}, indent=2))

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

    def run(self, *arguments: str, timeout_s: float = PATIENCE_S, **more: str) -> Command:
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

    def must(self, *arguments: str, timeout_s: float = PATIENCE_S, **more: str) -> Command:
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
        timings = self.settings.timings().model_copy(update={"heartbeat_s": HEARTBEAT_S})
        return Leeward(client, self.inventory, timings, operator="test")

    async def protect_all(self) -> None:
        leeward = await self.connect()
        jobs = {machine: await leeward.protect(machine) for machine in self.machines}
        for machine, job in jobs.items():
            await within(PATIENCE_S, leeward.wait_until_protected(machine, job))

    async def state(self, machine: str) -> MachineState:
        found = await (await self.connect()).find_machine(machine)
        assert found is not None, f"{machine} is not protected"
        return found

    async def wait_for_phase(self, machine: str, phase: Phase, within_s: float = PATIENCE_S) -> MachineState:
        deadline = time.monotonic() + within_s
        while True:
            state = await self.state(machine)
            if state.phase is phase:
                return state
            assert time.monotonic() < deadline, f"{machine} is {state.phase}, not {phase}: {state.health}"
            await asyncio.sleep(0.1)

    async def wait_for_points(self, machine: str, count: int, within_s: float = PATIENCE_S) -> list[RecoveryPoint]:
        leeward = await self.connect()
        for _ in range(int(within_s / 0.2)):
            points = (await leeward.recovery_points(machine)).points
            if len(points) >= count:
                return points
            await asyncio.sleep(0.2)
        raise AssertionError(f"{machine} has {len(points)} recovery points after {within_s:g} s, not {count}")

    async def wait_for_transactions(self, more: int = 20, within_s: float = PATIENCE_S) -> None:
        """Until the running production copy of each machine got so many further transactions acknowledged."""
        goals = {machine: self.last_acknowledged(machine) + more for machine in self.machines}
        deadline = time.monotonic() + within_s
        for machine, goal in goals.items():
            while self.last_acknowledged(machine) < goal:
                assert time.monotonic() < deadline, f"{machine} does not write"
                await asyncio.sleep(0.05)

    async def start_run(self, run_type: RunType, plan: str = PLAN, **options: Any) -> None:
        await (await self.connect()).start_run(self.plan(plan), run_type, **options)

    async def persist(self, work: Callable[[], Awaitable[Answer]], within_s: float = PATIENCE_S) -> Answer:
        """As an operator would: ask again while Temporal or a worker is being started again."""
        deadline = time.monotonic() + within_s
        while True:
            try:
                return await work()
            except (RPCError, RuntimeError, Unreachable):
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.2)

    async def start_run_in_any_case(self, run_type: RunType, plan: str) -> None:
        """As :meth:`start_run`; an answer that got lost may hide that the run was started."""
        asked = False

        async def start() -> None:
            nonlocal asked
            try:
                await self.start_run(run_type, plan)
            except InvalidState:
                if not asked:
                    raise
            finally:
                asked = True

        await self.persist(start)

    async def end_of_run(self, plan: str = PLAN, within_s: float = PATIENCE_S) -> RunStatus:
        """The end of the run that was started last, whatever happens to Temporal and its workers meanwhile."""

        async def wait() -> RunStatus:
            leeward = await self.connect()
            with suppress(WorkflowFailureError):  # refused; the status says why
                await leeward.client.get_workflow_handle(plan_id(plan)).result()
            return await leeward.run_status(plan)

        return await within(within_s, self.persist(wait, within_s), lambda: self.describe_run(plan))

    async def wait_for_run(self, state: str, plan: str = PLAN, within_s: float = PATIENCE_S) -> RunStatus:
        """Until there is a run of the plan in ``state``."""
        leeward, deadline, seen = await self.connect(), time.monotonic() + within_s, "not there"
        while time.monotonic() < deadline:
            with suppress(NotFound):
                status = await leeward.run_status(plan)
                if status.state == state:
                    return status
                seen = await self.describe_run(plan)
            await asyncio.sleep(0.1)
        raise AssertionError(f"the run is not {state} after {within_s:g} s, but {seen}")

    async def describe_run(self, plan: str = PLAN) -> str:
        status = await (await self.connect()).run_status(plan)
        rows = (row for stage in status.stages for row in stage.steps)
        return f"{status.state} {status.message}\n" + "\n".join(f"{row.id}: {row.state} {row.detail}" for row in rows)

    async def completed_run(
        self, run_type: RunType, plan: str = PLAN, *, within_s: float = PATIENCE_S, **options: Any
    ) -> dict[str, JobResult]:
        """A run that has to complete without an operator; what it did with each machine."""
        await self.start_run(run_type, plan, **options)
        status = await self.end_of_run(plan, within_s)
        assert status.state == "completed", f"{run_type} {await self.describe_run(plan)}"
        return results_of(status)

    # -- evidence ------------------------------------------------------------------------------------------------

    def ledger(self, machine: str) -> list[Entry]:
        return list(read_ledger(self.lab.ledger(machine)))

    def last_acknowledged(self, machine: str) -> int:
        return max((entry.number for entry in self.ledger(machine) if entry.kind == ACKNOWLEDGED), default=0)

    def acknowledged_before(self, machine: str, moment: datetime) -> int:
        """The last transaction that clients got acknowledged before a moment of the machine's first history."""
        entries = self.ledger(machine)
        boots = [index for index, entry in enumerate(entries) if entry.kind == BOOTED]
        history = entries[: boots[1]] if len(boots) > 1 else entries
        before = (entry.number for entry in history if entry.time_ns < nanoseconds(moment))
        return max(before, default=0)

    def held_at(self, machine: str, site: str, point: RecoveryPoint) -> Recovered:
        """What the replica at ``site`` has on its disks at a recovery point, whatever leeward or a guest says."""
        store = LocalReplicaStore(self.lab.site(site).replicas / machine, machine=machine)
        with TemporaryDirectory(dir=self.root) as folder:
            return scan_images(store.materialise(point, Path(folder), lambda _: None))

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
                at = text.find(trouble)
                assert at < 0, f"{name}: {text[max(0, at - 1000) : at + 5000]}"

    def kill(self, name: str) -> Process:
        """SIGKILL ``temporal`` or a worker by its name in the engine's file."""
        process = self.running_engine.processes[name]
        os.kill(process.pid, signal.SIGKILL)
        return process


def nanoseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""


def images_of(folder: MachineFolder) -> list[Path]:
    return [folder.image(disk.name) for disk in MachineDefinition.load(folder).disks]


def results_of(status: RunStatus) -> dict[str, JobResult]:
    """Of each machine the result that recovered it, else its last one."""
    rows = [row for stage in status.stages for row in stage.steps]
    found = [(row.machine, row.result) for row in rows if row.machine is not None and row.result is not None]
    recovering = [(machine, result) for machine, result in found if result.recovered is not None]
    return dict(found) | dict(recovering)


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
    house.write_plan(PLAN, list(chosen), **(plan or {}))
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
