"""What happens to hosts and machines in the middle of things: a restart, a live migration, another name."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import pytest
from small_fabric import FAR_HOST, HOST, OTHER_HOST, SmallFabric, held, quiet

from adapters.hyperv import jobs
from adapters.hyperv.states import ReplicationMode as Mode
from adapters.hyperv.states import ReplicationState as State
from adapters.hyperv.states import RoleState
from simulation.winrm.answering import Request
from vault.domain import PowerState, RecoveryPoint, Severity
from vault.errors import Busy, LeewardError, NotFound, Recoverable, ResynchronizationRequired, Unreachable

pytestmark = pytest.mark.contract
Answer = TypeVar("Answer")


def test_a_host_that_restarts_while_it_sends_the_last_changes_is_asked_again(small: SmallFabric) -> None:
    small.protect()
    assert small.east.shut_down("db", 20, quiet) is PowerState.OFF
    begun, is_up_again = threading.Event(), threading.Event()

    def hold(request: Request) -> None:
        if request.script == "prepare_failover" and not is_up_again.is_set():
            begun.set()
            is_up_again.wait(20)

    small.hosts.dispatch.faults.append(hold)
    raised: list[LeewardError] = []
    sending = threading.Thread(target=lambda: raised.append(_error_of_sending(small)))
    sending.start()
    assert begun.wait(20)
    small.hosts.reboot(HOST)
    is_up_again.set()
    sending.join(20)
    (error,) = raised
    assert isinstance(error, Unreachable), error
    assert "leeward tries it again by itself" in error.remedy or "the operation is begun anew" in error.remedy
    assert (small.vm(HOST).mode, small.vm(HOST).state) == (Mode.PRIMARY, State.REPLICATING)
    assert small.east.describe("db").power is PowerState.OFF
    point = small.provider.send_last_changes(small.forward, quiet)
    assert small.vm(HOST).state is State.PREPARED_FOR_FAILOVER
    found = small.recover(small.forward, point.id)
    assert (found.lost, found.damaged) == (0, 0)


def _error_of_sending(small: SmallFabric) -> LeewardError:
    try:
        small.provider.send_last_changes(small.forward, quiet)
    except LeewardError as error:
        return error
    raise AssertionError("the last changes were sent")


def test_a_replica_server_that_restarts_keeps_the_failover_and_starts_what_ran(small: SmallFabric) -> None:
    small.protect()
    assert small.east.shut_down("db", 20, quiet) is PowerState.OFF
    point = small.provider.send_last_changes(small.forward, quiet)
    small.recover(small.forward, point.id)
    small.hosts.reboot(FAR_HOST)
    assert small.vm(FAR_HOST).state is State.FAILED_OVER_WAITING_COMPLETION
    assert small.west.wait_until_answering("db", 20, quiet).transactions.lost == 0
    small.provider.commit(small.forward, point.id)
    assert small.vm(FAR_HOST).state is State.FAILED_OVER


class AtFirst(ABC):
    """Something happens at the first operation of each kind. ``left``: the kinds that were not seen yet."""

    def __init__(self, small: SmallFabric, *scripts: str) -> None:
        self.left = set(scripts)
        self._small = small
        small.hosts.dispatch.faults.append(self)

    def __call__(self, request: Request) -> None:
        if request.script in self.left and self.concerns(request):
            self.left.discard(request.script)
            self.happen(request)

    def concerns(self, request: Request) -> bool:
        return True

    @abstractmethod
    def happen(self, request: Request) -> None: ...


class PowerCuts(AtFirst):
    """A host loses power in the middle of the operation, and is up again before that goes on."""

    def happen(self, request: Request) -> None:
        self._small.hosts.reboot(request.host)


def again(call: Callable[[], Answer]) -> Answer:
    """As an activity is repeated; what is not recoverable is raised."""
    for _ in range(10):
        try:
            return call()
        except Recoverable:
            time.sleep(0.05)
    return call()


def test_a_power_cut_at_every_step_of_a_planned_failover_loses_nothing(small: SmallFabric) -> None:
    small.protect()
    provider, forward, backward = small.provider, small.forward, small.backward
    cuts = PowerCuts(
        small,
        "stop_vm",
        "prepare_failover",
        "measure_replication",
        "recovery_points",
        "start_failover",
        "connect_network",
        "start_vm",
        "guest_status",
        "complete_failover",
        "reverse_replication",
    )
    assert again(lambda: small.east.shut_down("db", 20, quiet)) is PowerState.OFF
    with pytest.raises(ResynchronizationRequired, match="shut down unexpectedly") as unknown:
        again(lambda: provider.send_last_changes(forward, quiet))
    assert "leeward resync" in unknown.value.remedy
    again(lambda: provider.resynchronize(forward, quiet))
    point = again(lambda: provider.send_last_changes(forward, quiet))
    again(lambda: provider.fail_over(forward, point.id, quiet))
    again(lambda: small.west.start("db"))
    found = held(again(lambda: small.west.wait_until_answering("db", 20, quiet)))
    assert (found.lost, found.damaged) == (0, 0)
    again(lambda: provider.commit(forward, point.id))
    assert again(lambda: small.east.shut_down("db", 20, quiet)) is PowerState.OFF
    again(lambda: provider.prepare_reverse(backward))
    again(lambda: provider.enable(backward))
    again(lambda: provider.copy_initial(backward, quiet))
    assert cuts.left == set()
    assert (small.vm(FAR_HOST).mode, small.vm(HOST).mode) == (Mode.PRIMARY, Mode.REPLICA)
    assert small.east.describe("db").power is PowerState.OFF


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallFabric]:
    monkeypatch.setattr(jobs, "FIRST_POLL_S", 0.02)
    fabric = SmallFabric(tmp_path, east_hosts=2)
    yield fabric
    fabric.close()


def test_a_machine_that_is_moved_to_another_host_is_found_there(cluster: SmallFabric) -> None:
    cluster.protect()
    cluster.fabric.move("db", HOST, OTHER_HOST)
    assert cluster.provider.replicate_once(cluster.forward, quiet, app_consistent=False)
    assert cluster.east.shut_down("db", 20, quiet) is PowerState.OFF

    def move_when_asked(request: Request) -> None:
        if request.script == "prepare_failover" and "db" in _names(cluster, OTHER_HOST):
            cluster.fabric.move("db", OTHER_HOST, HOST)

    cluster.hosts.dispatch.faults.append(move_when_asked)
    with pytest.raises(Busy, match="left the host just now") as moved:
        cluster.provider.send_last_changes(cluster.forward, quiet)
    assert isinstance(moved.value, Recoverable)
    assert "looked for again" in moved.value.remedy
    point = cluster.provider.send_last_changes(cluster.forward, quiet)
    assert cluster.vm(HOST).state is State.PREPARED_FOR_FAILOVER
    assert cluster.recover(cluster.forward, point.id).lost == 0
    cluster.provider.commit(cluster.forward, point.id)
    cluster.provider.prepare_reverse(cluster.backward)
    cluster.provider.enable(cluster.backward)
    assert isinstance(cluster.provider.copy_initial(cluster.backward, quiet), RecoveryPoint)
    assert cluster.vm(HOST).mode is Mode.REPLICA


class Moves(AtFirst):
    """The cluster moves the machine to its other node just before the operation."""

    OTHER = MappingProxyType({HOST: OTHER_HOST, OTHER_HOST: HOST})

    def concerns(self, request: Request) -> bool:
        return request.host in self.OTHER and "db" in _names(self._small, request.host)

    def happen(self, request: Request) -> None:
        self._small.fabric.move("db", request.host, self.OTHER[request.host])


def test_a_replica_that_its_cluster_moves_at_every_step_of_a_failback_is_found_again(cluster: SmallFabric) -> None:
    """Through the cluster's broker, which tells the primary server where the replica is."""
    cluster.protect()
    provider, forward, backward = cluster.provider, cluster.forward, cluster.backward
    assert cluster.east.shut_down("db", 20, quiet) is PowerState.OFF
    point = provider.send_last_changes(forward, quiet)
    cluster.recover(forward, point.id)
    provider.commit(forward, point.id)
    moves = Moves(cluster, "recovery_points", "start_failover", "connect_network", "start_vm", "complete_failover")
    provider.prepare_reverse(backward)
    provider.enable(backward)
    assert cluster.vm(FAR_HOST).replication.replica_server == "east-broker"
    provider.copy_initial(backward, quiet)
    assert cluster.west.shut_down("db", 20, quiet) is PowerState.OFF
    back = provider.send_last_changes(backward, quiet)
    again(lambda: provider.fail_over(backward, back.id, quiet))
    again(lambda: cluster.east.start("db"))
    found = held(again(lambda: cluster.east.wait_until_answering("db", 20, quiet)))
    assert (found.lost, found.damaged) == (0, 0)
    again(lambda: provider.commit(backward, back.id))
    assert moves.left == set()
    again(lambda: provider.prepare_reverse(forward))
    again(lambda: provider.enable(forward))
    provider.copy_initial(forward, quiet)
    assert cluster.vm(FAR_HOST).state is State.REPLICATING


