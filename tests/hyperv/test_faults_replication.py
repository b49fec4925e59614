"""What goes wrong between Hyper-V hosts: the state it ends in, the class of the error, and the operator's next step.

The real provider and pywinrm against simulated hosts; the errors come over the wire as Hyper-V writes them.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from small_fabric import FAR_HOST, HOST, SmallFabric, quiet

from adapters.hyperv.states import ReplicationHealth as Health
from adapters.hyperv.states import ReplicationMode as Mode
from adapters.hyperv.states import ReplicationState as State
from adapters.lab.faults import Fault
from vault.domain import LATEST, PowerState, Severity
from vault.errors import (
    AuthorizationRefused,
    InvalidState,
    NoSpace,
    NotRecoverable,
    Recoverable,
    ResynchronizationRequired,
    Unreachable,
)

pytestmark = pytest.mark.contract


def test_access_denied_changes_nothing_and_is_not_tried_again(small: SmallFabric) -> None:
    small.hosts.dispatch.administrators = frozenset()
    with pytest.raises(AuthorizationRefused, match="required permission") as denied:
        small.provider.enable(small.forward)
    assert isinstance(denied.value, NotRecoverable)
    assert "Hyper-V Administrators" in denied.value.remedy
    assert small.vm(HOST).mode is Mode.NONE


def test_a_replica_server_that_accepts_nothing_is_found_before_and_told_after(small: SmallFabric) -> None:
    far = small.fabric.state.hosts[FAR_HOST]
    far.accepts_replicas = False
    findings = [found for found in small.provider.check_target(small.forward) if found.severity is Severity.FAIL]
    assert [(found.what, found.remedy) for found in findings] == [
        ("it accepts no replicas", "Set-VMReplicationServer -ReplicationEnabled $true")
    ]
    with pytest.raises(Unreachable, match="0x00002EFD") as refused:
        small.provider.enable(small.forward)
    assert isinstance(refused.value, Recoverable)
    assert "replica server listens" in refused.value.remedy
    far.accepts_replicas, far.from_any_server = True, False
    with pytest.raises(AuthorizationRefused, match="does not authorize"):
        small.provider.enable(small.forward)
    assert small.vm(HOST).mode is Mode.NONE
    far.from_any_server = True
    small.protect()
    assert small.vm(HOST).state is State.REPLICATING


def test_a_full_disk_at_the_replica_suspends_replication_and_keeps_recovery_points(small: SmallFabric) -> None:
    small.protect()
    small.set_fault("west", Fault.DISK_FULL)
    small.wait_for(lambda: small.vm(HOST).state is State.ERROR)
    points = small.provider.recovery_points(small.forward)
    assert small.vm(HOST).replication.health is Health.CRITICAL
    with pytest.raises(NoSpace, match="0x80070070") as full:
        small.provider.fail_over(small.forward, points[-1].id, quiet)
    assert isinstance(full.value, Recoverable)
    assert "free space" in full.value.remedy
    assert small.vm(FAR_HOST).state is State.REPLICATING
    small.clear_faults("west")
    with pytest.raises(Unreachable, match="it was resumed"):
        small.provider.replicate_once(small.forward, quiet, app_consistent=False)
    small.wait_for(lambda: small.vm(HOST).replication.last > points[-1].time)
    assert small.vm(HOST).state is State.REPLICATING


def test_a_full_disk_in_the_middle_of_the_first_copy_ends_with_the_next_try(small: SmallFabric) -> None:
    small.set_fault("west", Fault.DISK_FULL)
    small.provider.enable(small.forward)
    with pytest.raises(Unreachable, match="stopped") as full:
        small.provider.copy_initial(small.forward, quiet)
    assert "the disk is full" in full.value.what
    assert small.vm(HOST).state is State.ERROR
    small.clear_faults("west")
    small.provider.copy_initial(small.forward, quiet)
    small.provider.finalize(small.forward)
    assert small.vm(HOST).state is State.REPLICATING


def test_nothing_happens_in_the_wrong_state(small: SmallFabric) -> None:
    small.provider.enable(small.forward)
    with pytest.raises(InvalidState, match="not complete"):
        small.provider.finalize(small.forward)
    small.provider.copy_initial(small.forward, quiet)
    with pytest.raises(InvalidState, match="still runs") as running:
        small.provider.send_last_changes(small.forward, quiet)
    assert "shut it down" in running.value.remedy
    with pytest.raises(InvalidState, match="cannot be committed: it is Off, target, replicating") as early:
        small.provider.commit(small.forward, "")
    assert "the state that this needs: a replica that was failed over" in early.value.remedy
    with pytest.raises(InvalidState, match="is a replica here") as replica:
        small.west.start("db")
    assert "fail it over" in replica.value.remedy
    with pytest.raises(InvalidState, match="cannot be turned into a replica"):
        small.provider.prepare_reverse(small.forward.reversed("production", "isolated"))
    assert (small.vm(HOST).state, small.vm(FAR_HOST).state) == (State.REPLICATING, State.REPLICATING)


def test_a_cut_link_costs_cycles_and_heals_by_itself(small: SmallFabric) -> None:
    small.protect()
    last = small.vm(HOST).replication.last
    small.set_fault("west", Fault.LINK_DOWN)
    small.wait_for(lambda: small.vm(HOST).replication.missed >= 2)
    assert (small.vm(HOST).state, small.vm(HOST).replication.health) == (State.REPLICATING, Health.WARNING)
    assert small.east.shut_down("db", 20, quiet) is PowerState.OFF
    with pytest.raises(Unreachable, match="0x00002EFE"):
        small.provider.send_last_changes(small.forward, quiet)
    assert small.vm(HOST).state is State.REPLICATING
    small.clear_faults("west")
    point = small.provider.send_last_changes(small.forward, quiet)
    assert point.time > last
    assert small.recover(small.forward, point.id).lost == 0


def test_a_failover_beside_a_running_source_stops_its_replication_and_can_be_taken_back(small: SmallFabric) -> None:
    small.protect()
    point = small.provider.recovery_points(small.forward)[-1]
    recovered = small.provider.fail_over(small.forward, LATEST, quiet)
    small.wait_for(lambda: small.vm(HOST).state is State.ERROR)
    assert recovered.point.time == small.vm(FAR_HOST).replication.last
    assert small.west.describe("db").power is PowerState.OFF
    small.provider.cancel_failover(small.forward)
    assert small.vm(FAR_HOST).state is State.REPLICATING
    with pytest.raises(Unreachable, match="it was resumed"):
        small.provider.replicate_once(small.forward, quiet, app_consistent=False)
    small.wait_for(lambda: small.vm(FAR_HOST).replication.last > point.time)


def test_a_log_past_half_of_the_disk_asks_for_a_resynchronization(tmp_path: Path) -> None:
    small = SmallFabric(tmp_path, rate=250)
    try:
        small.protect()
        small.set_fault("west", Fault.LINK_DOWN)
        small.wait_for(lambda: small.vm(HOST).replication.missed >= 1)
        small.wait_for(
            lambda: small.fabric.ground.log_bytes("east", "db") == 0 or small.vm(HOST).state is State.ERROR, 30
        )
        small.clear_faults("west")
        small.wait_for(lambda: small.vm(HOST).state is State.WAITING_FOR_START_RESYNCHRONIZE)
        assert small.vm(HOST).replication.health is Health.CRITICAL
        points = small.provider.recovery_points(small.forward)
        with pytest.raises(ResynchronizationRequired, match="grew too large"):
            small.provider.replicate_once(small.forward, quiet, app_consistent=False)
        assert small.provider.recovery_points(small.forward) == points
        small.provider.resynchronize(small.forward, quiet)
        assert small.vm(HOST).state is State.REPLICATING
        assert small.east.shut_down("db", 20, quiet) is PowerState.OFF
        assert small.recover(small.forward, small.provider.send_last_changes(small.forward, quiet).id).lost == 0
    finally:
        small.close()
