"""Waiting for an array: until a group is synchronized, with its progress."""

from __future__ import annotations

import time

from adapters.san.places import Places
from adapters.san.ports import Group, GroupState, Watch
from adapters.san.readiness import REMEDIES, since
from replication.ports import Report
from vault.domain import Progress
from vault.errors import InvalidState, Unreachable

LOOK_EVERY_S = 0.25
STANDS_STILL_S = 600.0


def telling(report: Report) -> Watch:
    return lambda doing, percent: report(Progress(doing=f"{doing}: {percent} %"))


def until_synchronized(places: Places, machine: str, site: str, report: Report) -> Group:
    """The group of ``machine`` at its source, once its copy is complete.

    Raises ``Unreachable`` when the arrays lose each other, ``InvalidState`` when the copy stands still or is ended."""
    moved_at, percent = time.monotonic(), -1
    while True:
        array, group = places.group_at(machine, site)
        size = sum(volume.size for volume in group.volumes)
        report(
            Progress(
                doing=f"group {group.name} is {group.state}",
                bytes_done=size * group.percent // 100,
                bytes_total=size,
            )
        )
        if group.state is GroupState.SYNCHRONIZED:
            return group
        if group.state is GroupState.LINK_LOST:
            raise Unreachable(
                f"group '{group.name}' is {group.state}; {since(group)}",
                where=f"array {array.name}",
                remedy="repair the link between the arrays; then it is copied on",
            )
        if group.state is not GroupState.COPYING:
            raise InvalidState(
                f"group '{group.name}' is {group.state}; {since(group)}",
                where=f"array {array.name}",
                remedy=REMEDIES.get(group.state, "look at the group on the array").format(machine=machine),
            )
        if group.percent != percent:
            moved_at, percent = time.monotonic(), group.percent
        if time.monotonic() - moved_at > STANDS_STILL_S:
            raise InvalidState(
                f"the copy of group '{group.name}' stands at {percent} % for {STANDS_STILL_S:g} s",
                where=f"array {array.name}",
                remedy="look at the copy on the array",
            )
        time.sleep(LOOK_EVERY_S)
