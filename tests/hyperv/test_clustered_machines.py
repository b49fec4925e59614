"""A machine that a failover cluster keeps is off when its cluster leaves it off, not when a host calls it off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fake_fabric import FakeHost, Role, State, Vm
from test_provider_failover import ID, Pair, inventory, quiet, quiet_beat

from activities.machines import _kept_off
from activities.running import Running
from adapters.hyperv.facts import ClusterRole
from adapters.hyperv.hosts import HyperVHosts
from adapters.hyperv.hypervisor import HyperVHypervisor
from adapters.hyperv.states import GroupState, RoleState, VmState
from vault.domain import PowerState
from vault.errors import AuthorizationRefused, Busy, LeewardError, NotRecoverable, Recoverable, Unreachable

pytestmark = pytest.mark.unit


class ClusterPair(Pair):
    """``east`` is a cluster of hv1 and hv3, which keeps ``db``; it runs on hv1."""

    def __init__(self) -> None:
        vault = inventory()
        super().__init__(vault)
        self.other = self.world.hosts["hv3"] = FakeHost(self.world, "hv3")
        self.nodes = {"hv1": self.source, "hv3": self.other}
        hosts = HyperVHosts("east", self.nodes, clock=lambda: self.now)
        self.east = self.fabrics["east"] = HyperVHypervisor(
            hosts, vault, resolve_secret=lambda _: "secret", pause=self._pause
        )
        for node in self.nodes.values():
            node.cluster_service = "Running"
        self.db.role = Role("hv1")
        self.on_pause: list[Callable[[], None]] = []

    @property
    def db(self) -> Vm:
        return next(node.vms[ID] for node in self.nodes.values() if ID in node.vms)

    @property
    def role(self) -> Role:
        assert self.db.role is not None
        return self.db.role

    def stop(self, timeout_s: float = 60) -> PowerState:
        return self.east.shut_down("db", timeout_s, quiet_beat)

    def move(self, *, online: bool) -> None:
        """The cluster moves it to its other node, and starts it there."""
        here, there = ("hv1", "hv3") if ID in self.source.vms else ("hv3", "hv1")
        vm = self.nodes[there].vms[ID] = self.nodes[here].vms.pop(ID)
        vm.role = Role(there)
        if online:
            vm.state = VmState.RUNNING
        else:
            vm.role.state, vm.role.group = RoleState.OFFLINE, GroupState.PARTIAL_ONLINE

    def is_off(self, state: RoleState, group: GroupState = GroupState.PENDING) -> None:
        self.db.state, self.role.state, self.role.group = VmState.OFF, state, group

    def _pause(self, seconds: float) -> None:
        super()._pause(seconds)
        for each in self.on_pause[:1]:
            self.on_pause.remove(each)
            each()


@pytest.fixture
def pair() -> ClusterPair:
    return ClusterPair()


def before(host: FakeHost, script: str, does: Callable[[], None]) -> None:
    """Once, before the host's next operation of this kind."""
    run, left = host.run, [does]

    def first(operation: Any, given: Any, *, timeout_s: float) -> Any:
        if operation.script == script and left:
            left.pop()()
        return run(operation, given, timeout_s=timeout_s)

    host.run = first  # type: ignore[method-assign]


def raised(call: Callable[[], object]) -> LeewardError:
    with pytest.raises(LeewardError) as error:
        call()
    return error.value


# --- shutting down ------------------------------------------------------------------------------------------------


def test_its_role_is_taken_offline_with_it(pair: ClusterPair) -> None:
    assert pair.stop() is PowerState.OFF
    assert pair.role.state is RoleState.OFFLINE
    assert pair.source.ran.count("stop_vm") == 1
    assert pair.stop() is PowerState.OFF
    assert pair.source.ran.count("stop_vm") == 1


def test_what_is_off_while_its_cluster_brings_it_online_is_no_proof(pair: ClusterPair) -> None:
    pair.is_off(RoleState.ONLINE_PENDING)

    def comes_online() -> None:
        pair.db.state, pair.role.state, pair.role.group = VmState.RUNNING, RoleState.ONLINE, GroupState.ONLINE

    pair.on_pause.append(comes_online)
    assert pair.stop() is PowerState.OFF
    assert (pair.source.ran.count("stop_vm"), pair.role.state) == (1, RoleState.OFFLINE)


