"""A host with one machine on real VHDX files, which may lose a call before or after it took effect."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from adapters.hyperv.facts import HostInventory, VirtualDisk, VirtualMachine
from adapters.hyperv.hosts import HyperVHosts
from adapters.hyperv.operations import Nothing
from adapters.hyperv.states import VmState
from adapters.hyperv.tracking import ResilientChangeTracking
from adapters.ports import Beat
from replication.bitmap import BitmapChangeSource
from simulation.virtual_disks.machine import MachineDisks
from vault.errors import Unreachable

VM_ID = "6f3c4b7e-0000-4000-8000-000000000001"


class TrackedHost:
    """Runs operations as :class:`adapters.hyperv.session.HostSession` does."""

    def __init__(self, folder: Path, sizes: dict[str, int], *, sector: int = 512) -> None:
        folder.mkdir()
        self.folder = folder
        self.disks = MachineDisks(folder, VM_ID)
        self.content = {controller: bytearray(size) for controller, size in sizes.items()}
        self.moments: list[dict[str, bytes]] = []
        """What the disks held whenever a checkpoint was made."""
        for number, (controller, size) in enumerate(sizes.items()):
            self.disks.add(controller, f"disk{number}", size, sector=sector)
        self.state = VmState.RUNNING
        self.version = "12.0"
        self.format: Literal["VHD", "VHDX"] = "VHDX"
        self.ran: list[str] = []
        self.lose: int | None = None
        """The call after this many more is lost, and all that follow: the worker is dead."""
        self.takes_effect = False
        """Whether the call that is lost takes effect."""

    def write(self, controller: str, offset: int, data: bytes) -> None:
        self.disks.write(controller, offset, data)
        self.content[controller][offset : offset + len(data)] = data

    def run(self, operation: Any, given: Any, *, timeout_s: float) -> Any:
        self.ran.append(operation.script)
        if self.lose is not None:
            self.lose -= 1
            if self.lose == -1 and self.takes_effect:
                self._answer(operation, given)
            if self.lose < 0:
                raise Unreachable("the connection broke", where="hv1", remedy="repair it")
        return operation.gives.model_validate_json(self._answer(operation, given).model_dump_json())

    def run_job(self, operation: Any, given: Any, beat: Beat, *, timeout_s: float) -> Any:
        beat("it runs")
        return self.run(operation, given, timeout_s=timeout_s)

    def _answer(self, operation: Any, given: Any) -> Any:
        assert isinstance(given, operation.takes)
        match operation.script:
            case "inventory":
                tracked = self.disks.read_tracking().disks
                files = [
                    VirtualDisk(path=one.path, size=one.size, controller=one.controller, format=self.format)
                    for one in tracked
                ]
                vm = VirtualMachine(
                    id=VM_ID, name="db", state=self.state, generation=2, version=self.version, disks=files
                )
                return HostInventory(machines=[vm])
            case "read_tracking":
                return self.disks.read_tracking()
            case "write_tracking":
                self.disks.write_tracking(given.items, given.replaces)
            case "create_checkpoint":
                made = self.disks.create_checkpoint(given.name, application_consistent=given.application_consistent)
                self.moments.append({at: bytes(raw) for at, raw in self.content.items()})
                return made
            case "remove_checkpoint":
                self.disks.remove_checkpoint(given.name)
            case "create_reference_point":
                return self.disks.create_reference_point(application_consistent=given.application_consistent)
            case "destroy_reference_point":
                self.disks.destroy_reference_point(given.reference_point_id)
            case "changed_ranges":
                return self.disks.changed_ranges(given)
            case _:
                raise AssertionError(operation.script)
        return Nothing()

    def locate(self, path: str) -> Path:
        assert path.startswith("D:\\VMs\\")
        return self.folder / path.removeprefix("D:\\VMs\\")

    def source(self, **options: Any) -> BitmapChangeSource:
        """As a worker that just started has it."""
        hosts = HyperVHosts("east", {"hv1": self})
        return BitmapChangeSource(ResilientChangeTracking(hosts, "db", lambda host: self.locate, **options))
