"""Can a machine on an array be protected, failed over, recovered? What an operator reads before anything is changed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from adapters.networks import network_finding
from adapters.san.places import Place, Places
from adapters.san.pools import placing, pools_for_replicas, where_they_are
from adapters.san.ports import Array, Group, GroupControl, GroupState, SanFabric, Step
from vault.domain import Finding, NetworkKind, Relationship, Severity, utc
from vault.errors import LeewardError, NotFound
from vault.pools import pools_mapped_to
from vault.words import counted, size

REMEDIES = {
    GroupState.COPYING: "wait until it is complete: leeward status",
    GroupState.LINK_LOST: "repair the link between the arrays, then: leeward resync {machine}",
    GroupState.SUSPENDED: "resume it on the array, or: leeward resync {machine}",
    GroupState.SPLIT: "make it whole again: leeward resync {machine}",
    GroupState.OTHER: "look at the group on the array",
}


def remedy(group: Group, machine: str) -> str:
    return REMEDIES.get(group.state, "look at the group on the array").format(machine=machine)


def of_source(fabric: SanFabric, places: Places, relationship: Relationship) -> list[Finding]:
    machine, site = relationship.machine, relationship.source_site
    try:
        description = fabric.describe(machine)
        findings = places.array_of(site).check(asynchronous=places.settings(machine).mode == "asynchronous")
        place = places.at(machine, site)
    except LeewardError as error:
        return [Finding.of_error(machine, error)]
    findings.append(Finding.passed(machine, f"{description.power} at {site}, {counted(len(place.volumes), 'volume')}"))
    return findings + list(_of_group(places, place, relationship))


def _of_group(places: Places, place: Place, relationship: Relationship) -> Iterator[Finding]:
    machine = relationship.machine
    name = places.settings(machine).group
    subject, members = f"group {name}", ", ".join(places.members(machine))
    group = place.group
    if group is None or group.state is GroupState.LOCAL:
        yield from _of_mirror(places, place.array, machine)
        yield Finding.passed(subject, f"not replicated yet; it moves as a whole: {members}")
        yield from _of_placing(places, place, relationship)
        return
    wanted = places.settings(machine).mode
    if group.asynchronous != (wanted == "asynchronous"):
        yield Finding.warned(
            subject,
            f"the array mirrors it {'asynchronously' if group.asynchronous else 'synchronously'}, not as the inventory "
            f"says, {wanted}",
            f"correct 'mode' of its machines, or disable and protect them anew: leeward disable {machine}",
        )
    strangers = places.strangers(machine, group)
    if strangers:
        yield Finding(
            severity=Severity.FAIL,
            subject=subject,
            what=f"it also has volumes of no machine in the inventory, which would move along: {', '.join(strangers)}",
            remedy="describe their machine in the inventory, or take them out of the group on the array",
        )
    if group.state in REMEDIES:
        yield Finding(
            severity=Severity.FAIL,
            subject=subject,
            what=f"is {group.state}{progress(group)}; {since(group)}",
            remedy=remedy(group, machine),
        )
    else:
        yield Finding.passed(subject, f"{group.state}; it moves as a whole: {members}")
        yield from _of_age(group, subject, relationship.late_after_s)
    yield from _of_pools(places, place, machine, relationship.source_site, relationship.target_site)


def _of_placing(places: Places, place: Place, relationship: Relationship) -> Iterator[Finding]:
    """Where the group's replicas go, unless the array's own tools decide that."""
    subject = f"group {places.settings(relationship.machine).group}"
    try:
        found = placing(places, place, relationship)
    except LeewardError as error:
        yield Finding.of_error(subject, error)
        return
    if found.pool is not None:
        mapped = f", mapped from {', '.join(found.sources)}" if found.sources else ""
        where = f"pool {found.pool} at {relationship.target_site}{mapped}"
        yield Finding.passed(subject, f"its replicas, {size(found.size)}, go to {where}")


def _of_mirror(places: Places, array: GroupControl, machine: str) -> Iterator[Finding]:
    """Of a group that has to be mirrored first."""
    later, volumes = places.settings(machine).mode == "asynchronous", places.group_volume_names(machine)
    supported, group = array.supports(asynchronous=later), places.settings(machine).group
    if later and Step.MIRROR_ASYNCHRONOUSLY not in supported and isinstance(array, Array):
        yield Finding.failed(
            f"array {array.name}",
            f"it cannot {Step.MIRROR_ASYNCHRONOUSLY}, as '{machine}' is to be",
            "remove 'mode: asynchronous' from 'san' of the group's machines",
        )
    elif supported.isdisjoint({Step.MIRROR, Step.MIRROR_ASYNCHRONOUSLY}):
        yield Finding.failed(
            f"array {array.name}",
            f"group '{group}' is not mirrored there, and leeward cannot {Step.MIRROR}",
            "mirror it with the array's own tools, then try again",
        )
    elif len(volumes) > 1 and Step.MIRROR_TOGETHER not in supported:
        yield Finding.failed(
            f"array {array.name}",
            f"it cannot {Step.MIRROR_TOGETHER}, and '{group}' has {', '.join(volumes)}: they would be of different "
            "moments",
            "put the group's disks on one volume, or use an array that mirrors groups",
        )


def _of_age(group: Group, subject: str, late_after_s: float) -> Iterator[Finding]:
    """An asynchronous copy's measured age against what the policy allows."""
    if not group.asynchronous or group.whole_at is None:
        return
    age = (datetime.now(UTC) - group.whole_at).total_seconds()
    told = f"asynchronous: {since(group)}; by its policy at most {late_after_s:g} s"
    if age > late_after_s:
        yield Finding.warned(subject, told, "look at the link between the arrays: it does not keep up")
    else:
        yield Finding.passed(subject, told)


