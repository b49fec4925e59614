"""What happens to hosts and machines in the middle of things: a restart, a live migration, another name."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_fabric import FAR_HOST, HOST, OTHER_HOST, SmallFabric, quiet

from adapters.hyperv import jobs
from adapters.hyperv.states import ReplicationMode as Mode
from adapters.hyperv.states import ReplicationState as State
from simulation.winrm.answering import Request
from vault.domain import PowerState, RecoveryPoint
from vault.errors import Busy, LeewardError, NotFound, Recoverable, Unreachable

pytestmark = pytest.mark.contract


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
    assert "the operation is repeated" in error.remedy or "the operation is begun anew" in error.remedy
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