@pytest.mark.parametrize("state", [RoleState.ONLINE_PENDING, RoleState.PENDING, RoleState.UNKNOWN])
def test_a_role_that_stays_between_states_is_told_and_looked_at_again(pair: ClusterPair, state: RoleState) -> None:
    pair.is_off(state)
    error = raised(pair.stop)
    assert isinstance(error, Busy)
    assert f"'db' is off, but its cluster has it {state} on hv1" in error.what
    assert "Get-ClusterResource" in error.remedy
    assert "stop_vm" not in pair.source.ran


def test_a_group_that_moves_is_looked_at_again(pair: ClusterPair) -> None:
    pair.is_off(RoleState.OFFLINE, GroupState.PENDING)
    pair.on_pause.append(lambda: pair.move(online=False))
    assert pair.stop() is PowerState.OFF
    assert pair.pauses == 1


@pytest.mark.parametrize("state", [RoleState.ONLINE, RoleState.FAILED])
def test_a_role_whose_machine_is_off_and_which_the_cluster_restarts_is_taken_offline(
    pair: ClusterPair, state: RoleState
) -> None:
    pair.is_off(state, GroupState.FAILED if state is RoleState.FAILED else GroupState.ONLINE)
    assert pair.stop() is PowerState.OFF
    assert pair.role.state is RoleState.OFFLINE


def test_a_machine_that_is_off_on_a_node_that_does_not_own_it_is_no_proof(pair: ClusterPair) -> None:
    pair.is_off(RoleState.OFFLINE, GroupState.OFFLINE)
    pair.role.owner = "hv3"
    error = raised(pair.stop)
    assert isinstance(error, Busy)
    assert "hv3" in error.what
    pair.on_pause.append(lambda: pair.move(online=True))
    assert pair.stop() is PowerState.OFF
    assert (pair.role.owner, pair.role.state, pair.other.ran.count("stop_vm")) == ("hv3", RoleState.OFFLINE, 1)


def test_a_cluster_that_moves_it_between_its_shut_down_and_the_look_starts_no_second_copy(pair: ClusterPair) -> None:
    before(pair.source, "cluster_roles", lambda: pair.move(online=True))
    assert raised(pair.stop).recoverable
    assert pair.stop() is PowerState.OFF
    assert (pair.db.state, pair.role.owner, pair.role.state) == (VmState.OFF, "hv3", RoleState.OFFLINE)


def test_a_node_that_dies_leaves_it_unproven_until_the_cluster_has_brought_it_up_elsewhere(pair: ClusterPair) -> None:
    pair.source.unreachable = True
    assert isinstance(raised(pair.stop), Unreachable)
    pair.move(online=True)
    assert pair.stop() is PowerState.OFF
    assert (pair.db.state, pair.role.state) == (VmState.OFF, RoleState.OFFLINE)


def test_a_cluster_that_starts_it_again_after_its_guest_was_shut_down_is_asked_again(pair: ClusterPair) -> None:
    restarts = [3]

    def restart(vm: Vm) -> None:
        if restarts[0]:
            restarts[0] -= 1
            vm.state = VmState.RUNNING

    pair.world.on_stopped = restart
    assert pair.stop() is PowerState.OFF
    assert (pair.source.ran.count("stop_vm"), pair.role.state) == (4, RoleState.OFFLINE)


def test_a_cluster_that_always_starts_it_again_loses_to_its_plug(pair: ClusterPair) -> None:
    def restart(vm: Vm) -> None:
        vm.state = VmState.RUNNING

    pair.world.on_stopped = restart
    assert pair.stop(20) is PowerState.OFF
    assert (pair.db.state, pair.role.state) == (VmState.OFF, RoleState.OFFLINE)


def test_a_node_that_still_shows_what_another_runs_hides_it_from_nobody(pair: ClusterPair) -> None:
    """Its cluster failed it over; the node that had it is back, and has not let it go yet."""
    pair.east.find("db")
    pair.is_off(RoleState.ONLINE, GroupState.ONLINE)
    pair.role.owner = "hv3"
    there = pair.other.vms[ID] = Vm(ID, "db", VmState.RUNNING, switch="vProd", role=pair.role)
    error = raised(pair.stop)
    assert isinstance(error, Busy)
    assert "hv1 and hv3" in error.what
    assert "Remove-VM" not in error.remedy, "that would take the disks' machine away"
    del pair.source.vms[ID]
    assert pair.stop() is PowerState.OFF
    assert (there.state, pair.role.state) == (VmState.OFF, RoleState.OFFLINE)


