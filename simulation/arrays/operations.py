"""What a manager can do with a replicated group: the operations of ModifyReplicaSynchronization."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from adapters.smis.values import CopyState, Operation, ReturnValue
from simulation.arrays.array import Array
from simulation.arrays.jobs import Job
from simulation.arrays.mirror import MIRRORING
from simulation.arrays.refusal import ArrayRefusal, LinkDown
from simulation.arrays.state import Group


def create_mirror(
    array: Array,
    group: Group,
    peer: str,
    pool: str,
    *,
    blocks_on_failure: bool,
    asynchronous: bool = False,
    names: Sequence[str] | None = None,
) -> Job:
    """Make the target's group and volumes at ``peer``, and copy. ``names``: of the replicas; else those of their
    sources. Raises ``ArrayRefusal``."""
    if asynchronous and not array.mirrors_asynchronously:
        raise ArrayRefusal("this array mirrors synchronously only", ReturnValue.NOT_SUPPORTED)
    if group.peer:
        raise ArrayRefusal(f"group '{group.name}' is replicated already", ReturnValue.IN_USE)
    volumes = [array.state.volumes[volume] for volume in group.volumes]
    made = array.mirror.call_peer(
        peer,
        "create",
        group=group.name,
        pool=pool,
        volumes=[
            {"name": name, "size": volume.size}
            for name, volume in zip(names or [one.name for one in volumes], volumes, strict=True)
        ],
        source_group=group.id,
        source_volumes=group.volumes,
        blocks_on_failure=blocks_on_failure,
        asynchronous=asynchronous,
    ).head
    with array.writer(group.id):
        group.peer, group.peer_group, group.peer_volumes = peer, made["id"], made["volumes"]
        group.is_source, group.active, group.blocks_on_failure = True, True, blocks_on_failure
        group.asynchronous = asynchronous
        array.mirror.enter_both(group, CopyState.UNSYNCHRONIZED)
    return array.jobs.start(f"copy group {group.name} to array {peer}", lambda job: _copy(array, group, job))


def modify(array: Array, group: Group, operation: Operation, *, force: bool) -> Job | None:
    """Raises ``ArrayRefusal``. What is done already is done."""
    if operation not in SUPPORTED:
        raise ArrayRefusal(f"this array does not support {operation.name}", ReturnValue.NOT_SUPPORTED)
    if not group.peer:
        raise ArrayRefusal(f"group '{group.name}' is not replicated", ReturnValue.INVALID_PARAMETER)
    return SUPPORTED[operation](array, group, force)


def _copy(array: Array, group: Group, job: Job) -> None:
    if group.asynchronous:
        array.cycles.ship_differences(group, job)
    else:
        array.mirror.resynchronize(group, job)
    with array.writer(group.id):
        if group.state is not CopyState.UNSYNCHRONIZED:
            raise ArrayRefusal(f"group '{group.name}' is {group.state.name}: the copy did not come to its end")
        array.mirror.enter_both(group, CopyState.SYNCHRONIZED)


def _failover(array: Array, group: Group, force: bool) -> Job | None:
    """The source stops taking writes first, when it can be asked; so both never do at once."""
    if group.active and group.state is CopyState.FAILED_OVER:
        return None
    if group.is_source:
        raise ArrayRefusal(f"array {array.name} is the source of group '{group.name}'", ReturnValue.INVALID_PARAMETER)
    _require_whole(group)

    def work(_job: Job) -> None:
        generation = group.generation + 1
        try:
            array.mirror.call(group, "step down", generation=generation, force=force)
        except LinkDown as lost:
            if not force:
                raise LinkDown(f"{lost.what}: nobody knows whether it still takes writes") from lost
        with array.writer(group.id):
            group.active, group.generation = True, generation
            moment = group.in_sync_until or datetime.now(UTC)
            array.mirror.enter(group, CopyState.FAILED_OVER, in_sync_until=moment)

    return array.jobs.start(f"fail over group {group.name}", work)


def _require_whole(group: Group) -> None:
    if not group.target_is_whole:
        raise ArrayRefusal(f"the target of group '{group.name}' is inconsistent: a copy is or was under way")


def _failback(array: Array, group: Group, _: bool) -> Job | None:
    """The source gets what was written at the target meanwhile, and takes over."""
    if group.is_source or not group.active:
        raise ArrayRefusal(f"group '{group.name}' is not failed over to array {array.name}")

    def work(job: Job) -> None:
        array.mirror.resynchronize(group, job)
        with array.writer(group.id):
            array.mirror.resynchronize(group, job)
            group.active, group.generation = False, group.generation + 1
            array.save()
            array.mirror.call(group, "take over", generation=group.generation)
            array.mirror.enter(group, CopyState.SYNCHRONIZED)

    return array.jobs.start(f"fail back group {group.name}", work)


def _reverse_roles(array: Array, group: Group, _: bool) -> Job | None:
    if group.is_source and group.active and group.state in MIRRORING:
        return None
    if not group.active or group.state is not CopyState.FAILED_OVER:
        raise ArrayRefusal(f"group '{group.name}' is not failed over to array {array.name}")
    with array.writer(group.id):
        array.mirror.call(group, "become target")
        group.is_source, group.target_is_whole = True, False
        array.mirror.enter(group, CopyState.UNSYNCHRONIZED)
    return array.jobs.start(f"copy group {group.name} to array {group.peer}", lambda job: _copy(array, group, job))


def hand_over(array: Array, group: Group) -> None:
    """Roles change at the source's word. It stops first; when the target does not hear it, neither takes writes."""
    with array.writer(group.id):
        if group.state is not CopyState.SYNCHRONIZED or not group.active:
            raise ArrayRefusal(f"group '{group.name}' is {group.state.name} at array {array.name}")
        if group.asynchronous:
            raise ArrayRefusal(f"group '{group.name}' is asynchronous: reverse it at its target")
        group.active, group.is_source, group.generation = False, False, group.generation + 1
        array.save()
        array.mirror.call(group, "lead", generation=group.generation)