def of_target(fabric: SanFabric, places: Places, relationship: Relationship) -> list[Finding]:
    machine, site = relationship.machine, relationship.target_site
    try:
        array, group = places.find(machine, site)
        findings = [
            *array.check(asynchronous=places.settings(machine).mode == "asynchronous"),
            network_finding(fabric, relationship.target_network, NetworkKind.PRODUCTION),
            network_finding(fabric, relationship.test_network, NetworkKind.ISOLATED),
        ]
        if group is None or group.state is GroupState.LOCAL:
            findings += _of_mirror(places, array, machine)
            if isinstance(array, Array):
                findings += _of_space(places, array, relationship)
            return findings
        if isinstance(array, Array):
            findings += _of_mapped_pools(places, array, site, relationship.source_site)
    except LeewardError as error:
        return [Finding.of_error(f"site {site}", error)]
    subject = f"group {group.name}"
    if not group.is_whole:
        findings.append(
            Finding(
                severity=Severity.FAIL,
                subject=subject,
                what=f"its copy at {site} is between two moments: {group.state}{progress(group)}",
                remedy="wait until the copy is complete; nothing can be recovered from it before",
            )
        )
    elif group.state in REMEDIES:
        warned = Finding(severity=Severity.WARN, subject=subject, what=f"is {group.state}; {since(group)}")
        findings.append(warned)
    else:
        findings.append(Finding.passed(subject, f"{group.state} at {site}"))
        findings += _of_age(group, subject, relationship.late_after_s)
    mine = {volume.name: volume for volume in group.volumes if volume.name in places.volume_names(machine)}
    missing = [name for name in places.volume_names(machine) if name not in mine]
    if missing:
        findings.append(_misnamed(group, site, missing))
    findings += _of_pools(places, Place(array, group, list(mine.values())), machine, site, relationship.source_site)
    return findings


def _misnamed(group: Group, site: str, missing: list[str]) -> Finding:
    """An array may name replicas after the relationship (CreateGroupReplica). A failover would not find them."""
    named = ", ".join(volume.name for volume in group.volumes)
    return Finding.failed(
        f"group {group.name}",
        f"no replicas at {site} have the names {', '.join(missing)}; they are {named}",
        "give each one on the array the name of its source: by that leeward finds it",
    )


def _of_space(places: Places, array: Array, relationship: Relationship) -> Iterator[Finding]:
    """In the pool that the replicas will be made in, or, when the source was not asked, in those that they may be."""
    needed, site = relationship.replica_space, relationship.target_site
    for pool in [needed.pool] if needed else pools_for_replicas(places, site, relationship.source_site):
        subject = f"pool {pool}"
        try:
            free = array.free_space(pool)
        except NotFound as missing:
            yield Finding.of_error(subject, missing)
            continue
        if needed is not None and free < needed.size:
            yield Finding.failed(
                subject,
                f"only {size(free)} are free, but the replicas of group "
                f"'{relationship.replication_group}' take {size(needed.size)}",
                "make room in it on the array, or map the pool of their sources to another one in 'storage_mappings'",
            )
        else:
            yield Finding.passed(subject, f"{size(free)} are free at {site}")


def _of_pools(places: Places, place: Place, machine: str, site: str, other: str) -> Iterator[Finding]:
    """Of a group that is mirrored: where the machine's volumes are. Nothing here is a reason to refuse a failover."""
    try:
        told = where_they_are(places, place, site, other)
    except LeewardError as error:
        yield Finding.warned(machine, error.what, error.remedy)
        return
    if told:
        yield Finding.passed(machine, f"its volumes at {site} are in pool {told}")


def _of_mapped_pools(places: Places, array: Array, site: str, source: str) -> Iterator[Finding]:
    for pool in pools_mapped_to(places.inventory, site, source):
        try:
            array.free_space(pool)
        except NotFound as missing:
            yield Finding.warned(f"pool {pool}", missing.what, missing.remedy)


def progress(group: Group) -> str:
    told = [f"{group.percent} %"] if group.state is GroupState.COPYING and group.percent is not None else []
    told += [group.doing] if group.doing else []
    return f" ({', '.join(told)})" if told else ""


def since(group: Group) -> str:
    """Of a group that is not synchronized: what its target is."""
    if group.is_copy_of_now:
        return "its copy is of now"
    if group.whole_at is None:
        return "its copy is of no one moment"
    age = max(0.0, (datetime.now(UTC) - group.whole_at).total_seconds())
    return f"its copy is of {utc(group.whole_at)}, {age:.0f} s old"
