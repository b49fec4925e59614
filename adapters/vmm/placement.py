"""On which host of a cloud a replica is placed: the one with most memory left of those that can take it."""

from __future__ import annotations

from collections.abc import Iterable

from adapters.vmm.facts import HYPER_V, ManagedHost, VmNetwork
from vault.errors import InvalidState, LeewardError, NoSpace

GIB = 2**30


def place(hosts: Iterable[ManagedHost], network: VmNetwork, *, size: int, where: str) -> ManagedHost:
    """The host for a replica whose disks have ``size`` bytes in all, and which will be connected to ``network``.

    Hosts in which VMM sees nothing wrong come first.

    Raises ``NoSpace`` when only storage is missing, ``InvalidState`` when no host can take it for another reason; both
    say of each host why not."""
    fit = [host for host in hosts if not obstacle(host, network) and host.available_storage >= size]
    if not fit:
        raise _nowhere(list(hosts), network, size, where)
    return min(fit, key=lambda host: (host.state != "OK", -host.available_memory, host.name))


def obstacle(host: ManagedHost, network: VmNetwork) -> str:
    """Why the host can take no replica at all; empty: it can."""
    if host.platform != HYPER_V:
        return f"it is not a Hyper-V host but {host.platform}"
    if not host.responding:
        return f"it does not respond to VMM ({host.state})"
    if host.maintenance:
        return "it is in maintenance mode"
    if not host.available_for_placement:
        return "VMM may not place machines on it"
    if network.logical_network not in host.logical_networks:
        return f"logical network '{network.logical_network}' of VM network '{network.name}' is not on it"
    return ""


def _nowhere(hosts: list[ManagedHost], network: VmNetwork, size: int, where: str) -> LeewardError:
    reasons = {host.name: obstacle(host, network) or _too_small(host, size) for host in hosts}
    told = "; ".join(f"{host}: {reason}" for host, reason in sorted(reasons.items())) or "it has no hosts"
    only_space = any(not obstacle(host, network) for host in hosts)
    return (NoSpace if only_space else InvalidState)(
        f"no host of the cloud can take the replica: {told}",
        where=where,
        remedy="free space on one of them, or add a host"
        if only_space
        else "correct one of them in VMM, or add a host",
    )


def _too_small(host: ManagedHost, size: int) -> str:
    return f"{host.available_storage / GIB:.1f} GiB are free, {size / GIB:.1f} GiB are needed"