def test_a_node_that_dies_in_the_middle_of_a_failback_leaves_the_replica_to_the_other_one(cluster: SmallFabric) -> None:
    cluster.protect()
    provider, forward, backward = cluster.provider, cluster.forward, cluster.backward
    assert cluster.east.shut_down("db", 20, quiet) is PowerState.OFF
    point = provider.send_last_changes(forward, quiet)
    cluster.recover(forward, point.id)
    provider.commit(forward, point.id)
    provider.prepare_reverse(backward)
    provider.enable(backward)
    provider.copy_initial(backward, quiet)
    assert cluster.west.shut_down("db", 20, quiet) is PowerState.OFF
    back = provider.send_last_changes(backward, quiet)
    provider.fail_over(backward, back.id, quiet)
    cluster.fabric.move("db", HOST, OTHER_HOST)
    cluster.hosts.servers[HOST].close()
    failures = [each for each in cluster.east.check() if each.severity is Severity.FAIL]
    assert failures == [], "the other node has the machine"
    again(lambda: cluster.east.start("db"))
    assert held(again(lambda: cluster.east.wait_until_answering("db", 20, quiet))).lost == 0
    provider.commit(backward, back.id)
    assert cluster.vm(OTHER_HOST).state is State.FAILED_OVER


def test_a_cluster_starts_and_stops_the_role_with_the_machine_there_and_back(cluster: SmallFabric) -> None:
    cluster.protect()
    provider, forward, backward = cluster.provider, cluster.forward, cluster.backward
    assert cluster.vm(HOST).role is RoleState.ONLINE
    assert cluster.east.shut_down("db", 20, quiet) is PowerState.OFF
    assert cluster.vm(HOST).role is RoleState.OFFLINE
    cluster.hosts.reboot(HOST)
    assert cluster.east.describe("db").power is PowerState.OFF, "its node starts nothing that is offline"
    point = provider.send_last_changes(forward, quiet)
    provider.fail_over(forward, point.id, quiet)
    provider.cancel_failover(forward)
    cluster.east.start("db")
    assert cluster.vm(HOST).role is RoleState.ONLINE
    assert cluster.east.shut_down("db", 20, quiet) is PowerState.OFF
    point = provider.send_last_changes(forward, quiet)
    cluster.recover(forward, point.id)
    provider.commit(forward, point.id)
    provider.prepare_reverse(backward)
    provider.enable(backward)
    provider.copy_initial(backward, quiet)
    assert cluster.vm(HOST).role is RoleState.OFFLINE
    assert cluster.west.shut_down("db", 20, quiet) is PowerState.OFF
    back = provider.send_last_changes(backward, quiet)
    assert cluster.recover(backward, back.id).lost == 0
    assert cluster.vm(HOST).role is RoleState.ONLINE, "the replica that the broker placed is the cluster's to run"


