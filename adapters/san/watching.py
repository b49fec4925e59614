"""Waiting for an array: until a group is synchronized, or an asynchronous target has all, with the progress."""

from __future__ import annotations

import time
from datetime import datetime

from adapters.san.patience import Patience, longest_percent_s
from adapters.san.places import Places
from adapters.san.ports import Group, GroupControl, GroupState, Watch
from adapters.san.readiness import progress, remedy, since
from replication.ports import Report
from vault.domain import Progress
from vault.errors import InvalidState, LeewardError, Unreachable

LOOK_EVERY_S = 0.25
STANDS_STILL_S = 600.0
CYCLES_TO_AWAIT = 2


def telling(report: Report) -> Watch:
    return lambda doing, percent: report(Progress(doing=f"{doing}: {percent} %"))


def unreported(_: Progress) -> None:
    """For waits that nobody looks at."""


def until_synchronized(places: Places, machine: str, site: str, report: Report) -> Group:
    """The group of ``machine`` at its source, once its copy is complete.

    Raises ``Unreachable`` when the arrays lose each other, ``InvalidState`` when the copy stands still or is ended."""
    patience: Patience | None = None
    while True:
        array, group = places.group_at(machine, site)
        size, percent = sum(volume.size for volume in group.volumes), group.percent or 0
        doing = f"group {group.name} is {group.state}"
        report(Progress(doing=doing, bytes_done=size * percent // 100, bytes_total=size))
        if group.state is GroupState.SYNCHRONIZED:
            return group
        if group.state is not GroupState.COPYING:
            raise _stopped(array, group, machine)
        longest = max(STANDS_STILL_S, longest_percent_s(size))
        patience = patience or Patience(longest)
        if group.percent is not None and patience.ran_out(group.percent):
            raise InvalidState(
                f"the copy of group '{group.name}' stands at {group.percent} % for {longest:.0f} s",
                where=f"array {array.name}",
                remedy="look at the copy on the array",
            )
        time.sleep(LOOK_EVERY_S)


def until_settled(places: Places, machine: str, site: str, report: Report) -> tuple[GroupControl, Group]:
    """The group once no operation that changes it is going on: an earlier try's, say, whose answer was lost."""
    patience = Patience(STANDS_STILL_S)
    while True:
        array, group = places.group_at(machine, site)
        if not group.changing:
            return array, group
        report(Progress(doing=f"group {group.name}: {group.doing}"))
        if patience.ran_out((group.doing, group.percent)):
            raise InvalidState(
                f"group '{group.name}' is {group.doing} for {STANDS_STILL_S:g} s",
                where=f"array {array.name}",
                remedy="look at the job on the array; what was asked for can be repeated once it has ended",
            )
        time.sleep(LOOK_EVERY_S)


def until_all_is_shipped(places: Places, machine: str, site: str, report: Report) -> None:
    """Returns when an asynchronous target has all that was written before the call.

    Cycles follow each other. The one that ends first may have begun before the call; the second one began after that
    end, so it has everything. No clock of an array is compared with another one's.

    Raises ``Unreachable`` when the arrays lose each other, ``InvalidState`` when the group is stopped or stands still.
    """
    patience, moments = Patience(STANDS_STILL_S), list[datetime | None]()
    while len(moments) <= CYCLES_TO_AWAIT:
        array, group = places.group_at(machine, site)
        if group.state is not GroupState.SYNCHRONIZED:
            raise _stopped(array, group, machine)
        if group.whole_at not in moments[-1:]:
            moments.append(group.whole_at)
            continue
        report(Progress(doing=f"group {group.name}: {since(group)}; waiting until all of it is there"))
        if patience.ran_out(len(moments)):
            raise InvalidState(
                f"group '{group.name}' has shipped nothing for {STANDS_STILL_S:g} s; {since(group)}",
                where=f"array {array.name}",
                remedy="look at the link between the arrays",
            )
        time.sleep(LOOK_EVERY_S)


def _stopped(array: GroupControl, group: Group, machine: str) -> LeewardError:
    if group.state is GroupState.LINK_LOST:
        return Unreachable(
            f"group '{group.name}' is {group.state}{progress(group)}; {since(group)}",
            where=f"array {array.name}",
            remedy="repair the link between the arrays; then it is copied on",
        )
    return InvalidState(
        f"group '{group.name}' is {group.state}{progress(group)}; {since(group)}",
        where=f"array {array.name}",
        remedy=remedy(group, machine),
    )
