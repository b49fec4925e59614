"""Hyper-V Replica through the product's phases, each call repeated as after a crash."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fake_fabric import FakeHost, Mode, State, Vm, World

from adapters.hyperv.facts import ReplicaPoint
from adapters.hyperv.hosts import FACTS_FOR_S, HyperVHosts
from adapters.hyperv.hypervisor import HyperVHypervisor
from adapters.hyperv.operations import OPERATIONS
from adapters.hyperv.provider import BEING_DELETED, HyperVReplicaProvider
from adapters.hyperv.states import ReplicationHealth, VmState
from vault.domain import LATEST, LATEST_APP_CONSISTENT, PowerState, Progress, Severity
from vault.errors import (
    Busy,
    InvalidState,
    LeewardError,
    NotFound,
    ResynchronizationRequired,
    Unreachable,
)
from vault.inventory import Inventory

pytestmark = pytest.mark.unit

NETWORKS = {"production": {"switch": "vProd"}, "isolated": {"kind": "isolated"}}
ID = "6f3c4b7e-0000-4000-8000-000000000001"


def inventory(**changes: Any) -> Inventory:
    sites = {
        name: {"fabric": "hyperv", "networks": NETWORKS, "hyperv": {"hosts": [host]}}
        for name, host in (("east", "hv1"), ("west", "hv2"))
    }
    mapping = {
        "source": "east/production",
        "target": "west/production",
        "test": "west/isolated",
        "source_test": "east/isolated",
    }
    machine = {"site": "east", "target": "west", "network": "production", "policy": "gold", "hyperv": {}} | changes
    return Inventory.model_validate(
        {
            "version": 1,
            "sites": sites,
            "policies": {"gold": {"frequency": "30s", "app_consistent_every": "4h", "retention": {"count": 13}}},
            "network_mappings": [mapping],
            "machines": {"db": machine},
        }
    )


class Pair:
    """Two sites of one host each, and the provider between them."""

    def __init__(self, vault: Inventory) -> None:
        self.world = World("hv1", "hv2")
        self.source, self.target = self.world.hosts.values()
        self.pauses = 0
        self.now = 0.0
        hosts = {
            site: HyperVHosts(site, {host.name: host}, clock=lambda: self.now)
            for site, host in (("east", self.source), ("west", self.target))
        }
        self.fabrics = {
            site: HyperVHypervisor(of, vault, resolve_secret=lambda _: "secret", pause=self._pause)
            for site, of in hosts.items()
        }
        self.provider = HyperVReplicaProvider(self.fabrics.__getitem__, vault)
        self.forward = vault.relationship("db")
        self.backward = self.forward.reversed("production", "isolated")
        self.source.vms[ID] = Vm(ID, "db", switch="vProd")

    def _pause(self, seconds: float) -> None:
        self.now += seconds
        self.pauses += 1
        assert self.pauses < 100, "this waits for something that does not come"

    def protect(self) -> Pair:
        self.provider.enable(self.forward)
        self.provider.copy_initial(self.forward, quiet)
        self.provider.finalize(self.forward)
        return self

    def fail_over_planned(self) -> Pair:
        self.fabrics["east"].shut_down("db", 60, quiet_beat)
        point = self.provider.send_last_changes(self.forward, quiet)
        self.provider.fail_over(self.forward, point.id, quiet)
        self.fabrics["west"].start("db")
        return self

    def reverse(self) -> None:
        assert self.fabrics["east"].shut_down("db", 60, quiet_beat) is PowerState.OFF
        self.provider.prepare_reverse(self.backward)
        self.provider.enable(self.backward)
        self.provider.copy_initial(self.backward, quiet)
        self.provider.finalize(self.backward)
        self.provider.retire_replica(self.forward)


def quiet(_: Progress) -> None:
    pass


def quiet_beat(_: str) -> None:
    pass


@pytest.fixture
def pair() -> Pair:
    return Pair(inventory())


def changes(host: FakeHost) -> list[str]:
    looks = {"check_host", "inventory", "measure_replication", "recovery_points", "guest_status"}
    return [script for script in host.ran if script not in looks]


def test_protecting_makes_one_relationship_with_the_policys_settings(pair: Pair) -> None:
    pair.protect()
    pair.protect()
    assert changes(pair.source) == ["enable_replication", "start_initial_replication"]
    (settings,) = pair.world.settings
    assert (settings.replica_server, settings.replica_port, settings.authentication) == ("hv2", 80, "Kerberos")
    assert (settings.frequency_s, settings.recovery_history, settings.vss_frequency_h) == (30, 12, 4)


def test_the_first_copy_is_polled_and_tells_how_far_it_is(pair: Pair) -> None:
    pair.provider.enable(pair.forward)
    told: list[Progress] = []
    point = pair.provider.copy_initial(pair.forward, told.append)
    assert told[0].bytes_done == told[0].bytes_total // 2 == 2**29
    assert point.id.startswith("newest-")


def test_a_planned_failover_goes_in_the_documented_order_and_loses_nothing(pair: Pair) -> None:
    pair.protect().fail_over_planned()
    pair.provider.commit(pair.forward, "any")
    pair.reverse()
    assert changes(pair.source)[2:] == ["stop_vm", "prepare_failover"]
    assert changes(pair.target) == [
        "start_failover",
        "connect_network",
        "start_vm",
        "complete_failover",
        "reverse_replication",
    ]
    there, old = pair.target.vm(ID), pair.source.vm(ID)
    assert (there.mode, there.state, there.switch) == (Mode.PRIMARY, VmState.RUNNING, "vProd")
    assert (old.mode, old.state) == (Mode.REPLICA, VmState.OFF)


def test_it_fails_back_the_same_way(pair: Pair) -> None:
    pair.protect().fail_over_planned()
    pair.provider.commit(pair.forward, "any")
    pair.reverse()
    pair.fabrics["west"].shut_down("db", 60, quiet_beat)
    point = pair.provider.send_last_changes(pair.backward, quiet)
    pair.provider.fail_over(pair.backward, point.id, quiet)
    pair.fabrics["east"].start("db")
    pair.provider.commit(pair.backward, point.id)
    assert pair.source.vm(ID).state is VmState.RUNNING
    assert pair.target.vm(ID).state is VmState.OFF


def test_an_unplanned_failover_takes_the_chosen_point_and_reverses_over_the_old_primary(pair: Pair) -> None:
    pair.protect()
    hour = datetime.now(UTC) - timedelta(hours=1)
    pair.target.vm(ID).points = [
        ReplicaPoint(id="p1", name="old", time=hour - timedelta(hours=1), application_consistent=True),
        ReplicaPoint(id="p2", name="newer", time=hour, application_consistent=False),
    ]
    assert [point.id for point in pair.provider.recovery_points(pair.forward)][:2] == ["p1", "p2"]
    pair.source.unreachable = True
    made = pair.provider.fail_over(pair.forward, LATEST_APP_CONSISTENT, quiet)
    assert (made.point.id, pair.target.vm(ID).failed_over_to) == ("p1", "p1")
    pair.fabrics["west"].start("db")
    pair.provider.commit(pair.forward, "p1")
    pair.source.unreachable = False
    pair.source.vm(ID).state = VmState.OFF
    pair.reverse()
    assert changes(pair.source)[2:] == ["make_replica"]
    assert changes(pair.target)[-2:] == ["reverse_replication", "start_initial_replication"]
    assert pair.world.settings[-1].replica_server == "hv1.example"


@pytest.mark.parametrize("lost", ["prepare_failover", "start_failover", "connect_network", "complete_failover"])
def test_a_planned_failover_goes_on_after_a_lost_answer(pair: Pair, lost: str) -> None:
    pair.protect()
    pair.source.loses_answer_of = {lost}
    pair.target.loses_answer_of = {lost}
    pair.fabrics["east"].shut_down("db", 60, quiet_beat)
    point = again(lambda: pair.provider.send_last_changes(pair.forward, quiet))
    again(lambda: pair.provider.fail_over(pair.forward, point.id, quiet))
    again(lambda: pair.provider.commit(pair.forward, point.id))
    assert pair.target.vm(ID).replication is State.FAILED_OVER
    ran = changes(pair.source) + changes(pair.target)
    assert [ran.count(once) for once in ("prepare_failover", "start_failover", "complete_failover")] == [1, 1, 1]


def again(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Unreachable:
        return call()


def test_an_unplanned_failover_that_lost_its_answer_is_taken_back_and_made_anew(pair: Pair) -> None:
    pair.protect()
    pair.target.loses_answer_of = {"start_failover"}
    with pytest.raises(Unreachable):
        pair.provider.fail_over(pair.forward, LATEST, quiet)
    pair.provider.fail_over(pair.forward, LATEST, quiet)
    assert changes(pair.target) == ["start_failover", "cancel_failover", "start_failover", "connect_network"]


def test_the_answer_of_an_earlier_job_is_not_taken_for_this_ones(pair: Pair) -> None:
    """A host keeps a job's answer until it is fetched, and gives it to whoever asks the same."""
    pair.protect()
    really = pair.target.run_job
    stale = [True]

    def run_job(operation: Any, given: Any, beat: Any, *, timeout_s: float) -> Any:
        if operation.script == "start_failover" and stale:
            stale.clear()
            return operation.gives()
        return really(operation, given, beat, timeout_s=timeout_s)

    pair.target.run_job = run_job  # type: ignore[method-assign]
    pair.provider.fail_over(pair.forward, LATEST, quiet)
    assert pair.target.vm(ID).replication is State.FAILED_OVER_WAITING_COMPLETION


