"""The phases of scenario ``hyperv-azure``: what a machine's life is while only its replica is in Azure.

What the page blobs hold is proved by reading them: with leeward's own reader of recovery points, and as whole VHD files
that are downloaded and opened like anybody's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from adapters.hyperv.hypervisor import HyperVHypervisor
from adapters.hyperv.operations import DESTROY_REFERENCE_POINT, READ_TRACKING, OfReferencePoint, OfVm
from adapters.lab.definition import MachineDefinition
from adapters.lab.layout import LabLayout
from adapters.registry import Adapters
from console.demo.evidence import differences_from_disk, judge_images
from console.demo.hyperv_azure import AZURE, PRIMARY, replica_store
from console.demo.model import MachineResult, PhaseResult
from console.demo.phases import Phases, Stage
from plans.including import reviewed_text
from vault.domain import ConsistencyKind, PowerState, Progress, RecoveryPoint, RunType
from vault.errors import InvalidState
from vault.lifecycle import JobKind, Phase

DELTAS = 3
LOOK_EVERY_S = 0.5
WITHIN_S = 300.0
REFUSED: tuple[RunType, ...] = ("test", "planned", "unplanned")
SHUTS_DOWN_WITHIN_S = 60.0


class AzurePhases:
    """Runs the phases of one demo on one plan."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._leeward = stage.leeward
        self._machines = stage.plan.model.machines
        self._adapters = Adapters(stage.leeward.inventory, stage.settings.data)
        self._lab = LabLayout(stage.settings.lab_root)

    async def all(self) -> AsyncIterator[PhaseResult]:
        yield await Phases(self._stage).protect()
        yield await self._deltas()
        yield await self._resynchronization()
        yield await self._recovery_points()
        yield await self._refused_failovers()
        yield await self._last_delta()

    async def _deltas(self) -> PhaseResult:
        """The application writes; each machine gets recovery points, an app-consistent one among them."""
        began, clock = datetime.now(UTC), time.monotonic()
        before = {machine: await self._sent(machine) for machine in self._machines}
        new: dict[str, list[RecoveryPoint]] = {}

        async def enough() -> bool:
            for machine in self._machines:
                new[machine] = [point for point in await self._points(machine) if point.time > began]
            kinds = [{point.kind for point in points} for points in new.values()]
            return all(len(points) >= DELTAS for points in new.values()) and all(
                ConsistencyKind.APPLICATION in seen for seen in kinds
            )

        await self._until(enough, f"every machine has {DELTAS} new recovery points, one of them app-consistent")
        results = {
            machine: MachineResult(
                bytes_sent=max(0, await self._sent(machine) - before[machine]), recovery_point=new[machine][-1].time
            )
            for machine in self._machines
        }
        count = sum(len(points) for points in new.values())
        app = sum(point.kind is ConsistencyKind.APPLICATION for points in new.values() for point in points)
        return _phase("deltas", began, clock, results, f"{count} recovery points, {app} of them app-consistent")

    async def _resynchronization(self) -> PhaseResult:
        """Somebody removes a machine's reference points on its host: what changed since is known to nobody."""
        machine = self._machines[0]
        await asyncio.to_thread(self._destroy_reference_points, machine)
        self._stage.tell(
            f"    the reference points of {machine} are gone on its host: its changes are not known any more"
        )

        async def is_noticed() -> bool:
            state = await self._leeward.find_machine(machine)
            return state is not None and state.phase is Phase.RESYNC_REQUIRED

        await self._until(is_noticed, f"{machine} needs a resynchronization")
        began, clock = datetime.now(UTC), time.monotonic()
        job = await self._leeward.request(machine, JobKind.RESYNCHRONIZE)
        done = await self._leeward.job_result(job)
        point = done.point.time if done.point else None
        results = {machine: MachineResult(bytes_sent=done.bytes_sent, recovery_point=point)}
        return _phase("resynchronization", began, clock, results, "only blocks with other checksums were sent")

    async def _recovery_points(self) -> PhaseResult:
        """An older point of each machine is read back and looked into, while replication goes on."""
        began, clock = datetime.now(UTC), time.monotonic()
        results, listed = {}, 0
        for machine in self._machines:
            points = await self._points(machine)
            listed += len(points)
            chosen = points[len(points) // 2]
            with TemporaryDirectory(dir=self._stage.settings.data) as folder:
                images = await asyncio.to_thread(self._materialised, machine, chosen, Path(folder))
                results[machine] = judge_images(images, chosen, self._lab.ledger(machine))
        sentence = f"{listed} recovery points are listed; one of each machine was downloaded and its database read"
        return _phase("recovery points", began, clock, results, sentence)

    async def _refused_failovers(self) -> PhaseResult:
        began, clock = datetime.now(UTC), time.monotonic()
        said, trouble = "", ""
        for run_type in REFUSED:
            plan = self._stage.plan
            await self._leeward.start_run(plan.model, run_type, file=reviewed_text(plan.source))
            async for status in self._leeward.watch(plan.model.name):
                said = status.message
            if status.state != "refused":
                trouble = f"the {run_type} run was not refused but {status.state}: {status.message}"
        results = {
            machine: MachineResult(trouble=trouble or await self._change_of(machine)) for machine in self._machines
        }
        self._stage.tell(f"    {said}")
        sentence = f"{', '.join(REFUSED)}: refused, and all machines run and replicate as before"
        return _phase("failovers refused", began, clock, results, sentence)

    async def _change_of(self, machine: str) -> str:
        """What is otherwise than for a machine that is protected and runs; empty: nothing."""
        state = await self._leeward.find_machine(machine)
        if state is None or state.phase is not Phase.PROTECTED:
            return f"it is {state.phase if state else 'gone'} afterwards"
        power = (await asyncio.to_thread(self._host.describe, machine)).power
        return "" if power is PowerState.RUNNING else f"it is {power} afterwards"

    async def _last_delta(self) -> PhaseResult:
        """The machines are shut down on their host; what the next delta seals can be compared with their disks."""
        began, clock = datetime.now(UTC), time.monotonic()
        for machine in self._machines:
            seen = await asyncio.to_thread(self._host.shut_down, machine, SHUTS_DOWN_WITHIN_S, lambda _: None)
            if seen is not PowerState.OFF:
                raise InvalidState(f"'{machine}' does not shut down", where=f"site {PRIMARY}")
        off = datetime.now(UTC)
        last: dict[str, RecoveryPoint] = {}

        async def is_applied() -> bool:
            # A delta is applied before the next one is sealed.
            for machine in self._machines:
                points = [point for point in await self._points(machine) if point.time > off]
                if len(points) < 2:
                    return False
                last[machine] = points[0]
            return True

        await self._until(is_applied, "the deltas after the shutdown are applied")
        results = {machine: await asyncio.to_thread(self._compared, machine, point) for machine, point in last.items()}
        sentence = "each page blob was downloaded, opened as a VHD and compared with its machine's disk, byte by byte"
        return _phase("last delta", began, clock, results, sentence)

    # --- the ends ---------------------------------------------------------------------------------------------

    @property
    def _host(self) -> HyperVHypervisor:
        fabric = self._adapters.hypervisor(PRIMARY)
        assert isinstance(fabric, HyperVHypervisor)
        return fabric

    def _destroy_reference_points(self, machine: str) -> None:
        hosts, there = self._host.hosts, self._host.find(machine)
        for point in hosts.run(there.host, READ_TRACKING, OfVm(vm_id=there.vm.id)).reference_points:
            hosts.run(there.host, DESTROY_REFERENCE_POINT, OfReferencePoint(reference_point_id=point.id))

    def _materialised(self, machine: str, point: RecoveryPoint, folder: Path) -> list[Path]:
        return self._adapters.store_across(PRIMARY, AZURE, machine).materialise(point, folder, _quiet)

    def _compared(self, machine: str, point: RecoveryPoint) -> MachineResult:
        """The point, and the page blobs as they are, with the machine's disks."""
        with TemporaryDirectory(dir=self._stage.settings.data) as name:
            folder = Path(name)
            images = self._materialised(machine, point, folder)
            result = judge_images(images, point, self._lab.ledger(machine))
            troubles = [result.trouble] if result.trouble else []
            for disk, image in zip(self._disks(machine), images, strict=True):
                vhd = folder / f"{image.stem}.vhd"
                self._download(f"{machine}/{image.stem}.vhd", vhd)
                troubles += differences_from_disk(disk, image, vhd)
            return result.model_copy(update={"trouble": "; ".join(troubles)})

    def _disks(self, machine: str) -> list[Path]:
        """The images behind the machine's virtual disks, in their order."""
        folder = self._lab.site(PRIMARY).machine(machine)
        return [folder.image(disk.name) for disk in MachineDefinition.load(folder).disks]

    def _download(self, blob: str, path: Path) -> None:
        from adapters.azure.connection import connect

        store = replica_store(self._leeward.inventory)
        with connect(store) as service, path.open("wb") as stream:
            service.get_blob_client(store.container, blob).download_blob().readinto(stream)

    # --- leeward ----------------------------------------------------------------------------------------------

    async def _points(self, machine: str) -> list[RecoveryPoint]:
        return (await self._leeward.recovery_points(machine)).points

    async def _sent(self, machine: str) -> int:
        """What its replication sent since it was taken up last."""
        status = await self._leeward.machine_status(machine)
        pulses = [one.pulse for one in status.activities if one.pulse is not None] if status else []
        return max((pulse.bytes_sent for pulse in pulses), default=0)

    async def _until(self, condition: Callable[[], Awaitable[bool]], what: str) -> None:
        """Raises ``InvalidState`` when it takes too long."""
        deadline = time.monotonic() + WITHIN_S
        while not await condition():
            if time.monotonic() > deadline:
                raise InvalidState(
                    f"it did not come to it within {WITHIN_S:g} s that {what}", remedy="look at: leeward status"
                )
            await asyncio.sleep(LOOK_EVERY_S)


def _phase(name: str, began: datetime, clock: float, results: dict[str, MachineResult], sentence: str) -> PhaseResult:
    duration = time.monotonic() - clock
    return PhaseResult(phase=name, began=began, duration_s=duration, machines=results, sentence=sentence)


def _quiet(_: Progress) -> None:
    """Nobody watches."""
