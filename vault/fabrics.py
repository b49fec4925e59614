"""Whether a fabric can do what the inventory asks of it: said when the file is read, never in the middle of a run."""

from __future__ import annotations

from collections.abc import Iterator

from vault.errors import BadInput
from vault.hyperv import APP_CONSISTENT_HOURS, FREQUENCIES_S
from vault.inventory import Inventory, Machine, Policy
from vault.yamlsource import YamlSource

REPLICATES = {("lab", "lab"), ("hyperv", "hyperv")}
"""Fabrics between which machines can be replicated, in either direction."""


def check_fabrics(inventory: Inventory, source: YamlSource) -> Iterator[BadInput]:
    """What sites, machines and policies ask for and their fabrics cannot do, each at its place."""
    for name, site in inventory.sites.items():
        place: tuple[str | int, ...] = ("sites", name)
        if site.fabric == "hyperv" and site.hyperv is None:
            yield source.error(
                place, f"site '{name}' has no 'hyperv' settings", remedy="add 'hyperv:' with its 'hosts'", key=True
            )
        if site.fabric != "hyperv" and site.hyperv is not None:
            yield source.error(
                (*place, "hyperv"),
                f"site '{name}' has 'hyperv' settings, but its fabric is '{site.fabric}'",
                remedy="write 'fabric: hyperv', or remove them",
            )
        needs_password = site.hyperv is not None and site.hyperv.authentication in ("ntlm", "credssp", "basic")
        if needs_password and not site.credentials:
            yield source.error(
                place, f"site '{name}' has no 'credentials'", remedy="add the reference to its password", key=True
            )
    for name, machine in inventory.machines.items():
        if {machine.site, machine.target} <= set(inventory.sites) and machine.site != machine.target:
            yield from _check_machine(inventory, source, name, machine)


def _check_machine(inventory: Inventory, source: YamlSource, name: str, machine: Machine) -> Iterator[BadInput]:
    place = ("machines", name)
    here, there = inventory.sites[machine.site].fabric, inventory.sites[machine.target].fabric
    if (here, there) not in REPLICATES:
        yield source.error(
            (*place, "target"),
            f"machine '{name}' cannot be replicated from a site of fabric '{here}' to one of '{there}'",
            remedy=f"name a target of fabric '{here}'",
        )
        return
    if here != "hyperv":
        return
    if inventory.group_of(name):
        yield source.error(
            place,
            f"machine '{name}' is in consistency group '{inventory.group_of(name)}', but Hyper-V Replica replicates "
            "each machine on its own",
            remedy="take it out of 'consistency_groups'",
            key=True,
        )
    policy = inventory.policies.get(machine.policy)
    for key, what, remedy in _unfulfillable(policy) if policy is not None else ():
        yield source.error(
            ("policies", machine.policy, key),
            f"machine '{name}' is replicated by Hyper-V Replica, {what}",
            remedy=remedy,
        )


def _unfulfillable(policy: Policy) -> Iterator[tuple[str, str, str]]:
    least, most = APP_CONSISTENT_HOURS
    if policy.frequency not in FREQUENCIES_S:
        allowed = ", ".join(f"{frequency}s" for frequency in FREQUENCIES_S)
        yield "frequency", f"which knows no frequency of {policy.frequency:g} s", f"choose one of {allowed}"
    hours = (policy.app_consistent_every or 3600) / 3600
    if hours not in range(least, most + 1):
        yield (
            "app_consistent_every",
            "which makes app-consistent points every whole number of hours",
            f"choose {least}h to {most}h",
        )
    if policy.initial_replication.method == "media":
        yield (
            "initial_replication",
            "whose first copy leeward sends over the network only",
            "choose 'method: network'",
        )