def test_a_node_is_known_by_the_part_of_its_name_that_every_tool_shows(pair: ClusterPair) -> None:
    pair.is_off(RoleState.OFFLINE, GroupState.OFFLINE)
    pair.source.name, pair.role.owner = "HV-PRODUCTION-E", "hv-production-east-01"
    assert pair.stop() is PowerState.OFF
    pair.role.owner = "hv-production-west-01"
    assert isinstance(raised(pair.stop), Busy)


# --- nobody has it --------------------------------------------------------------------------------------------------


def adrift(pair: ClusterPair, state: RoleState, group_state: GroupState, **changes: str) -> None:
    """Its cluster has a role of it, and no node the machine."""
    del pair.source.vms[ID]
    named = {"name": "Virtual Machine db", "group": "db", "vm_id": ID, "owner": "hv3"} | changes
    pair.world.adrift = [ClusterRole(state=state, group_state=group_state, **named)]


def test_a_machine_that_no_node_has_while_its_role_moves_is_no_proof(pair: ClusterPair) -> None:
    adrift(pair, RoleState.ONLINE_PENDING, GroupState.PENDING)
    error = raised(pair.stop)
    assert isinstance(error, Busy)
    assert "no host has 'db' now" in error.what
    assert "OnlinePending on hv3" in error.what


def test_a_machine_on_a_node_that_the_inventory_does_not_name_is_no_machine_that_is_gone(pair: ClusterPair) -> None:
    adrift(pair, RoleState.ONLINE, GroupState.ONLINE, owner="hv9")
    error = raised(pair.stop)
    assert isinstance(error, Busy)
    assert "Online on hv9" in error.what
    assert "'hosts' names all nodes" in error.remedy


def test_a_role_that_was_renamed_is_known_by_the_machine_that_was_seen(pair: ClusterPair) -> None:
    pair.east.find("db")
    adrift(pair, RoleState.ONLINE, GroupState.ONLINE, name="Virtual Machine old", group="old")
    assert isinstance(raised(pair.stop), Busy)


@pytest.mark.parametrize("group", ["db", "SCVMM db Resources"])
def test_a_role_that_was_stopped_as_a_whole_is_off(pair: ClusterPair, group: str) -> None:
    adrift(pair, RoleState.OFFLINE, GroupState.OFFLINE, group=group)
    assert pair.stop() is PowerState.OFF


def test_a_machine_that_comes_while_its_cluster_is_asked_is_found(pair: ClusterPair) -> None:
    vm = pair.source.vms.pop(ID)
    before(pair.other, "cluster_roles", lambda: pair.other.vms.update({ID: vm}))
    assert vm.role is not None
    vm.role.owner = "hv3"
    assert pair.stop() is PowerState.OFF
    assert (vm.state, pair.role.state) == (VmState.OFF, RoleState.OFFLINE)


def test_a_machine_that_is_gone_from_a_cluster_is_off(pair: ClusterPair) -> None:
    del pair.source.vms[ID]
    assert pair.stop() is PowerState.OFF
    for node in pair.nodes.values():
        node.cluster_service = "Stopped"
    error = raised(pair.stop)
    assert isinstance(error, Busy)
    assert "Start-ClusterNode" in error.remedy


# --- a cluster that does not tell ---------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [NotRecoverable("no quorum"), Unreachable("the cluster service is not running")])
def test_a_cluster_that_cannot_be_asked_proves_nothing(pair: ClusterPair, failure: LeewardError) -> None:
    pair.is_off(RoleState.OFFLINE, GroupState.OFFLINE)
    pair.source.fails = {"cluster_roles": failure}
    error = raised(pair.stop)
    assert isinstance(error, Unreachable)
    assert "cluster does not tell" in error.what
    assert failure.what in error.what
    assert "Get-ClusterNode" in error.remedy
    assert pair.stop() is PowerState.OFF


