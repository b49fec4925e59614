"""On which host of a cloud a replica is placed."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from adapters.vmm.facts import HYPER_V, ManagedHost, ManagedMachine, VmNetwork
from vault.errors import InvalidState
from vault.words import size

LEAST_FREE = 10 * 2**30
"""A host with less storage takes no replica, however small it is."""

ON_ITS_WAY_S = 600.0
"""For so long a placed replica counts at its host although VMM does not see it there yet."""


class OnTheirWay:
    """Replicas that were placed, and are not seen by VMM yet: those that are placed at once do not all go to one host.
    Thread-safe; ``clock`` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._placed: dict[str, tuple[float, str]] = {}
        self._lock = threading.Lock()

    def place(
        self,
        machine: str,
        hosts: Sequence[ManagedHost],
        network: VmNetwork,
        machines: Sequence[ManagedMachine],
        *,
        where: str,
        needed: int = 0,
    ) -> ManagedHost:
        """As :func:`place`; asked again for the same machine, the same host, as long as that can take it."""
        with self._lock:
            seen, now = {one.name.casefold() for one in machines}, self._clock()
            self._placed = {
                name: (moment, host)
                for name, (moment, host) in self._placed.items()
                if name not in seen and now - moment < ON_ITS_WAY_S
            }
            _, before = self._placed.pop(machine, (now, ""))
            again = next((host for host in hosts if host.name == before and not obstacle(host, network, needed)), None)
            others = [host for _, host in self._placed.values()]
            chosen = again or place(hosts, network, machines, others, where=where, needed=needed)
            self._placed[machine] = (now, chosen.name)
            return chosen


def place(
    hosts: Sequence[ManagedHost],
    network: VmNetwork,
    machines: Iterable[ManagedMachine],
    on_their_way: Iterable[str],
    *,
    where: str,
    needed: int = 0,
) -> ManagedHost:
    """The host for a replica that will be connected to ``network`` and takes ``needed`` bytes.

    A healthy one before all; then the one with most storage left, once the dynamic disks of all ``machines`` on it have
    grown to their sizes, for each replica that is ``on_their_way`` to it (the names of their hosts) and the new one.

    Raises ``InvalidState`` when no host can take it, and says of each why not."""
    fit = [host for host in hosts if not obstacle(host, network, needed)]
    if not fit:
        each = sorted(hosts, key=lambda host: host.name)
        reasons = (f"{host.name}: {obstacle(host, network, needed)}" for host in each)
        raise InvalidState(
            f"no host of the cloud can take the replica: {'; '.join(reasons) or 'it has no hosts'}",
            where=where,
            remedy="correct one of them in VMM, or add a host to the cloud",
        )
    promised: Counter[str] = Counter()
    for machine in machines:
        promised[machine.host] += sum(max(0, disk.size - disk.file_size) for disk in machine.disks)
    sharing = Counter(on_their_way)

    def preference(host: ManagedHost) -> tuple[bool, float, str]:
        left = max(0, host.available_storage - promised[host.name])
        return host.state != "OK", -left / (sharing[host.name] + 1), host.name

    return min(fit, key=preference)


def obstacle(host: ManagedHost, network: VmNetwork, needed: int = 0) -> str:
    """Why the host can take no replica; empty: it can."""
    carried = network.logical_network
    against = (
        (host.platform != HYPER_V, f"it is not a Hyper-V host but {host.platform}"),
        (not host.responding, f"it does not respond to VMM ({host.state})"),
        (host.maintenance, "it is in maintenance mode"),
        (not host.available_for_placement, "VMM may not place machines on it"),
        (
            carried not in host.logical_networks,
            f"logical network '{carried}' of VM network '{network.name}' is not on it",
        ),
        (host.available_storage < LEAST_FREE, f"only {size(host.available_storage)} are free on it"),
        (
            host.available_storage < needed,
            f"only {size(host.available_storage)} are free on it, the replica takes {size(needed)}",
        ),
    )
    return next((reason for holds, reason in against if holds), "")
