"""Two connected arrays in the test's process, and a link that can be cut."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from adapters.smis.values import CopyState, JobState, Operation
from simulation.arrays.array import Array
from simulation.arrays.jobs import Job
from simulation.arrays.operations import create_mirror, modify
from simulation.arrays.state import Group, Volume
from vault.errors import Unreachable

MIB = 2**20
POOL = "gold"
SECOND_POOL = "silver"
TOLERANCE_S = 0.2
CYCLE_S = 0.1


class Link:
    """The guard of both ends of a replication link."""

    def __init__(self) -> None:
        self.is_cut = False

    def __call__(self) -> None:
        if self.is_cut:
            raise Unreachable("the link is cut")


class ArrayPair(NamedTuple):
    east: Array
    west: Array
    link: Link

    def mirrored(
        self, *names: str, size: int = MIB, blocks_on_failure: bool = False, asynchronous: bool = False
    ) -> tuple[Group, list[Volume]]:
        """A synchronized group at ``east`` of new volumes of these names; the group as ``east`` sees it."""
        volumes = [self.east.create_volume(name, POOL, size) for name in names]
        group = self.east.create_group("payments", [volume.id for volume in volumes])
        done(
            create_mirror(
                self.east, group, "west", POOL, blocks_on_failure=blocks_on_failure, asynchronous=asynchronous
            )
        )
        return group, volumes

    @property
    def at_west(self) -> Group:
        return next(group for group in self.west.state.groups.values() if group.peer)

    def both_hold(self, group: Group) -> bool:
        """Whether every byte of the group is the same at both sides."""
        return all(
            self.east.media.read(mine, 0, self.east.state.volumes[mine].size)
            == self.west.media.read(theirs, 0, self.west.state.volumes[theirs].size)
            for mine, theirs in zip(group.volumes, group.peer_volumes, strict=True)
        )

    def do(self, array: Array, operation: Operation, *, force: bool = False) -> Group:
        group = next(group for group in array.state.groups.values() if group.peer)
        done(modify(array, group, operation, force=force))
        return group


@contextmanager
def arrays(folder: Path, **options: bool) -> Iterator[ArrayPair]:
    """``options``: of both arrays."""
    link = Link()
    east, west = (
        Array(folder / name, name, guard=link, link_tolerance_s=TOLERANCE_S, cycle_s=CYCLE_S, **options)
        for name in ("east", "west")
    )
    east.connect("west", west.link.port)
    west.connect("east", east.link.port)
    for array in (east, west):
        for pool in (POOL, SECOND_POOL):
            array.create_pool(pool, 64 * MIB)
    try:
        yield ArrayPair(east, west, link)
    finally:
        east.close()
        west.close()


def done(job: Job | None) -> None:
    """Wait for the end of a job that has to succeed."""
    if job is not None:
        until(lambda: job.state is not JobState.RUNNING)
        assert job.state is JobState.COMPLETED, job.error


def until(reached: Callable[[], bool], *, within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not reached():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


def until_state(group: Group, state: CopyState) -> None:
    until(lambda: group.state is state)