@pytest.mark.parametrize("is_done", [True, False])
def test_a_step_that_ended_while_it_was_asked_for_again_is_looked_at(pair: Pair, is_done: bool) -> None:
    """What an earlier try began goes on in the host, and is refused a second time once it is there."""
    pair.protect().fail_over_planned()
    complete = pair.target._complete_failover

    def ends_meanwhile(given: Any) -> Any:
        if is_done:
            complete(given)
        raise InvalidState("not possible in FailedOver", where="hv2")

    pair.target._complete_failover = ends_meanwhile  # type: ignore[method-assign]
    if is_done:
        pair.provider.commit(pair.forward, "any")
        assert pair.target.vm(ID).replication is State.FAILED_OVER
    else:
        with pytest.raises(InvalidState, match="not possible in FailedOver"):
            pair.provider.commit(pair.forward, "any")


def test_a_planned_failover_can_be_undone_on_both_sides(pair: Pair) -> None:
    pair.protect()
    pair.fabrics["east"].shut_down("db", 60, quiet_beat)
    point = pair.provider.send_last_changes(pair.forward, quiet)
    pair.provider.fail_over(pair.forward, point.id, quiet)
    pair.provider.cancel_failover(pair.forward)
    pair.provider.cancel_failover(pair.forward)
    pair.fabrics["east"].start("db")
    assert pair.source.vm(ID).state is VmState.RUNNING
    assert {host.vm(ID).replication for host in (pair.source, pair.target)} == {State.REPLICATING}


