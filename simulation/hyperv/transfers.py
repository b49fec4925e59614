"""What primary servers do by themselves: the first copy, a cycle every few seconds or minutes, resynchronization."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from adapters.hyperv.states import ReplicationHealth
from adapters.hyperv.states import ReplicationMode as Mode
from adapters.hyperv.states import ReplicationState as State
from adapters.ports import ReplicationProvider
from simulation.hyperv.state import Host, KeptPoint, Kind, Replication, Vm, new_id
from vault.domain import ConsistencyKind, Progress, RecoveryPoint, Relationship
from vault.errors import Busy, LeewardError, ResynchronizationRequired, Unreachable

if TYPE_CHECKING:
    from simulation.hyperv.fabric import Fabric

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 0.05
AT_ONCE = 4
"""Machines that are transferred at the same time, as a host limits it."""
MISSED_SHARE = 0.2
"""Health is Warning from this share of missed cycles on."""
COPIES = (State.INITIAL_REPLICATION_IN_PROGRESS, State.RESYNCHRONIZING)
UNDER_WAY = (*COPIES, State.REPLICATING)


class Yielded(Exception):
    """A transfer makes way for an operation, or its host went down; it goes on later."""


@dataclass
class _Turn:
    lock: threading.Lock = field(default_factory=threading.Lock)
    wanted: int = 0
    due: float = 0.0
    percent: int | None = None


class Ends(NamedTuple):
    """Both ends of a relationship and its replication in the lab."""

    primary_host: Host
    primary: Vm
    replica_host: Host
    replica: Vm
    relationship: Relationship
    engine: ReplicationProvider

    @property
    def both(self) -> tuple[Replication, Replication]:
        assert self.primary.replication is not None
        assert self.replica.replication is not None
        return self.primary.replication, self.replica.replication


def _told(done: Future[None]) -> None:
    if (error := done.exception()) is not None:
        logger.error("a transfer ended with an error that it should not have", exc_info=error)


class Transfers:
    """One thread looks what is due; a few do it."""

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self._turns: dict[str, _Turn] = {}
        self._counting = threading.Lock()
        self._stop = threading.Event()
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="simulated replication")
        self._looking = threading.Thread(target=self._look, name="simulated replication", daemon=True)
        self._looking.start()

    def close(self) -> None:
        self._stop.set()
        self._looking.join()
        self._threads.shutdown(wait=True)

    @contextmanager
    def held(self, vm_id: str) -> Iterator[None]:
        """No transfer of the machine runs inside, and no other operation that changes its replication."""
        turn = self._turn(vm_id)
        with self._counting:
            turn.wanted += 1
        try:
            turn.lock.acquire()
        finally:
            with self._counting:
                turn.wanted -= 1
        try:
            yield
        finally:
            turn.lock.release()

    def percent(self, vm_id: str) -> int | None:
        return self._turn(vm_id).percent

    def hurry(self, vm_id: str) -> None:
        """The machine's next cycle is due now."""
        self._turn(vm_id).due = 0.0

    def _turn(self, vm_id: str) -> _Turn:
        return self._turns.setdefault(vm_id, _Turn())

    def ends(self, host: Host, primary: Vm) -> Ends | None:
        """None while no server that the primary knows has its replica."""
        found = self._fabric.other_end(primary, Mode.REPLICA)
        if found is None:
            return None
        replica_host, replica = found
        relationship = self._fabric.ground.relationship(primary.machine, host.site, replica_host.site)
        return Ends(host, primary, replica_host, replica, relationship, self._fabric.ground.engine(relationship))

    # --- the thread that looks --------------------------------------------------------------------------------

    def _look(self) -> None:
        while not self._stop.wait(LOOK_EVERY_S):
            with self._fabric.lock:
                found = [
                    (host, vm)
                    for host in self._fabric.state.hosts.values()
                    for vm in host.vms.values()
                    if vm.mode is Mode.PRIMARY and vm.state in UNDER_WAY and not host.is_down
                ]
            now = time.monotonic()
            for host, vm in found:
                turn = self._turn(vm.id)
                if turn.due <= now and not turn.wanted and turn.lock.acquire(blocking=False):
                    self._threads.submit(self._transfer, turn, host, vm).add_done_callback(_told)

    def _transfer(self, turn: _Turn, host: Host, vm: Vm) -> None:
        assert vm.replication is not None
        turn.due = time.monotonic() + vm.replication.frequency_s * self._fabric.time_scale
        try:
            if self._is_under_way(host, vm) and not self._fabric.ground.is_dead(host.site):
                self._cycle(turn, host, vm)
        finally:
            turn.percent = None
            turn.lock.release()

    def _is_under_way(self, host: Host, vm: Vm) -> bool:
        with self._fabric.lock:
            return host.vms.get(vm.id) is vm and vm.mode is Mode.PRIMARY and vm.state in UNDER_WAY

    def _cycle(self, turn: _Turn, host: Host, vm: Vm) -> None:
        ends = self.ends(host, vm)
        if ends is None or ends.replica.state not in UNDER_WAY:
            self._failed(vm, "the Replica server has no replica of it that takes changes", State.ERROR)
            return
        reboots = host.reboots
        try:
            kind, point = self._carried(ends, self._interrupt(turn, host))
        except Yielded:
            turn.due = 0.0
        except ResynchronizationRequired as error:
            self._failed(vm, error.what, State.WAITING_FOR_START_RESYNCHRONIZE)
        except (Unreachable, Busy) as error:
            self._missed(vm, error)
        except LeewardError as error:
            self._failed(vm, error.what, State.ERROR)
        else:
            with self._fabric.changing():
                # A host that lost power meanwhile did not finish it, and sends it again when it is up.
                if host.reboots == reboots:
                    self.arrived(ends, kind, point)

    def _interrupt(self, turn: _Turn, host: Host) -> Callable[[Progress], None]:
        reboots = host.reboots

        def report(progress: Progress) -> None:
            if turn.wanted or self._stop.is_set() or host.reboots != reboots:
                raise Yielded
            if progress.bytes_total:
                turn.percent = min(100, 100 * progress.bytes_done // progress.bytes_total)

        return report

    def _carried(self, ends: Ends, report: Callable[[Progress], None]) -> tuple[Kind, RecoveryPoint]:
        primary, _ = ends.both
        if primary.state is State.RESYNCHRONIZING:
            return Kind.REGULAR, ends.engine.resynchronize(ends.relationship, report)
        if primary.state is State.INITIAL_REPLICATION_IN_PROGRESS or primary.awaits_first_cycle:
            point = ends.engine.copy_initial(ends.relationship, report)
            ends.engine.finalize(ends.relationship)
            return Kind.REGULAR, point
        wants_application = self._application_is_due(ends)
        point = ends.engine.replicate_once(ends.relationship, report, app_consistent=wants_application)
        is_consistent = point.kind is ConsistencyKind.APPLICATION
        return Kind.APPLICATION_CONSISTENT if is_consistent else Kind.REGULAR, point

    def _hours(self, hours: float) -> timedelta:
        return timedelta(hours=hours * self._fabric.time_scale)

    def _application_is_due(self, ends: Ends) -> bool:
        _, replica = ends.both
        if not replica.vss_frequency_h:
            return False
        last = next((point.time for point in reversed(replica.points) if point.application_consistent), None)
        return last is None or datetime.now(UTC) - last >= self._hours(replica.vss_frequency_h)

    # --- what came of it --------------------------------------------------------------------------------------

    def arrived(self, ends: Ends, kind: Kind, point: RecoveryPoint) -> None:
        """The replica is at ``point`` now. Inside :meth:`Fabric.changing`."""
        for end in ends.both:
            end.last, end.last_kind, end.newest = point.time, kind, point.id
            end.state, end.health, end.details = State.REPLICATING, ReplicationHealth.NORMAL, []
            end.cycles += 1
            end.awaits_first_cycle = False
        self._keep(ends.both[1], kind, point)

    def _keep(self, replica: Replication, kind: Kind, point: RecoveryPoint) -> None:
        """A recovery checkpoint every hour, and for every app-consistent point."""
        application = kind is Kind.APPLICATION_CONSISTENT
        last = replica.points[-1].time if replica.points else None
        is_due = last is None or point.time - last >= self._hours(1)
        if replica.recovery_history and (is_due or application):
            name = f"{point.time:%Y-%m-%d %H:%M:%S}"
            kept = KeptPoint(
                id=new_id(), name=name, stored=point.id, time=point.time, application_consistent=application
            )
            replica.points = [*replica.points, kept][-replica.recovery_history :]

    def _missed(self, vm: Vm, error: LeewardError) -> None:
        """It is tried again in the next cycle by itself."""
        with self._fabric.changing():
            if vm.replication is None:
                return
            vm.replication.cycles += 1
            vm.replication.missed += 1
            vm.replication.errors += 1
            if vm.replication.missed >= MISSED_SHARE * vm.replication.cycles:
                vm.replication.health = ReplicationHealth.WARNING
            vm.replication.details = [f"Hyper-V could not replicate changes for '{vm.name}': {error.what}"]

    def _failed(self, vm: Vm, why: str, state: State) -> None:
        """Replication is suspended until somebody resumes it."""
        with self._fabric.changing():
            if vm.replication is None:
                return
            vm.replication.errors += 1
            vm.replication.resumes_as = vm.replication.state
            vm.replication.state, vm.replication.health = state, ReplicationHealth.CRITICAL
            vm.replication.details = [f"Hyper-V suspended replication for '{vm.name}': {why}"]