def test_an_account_that_may_not_ask_the_cluster_is_told_so(pair: ClusterPair) -> None:
    pair.is_off(RoleState.OFFLINE, GroupState.OFFLINE)
    pair.source.fails = {"cluster_roles": AuthorizationRefused("not you", remedy="Grant-ClusterAccess")}
    assert isinstance(raised(pair.stop), AuthorizationRefused)


def test_a_node_whose_cluster_service_is_down_does_not_know_whether_a_cluster_keeps_it(pair: ClusterPair) -> None:
    pair.db.role, pair.db.state, pair.source.cluster_service = None, VmState.OFF, "Stopped"
    error = raised(pair.stop)
    assert isinstance(error, Recoverable)
    assert "Start-ClusterNode" in error.remedy
    pair.source.cluster_service = "Running"
    assert pair.stop() is PowerState.OFF, "a machine of a node that is no role is its host's"
    assert "cluster_roles" not in pair.source.ran


def test_a_host_that_calls_it_clustered_and_a_cluster_without_a_role_do_not_agree(pair: ClusterPair) -> None:
    pair.is_off(RoleState.OFFLINE)
    pair.source._roles_of = lambda vm: []  # type: ignore[method-assign,assignment]
    error = raised(pair.stop)
    assert isinstance(error, Busy)
    assert "has no role" in error.what


# --- the old copy, and the way back -------------------------------------------------------------------------------


def test_an_old_copy_that_its_cluster_brings_back_is_stopped_for_good(pair: ClusterPair) -> None:
    """The cluster comes back, and brings online what was online."""
    pair.is_off(RoleState.ONLINE_PENDING)
    kept = _kept_off(pair.east, "db", Running())
    assert kept[0] is False
    assert "looked at again: 'db' is off, but its cluster has it OnlinePending" in kept[1]
    pair.db.state, pair.role.state, pair.role.group = VmState.RUNNING, RoleState.ONLINE, GroupState.ONLINE
    assert _kept_off(pair.east, "db", Running())[0] is True
    assert (pair.db.state, pair.role.state) == (VmState.OFF, RoleState.OFFLINE)
    assert _kept_off(pair.east, "db", Running()) == (False, "the old copy of db at east is off")


def test_an_old_copy_is_stopped_before_its_cluster_starts_it(pair: ClusterPair) -> None:
    pair.is_off(RoleState.ONLINE, GroupState.ONLINE)
    assert pair.east.describe("db").power is PowerState.RUNNING, "it may run at any moment"
    assert _kept_off(pair.east, "db", Running())[0] is True
    assert pair.role.state is RoleState.OFFLINE


def test_an_old_copy_that_moves_while_it_is_looked_at_is_looked_at_again_at_once(pair: ClusterPair) -> None:
    before(pair.source, "stop_vm", lambda: pair.move(online=True))
    was_running, said = _kept_off(pair.east, "db", Running())
    assert (was_running, "is looked at again" in said) == (False, True)
    assert _kept_off(pair.east, "db", Running())[0] is True
    assert (pair.db.state, pair.role.state) == (VmState.OFF, RoleState.OFFLINE)


def test_a_failover_that_is_taken_back_brings_the_role_online_again(pair: ClusterPair) -> None:
    pair.protect()
    assert pair.stop() is PowerState.OFF
    pair.provider.send_last_changes(pair.forward, quiet)
    pair.east.start("db")
    assert (pair.db.state, pair.role.state) == (VmState.RUNNING, RoleState.ONLINE)


def test_a_recovered_machine_that_crashed_is_not_started_by_its_cluster_while_its_failover_is_taken_back(
    pair: ClusterPair,
) -> None:
    pair.target.cluster_service = "Running"
    pair.protect()
    pair.fail_over_planned()
    replica = pair.target.vm(ID)
    assert replica.role is not None
    assert (replica.state, replica.role.state) == (VmState.RUNNING, RoleState.ONLINE)
    replica.state = VmState.OFF
    pair.provider.cancel_failover(pair.forward)
    assert replica.role.state is RoleState.OFFLINE
    assert replica.replication is State.REPLICATING


def test_discovery_asks_no_cluster(pair: ClusterPair) -> None:
    pair.is_off(RoleState.ONLINE_PENDING)
    pair.source.ran.clear()
    assert [each.name for each in pair.east.discover()] == ["db"]
    assert pair.source.ran == ["inventory"]
