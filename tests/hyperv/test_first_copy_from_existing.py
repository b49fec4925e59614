"""The first copy of Hyper-V Replica from a machine that was restored at the replica's host: what differs is sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_fabric import FakeHost, Mode, Vm
from small_fabric import FAR_HOST, HOST, SmallFabric, held, quiet
from test_provider_failover import ID, Pair, changes, inventory

from adapters.hyperv import jobs
from adapters.hyperv.hosts import FACTS_FOR_S, HyperVHosts
from adapters.hyperv.hypervisor import HyperVHypervisor
from adapters.hyperv.operations import ENABLE_AS_REPLICA, OfVm
from adapters.hyperv.states import ReplicationState as State
from adapters.hyperv.states import VmState
from adapters.stream import StreamProvider
from replication.ports import Report
from vault.domain import PowerState, Progress, RecoveryPoint, Relationship, Severity
from vault.errors import InvalidState, Unreachable
from vault.inventory import Inventory

OTHER_ID = "6f3c4b7e-0000-4000-8000-000000000002"


@pytest.fixture
def pair() -> Pair:
    """A copy of the machine was restored at the target, and is off."""
    document = inventory().model_dump(mode="json", exclude_none=True)
    document["policies"]["gold"]["initial_replication"] = {"method": "existing"}
    pair = Pair(Inventory.model_validate(document))
    pair.target.vms[ID] = Vm(ID, "db", VmState.OFF)
    return pair


def refused(pair: Pair) -> str:
    """What stands against it, in the words of the check; the step itself refuses it too, and changes nothing."""
    pair.now += 2 * FACTS_FOR_S
    there = pair.forward.model_copy(update={"identity": pair.provider.identity(pair.forward)})
    (found,) = pair.provider.check_adoption(there)
    assert found.severity is Severity.FAIL
    with pytest.raises(InvalidState) as error:
        pair.provider.adopt_replica(there)
    assert error.value.what in str(found)
    assert changes(pair.target) == []
    return str(found)


@pytest.mark.unit
def test_the_copy_is_enabled_first_then_the_primary_then_the_copy_is_used(pair: Pair) -> None:
    (found,) = pair.provider.check_adoption(pair.forward)
    assert (found.severity, found.what) == (Severity.PASS, "'db' on hv2 can become the replica")
    pair.provider.adopt_replica(pair.forward)
    assert "waits for its first copy" in str(pair.provider.check_adoption(pair.forward))
    pair.protect()
    assert changes(pair.target) == ["enable_as_replica"]
    assert changes(pair.source) == ["enable_replication", "start_initial_replication"]
    assert pair.target.vm(ID).replication is State.REPLICATING


@pytest.mark.unit
def test_what_cannot_become_the_replica_is_refused_with_its_host(pair: Pair) -> None:
    copy = pair.target.vms.pop(ID)
    missing = refused(pair)
    assert "there is no virtual machine 'db'" in missing
    assert "restore a copy of it on hv2" in missing
    pair.target.vms[ID] = copy
    copy.state = VmState.RUNNING
    assert "'db' on hv2 is Running" in refused(pair)
    copy.state = VmState.SAVED
    assert "'db' on hv2 is Saved" in refused(pair)
    copy.state, copy.mode, copy.replication = VmState.OFF, Mode.REPLICA, State.REPLICATING
    taken = refused(pair)
    assert "'db' on hv2 is in a replication relationship already: target, Replicating" in taken
    assert "Remove-VMReplication" in taken
    copy.mode = Mode.PRIMARY
    assert "already: source" in refused(pair)
    pair.target.vms = {OTHER_ID: Vm(OTHER_ID, "db", VmState.OFF)}
    assert f"its id is {OTHER_ID}, the source's is {ID}" in refused(pair)


@pytest.mark.unit
def test_a_copy_on_a_host_that_receives_no_replicas_is_refused(pair: Pair) -> None:
    other = pair.world.hosts["hv3"] = FakeHost(pair.world, "hv3")
    other.vms[ID] = pair.target.vms.pop(ID)
    hosts = HyperVHosts("west", {"hv2": pair.target, "hv3": other}, clock=lambda: pair.now)
    pair.fabrics["west"] = HyperVHypervisor(hosts, pair.fabrics["west"].inventory)
    assert "'db' on hv3 is not where replicas are received: on hv2" in refused(pair)
    assert changes(other) == []
    pair.target.unreachable = True
    (found,) = pair.provider.check_adoption(pair.forward)
    assert found.severity is Severity.FAIL


@pytest.mark.unit
def test_a_worker_that_dies_between_the_two_enables_changes_nothing_about_the_end(pair: Pair) -> None:
    pair.target.loses_answer_of.add("enable_as_replica")
    with pytest.raises(Unreachable):
        pair.provider.adopt_replica(pair.forward)
    pair.provider.adopt_replica(pair.forward)
    pair.source.loses_answer_of.add("enable_replication")
    with pytest.raises(Unreachable):
        pair.provider.enable(pair.forward)
    pair.provider.adopt_replica(pair.forward)
    pair.protect()
    assert [*changes(pair.target), *changes(pair.source)] == [
        "enable_as_replica",
        "enable_replication",
        "start_initial_replication",
    ]


@pytest.mark.unit
def test_the_machine_stays_when_the_protection_ends(pair: Pair) -> None:
    pair.provider.adopt_replica(pair.forward)
    pair.protect()
    for _ in range(2):
        pair.provider.disable_source(pair.forward)
        pair.provider.disable_target(pair.forward)
    assert (pair.target.vm(ID).mode, pair.target.vm(ID).state) == (Mode.NONE, VmState.OFF)
    assert changes(pair.target) == ["enable_as_replica", "remove_replication"]


@pytest.mark.unit
def test_the_reversed_direction_begins_with_what_both_sides_have(pair: Pair) -> None:
    assert (pair.forward.existing_replica, pair.backward.existing_replica) == (True, False)


# --- on the simulated fabric ------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallFabric]:
    monkeypatch.setattr(jobs, "FIRST_POLL_S", 0.02)
    fabric = SmallFabric(tmp_path, rate=500, first_copy="existing")
    yield fabric
    fabric.close()


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes that were sent so far by first copies."""
    counted, copy = [0], StreamProvider.copy_initial

    def counting(self: StreamProvider, relationship: Relationship, report: Report) -> RecoveryPoint:
        def count(progress: Progress) -> None:
            counted[0] = max(counted[0], progress.bytes_sent)
            report(progress)

        return copy(self, relationship, count)

    monkeypatch.setattr(StreamProvider, "copy_initial", counting)
    return counted


