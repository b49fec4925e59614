"""Can a machine on an array be protected, failed over, recovered? What an operator reads before anything is changed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from adapters.networks import network_finding
from adapters.san.places import Place, Places
from adapters.san.ports import Array, Group, GroupControl, GroupState, SanFabric, Step
from vault.domain import Finding, NetworkKind, Relationship, Severity, utc
from vault.errors import LeewardError

REMEDIES = {
    GroupState.COPYING: "wait until it is complete: leeward status",
    GroupState.LINK_LOST: "repair the link between the arrays, then: leeward resync {machine}",
    GroupState.SUSPENDED: "resume it on the array, or: leeward resync {machine}",
    GroupState.SPLIT: "make it whole again: leeward resync {machine}",
    GroupState.OTHER: "look at the group on the array",
}


def of_source(fabric: SanFabric, places: Places, relationship: Relationship) -> list[Finding]:
    machine, site = relationship.machine, relationship.source_site
    try:
        description = fabric.describe(machine)
        findings = places.array_of(site).check()
        place = places.at(machine, site)
    except LeewardError as error:
        return [Finding.of_error(machine, error)]
    findings.append(Finding.passed(machine, f"{description.power} at {site}, {len(place.volumes)} volumes"))
    return findings + list(_of_group(places, place, machine, relationship.late_after_s))


def _of_group(places: Places, place: Place, machine: str, late_after_s: float) -> Iterator[Finding]:
    name = places.settings(machine).group
    subject, members = f"group {name}", ", ".join(places.members(machine))
    group = place.group
    if group is None or group.state is GroupState.LOCAL:
        yield from _of_mirror(places, place.array, machine)
        yield Finding.passed(subject, f"not replicated yet; it moves as a whole: {members}")
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
            remedy=REMEDIES[group.state].format(machine=machine),
        )
    else:
        yield Finding.passed(subject, f"{group.state}; it moves as a whole: {members}")
        yield from _of_age(group, subject, late_after_s)


def _of_mirror(places: Places, array: GroupControl, machine: str) -> Iterator[Finding]:
    """Of a group that has to be mirrored first."""
    if Step.MIRROR not in array.supports():
        yield Finding.failed(
            f"array {array.name}",
            f"group '{places.settings(machine).group}' is not mirrored there, and leeward cannot {Step.MIRROR}",
            "mirror it with the array's own tools, then try again",
        )
        return
    if places.settings(machine).mode == "asynchronous" and Step.MIRROR_ASYNCHRONOUSLY not in array.supports():
        yield Finding.failed(
            f"array {array.name}",
            f"it cannot {Step.MIRROR_ASYNCHRONOUSLY}, as '{machine}' is to be",
            "remove 'mode: asynchronous' from 'san' of the group's machines",
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
        array = places.array_of(site)
        findings = [
            *array.check(),
            network_finding(fabric, relationship.target_network, NetworkKind.PRODUCTION),
            network_finding(fabric, relationship.test_network, NetworkKind.ISOLATED),
        ]
        group = next((one for one in array.groups() if one.name == places.settings(machine).group), None)
        if group is None or group.state is GroupState.LOCAL:
            findings += _of_mirror(places, array, machine)
            if isinstance(array, Array):
                free = f"{array.free_space():,} bytes are free in the array's pool"
                findings.append(Finding.passed(f"space at {site}", free))
            return findings
    except LeewardError as error:
        return [Finding.of_error(f"site {site}", error)]
    subject = f"group {group.name}"
    if group.whole_at is None:
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
    return findings


def progress(group: Group) -> str:
    return f" ({group.percent} %)" if group.state is GroupState.COPYING else ""


def since(group: Group) -> str:
    """Of a group that is not synchronized: what its target is."""
    if group.whole_at is None:
        return "its copy is of no one moment"
    age = max(0.0, (datetime.now(UTC) - group.whole_at).total_seconds())
    return f"its copy is of {utc(group.whole_at)}, {age:.0f} s old"