def test_last_changes_are_not_sent_while_the_machine_runs(pair: Pair) -> None:
    pair.protect()
    with pytest.raises(InvalidState, match="still runs"):
        pair.provider.send_last_changes(pair.forward, quiet)
    assert "prepare_failover" not in pair.source.ran


def test_a_planned_failover_waits_for_the_last_changes(pair: Pair) -> None:
    pair.protect()
    with pytest.raises(NotFound, match="have not arrived"):
        pair.provider.fail_over(pair.forward, "planned-20260101T000000Z", quiet)
    assert changes(pair.target) == []


def test_a_running_machine_is_never_failed_over(pair: Pair) -> None:
    pair.protect().fail_over_planned()
    with pytest.raises(InvalidState, match="cannot be failed over"):
        pair.provider.fail_over(pair.forward, LATEST, quiet)


def test_a_replica_is_never_started(pair: Pair) -> None:
    pair.protect()
    with pytest.raises(InvalidState, match="is a replica"):
        pair.fabrics["west"].start("db")


def test_a_test_failover_has_the_asked_name_and_network_and_is_cleaned_up(pair: Pair) -> None:
    pair.protect()
    pair.target.loses_answer_of = {"rename_vm"}
    again(lambda: pair.provider.start_test(pair.forward, LATEST, "db-test", quiet))
    copy = pair.target.named("db-test")
    assert (copy.switch, copy.state, copy.mode) == ("isolated", VmState.OFF, Mode.TEST_REPLICA)
    assert len(pair.target.vms) == 2
    pair.fabrics["west"].start("db-test")
    pair.provider.end_test(pair.forward, "db-test")
    pair.provider.end_test(pair.forward, "db-test")
    assert list(pair.target.vms) == [ID]
    assert pair.target.vm(ID).replication is State.REPLICATING


