"""An in-memory fabric and replication for workflow tests: every call is recorded, and can be told to fail or to wait.

The real disks are tested elsewhere; here only the order, the number and the outcome of calls matter.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from temporalio import activity

from adapters.ports import Beat, Capabilities, ScriptResult
from replication import groups
from replication.ports import Report
from vault.domain import (
    Answering,
    CacheFill,
    Finding,
    MachineDescription,
    PowerState,
    Progress,
    RecoveredMachine,
    RecoveryPoint,
    Relationship,
    ReplicaSpace,
)
from vault.errors import NoSpace

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class Call(NamedTuple):
    """One call of a port; ``attempt`` and ``at`` are those of the activity, on the server's (skipped) clock."""

    name: str
    machine: str
    site: str
    detail: str
    attempt: int
    at: datetime


class World:
    """Both sites. Calls are scripted by the port's method and the machine."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.power: dict[tuple[str, str], PowerState] = defaultdict(lambda: PowerState.OFF)
        self.points: dict[str, list[RecoveryPoint]] = defaultdict(list)
        self.findings: dict[tuple[str, str], list[Finding]] = defaultdict(list)
        self.space: dict[str, ReplicaSpace] = {}
        """``("source" | "target" | "fabric", machine or site)`` → what a check finds."""
        self.caches: dict[str, CacheFill] = {}
        """What ``keep_changes`` answers; machines that are not here have no cache."""
        self.most_copies_on_production: dict[str, int] = defaultdict(int)
        self.now: Callable[[], datetime] | None = None
        """The time of new recovery points; without it a minute after the one before."""
        self.room: dict[str, int] = {}
        """How many machines each site can store; a site that is not here any number."""
        self.stored: set[tuple[str, str]] = set()
        """Machines that were made from replicas, by site."""
        self.test_networks: dict[str, set[str]] | None = None
        """Those that were made for runs and are there, each with its copies; None: the fabrics cannot make any."""
        self._outcomes: dict[tuple[str, str], deque[Exception | None]] = defaultdict(deque)
        self._always: dict[tuple[str, str], Exception] = {}
        self._gates: dict[tuple[str, str], threading.Event] = {}
        self._stubborn: set[tuple[str, str]] = set()
        self._lock = threading.RLock()

    # -- scripting -----------------------------------------------------------------------------------------------

    def script(self, name: str, machine: str, *outcomes: Exception | None) -> None:
        """The next calls end so: an exception is raised, None succeeds."""
        self._outcomes[name, machine].extend(outcomes)

    def always(self, name: str, machine: str, error: Exception | None) -> None:
        """Every call fails so, until told otherwise with None."""
        if error is None:
            self._always.pop((name, machine), None)
        else:
            self._always[name, machine] = error

    def hold(self, name: str, machine: str, *, stubborn: bool = False) -> threading.Event:
        """Calls wait until the returned event is set; they can be stopped meanwhile, unless they are ``stubborn``."""
        if stubborn:
            self._stubborn.add((name, machine))
        return self._gates.setdefault((name, machine), threading.Event())

    def open_gates(self) -> None:
        for gate in self._gates.values():
            gate.set()

    # -- looking -------------------------------------------------------------------------------------------------

    def names(self, *wanted: str, machine: str | None = None) -> list[str]:
        """Names of calls in order, only the ``wanted`` ones when given."""
        return [
            call.name
            for call in self.calls
            if (not wanted or call.name in wanted) and (machine is None or call.machine == machine)
        ]

    def of(self, name: str, machine: str | None = None) -> list[Call]:
        return [call for call in self.calls if call.name == name and (machine is None or call.machine == machine)]

    def runs_at(self, machine: str) -> set[str]:
        return {site for (site, name), power in self.power.items() if name == machine and power is PowerState.RUNNING}

    # -- what adapters.registry.Adapters offers -------------------------------------------------------------------

    def hypervisor(self, site: str) -> FakeHypervisor:
        return FakeHypervisor(self, site) if self.test_networks is None else FakeWithNetworks(self, site)

    def provider(self, relationship: Relationship) -> FakeProvider:
        return FakeProvider(self)

    def provider_to_end(self, relationship: Relationship, site: str) -> FakeProvider:
        return FakeProvider(self)

    # -- for the fakes -------------------------------------------------------------------------------------------

    def enter(
        self, name: str, machine: str, site: str, beat: Callable[[], None] | None = None, detail: str = ""
    ) -> None:
        """Record the call, wait at its gate, then raise what was scripted."""
        info = activity.info()
        with self._lock:
            self.calls.append(Call(name, machine, site, detail, info.attempt, info.started_time))
            outcomes = self._outcomes[name, machine]
            outcome = outcomes.popleft() if outcomes else self._always.get((name, machine))
            gate = self._gates.get((name, machine))
        if gate is not None:
            while not gate.wait(0.01):
                if beat is not None and (name, machine) not in self._stubborn:
                    beat()
        if outcome is not None:
            raise outcome

    def new_point(self, machine: str) -> RecoveryPoint:
        with self._lock:
            points = self.points[machine]
            sequence = points[-1].sequence + 1 if points else 1
            moment = self.now() if self.now is not None else EPOCH + timedelta(minutes=sequence)
            point = RecoveryPoint(id=f"{machine}-p{sequence}", sequence=sequence, time=moment)
            points.append(point)
            return point

    def resolve(self, relationship: Relationship, choice: str) -> RecoveryPoint:
        return groups.choose(
            self.points[relationship.machine],
            choice,
            group=relationship.group,
            of_members=lambda: {name: self.points[name] for name in relationship.group_members},
            where=relationship.target_site,
        )

    def set_power(self, site: str, machine: str, power: PowerState) -> None:
        with self._lock:
            self.power[site, machine] = power
            running = len(self.runs_at(machine))
            self.most_copies_on_production[machine] = max(self.most_copies_on_production[machine], running)


class FakeHypervisor:
    def __init__(self, world: World, site: str) -> None:
        self._world = world
        self.site = site

    def free_space(self) -> int:
        return self.free_space_without([])

    def free_space_without(self, machines: Collection[str]) -> int:
        there = [name for site, name in self._world.stored if site == self.site and name not in machines]
        return self._world.room.get(self.site, 1000) - len(there)

    def check(self) -> list[Finding]:
        return list(self._world.findings["fabric", self.site])

    def start(self, machine: str) -> None:
        self._world.enter("start", machine, self.site)
        self._world.set_power(self.site, machine, PowerState.RUNNING)

    def shut_down(self, machine: str, timeout_s: float, beat: Beat) -> PowerState:
        self._world.enter("shut_down", machine, self.site, lambda: beat("shutting down"), detail=f"{timeout_s:g}")
        self._world.set_power(self.site, machine, PowerState.OFF)
        return PowerState.OFF

    def power_off(self, machine: str) -> None:
        self._world.enter("power_off", machine, self.site)
        self._world.set_power(self.site, machine, PowerState.OFF)

    def describe(self, machine: str) -> MachineDescription:
        self._world.enter("describe", machine, self.site)
        power = self._world.power[self.site, machine]
        return MachineDescription(name=machine, site=self.site, power=power, disks=[], network="production")

    def wait_until_answering(self, machine: str, timeout_s: float, beat: Beat) -> Answering:
        self._world.enter("answer", machine, self.site, lambda: beat("waiting"), detail=f"{timeout_s:g}")
        return Answering(name=machine, site=self.site, address="127.0.0.1:9", waited_s=0.1)

    def run_in_guest(
        self, machine: str, command: list[str], environment: dict[str, str], timeout_s: float, beat: Beat
    ) -> ScriptResult:
        self._world.enter("run_in_guest", machine, self.site, detail=" ".join(command))
        return ScriptResult(exit_code=0, output="done in guest\n")


class FakeWithNetworks(FakeHypervisor):
    def make_test_network(self, like: str, run_id: str, copy: str) -> str:
        assert self._world.test_networks is not None
        name = f"{like}-{run_id}"
        self._world.test_networks.setdefault(name, set()).add(copy)
        return name

    def leave_test_networks(self, run_id: str, copy: str) -> None:
        assert self._world.test_networks is not None
        for name, copies in list(self._world.test_networks.items()):
            if name.endswith(run_id):
                copies.discard(copy)
                if not copies:
                    del self._world.test_networks[name]


class FakeProvider:
    capabilities = Capabilities()

    def __init__(self, world: World) -> None:
        self._world = world

    def check_source(self, relationship: Relationship) -> list[Finding]:
        self._world.enter("check_source", relationship.machine, relationship.source_site)
        return list(self._world.findings["source", relationship.machine])

    def check_target(self, relationship: Relationship) -> list[Finding]:
        self._world.enter("check_target", relationship.machine, relationship.target_site)
        space, found = relationship.replica_space, list(self._world.findings["target", relationship.machine])
        return [*found, Finding.failed(space.pool, f"no room for {space.size:,} bytes", "")] if space else found

    def replica_space(self, relationship: Relationship) -> ReplicaSpace | None:
        return self._world.space.get(relationship.machine)

    def room_needed(self, relationship: Relationship) -> int:
        return 1

    def enable(self, relationship: Relationship) -> None:
        self._world.enter("enable", relationship.machine, relationship.source_site)

    def copy_initial(self, relationship: Relationship, report: Report) -> RecoveryPoint:
        self._source("copy_initial", relationship, report)
        return self._world.new_point(relationship.machine)

    def finalize(self, relationship: Relationship) -> None:
        self._world.enter("finalize", relationship.machine, relationship.source_site)

    def replicate_once(self, relationship: Relationship, report: Report, *, app_consistent: bool) -> RecoveryPoint:
        self._source("replicate_once", relationship, report)
        return self._world.new_point(relationship.machine)

    def keep_changes(self, relationship: Relationship, report: Report, *, app_consistent: bool) -> CacheFill | None:
        if relationship.machine in self._world.caches:
            self._source("keep_changes", relationship, report)
        return self._world.caches.get(relationship.machine)

    def resynchronize(self, relationship: Relationship, report: Report) -> RecoveryPoint:
        self._source("resynchronize", relationship, report)
        return self._world.new_point(relationship.machine)

    def send_last_changes(self, relationship: Relationship, report: Report) -> RecoveryPoint:
        self._source("send_last_changes", relationship, report)
        return self._world.new_point(relationship.machine)

    def recovery_points(self, relationship: Relationship) -> list[RecoveryPoint]:
        self._world.enter("recovery_points", relationship.machine, relationship.target_site)
        return list(self._world.points[relationship.machine])

    def resolve_point(self, relationship: Relationship, choice: str) -> RecoveryPoint:
        self._world.enter("resolve_point", relationship.machine, relationship.target_site, detail=choice)
        return self._world.resolve(relationship, choice)

    def fail_over(self, relationship: Relationship, choice: str, report: Report) -> RecoveredMachine:
        self._target("fail_over", relationship, report, choice)
        return self._made(relationship, relationship.machine, relationship.target_network, choice)

    def cancel_failover(self, relationship: Relationship) -> None:
        self._world.enter("cancel_failover", relationship.machine, relationship.target_site)
        self._world.stored.discard((relationship.target_site, relationship.machine))

    def start_test(self, relationship: Relationship, choice: str, name: str, report: Report) -> RecoveredMachine:
        self._target("start_test", relationship, report, choice)
        return self._made(relationship, name, relationship.test_network, choice)

    def end_test(self, relationship: Relationship, name: str) -> None:
        self._world.enter("end_test", relationship.machine, relationship.target_site, detail=name)
        self._world.set_power(relationship.target_site, name, PowerState.OFF)
        self._world.stored.discard((relationship.target_site, name))

    def commit(self, relationship: Relationship, point_id: str) -> None:
        self._world.enter("commit", relationship.machine, relationship.target_site, detail=point_id)

    def prepare_reverse(self, reversed_relationship: Relationship) -> None:
        self._world.enter("prepare_reverse", reversed_relationship.machine, reversed_relationship.target_site)
        self._world.stored.discard((reversed_relationship.target_site, reversed_relationship.machine))

    def retire_replica(self, relationship: Relationship) -> None:
        self._world.enter("retire_replica", relationship.machine, relationship.target_site)

    def disable_source(self, relationship: Relationship) -> None:
        self._world.enter("disable_source", relationship.machine, relationship.source_site)

    def disable_target(self, relationship: Relationship) -> None:
        self._world.enter("disable_target", relationship.machine, relationship.target_site)

    def _source(self, name: str, relationship: Relationship, report: Report) -> None:
        self._world.enter(name, relationship.machine, relationship.source_site, lambda: report(Progress(doing=name)))

    def _target(self, name: str, relationship: Relationship, report: Report, choice: str) -> None:
        self._world.enter(
            name, relationship.machine, relationship.target_site, lambda: report(Progress(doing=name)), detail=choice
        )

    def _made(self, relationship: Relationship, name: str, network: str, choice: str) -> RecoveredMachine:
        point, site = self._world.resolve(relationship, choice), relationship.target_site
        if (site, name) not in self._world.stored and FakeHypervisor(self._world, site).free_space() < 1:
            raise NoSpace("it does not fit", where=site)
        self._world.stored.add((site, name))
        return RecoveredMachine(name=name, site=relationship.target_site, network=network, point=point)