def test_a_machine_that_its_cluster_starts_elsewhere_behind_the_shut_down_runs_nowhere(cluster: SmallFabric) -> None:
    started = threading.Event()

    def start_elsewhere(request: Request) -> None:
        if request.script == "cluster_roles" and not started.is_set():
            started.set()
            cluster.fabric.move("db", HOST, OTHER_HOST)
            cluster.bring_online(OTHER_HOST)

    cluster.hosts.dispatch.faults.append(start_elsewhere)
    with pytest.raises(Busy, match="left the host just now"):
        cluster.east.shut_down("db", 20, quiet)
    assert cluster.east.describe("db").power is PowerState.RUNNING
    assert cluster.east.shut_down("db", 20, quiet) is PowerState.OFF
    assert cluster.east.describe("db").power is PowerState.OFF
    assert cluster.vm(OTHER_HOST).role is RoleState.OFFLINE


def test_a_node_that_is_down_proves_nothing_until_its_cluster_has_the_machine_elsewhere(cluster: SmallFabric) -> None:
    assert cluster.east.describe("db").power is PowerState.RUNNING
    cluster.fabric.go_down(HOST)
    cluster.hosts.servers[HOST].close()
    with pytest.raises(Unreachable):
        cluster.east.shut_down("db", 20, quiet)
    cluster.fabric.move("db", HOST, OTHER_HOST)
    assert cluster.east.describe("db").power is PowerState.RUNNING, "it is off, and its role is online"
    cluster.bring_online(OTHER_HOST)
    assert cluster.east.shut_down("db", 20, quiet) is PowerState.OFF
    assert cluster.vm(OTHER_HOST).role is RoleState.OFFLINE


def test_a_machine_that_is_off_on_a_node_without_its_cluster_is_not_proven_off(cluster: SmallFabric) -> None:
    assert cluster.east.shut_down("db", 20, quiet) is PowerState.OFF
    node = cluster.fabric.state.hosts[HOST]
    node.cluster_service = "Stopped"
    with pytest.raises(Unreachable, match="cluster does not tell whether it starts 'db': The cl") as unasked:
        cluster.east.shut_down("db", 20, quiet)
    assert "Start-ClusterNode" in unasked.value.remedy
    with pytest.raises(Unreachable, match="cluster service is not running"):
        cluster.east.start("db")
    node.cluster_service = "Running"
    assert cluster.east.shut_down("db", 20, quiet) is PowerState.OFF


def _names(small: SmallFabric, host: str) -> list[str]:
    return [vm.name for vm in small.fabric.state.hosts[host].vms.values()]


def test_a_machine_that_was_renamed_is_not_guessed(small: SmallFabric) -> None:
    small.protect()
    small.fabric.rename(HOST, "db", "db (alt)")
    with pytest.raises(NotFound, match="no host has a virtual machine 'db'") as renamed:
        small.provider.replicate_once(small.forward, quiet, app_consistent=False)
    assert "set 'name' below the machine's 'hyperv'" in renamed.value.remedy
    assert small.fabric.vm_named(HOST, "db (alt)").state is State.REPLICATING
    with pytest.raises(NotFound):
        small.east.start("db")
    small.fabric.rename(HOST, "db (alt)", "db")
    assert small.provider.replicate_once(small.forward, quiet, app_consistent=False)
