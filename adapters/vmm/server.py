"""One site's VMM server: asking it, and the errors of what it does not have."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NoReturn

from adapters.hyperv.hosts import CALL_S, FACTS_FOR_S, Runs
from adapters.hyperv.operations import Nothing
from adapters.vmm.facts import MISSING, Cloud, ManagedHost, ManagedMachine, VmmFabric, VmNetwork
from adapters.vmm.operations import VMM_CONNECT, VMM_FABRIC, VMM_MACHINES, ConnectMachine, MachinesRequest
from vault.errors import Busy, NotFound

CONNECT_S = 600.0
"""VMM does its jobs one after another when they change the same machine or host."""


class VmmServer:
    """Any call raises the errors of the session.

    Args:
        address: the server, as the inventory names it.
        session: runs operations on it.
        clock: seconds, by which answers grow old.
    """

    def __init__(self, address: str, session: Runs, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.where = f"VMM server {address}"
        self._session = session
        self._clock = clock
        self._fabric: tuple[float, VmmFabric] | None = None
        self._asking = threading.Lock()

    def fabric(self) -> VmmFabric:
        """Clouds, hosts and networks, at most :data:`FACTS_FOR_S` old."""
        with self._asking:
            if self._fabric is None or self._clock() - self._fabric[0] > FACTS_FOR_S:
                self._fabric = (self._clock(), self._session.run(VMM_FABRIC, Nothing(), timeout_s=CALL_S))
            return self._fabric[1]

    def machines(self, names: list[str] | None = None) -> list[ManagedMachine]:
        """All machines on its hosts, or only those that have one of ``names``."""
        found = self._session.run(VMM_MACHINES, MachinesRequest(names=names), timeout_s=CALL_S).machines
        return [machine for machine in found if machine.status != MISSING]

    def cloud(self, name: str) -> Cloud:
        """Raises ``NotFound`` naming the clouds that there are."""
        clouds = self.fabric().clouds
        found = next((cloud for cloud in clouds if cloud.name.casefold() == name.casefold()), None)
        return found or _refuse(f"there is no cloud '{name}'", self.where, [cloud.name for cloud in clouds])

    def vm_network(self, name: str) -> VmNetwork:
        """Raises ``NotFound`` naming the VM networks that there are."""
        networks = self.fabric().vm_networks
        found = next((network for network in networks if network.name.casefold() == name.casefold()), None)
        return found or _refuse(f"there is no VM network '{name}'", self.where, [network.name for network in networks])

    def hosts_of(self, cloud: str) -> list[ManagedHost]:
        """Raises ``NotFound`` when there is no such cloud."""
        wanted = self.cloud(cloud)
        return [host for host in self.fabric().hosts if wanted.has(host)]

    def connect(self, given: ConnectMachine) -> None:
        """Raises ``Busy`` while VMM does not find the machine on its host."""
        if not self._session.run(VMM_CONNECT, given, timeout_s=CONNECT_S).found:
            raise Busy(
                f"VMM does not find the machine {given.vm_id} on {given.host} yet",
                where=self.where,
                remedy="it is tried again; if it stays so, refresh the host in VMM and see its jobs",
            )


def _refuse(what: str, where: str, known: list[str]) -> NoReturn:
    raise NotFound(what, where=where, remedy=f"it has: {', '.join(sorted(known)) or 'none'}; correct the inventory")