def test_a_copy_of_a_replica_that_never_rests_tells_a_moment_that_it_holds(pair: Pair) -> None:
    pair.protect()
    before: list[datetime] = []

    def start(given: Any) -> Any:
        replica = pair.target.vm(ID)
        assert replica.last is not None
        before.append(replica.last)
        replica.last += timedelta(seconds=30)
        return FakeHost._start_test_failover(pair.target, given)

    pair.target._start_test_failover = start  # type: ignore[method-assign]
    made = pair.provider.start_test(pair.forward, LATEST, "db-test", quiet)
    assert made.point.time == before[-1]
    assert [vm.name for vm in pair.target.vms.values()] == ["db", "db-test"]


def test_ending_a_test_does_not_touch_a_real_failover(pair: Pair) -> None:
    pair.protect().fail_over_planned()
    pair.provider.end_test(pair.forward, "db-test")
    assert pair.target.vm(ID).replication is State.FAILED_OVER_WAITING_COMPLETION


def test_disabling_deletes_the_replica_and_keeps_the_machine(pair: Pair) -> None:
    pair.protect()
    for _ in range(2):
        pair.provider.disable_source(pair.forward)
        pair.provider.disable_target(pair.forward)
    assert pair.target.vms == {}
    assert (pair.source.vm(ID).mode, pair.source.vm(ID).state) == (Mode.NONE, VmState.RUNNING)


def test_disabling_after_a_failover_keeps_the_machine_that_was_failed_over_to(pair: Pair) -> None:
    pair.protect().fail_over_planned()
    pair.provider.commit(pair.forward, "any")
    pair.provider.disable_target(pair.forward)
    pair.provider.disable_target(pair.forward)
    assert pair.target.vm(ID).state is VmState.RUNNING
    assert "delete_replica" not in pair.target.ran


def test_only_a_marked_half_deleted_replica_is_deleted_further(pair: Pair) -> None:
    pair.target.vms["x"] = Vm("x", "db", VmState.OFF)
    pair.provider.disable_target(pair.forward)
    assert "x" in pair.target.vms
    pair.target.vms["x"].notes = BEING_DELETED
    pair.provider.disable_target(pair.forward)
    assert pair.target.vms == {}


@pytest.mark.parametrize(
    ("state", "error"),
    [
        (State.WAITING_FOR_START_RESYNCHRONIZE, ResynchronizationRequired),
        (State.RESYNCHRONIZE_SUSPENDED, ResynchronizationRequired),
        (State.ERROR, Unreachable),
        (State.SUSPENDED, InvalidState),
        (State.FIREDRILL_IN_PROGRESS, InvalidState),
        (State.UNKNOWN, InvalidState),
    ],
)
def test_deltas_that_cannot_go_on_end_in_the_products_classes(
    pair: Pair, state: State, error: type[LeewardError]
) -> None:
    pair.protect()
    pair.source.vm(ID).replication = state
    with pytest.raises(error):
        pair.provider.replicate_once(pair.forward, quiet, app_consistent=False)
    assert ("resume_replication" in pair.source.ran) == (state is State.ERROR)


@pytest.mark.parametrize(
    ("state", "error", "remedy"),
    [
        (State.WAITING_FOR_START_RESYNCHRONIZE, ResynchronizationRequired, "leeward resync"),
        (State.ERROR, Unreachable, "Measure-VMReplication"),
        (State.SUSPENDED, InvalidState, "Resume-VMReplication -VMName 'db' on the host"),
    ],
)
def test_last_changes_that_cannot_be_sent_say_what_to_do_first(
    pair: Pair, state: State, error: type[LeewardError], remedy: str
) -> None:
    pair.protect()
    pair.fabrics["east"].shut_down("db", 60, quiet_beat)
    pair.source.vm(ID).replication, pair.source.vm(ID).health = state, ReplicationHealth.CRITICAL
    (told,) = [each for each in pair.provider.check_source(pair.forward) if each.severity is Severity.FAIL]
    assert remedy in told.remedy
    with pytest.raises(error) as refused:
        pair.provider.send_last_changes(pair.forward, quiet)
    assert remedy in refused.value.remedy
    assert "prepare_failover" not in pair.source.ran
    if state is State.ERROR:
        pair.provider.send_last_changes(pair.forward, quiet)
        assert pair.source.vm(ID).replication is State.PREPARED_FOR_FAILOVER


