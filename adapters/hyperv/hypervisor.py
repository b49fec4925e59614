"""The hosts of a Hyper-V site as ``adapters.ports.Hypervisor``."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillRunning

from pydantic import SecretStr

from adapters.hyperv import power_control, settings, tracking_readiness
from adapters.hyperv.disk_folders import located
from adapters.hyperv.facts import HostFacts, VirtualMachine, Volume
from adapters.hyperv.guests import answers, transactions
from adapters.hyperv.hosts import CALL_S, HyperVHosts, Located
from adapters.hyperv.networks import SiteNetworks
from adapters.hyperv.operations import (
    CANCEL_FAILOVER,
    CONNECT_NETWORK,
    GUEST_STATUS,
    INVENTORY,
    REMOVE_SWITCHES,
    REMOVE_VM,
    RUN_IN_GUEST,
    START_VM,
    ConnectNetwork,
    InventoryRequest,
    OfVm,
    RemoveSwitches,
    RunInGuest,
)
from adapters.hyperv.states import ROLES, STATES, Role, Standing, VmState, power
from adapters.hyperv.tracking import ResilientChangeTracking
from adapters.ports import Beat, MakesTestNetworks, ScriptResult, StreamSource
from replication.bitmap import BitmapChangeSource
from replication.ports import ChangeSource
from vault import secrets
from vault.domain import (
    Answering,
    Disk,
    Finding,
    MachineDescription,
    PowerState,
    Relationship,
    Severity,
)
from vault.errors import (
    InvalidState,
    LeewardError,
    Unreachable,
)
from vault.hyperv import HyperVMachine
from vault.inventory import Inventory

LOOK_AGAIN_S = 2.0
STAYS_OFF_S = 30.0
"""A host that lost power starts what ran on it, and answers before it did."""
REMOVING_S = 600.0
OUTPUT_KEPT = 64 * 1024
ROOM_WARNING = 10 * 2**30

logger = logging.getLogger(__name__)


class HyperVHypervisor(StreamSource, MakesTestNetworks):
    """One Hyper-V site.

    Args:
        hosts: the site's hosts.
        inventory: says which virtual machine a machine is, and which virtual switch a network.
        resolve_secret: turns a reference into the secret.
        pause: waits between two looks; seconds.
    """

    def __init__(
        self,
        hosts: HyperVHosts,
        inventory: Inventory,
        *,
        resolve_secret: Callable[[str], str] = secrets.resolve,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.site = hosts.site
        self.hosts = hosts
        self.inventory = inventory
        self.networks = SiteNetworks(self.site, inventory.sites[self.site].networks)
        self._resolve_secret = resolve_secret
        self.pause = pause

    # --- the fabric -------------------------------------------------------------------------------------------

    def check(self) -> list[Finding]:
        """A host that cannot be used is a failure only when none can: whether a machine needs it, the machine's own
        check says. A dead node must not keep the machines of the others from being failed over."""
        answers = self.hosts.on_all(self.hosts.facts)
        of_hosts = [self._of_host(host, answer) for host, answer in answers.items()]
        findings = [finding for found in of_hosts for finding in found]
        if any(all(finding.severity is not Severity.FAIL for finding in found) for found in of_hosts):
            return [finding.at_most_warned() for finding in findings]
        return findings

    def _of_host(self, host: str, answer: HostFacts | LeewardError) -> list[Finding]:
        subject = f"host {host}"
        if isinstance(answer, LeewardError):
            return [Finding.of_error(subject, answer)]
        if not answer.administrator:
            what, remedy = "the login may not manage Hyper-V", "add it to the host's group Hyper-V Administrators"
            return [Finding.failed(subject, what, remedy)]
        if not answer.hyperv_module_version:
            what, remedy = "the Hyper-V module is missing", "Install-WindowsFeature Hyper-V-PowerShell"
            return [Finding.failed(subject, what, remedy)]
        return [Finding.passed(subject, f"Windows {answer.os_version} answers"), self._of_room(subject, answer)]

    def _of_room(self, subject: str, facts: HostFacts) -> Finding:
        folder, free = self.replica_folder(facts), self.room(facts)
        if free is None and folder.startswith("\\\\"):
            return Finding.passed(
                subject, f"replicas are kept on the share {folder}, whose free space it does not tell"
            )
        if free is None:
            what = f"replicas are kept in {folder or 'no folder'}, which is on no volume of the host"
            return Finding.warned(subject, what, "check the folder: Get-VMReplicationServer")
        what = f"{free / 2**30:.0f} GiB are free for replicas"
        if free < ROOM_WARNING:
            return Finding.warned(subject, what, "free space on the volume that holds the replicas")
        return Finding.passed(subject, what)

    def room(self, facts: HostFacts) -> int | None:
        """Bytes that are free where the host keeps replicas; None: it does not tell."""
        volume = _volume_of(self.replica_folder(facts), facts.volumes)
        return volume.free if volume else None

    def replica_folder(self, facts: HostFacts) -> str:
        named = settings.site(self.inventory, self.site).replica.storage
        server = facts.replica_server
        configured = [server.storage, *(entry.storage for entry in server.authorizations)] if server else []
        folders = [named, *configured, facts.virtual_disk_path]
        return next((folder for folder in folders if folder), "")

    def free_space(self) -> int:
        rooms = [
            self.room(facts) or 0
            for facts in self.hosts.on_all(self.hosts.facts).values()
            if isinstance(facts, HostFacts)
        ]
        if not rooms:
            raise Unreachable("no host answers", where=f"site {self.site}", remedy="leeward hyperv check")
        return max(rooms)

    def discover(self) -> list[MachineDescription]:
        answers = self.hosts.on_all(lambda host: self.hosts.run(host, INVENTORY, InventoryRequest()).machines)
        for answer in answers.values():
            if isinstance(answer, LeewardError):
                raise answer
        return [self._describe(vm) for vms in answers.values() if isinstance(vms, list) for vm in vms]

    def describe(self, machine: str) -> MachineDescription:
        return self._describe_found(self.find(machine))

    def _describe_found(self, there: Located) -> MachineDescription:
        return self._describe(there.vm).model_copy(update={"power": power_control.seen(self, there)})

    def _describe(self, vm: VirtualMachine) -> MachineDescription:
        """As its host sees it: whether a cluster is about to start it is not asked."""
        adapters = [adapter for adapter in vm.network_adapters if adapter.switch]
        return MachineDescription(
            name=vm.name,
            site=self.site,
            power=power(vm.state),
            disks=[Disk(name=_file_name(disk.path), size=disk.size) for disk in vm.disks if disk.size],
            network=self.networks.of_switch(adapters[0].switch) if adapters else None,
            address=next((address for adapter in adapters for address in adapter.addresses), None),
        )

    def find(self, machine: str) -> Located:
        """The virtual machine of a machine (see :meth:`HyperVHosts.find`)."""
        return self.hosts.find(self.vm_name(machine))

    def find_if_there(self, machine: str) -> Located | None:
        return self.hosts.find_if_there(self.vm_name(machine))

    def vm_name(self, machine: str) -> str:
        return self.settings(machine).name or machine

    def settings(self, machine: str) -> HyperVMachine:
        """What the inventory says about a machine; nothing of its own for one it does not name, like a test copy."""
        described = self.inventory.machines.get(machine)
        return (described.hyperv if described else None) or HyperVMachine()

    def _settings_of(self, there: Located, machine: str) -> HyperVMachine:
        """As :meth:`settings`; a test copy's guest has the accounts of the machine that it is a copy of."""
        if there.vm.replication is None or ROLES[there.vm.replication.mode] is not Role.TEST_COPY:
            return self.settings(machine)
        for vm in self.hosts.run(there.host, INVENTORY, InventoryRequest()).machines:
            if vm.replication is not None and vm.replication.test_vm_id == there.vm.id:
                original = next((name for name in self.inventory.machines if self.vm_name(name) == vm.name), machine)
                return self.settings(original)
        return self.settings(machine)

    def network_kind(self, network: str) -> str:
        return self.networks.kind(network)

    def make_test_network(self, like: str, run_id: str, copy: str) -> str:
        """Its switch is made on each host when the first copy is connected to it there."""
        return self.networks.of_run(like, run_id)

    def leave_test_networks(self, run_id: str, copy: str) -> None:
        """A switch that another copy is connected to stays; one in the making gets it made anew when it was removed.

        A dead host must not keep the copies of others from going: it is asked again when a copy goes that it had."""
        names = self.networks.switches_of_run(run_id)
        if not names:
            return
        answers = self.hosts.on_all(lambda host: self.hosts.run(host, REMOVE_SWITCHES, RemoveSwitches(names=names)))
        had_the_copy = self.hosts.last_seen(copy)
        for host, answer in answers.items():
            if isinstance(answer, Unreachable) and host != had_the_copy:
                logger.warning("host %s does not answer, its switches of test run %s stay", host, run_id)
            elif isinstance(answer, LeewardError):
                raise answer

    def required_switch(self, network: str) -> str | None:
        """The virtual switch that a host needs for a network; None: whichever carries it, or one that is made."""
        return None if self.networks.is_made(network) else self.networks.switch(network)

    def connect(self, host: str, vm_id: str, relationship: Relationship, network: str) -> None:
        """Connect all network adapters of a recovered machine, or of a test copy. May be repeated."""
        switch, private = self.networks.switch(network), self.networks.is_made(network)
        self.hosts.run(host, CONNECT_NETWORK, ConnectNetwork(vm_id=vm_id, switch=switch, private=private))

    def replica_server(self, relationship: Relationship) -> str:
        """The name that primary servers connect to, when this site is the target.

        Raises ``LeewardError`` when no host of the site can take the replica."""
        return settings.replica_server(settings.site(self.inventory, self.site))

    def place_replica(self, relationship: Relationship) -> str:
        """See :class:`adapters.ports.PlacesReplicas`: without VMM the inventory says which host takes replicas."""
        return ""

    def readiness(self, relationship: Relationship) -> list[Finding]:
        """What Hyper-V Replica does not need: a machine that leeward replicates itself has to be tracked."""
        here, target = relationship.source_site == self.site, self.inventory.sites[relationship.target_site]
        return tracking_readiness.of_source(self, relationship) if here and target.fabric != "hyperv" else []

    # --- power ------------------------------------------------------------------------------------------------

    def start(self, machine: str) -> None:
        """A primary that was prepared for a planned failover is given back to production first: its host refuses to
        start it while it waits for the failover."""
        there = self.find(machine)
        if there.vm.replication is not None:
            role, standing = ROLES[there.vm.replication.mode], STATES[there.vm.replication.state].standing
            if role is Role.TARGET and standing not in (Standing.FAILED_OVER, Standing.COMMITTED):
                raise InvalidState(
                    f"'{machine}' is a replica here: {standing}",
                    where=f"host {there.host}",
                    remedy="fail it over; a replica that was started could not follow its source any more",
                )
            if role is Role.SOURCE and standing is Standing.PREPARED:
                self.hosts.run(there.host, CANCEL_FAILOVER, OfVm(vm_id=there.vm.id))
        if there.vm.state is not VmState.RUNNING:
            self.hosts.run(there.host, START_VM, OfVm(vm_id=there.vm.id))

    def shut_down(self, machine: str, timeout_s: float, beat: Beat) -> PowerState:
        return power_control.shut_down(self, machine, timeout_s, beat)

    def power_off(self, machine: str) -> None:
        power_control.turned_off(self, machine)

    def wait_until_answering(self, machine: str, timeout_s: float, beat: Beat) -> Answering:
        """By the heartbeat of the integration services, and on the machine's port when it has one."""
        started = seen_on = self.hosts.clock()
        there = self.find(machine)
        port = self.settings(machine).port
        while True:
            status = self.hosts.run(there.host, GUEST_STATUS, OfVm(vm_id=there.vm.id))
            is_off, now = power(status.vm_state) is PowerState.OFF, self.hosts.clock()
            if not is_off:
                seen_on = now
            elif now - seen_on >= min(STAYS_OFF_S, timeout_s):
                raise InvalidState(
                    f"machine '{machine}' is off", where=f"host {there.host}", remedy="look at its console, start it"
                )
            missing, address = ("it is off", "") if is_off else answers(status, port)
            if not missing:
                break
            if self.hosts.clock() - started > timeout_s:
                raise Unreachable(
                    f"machine '{machine}' does not answer within {timeout_s:g} s: {missing}",
                    where=f"host {there.host}",
                    remedy="look at its console on the host",
                )
            beat(f"waiting for {machine} to answer: {missing}")
            self.pause(LOOK_AGAIN_S)
        return Answering(
            name=machine,
            site=self.site,
            address=address,
            waited_s=self.hosts.clock() - started,
            transactions=transactions(status, there.host),
        )

    def run_in_guest(
        self, machine: str, command: list[str], environment: dict[str, str], timeout_s: float, beat: Beat
    ) -> ScriptResult:
        there = self.find(machine)
        login = self._settings_of(there, machine)
        if not (login.guest_user and login.guest_password):
            raise InvalidState(
                f"leeward has no login for the guest of '{machine}'",
                where=f"site {self.site}",
                remedy="set 'guest_user' and 'guest_password' below the machine's 'hyperv'",
            )
        given = RunInGuest(
            vm_id=there.vm.id,
            user=login.guest_user,
            password=SecretStr(self._resolve_secret(login.guest_password)),
            command=command,
            environment=environment,
        )
        thread = ThreadPoolExecutor(max_workers=1)
        try:
            running = thread.submit(self.hosts.run, there.host, RUN_IN_GUEST, given, timeout_s + CALL_S)
            while True:
                beat(f"{command[0] if command else 'a command'} runs on {machine}")
                try:
                    result = running.result(timeout=1)
                    break
                except StillRunning:
                    continue
        finally:
            # Who is told to stop does not wait for the guest: what runs there runs on.
            thread.shutdown(wait=False)
        return ScriptResult(exit_code=result.exit_code, output=result.output[-OUTPUT_KEPT:])

    def change_source(self, machine: str) -> ChangeSource:
        """The machine's changes by resilient change tracking, for replication that is leeward's own."""
        site = self.inventory.sites[self.site].hyperv
        folders = site.disk_folders if site else []
        excluded = self.settings(machine).excluded_disks
        name = self.vm_name(machine)
        return BitmapChangeSource(
            ResilientChangeTracking(self.hosts, name, lambda host: located(folders, host), excluded)
        )

    def remove(self, machine: str) -> None:
        there = self.find_if_there(machine)
        if there is None:
            return
        if there.vm.replication is not None and ROLES[there.vm.replication.mode] is not Role.NONE:
            raise InvalidState(
                f"'{machine}' is in a replication relationship ({there.vm.replication.mode})",
                where=f"host {there.host}",
                remedy="end its protection first",
            )
        power_control.turned_off(self, machine)
        self.hosts.run_job(there.host, REMOVE_VM, OfVm(vm_id=there.vm.id), lambda _: None, REMOVING_S)


def _file_name(path: str) -> str:
    return path.replace("/", "\\").rsplit("\\", 1)[-1]


def _volume_of(folder: str, volumes: list[Volume]) -> Volume | None:
    """The volume that a folder is on: the longest of the paths that it begins with."""
    on = [volume for volume in volumes if folder.casefold().startswith(volume.path.casefold())]
    return max(on, key=lambda volume: len(volume.path), default=None)
