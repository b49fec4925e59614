"""On which host of a cloud a replica is placed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from adapters.vmm.facts import HYPER_V, ManagedHost, ManagedMachine, VmNetwork
from vault.errors import InvalidState

LEAST_FREE = 10 * 2**30
"""A host with less storage takes no replica. How large one will be is known to the source only."""


def place(
    hosts: Iterable[ManagedHost], network: VmNetwork, machines: Iterable[ManagedMachine], *, where: str
) -> ManagedHost:
    """The host for a replica that will be connected to ``network``: a healthy one before all, then the one with most
    storage left once the dynamic disks of all ``machines`` on it have grown to their sizes. That spreads replicas, of
    which new ones are still small.

    Raises ``InvalidState`` when no host can take it, and says of each why not."""
    hosts = list(hosts)
    fit = [host for host in hosts if not obstacle(host, network)]
    promised: Counter[str] = Counter()
    for machine in machines:
        promised[machine.host] += sum(max(0, disk.size - disk.file_size) for disk in machine.disks)
    if fit:
        return min(fit, key=lambda host: (host.state != "OK", promised[host.name] - host.available_storage, host.name))
    reasons = (f"{host.name}: {obstacle(host, network)}" for host in sorted(hosts, key=lambda host: host.name))
    raise InvalidState(
        f"no host of the cloud can take the replica: {'; '.join(reasons) or 'it has no hosts'}",
        where=where,
        remedy="correct one of them in VMM, or add a host to the cloud",
    )


def obstacle(host: ManagedHost, network: VmNetwork) -> str:
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
        (host.available_storage < LEAST_FREE, f"only {host.available_storage / 2**30:.1f} GiB are free on it"),
    )
    return next((reason for holds, reason in against if holds), "")
