"""The lab's hypervisor: ``adapters.ports.StreamFabric`` for one lab site."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from adapters.lab import groups, guest_client, making
from adapters.lab.changes import LabChangeSource
from adapters.lab.definition import MachineDefinition
from adapters.lab.documents import Held, locked_file
from adapters.lab.faults import SiteFaults
from adapters.lab.guest_state import FAILED, RUNNING
from adapters.lab.isolation import TestNetworks
from adapters.lab.layout import LabLayout, MachineFolder
from adapters.lab.link import at_its_site
from adapters.lab.maps import LabBlockMapDevice
from adapters.lab.quiet import PATIENCE_S
from adapters.lab.space import MIB, SiteSpace
from adapters.lab.storage import load_state
from adapters.ports import Beat, CutsTogether, GroupRhythm, MakesTestNetworks, ScriptResult, StreamFabric
from adapters.san.ports import SanFabric
from replication.bitmap import BitmapChangeSource
from replication.cipher import SiteKey
from replication.files import translated
from replication.local import LocalReplicaStore
from replication.ports import ChangeSource, OwnReplicaStore, ReplicaStore, Report
from vault import secrets
from vault.domain import (
    Answering,
    ConsistencyKind,
    Disk,
    Finding,
    GuestTransactions,
    MachineDescription,
    NetworkKind,
    PowerState,
    RecoveryPoint,
)
from vault.errors import Busy, InvalidState, LeewardError, NotFound, Unreachable
from vault.inventory import Inventory
from vault.words import size

_LOOK_AGAIN_S = 0.05
_ROOM_WARNING = 256 * MIB


class LabHypervisor(StreamFabric, SanFabric, CutsTogether, MakesTestNetworks):
    """One site of the lab. Machines survive this object and its process.

    Args:
        lab_root: the lab's folder.
        site: the site's name in the inventory.
        inventory: also says what the protected machines are made of (``like``).
        resolve_secret: turns the site's ``credentials`` reference into the secret.
        replica_stores: opens a machine's replica store where the site keeps its replicas elsewhere than in its files.

    Raises:
        NotFound: the inventory has no such site.
    """

    def __init__(
        self,
        lab_root: Path,
        site: str,
        inventory: Inventory,
        *,
        resolve_secret: Callable[[str], str] = secrets.resolve,
        replica_stores: Callable[[str], OwnReplicaStore] | None = None,
    ) -> None:
        if site not in inventory.sites:
            raise NotFound(f"there is no site '{site}'", remedy=f"the inventory has: {', '.join(inventory.sites)}")
        self.site = site
        self._layout = LabLayout(lab_root)
        self._folder = self._layout.site(site)
        self._inventory = inventory
        self._described = inventory.sites[site]
        self._resolve_secret = resolve_secret
        self._replica_stores = replica_stores or self.store_in_files
        self.faults = SiteFaults(lab_root, site)
        self._test_networks = TestNetworks(self._folder)
        self._space = SiteSpace(self._folder, self._described.capacity, self.faults)

    # --- the fabric -------------------------------------------------------------------------------------------

    def _log_in(self) -> None:
        self.faults.require_login()
        if self._described.credentials:
            self._resolve_secret(self._described.credentials)

    def check(self) -> list[Finding]:
        subject = f"site {self.site}"
        try:
            self._log_in()
        except LeewardError as error:
            return [Finding.of_error(subject, error)]
        free = self._space.free()
        room = Finding.passed(subject, f"{size(free)} are free")
        if free < _ROOM_WARNING:
            room = Finding.warned(subject, room.what, "free space at the site, or raise its capacity in the inventory")
        return [Finding.passed(subject, "the lab host answers and accepts the login"), room]

    def discover(self) -> list[MachineDescription]:
        self._log_in()
        return [self._describe(folder) for folder in self._folder.registered()]

    def describe(self, machine: str) -> MachineDescription:
        self._log_in()
        return self._describe(self._registered(machine))

    def free_space(self) -> int:
        self._log_in()
        return self._space.free()

    def free_space_without(self, machines: Collection[str]) -> int:
        self._log_in()
        return self._space.free_without(machines)

    def network_kind(self, network: str) -> str:
        self._log_in()
        return self._kind_of(network)

    def _kind_of(self, network: str) -> str:
        if self._test_networks.has(network):
            return NetworkKind.ISOLATED
        return making.network_kind(self._inventory, self.site, network)

    def make_test_network(self, like: str, run_id: str, copy: str) -> str:
        self._log_in()
        if making.network_kind(self._inventory, self.site, like) != NetworkKind.ISOLATED:
            raise InvalidState(
                f"network '{like}' is not isolated", where=f"site {self.site}", remedy="correct the network mapping"
            )
        return self._test_networks.join(like, run_id, copy)

    def leave_test_networks(self, run_id: str, copy: str) -> None:
        self._log_in()
        self._test_networks.leave(run_id, copy)

    def _registered(self, machine: str) -> MachineFolder:
        folder = self._folder.machine(machine)
        if not folder.definition.exists():
            there = ", ".join(other.name for other in self._folder.registered()) or "none"
            raise NotFound(
                f"there is no machine '{machine}'",
                where=f"site {self.site}",
                remedy=f"there is: {there}; make it: leeward lab up; if it runs at another site since a failover, "
                "exchange its 'site' and 'target' in the inventory",
            )
        return folder

    def _describe(self, folder: MachineFolder) -> MachineDescription:
        definition = MachineDefinition.load(folder)
        guest = guest_client.running_guest(folder)
        return MachineDescription(
            name=definition.name,
            site=self.site,
            power=PowerState.RUNNING if guest else PowerState.OFF,
            disks=[Disk(name=disk.name, size=disk.size) for disk in definition.disks],
            network=definition.network,
            address=guest.address if guest and guest.address else None,
        )

    # --- power ------------------------------------------------------------------------------------------------

    def start(self, machine: str) -> None:
        self._log_in()
        folder = self._registered(machine)
        with self._registering(machine):
            self._registered(machine)
            if not guest_client.has_ended(folder, PATIENCE_S):
                return
            guest_client.launch(self._layout, folder)
            try:
                self.faults.require_host()
            except Unreachable:
                guest_client.kill(folder)
                raise

    def shut_down(self, machine: str, timeout_s: float, beat: Beat) -> PowerState:
        self._log_in()
        folder = self._folder.machine(machine)
        deadline = time.monotonic() + timeout_s
        asked = False
        while (guest := guest_client.running_guest(folder)) and time.monotonic() < deadline:
            if guest.state == RUNNING and not asked:
                asked = self._ask_to_stop(folder)
            beat(f"waiting for {machine} to shut down")
            self._log_in()
            time.sleep(_LOOK_AGAIN_S)
        guest_client.kill(folder)
        return PowerState.RUNNING if guest_client.running_guest(folder) else PowerState.OFF

    def _ask_to_stop(self, folder: MachineFolder) -> bool:
        """False when the guest did not hear it: it is asked again, and powered off when its time is over."""
        guest = guest_client.running_guest(folder)
        try:
            if guest:
                guest_client.call(guest, "POST", "/shutdown")
        except Unreachable:
            return False
        return True

    def power_off(self, machine: str) -> None:
        self._log_in()
        guest_client.kill(self._folder.machine(machine))

    def wait_until_answering(self, machine: str, timeout_s: float, beat: Beat) -> Answering:
        started = time.monotonic()
        said: Unreachable | None = None
        while True:
            self._log_in()
            folder = self._registered(machine)
            guest = guest_client.running_guest(folder)
            if guest is None:
                raise self._is_off(folder)
            try:
                guest_client.require_not_stopping(guest)
                answer = guest_client.call(guest, "GET", "/transactions")
                break
            except Unreachable as error:
                said = error
            if time.monotonic() - started > timeout_s:
                raise Unreachable(
                    f"machine '{machine}' does not answer within {timeout_s:g} s: {said.what}",
                    where=f"site {self.site}",
                    remedy=f"look into {folder.guest_log}",
                )
            beat(f"waiting for {machine} to answer")
            time.sleep(_LOOK_AGAIN_S)
        return Answering(
            name=machine,
            site=self.site,
            address=guest.address,
            waited_s=time.monotonic() - started,
            transactions=transactions(answer),
        )

    def _is_off(self, folder: MachineFolder) -> InvalidState:
        last = guest_client.last_state(folder)
        if last and last.state == FAILED:
            what = f"the guest of machine '{folder.name}' gave up: {last.reason}"
            return InvalidState(what, where=f"site {self.site}", remedy="repair its disks, or recover it again")
        what = f"machine '{folder.name}' is off"
        return InvalidState(what, where=f"site {self.site}", remedy=f"start it; its log is {folder.guest_log}")

    def run_in_guest(
        self, machine: str, command: list[str], environment: dict[str, str], timeout_s: float, beat: Beat
    ) -> ScriptResult:
        self._log_in()
        folder = self._registered(machine)
        guest = guest_client.running_guest(folder)
        if guest is None:
            raise self._is_off(folder)

        def waiting() -> None:
            self.faults.require_host()
            beat(f"{command[0] if command else 'a command'} runs on {machine}")

        request = {"command": command, "environment": environment, "timeout_s": timeout_s}
        answer = guest_client.call(
            guest,
            "POST",
            "/exec",
            request,
            timeout_s=timeout_s + guest_client.ANSWER_WITHIN_S,
            while_waiting=waiting,
        )
        return ScriptResult(exit_code=answer["exit_code"], output=answer["output"])

    # --- machines come and go ---------------------------------------------------------------------------------

    def define(self, machine: str) -> MachineDescription:
        """Make an inventory machine with empty disks at this site; one that is there is kept.

        Raises ``BadInput`` when its disks do not hold its transactions, ``NoSpace``."""
        self._log_in()
        network = self._inventory.machines[machine].network if machine in self._inventory.machines else ""
        on_array = self._inventory.machines[machine].san if machine in self._inventory.machines else None
        volumes = dict(on_array.volumes) if on_array else None
        definition = making.definition_like(self._inventory, self.site, machine, machine, network, volumes=volumes)
        with self._registering(machine) as folder:
            if not folder.definition.exists() and volumes is not None:
                making.make_on_volumes(folder, definition, empty=True)
            elif not folder.definition.exists():
                self._space.reserve(making.BYTES_OF_AN_EMPTY_MACHINE)
                making.make_empty(folder, definition)
        return self._describe(folder)

    def create_from_replica(
        self, machine: str, like: str, store: ReplicaStore, point: RecoveryPoint, network: str, report: Report
    ) -> MachineDescription:
        self._log_in()
        kind = self._kind_of(network)
        definition = making.definition_like(
            self._inventory, self.site, machine, like, network, kind=kind, made_from=point.id
        )
        with self._registering(machine) as folder:
            if folder.definition.exists():
                making.require_same(MachineDefinition.load(folder), definition)
            else:
                making.make_from_replica(folder, definition, store, point, report, self._space.reserve)
        return self._describe(folder)

    def register_on_volumes(
        self, machine: str, like: str, volumes: dict[str, str], network: str, made_from: str
    ) -> MachineDescription:
        self._log_in()
        kind = self._kind_of(network)
        definition = making.definition_like(
            self._inventory, self.site, machine, like, network, kind=kind, made_from=made_from, volumes=volumes
        )
        with self._registering(machine) as folder:
            if folder.definition.exists():
                making.require_same(MachineDefinition.load(folder), definition)
            else:
                making.make_on_volumes(folder, definition, empty=False)
        return self._describe(folder)

    def made_from(self, machine: str) -> str | None:
        self._log_in()
        return MachineDefinition.load(self._registered(machine)).made_from

    def remove(self, machine: str) -> None:
        self._log_in()
        folder = self._folder.machine(machine)
        with self._registering(machine):
            guest_client.kill(folder)
            making.unregister_and_delete(folder)

    def retire_into_replica(self, machine: str, store: ReplicaStore, epoch: str) -> None:
        self._log_in()
        folder = self._folder.machine(machine)
        with self._registering(machine):
            if guest_client.running_guest(folder):
                raise InvalidState(
                    f"machine '{machine}' runs", where=f"site {self.site}", remedy="shut it down before it is retired"
                )
            making.retire(folder, making.disks_of(self._inventory, machine), store, epoch)

    @contextmanager
    def _registering(self, machine: str) -> Iterator[MachineFolder]:
        """Nobody else starts, makes or removes a machine of this name meanwhile.

        Raises ``Busy`` when another worker does so for long: a copy may take hours."""
        folder = self._folder.machine(machine)
        busy = Busy(
            f"another worker is making, starting or removing '{machine}'",
            where=f"site {self.site}",
            remedy="leeward tries again; end a worker there that does not answer",
        )
        with translated(folder.path), locked_file(folder.power_lock, Held(PATIENCE_S, busy)):
            yield folder

    # --- replication ------------------------------------------------------------------------------------------

    def cut_together(self, group: str, machines: list[str], rhythm: GroupRhythm, kind: ConsistencyKind) -> str:
        self._log_in()
        members = {}
        for name in machines:
            folder = self._folder.machine(name)
            if not folder.definition.exists():
                return f"'{name}' is not at site {self.site}"
            members[name] = groups.Member(folder, self._lab_source(folder, groups.PATIENCE_S))
        return groups.cut_group(group, members, self._folder.group(group), rhythm, kind)

    def change_source(self, machine: str) -> ChangeSource:
        self._log_in()
        return self._lab_source(self._registered(machine), PATIENCE_S)

    def _lab_source(self, folder: MachineFolder, patience_s: float) -> LabChangeSource | BitmapChangeSource:
        if self._tracks_by_map(folder):
            return BitmapChangeSource(LabBlockMapDevice(folder, self._log_in, patience_s=patience_s))
        return LabChangeSource(folder, self._log_in, patience_s=patience_s)

    def _tracks_by_map(self, folder: MachineFolder) -> bool:
        """What the inventory says holds from the next time on that tracking begins from nothing."""
        state = load_state(folder)
        if state.active or (state.map is not None and state.map.active):
            return not state.active
        wanted = making.lab_settings(self._inventory, MachineDefinition.load(folder).identity).tracking
        return wanted == "bitmap"

    def replica_store(self, machine: str) -> OwnReplicaStore:
        self._log_in()
        return at_its_site(self._replica_stores(machine), self._require_host_for)

    def _require_host_for(self, _: int) -> None:
        self.faults.require_host()

    def store_in_files(self, machine: str) -> LocalReplicaStore:
        """What the site's master target keeps, for those who are at the site."""
        key = self._described.replica_key
        return LocalReplicaStore(
            self._folder.replicas / machine,
            machine=machine,
            reserve=self._space.reserve,
            site_key=SiteKey.from_reference(key) if key else None,
        )


def transactions(answer: dict[str, object]) -> GuestTransactions:
    """What a guest reports, without the fields that only the lab knows."""
    return GuestTransactions.model_validate({name: answer[name] for name in GuestTransactions.model_fields})
