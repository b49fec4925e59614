"""Shutting machines down, and when one that is off stays off: neither its host nor its cluster starts it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from adapters.hyperv import clusters
from adapters.hyperv.clusters import Doubt
from adapters.hyperv.hosts import Located
from adapters.hyperv.operations import STOP_VM, StopVm
from adapters.hyperv.states import power
from adapters.ports import Beat
from vault.domain import PowerState
from vault.errors import AuthenticationRefused, AuthorizationRefused, Busy, NotRecoverable

if TYPE_CHECKING:
    from adapters.hyperv.hypervisor import HyperVHypervisor

LOOK_AGAIN_S = 2.0
ASK_AGAIN_S = 10.0
"""Between two requests to shut down: while a guest boots, nobody in it hears them."""


def shut_down(fabric: HyperVHypervisor, machine: str, timeout_s: float, beat: Beat) -> PowerState:
    """A host that was restarted starts what ran on it, a cluster what it keeps: that a machine is off proves nothing at
    first.

    Raises ``Busy`` when it is off and the doubt stays, ``Unreachable`` when its cluster does not tell."""
    clock = fabric.hosts.clock
    deadline, asked = clock() + timeout_s, 0
    while True:
        there = fabric.find_if_there(machine)
        doubt = _doubt(fabric, machine, there, ran=asked > 0) if _is_off(there) else None
        if _is_off(there) and doubt is None:
            return PowerState.OFF
        left = deadline - clock()
        if left <= 0 and doubt is not None and not doubt.is_stoppable:
            raise doubt.error(fabric.site)
        if left <= 0:
            break
        if there is None or (doubt is not None and not doubt.is_stoppable):
            beat(doubt.why if doubt else f"looking for {machine}")
            fabric.pause(min(LOOK_AGAIN_S, left))
            continue
        beat(doubt.why if doubt else f"waiting for {machine} to shut down")
        asked += 1
        if not _asked_to_stop(fabric, there, beat, left):
            fabric.pause(min(ASK_AGAIN_S, left))
        elif asked > 1:
            # It was started again since, by its cluster or by somebody.
            fabric.pause(min(LOOK_AGAIN_S, left))
    return turned_off(fabric, machine)


def turned_off(fabric: HyperVHypervisor, machine: str) -> PowerState:
    """Pull the plug of what is not off, or what its cluster would start. Raises as :func:`shut_down`."""
    there = fabric.find_if_there(machine)
    doubt = _of_cluster(fabric, machine, there) if _is_off(there) else None
    if there is not None and (not _is_off(there) or (doubt is not None and doubt.is_stoppable)):
        fabric.hosts.run(there.host, STOP_VM, StopVm(vm_id=there.vm.id, turn_off=True))
        there = fabric.find_if_there(machine)
        doubt = _of_cluster(fabric, machine, there) if _is_off(there) else None
    if doubt is not None:
        raise doubt.error(fabric.site)
    return PowerState.OFF if there is None else power(there.vm.state)


def seen(fabric: HyperVHypervisor, there: Located) -> PowerState:
    """What a machine that was found is: ``OFF`` only when its cluster does not start it."""
    return PowerState.OFF if _is_off(there) and clusters.of_machine(fabric.hosts, there) is None else PowerState.RUNNING


def _is_off(there: Located | None) -> bool:
    return there is None or power(there.vm.state) is PowerState.OFF


def _doubt(fabric: HyperVHypervisor, machine: str, there: Located | None, *, ran: bool) -> Doubt | None:
    if there is not None and there.may_be_started and not ran:
        why = f"'{machine}' is off, but its host was restarted just now and may start it"
        return Doubt(why, "it is looked at again")
    return _of_cluster(fabric, machine, there)


def _of_cluster(fabric: HyperVHypervisor, machine: str, there: Located | None) -> Doubt | None:
    if there is None:
        return clusters.of_absent(fabric.hosts, fabric.vm_name(machine))
    return clusters.of_machine(fabric.hosts, there)


@contextmanager
def _to_its_end(beat: Beat) -> Iterator[Beat]:
    """What ``beat`` raises is raised afterwards. The host's job would go on without whoever waits for it, and turn a
    machine off that was started again because its failover was abandoned."""
    raised: list[BaseException] = []

    def heard(doing: str) -> None:
        if not raised:
            try:
                beat(doing)
            except BaseException as ending:  # noqa: BLE001 - whatever it is: it is raised afterwards
                raised.append(ending)

    try:
        yield heard
    finally:
        if raised:
            raise raised[0]


def _asked_to_stop(fabric: HyperVHypervisor, there: Located, beat: Beat, timeout_s: float) -> bool:
    """Whether the guest was heard to stop. It may refuse, or not be able to hear; it keeps the time that it has."""
    try:
        with _to_its_end(beat) as heard:
            fabric.hosts.run_job(there.host, STOP_VM, StopVm(vm_id=there.vm.id, turn_off=False), heard, timeout_s)
    except (AuthenticationRefused, AuthorizationRefused):
        raise
    except (NotRecoverable, Busy) as refused:
        beat(f"{there.vm.name} does not shut down by itself: {refused.what}")
        return False
    return True
