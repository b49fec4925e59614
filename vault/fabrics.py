"""Whether a fabric can do what the inventory asks of it: said when the file is read, never in the middle of a run."""

from __future__ import annotations

from collections.abc import Iterator

from vault.errors import BadInput
from vault.hyperv import APP_CONSISTENT_HOURS, FREQUENCIES_S
from vault.inventory import Inventory, Machine, Policy, Site
from vault.yamlsource import YamlSource

REPLICATES = {("lab", "lab"), ("hyperv", "hyperv"), ("hyperv", "lab"), ("hyperv", "azure"), ("lab", "azure")}
"""Fabrics from which machines can be replicated to others. To another fabric they go to its ``replica_store`` in Azure,
and no way leads back yet."""


def replicates(source: Site, target: Site) -> bool:
    """Whether machines of ``source`` can be replicated to ``target``."""
    pair = (source.fabric, target.fabric)
    return pair in REPLICATES and (source.fabric == target.fabric or target.replica_store is not None)


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
        if site.storage is not None and site.fabric == "lab" and site.storage.portal is None:
            yield source.error(
                (*place, "storage"),
                f"the storage of lab site '{name}' has no 'portal'",
                remedy="add the host:port where machines reach the array's volumes",
            )
        needs_password = site.hyperv is not None and site.hyperv.authentication in ("ntlm", "credssp", "basic")
        if needs_password and not site.credentials:
            yield source.error(
                place, f"site '{name}' has no 'credentials'", remedy="add the reference to its password", key=True
            )
    for name, machine in inventory.machines.items():
        if {machine.site, machine.target} <= set(inventory.sites) and machine.site != machine.target:
            yield from _check_machine(inventory, source, name, machine)


def _check_san(inventory: Inventory, source: YamlSource, name: str, machine: Machine) -> Iterator[BadInput]:
    assert machine.san is not None
    place: tuple[str | int, ...] = ("machines", name, "san")
    for site in (machine.site, machine.target):
        if inventory.sites[site].storage is None:
            yield source.error(
                place,
                f"machine '{name}' is on an array, but site '{site}' has no 'storage'",
                remedy="add it to the site",
            )
    kinds = {found.kind for site in (machine.site, machine.target) if (found := inventory.sites[site].storage)}
    if len(kinds) > 1:
        yield source.error(
            place,
            f"machine '{name}' is on arrays that leeward would manage by {' and '.join(sorted(kinds))}",
            remedy="write one 'kind' of 'storage' for both of its sites",
        )
    fabrics = {inventory.sites[site].fabric for site in (machine.site, machine.target)}
    if fabrics != {"lab"}:
        yield source.error(
            place,
            f"machine '{name}' is on an array, which leeward can use between sites of fabric 'lab' only",
            remedy="remove 'san', and it is replicated by its fabric",
        )
    if machine.lab is not None and sorted(machine.san.volumes) != sorted(disk.name for disk in machine.lab.disks):
        disks = ", ".join(disk.name for disk in machine.lab.disks)
        yield source.error(
            (*place, "volumes"), f"machine '{name}' has the disks {disks}", remedy="name the volume of each disk"
        )
    for other_name, other in inventory.machines.items():
        if other.san is None or other_name >= name:
            continue
        if other.san.group == machine.san.group and (other.site, other.target) != (machine.site, machine.target):
            yield source.error(
                (*place, "group"),
                f"machine '{name}' is in group '{machine.san.group}' with '{other_name}', which has other sites",
                remedy="machines of a group have one site and one target: they move as a whole",
            )
        if other.san.group == machine.san.group and other.san.mode != machine.san.mode:
            yield source.error(
                (*place, "mode") if "mode" in machine.san.model_fields_set else place,
                f"machine '{name}' is mirrored in another mode than '{other_name}' of its group '{machine.san.group}'",
                remedy="machines of a group have one mode: they are mirrored as a whole",
            )
    if inventory.group_of(name):
        yield source.error(
            place,
            f"machine '{name}' is in consistency group '{inventory.group_of(name)}', but an array keeps only one point",
            remedy="take it out of 'consistency_groups'; its 'san' group is of one moment anyhow",
        )
    policy = inventory.policies.get(machine.policy)
    if policy is not None and policy.initial_replication.method == "media":
        yield source.error(
            ("policies", machine.policy, "initial_replication"),
            f"machine '{name}' is replicated by an array, which copies over its own link only",
            remedy="choose 'method: network'",
        )
    if policy is not None and policy.app_consistent_every is not None:
        yield source.error(
            ("policies", machine.policy, "app_consistent_every"),
            f"machine '{name}' is replicated by an array, which makes no app-consistent recovery points",
            remedy="give it a policy without 'app_consistent_every'",
        )


def _check_machine(inventory: Inventory, source: YamlSource, name: str, machine: Machine) -> Iterator[BadInput]:
    place = ("machines", name)
    here, there = inventory.sites[machine.site].fabric, inventory.sites[machine.target].fabric
    if (here, there) not in REPLICATES:
        yield source.error(
            (*place, "target"),
            f"machine '{name}' cannot be replicated from a site of fabric '{here}' to one of '{there}'",
            remedy=f"name a target of fabric {' or '.join(repr(to) for at, to in sorted(REPLICATES) if at == here)}"
            if here != "azure"
            else "name a site where machines run; nothing leads back from Azure yet",
        )
        return
    policy = inventory.policies.get(machine.policy)
    if (here, there) != ("hyperv", "hyperv") and policy is not None and policy.initial_replication.method == "existing":
        yield source.error(
            ("policies", machine.policy, "initial_replication"),
            f"machine '{name}' is not replicated by Hyper-V Replica, which alone can begin with a machine that exists "
            "at the target",
            remedy="choose 'method: network'" + ("" if machine.san is not None else " or 'method: media'"),
        )
    if machine.san is not None:
        yield from _check_san(inventory, source, name, machine)
    if here != "hyperv":
        return
    if there != "hyperv":
        yield from _check_stream_from_hyperv(inventory, source, name, machine)
        return
    if inventory.group_of(name):
        yield source.error(
            place,
            f"machine '{name}' is in consistency group '{inventory.group_of(name)}', but Hyper-V Replica replicates "
            "each machine on its own",
            remedy="take it out of 'consistency_groups'",
            key=True,
        )
    for key, what, remedy in _unfulfillable(policy) if policy is not None else ():
        yield source.error(
            ("policies", machine.policy, key),
            f"machine '{name}' is replicated by Hyper-V Replica, {what}",
            remedy=remedy,
        )


def _check_stream_from_hyperv(
    inventory: Inventory, source: YamlSource, name: str, machine: Machine
) -> Iterator[BadInput]:
    place, settings = ("machines", name), inventory.sites[machine.site].hyperv
    if inventory.sites[machine.target].replica_store is None:
        yield source.error(
            (*place, "target"),
            f"machine '{name}' is replicated from Hyper-V to site '{machine.target}', which keeps no replicas in Azure",
            remedy=f"add 'replica_store' to site '{machine.target}', or name a target of fabric 'hyperv'",
        )
    if settings is not None and not settings.disk_folders:
        yield source.error(
            ("sites", machine.site, "hyperv"),
            f"machine '{name}' is read from its virtual disks, but where workers find them is not said",
            remedy="mount their folders on the workers and name them in 'disk_folders'",
            key=True,
        )
    if inventory.group_of(name):
        yield source.error(
            place,
            f"machine '{name}' is in consistency group '{inventory.group_of(name)}', but Hyper-V cannot cut machines "
            "together",
            remedy="take it out of 'consistency_groups'",
            key=True,
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