def off_with(small: SmallFabric, transactions: int) -> None:
    """The machine is off, and has written so many more transactions."""
    wanted = small.acknowledged() + transactions
    small.wait_for(lambda: small.acknowledged() >= wanted)
    assert small.east.shut_down("db", 20, quiet) is PowerState.OFF


@pytest.mark.contract
def test_only_what_differs_is_sent_and_a_failover_loses_nothing(small: SmallFabric, sent: list[int]) -> None:
    off_with(small, 400)
    small.fabric.restore("db", HOST, FAR_HOST)
    restored_at = small.acknowledged()
    small.east.start("db")
    off_with(small, 20)
    small.provider.adopt_replica(small.forward)
    assert small.vm(FAR_HOST).state is State.WAITING_FOR_INITIAL_REPLICATION
    small.protect()
    assert (small.vm(HOST).state, small.vm(FAR_HOST).state) == (State.REPLICATING, State.REPLICATING)
    newer = small.acknowledged() - restored_at
    assert newer * 4096 <= sent[0] < (newer + 200) * 4096, "of the disk, which holds 400 transactions more"
    small.east.start("db")
    off_with(small, 20)
    point = small.provider.send_last_changes(small.forward, quiet)
    assert small.recover(small.forward, point.id).lost == 0


@pytest.mark.contract
def test_when_the_protection_ends_the_machine_is_there_with_what_arrived(small: SmallFabric) -> None:
    off_with(small, 20)
    small.fabric.restore("db", HOST, FAR_HOST)
    small.east.start("db")
    off_with(small, 20)
    small.provider.adopt_replica(small.forward)
    small.protect()
    acknowledged = small.acknowledged()
    small.provider.disable_source(small.forward)
    small.provider.disable_target(small.forward)
    assert (small.vm(HOST).replication, small.vm(FAR_HOST).replication) == (None, None)
    assert small.west.describe("db").power is PowerState.OFF
    small.west.start("db")
    assert held(small.west.wait_until_answering("db", 20, quiet)).last >= acknowledged


@pytest.mark.contract
def test_a_host_refuses_what_is_no_copy_and_a_copy_that_runs(small: SmallFabric, sent: list[int]) -> None:
    small.provider.enable(small.forward)
    with pytest.raises(InvalidState, match="is no copy of it"):
        small.provider.copy_initial(small.forward, quiet)
    assert small.vm(HOST).state is State.READY_FOR_INITIAL_REPLICATION
    without = small.forward.model_copy(update={"existing_replica": False})
    small.provider.disable_source(small.forward)
    small.provider.disable_target(without)
    off_with(small, 300)
    copy = small.fabric.restore("db", HOST, FAR_HOST)
    small.west.start("db")
    with pytest.raises(InvalidState, match="the virtual machine is running"):
        small.west.hosts.run(small.west.find("db").host, ENABLE_AS_REPLICA, OfVm(vm_id=copy.id))
    small.west.power_off("db")
    small.provider.adopt_replica(small.forward)
    small.provider.enable(small.forward)
    small.provider.copy_initial(without, quiet)
    assert sent[0] > 300 * 4096, "without -UseBackup everything is sent"