def test_the_next_point_is_waited_for_when_the_newest_is_old(pair: Pair) -> None:
    pair.protect()
    vm = pair.source.vm(ID)
    vm.last = datetime.now(UTC) - timedelta(seconds=31)
    fresh = datetime.now(UTC)
    measured = [0]

    def point_comes() -> None:
        measured[0] += 1
        if measured[0] == 3:
            vm.last = fresh

    pair.world.on_time = point_comes
    point = pair.provider.replicate_once(pair.forward, quiet, app_consistent=False)
    assert point.time == fresh
    assert pair.pauses > 3 * measured[0] - 3, "machines of one host share a measurement"


def test_a_resynchronization_is_started_once_and_watched(pair: Pair) -> None:
    pair.protect()
    pair.source.vm(ID).replication = State.WAITING_FOR_START_RESYNCHRONIZE
    pair.provider.resynchronize(pair.forward, quiet)
    pair.provider.resynchronize(pair.forward, quiet)
    assert changes(pair.source).count("resume_replication") == 1


def test_a_first_copy_that_an_error_stopped_is_resumed_by_the_next_try(pair: Pair) -> None:
    pair.provider.enable(pair.forward)
    pair.world.on_time = lambda: setattr(pair.source.vm(ID), "replication", State.ERROR)
    with pytest.raises(Unreachable, match="initial replication of 'db' stopped: stopped by an error"):
        pair.provider.copy_initial(pair.forward, quiet)
    pair.world.on_time = pair.world._copies_finish
    pair.provider.copy_initial(pair.forward, quiet)
    assert changes(pair.source) == ["enable_replication", "start_initial_replication", "resume_replication"]


def test_a_resynchronization_that_stopped_is_begun_again_by_the_next_try(pair: Pair) -> None:
    pair.protect()
    pair.source.vm(ID).replication = State.WAITING_FOR_START_RESYNCHRONIZE
    pair.world.on_time = lambda: setattr(pair.source.vm(ID), "replication", State.RESYNCHRONIZE_SUSPENDED)
    with pytest.raises(Unreachable, match="resynchronization of 'db' stopped"):
        pair.provider.resynchronize(pair.forward, quiet)
    pair.world.on_time = pair.world._copies_finish
    pair.provider.resynchronize(pair.forward, quiet)
    assert changes(pair.source).count("resume_replication") == 2


@pytest.mark.parametrize(
    ("state", "remedy"),
    [
        (State.SUSPENDED, "Resume-VMReplication -VMName 'db' on the host"),
        (State.READY_FOR_INITIAL_REPLICATION, "correct the cause"),
    ],
)
def test_a_first_copy_that_somebody_ended_says_so(pair: Pair, state: State, remedy: str) -> None:
    pair.provider.enable(pair.forward)
    pair.world.on_time = lambda: setattr(pair.source.vm(ID), "replication", state)
    with pytest.raises(InvalidState, match="initial replication of 'db' ended") as ended:
        pair.provider.copy_initial(pair.forward, quiet)
    assert remedy in ended.value.remedy


def test_a_machine_that_moves_between_two_calls_is_looked_for_again(pair: Pair) -> None:
    pair.protect()
    pair.source.fails = {"prepare_failover": NotFound("Hyper-V was unable to find a virtual machine")}
    pair.fabrics["east"].shut_down("db", 60, quiet_beat)
    with pytest.raises(Busy, match="left the host"):
        pair.provider.send_last_changes(pair.forward, quiet)
    pair.provider.send_last_changes(pair.forward, quiet)


def _move(pair: Pair, to: FakeHost) -> None:
    pair.world.hosts[to.name] = to
    to.vms[ID] = pair.source.vms.pop(ID)


@pytest.fixture
def nodes() -> tuple[Pair, FakeHost]:
    """The source site has a second host, to which machines may be moved."""
    pair = Pair(inventory())
    other = FakeHost(pair.world, "hv3")
    hosts = HyperVHosts("east", {"hv1": pair.source, "hv3": other}, clock=lambda: pair.now)
    pair.fabrics["east"].hosts = hosts
    return pair, other