def _resynchronize(array: Array, group: Group, _: bool) -> Job | None:
    """Undoes a fracture or split, and restarts what broke: what was suspended or deactivated is not its business."""
    if group.state in (CopyState.SUSPENDED, CopyState.INACTIVE):
        raise ArrayRefusal(f"group '{group.name}' is {group.state.name}", ReturnValue.INVALID_PARAMETER)
    return resume(array, group)


def _continue(expected: CopyState, array: Array, group: Group) -> Job | None:
    if group.state not in (expected, CopyState.SYNCHRONIZED, CopyState.UNSYNCHRONIZED):
        raise ArrayRefusal(f"group '{group.name}' is {group.state.name}", ReturnValue.INVALID_PARAMETER)
    return resume(array, group)


def resume(array: Array, group: Group) -> Job | None:
    """Copy on, whatever stopped it. Raises ``ArrayRefusal``."""
    if group.state is CopyState.SYNCHRONIZED:
        return None
    if not group.is_source or not group.active:
        raise ArrayRefusal(f"array {array.name} is not the active source of group '{group.name}'")
    with array.writer(group.id):
        array.mirror.enter_both(group, CopyState.UNSYNCHRONIZED)
    return array.jobs.start(f"copy group {group.name} to array {group.peer}", lambda job: _copy(array, group, job))


def _stop(array: Array, group: Group, state: CopyState, force: bool) -> None:
    """Suspend or split. Without the group's lock: the other side, which may be the active one, has its own."""
    if group.state is state:
        return
    is_copy_of_now = group.state is CopyState.SYNCHRONIZED and not group.asynchronous
    until = datetime.now(UTC) if is_copy_of_now else group.in_sync_until
    try:
        array.mirror.enter_both(group, state, in_sync_until=until)
    except LinkDown:
        if not force:
            raise
        array.mirror.enter(group, state, in_sync_until=until)


def _suspend(array: Array, group: Group, force: bool) -> Job | None:
    _stop(array, group, CopyState.SUSPENDED, force)
    return None


def _split(array: Array, group: Group, force: bool) -> Job | None:
    _require_whole(group)
    _stop(array, group, CopyState.SPLIT, force)
    return None


def _detach(array: Array, group: Group, force: bool) -> Job | None:
    if group.is_source != group.active:
        raise ArrayRefusal(f"group '{group.name}' is failed over: reverse it first, or fail it back")
    try:
        array.mirror.call(group, "detach")
    except LinkDown:
        if not force:
            raise
    with array.writer(group.id):
        array.forget(group)
    return None


SUPPORTED: dict[Operation, Callable[[Array, Group, bool], Job | None]] = {
    Operation.DETACH: _detach,
    Operation.FAILOVER: _failover,
    Operation.FAILBACK: _failback,
    Operation.ACTIVATE: lambda array, group, _: _continue(CopyState.INACTIVE, array, group),
    Operation.RESUME: lambda array, group, _: _continue(CopyState.SUSPENDED, array, group),
    Operation.RESYNC_REPLICA: _resynchronize,
    Operation.REVERSE_ROLES: _reverse_roles,
    Operation.SPLIT: _split,
    Operation.SUSPEND: _suspend,
}