def test_a_machine_that_is_moved_while_its_first_copy_is_watched_is_looked_for_again(
    nodes: tuple[Pair, FakeHost],
) -> None:
    pair, other = nodes
    pair.provider.enable(pair.forward)
    pair.world.on_time = lambda: _move(pair, other) if ID in pair.source.vms else None
    with pytest.raises(Busy, match="moved to hv3"):
        pair.provider.copy_initial(pair.forward, quiet)
    pair.world.on_time = pair.world._copies_finish
    pair.provider.copy_initial(pair.forward, quiet)
    assert "start_initial_replication" not in other.ran


def test_a_machine_that_is_moved_while_a_point_is_awaited_is_looked_for_again(nodes: tuple[Pair, FakeHost]) -> None:
    pair, other = nodes
    pair.protect()
    pair.source.vm(ID).last = datetime.now(UTC) - timedelta(seconds=40)
    pair.world.on_time = lambda: _move(pair, other) if ID in pair.source.vms else None
    with pytest.raises(Busy, match="moved to hv3"):
        pair.provider.replicate_once(pair.forward, quiet, app_consistent=False)


def test_a_machine_that_came_to_a_host_after_the_others_were_measured_is_measured_there(
    nodes: tuple[Pair, FakeHost],
) -> None:
    pair, other = nodes
    pair.protect()
    other.vms["x"] = Vm("x", "x", mode=Mode.PRIMARY, replication=State.REPLICATING)
    hosts = pair.fabrics["east"].hosts
    assert hosts.measure(hosts.find("x"), not_older_than_s=10).vm_id == "x"
    _move(pair, other)
    assert pair.provider.replicate_once(pair.forward, quiet, app_consistent=False)


def test_a_machine_whose_replication_somebody_removed_is_no_moved_one(pair: Pair) -> None:
    pair.protect()
    pair.source.vm(ID).mode, pair.source.vm(ID).replication = Mode.NONE, State.DISABLED
    with pytest.raises(NotFound, match="'db' is not replicated") as removed:
        pair.provider.replicate_once(pair.forward, quiet, app_consistent=False)
    assert "disable its protection first" in removed.value.remedy


@pytest.mark.parametrize("script", ["inventory", "measure_replication"])
def test_a_machine_that_leaves_while_a_whole_host_is_looked_at_costs_the_others_nothing(
    pair: Pair, script: str
) -> None:
    pair.protect()
    pair.source.fails = {script: NotFound("Hyper-V was unable to find a virtual machine with id x")}
    with pytest.raises(Busy, match="left the host"):
        pair.provider.replicate_once(pair.forward, quiet, app_consistent=False)
    assert pair.provider.replicate_once(pair.forward, quiet, app_consistent=False)


def test_readiness_says_what_is_wrong_on_both_sides(pair: Pair) -> None:
    good = pair.provider.check_source(pair.forward) + pair.provider.check_target(pair.forward)
    assert {finding.severity for finding in good} == {Severity.PASS}
    server = pair.target.facts.replica_server
    assert server is not None
    pair.target.facts = pair.target.facts.model_copy(
        update={
            "switches": [],
            "cluster": "CL",
            "replica_broker": "broker.example",
            "replica_server": server.model_copy(update={"enabled": False, "kerberos_port": 8080}),
        }
    )
    pair.now += FACTS_FOR_S + 1
    said = "\n".join(str(each) for each in pair.provider.check_target(pair.forward) if each.severity is Severity.FAIL)
    for expected in ("accepts no replicas", "port 8080", "'server: broker.example'", "no virtual switch 'vProd'"):
        assert expected in said
    pair.source.vm(ID).health = ReplicationHealth.CRITICAL
    pair.protect()
    said = "\n".join(str(each) for each in pair.provider.check_source(pair.forward) if each.severity is Severity.FAIL)
    assert "health Critical" in said


@pytest.fixture
def far_nodes() -> tuple[Pair, FakeHost]:
    """The target site has a second host."""
    pair = Pair(inventory())
    other = FakeHost(pair.world, "hv3")
    pair.world.hosts["hv3"] = other
    pair.fabrics["west"].hosts = HyperVHosts("west", {"hv2": pair.target, "hv3": other}, clock=lambda: pair.now)
    return pair, other


def _failures(pair: Pair) -> list[str]:
    findings = pair.fabrics["west"].check() + pair.provider.check_target(pair.forward)
    return [str(finding) for finding in findings if finding.severity is Severity.FAIL]


def test_a_dead_host_beside_the_replicas_stands_in_no_failovers_way(far_nodes: tuple[Pair, FakeHost]) -> None:
    pair, other = far_nodes
    for host in (pair.target, other):
        host.facts = host.facts.model_copy(update={"cluster": "CL", "replica_broker": "hv2"})
    pair.protect()
    other.unreachable = True
    assert _failures(pair) == []
    told = [each for each in pair.fabrics["west"].check() if each.subject == "host hv3"]
    assert [(each.severity, each.what) for each in told] == [(Severity.WARN, "the host does not answer")]
    pair.provider.fail_over(pair.forward, LATEST, quiet)
    pair.provider.cancel_failover(pair.forward)
    pair.target.vms, other.vms = {}, pair.target.vms
    pair.now += FACTS_FOR_S + 1
    assert any("host does not answer" in failure for failure in _failures(pair)), "the replica may be on that host"


def test_what_only_new_replicas_need_stands_in_no_failovers_way(pair: Pair) -> None:
    pair.protect()
    server = pair.target.facts.replica_server
    assert server is not None
    closed = server.model_copy(update={"enabled": False, "kerberos_port": 8080})
    pair.target.facts = pair.target.facts.model_copy(update={"replica_server": closed})
    pair.now += FACTS_FOR_S + 1
    assert _failures(pair) == []
    told = [each.what for each in pair.provider.check_target(pair.forward) if each.severity is Severity.WARN]
    assert "it accepts no replicas" in told
    pair.target.facts = pair.target.facts.model_copy(update={"switches": []})
    pair.now += FACTS_FOR_S + 1
    assert any("no virtual switch 'vProd'" in failure for failure in _failures(pair)), "it has to be connected"


def test_a_reversal_needs_a_replica_server_that_accepts(pair: Pair) -> None:
    pair.protect().fail_over_planned()
    pair.provider.commit(pair.forward, "any")
    server = pair.source.facts.replica_server
    assert server is not None
    closed = server.model_copy(update={"enabled": False})
    pair.source.facts = pair.source.facts.model_copy(update={"replica_server": closed})
    pair.now += FACTS_FOR_S + 1
    failures = [each.what for each in pair.provider.check_target(pair.backward) if each.severity is Severity.FAIL]
    assert failures == ["it accepts no replicas"]


def test_a_replica_that_is_replicated_further_is_told_and_is_neither_turned_round_nor_deleted(pair: Pair) -> None:
    pair.protect()
    pair.target.vm(ID).extended_to = "hv9.example"
    (told,) = [each for each in pair.provider.check_target(pair.forward) if each.severity is not Severity.PASS]
    assert (told.severity, "replicated further, to hv9.example" in told.what) == (Severity.WARN, True)
    assert "-ReplicationRelationshipType Extended" in told.remedy
    with pytest.raises(InvalidState, match="replicated further") as kept:
        pair.provider.disable_target(pair.forward)
    assert "-ReplicationRelationshipType Extended" in kept.value.remedy
    pair.fail_over_planned()
    pair.provider.commit(pair.forward, "any")
    (refused,) = [each for each in pair.provider.check_source(pair.backward) if each.severity is Severity.FAIL]
    assert refused.what == told.what


def test_another_machine_of_that_name_is_found_before_the_first_copy(pair: Pair) -> None:
    """Two of one name could not be told apart afterwards."""
    pair.target.vms["other"] = Vm("other", "DB")
    (refused,) = [each for each in pair.provider.check_target(pair.forward) if each.severity is Severity.FAIL]
    assert refused.what == "there is a virtual machine 'DB' on hv2 already, which is no replica"
    assert "rename" in refused.remedy
    existing = pair.forward.model_copy(update={"existing_replica": True})
    assert all(each.severity is Severity.PASS for each in pair.provider.check_target(existing))


def test_every_operation_of_host_to_host_replication_is_used_by_these_tests(pair: Pair) -> None:
    simulated = {name[1:] for name in dir(FakeHost) if name.startswith("_") and name[1:] in OPERATIONS}
    tracked = {"create_reference_point", "destroy_reference_point", "changed_ranges"}
    tracked |= {"read_tracking", "write_tracking", "create_checkpoint", "remove_checkpoint"}
    assert set(OPERATIONS) - simulated == tracked | {"run_in_guest"}
