"""Sites whose hosts VMM manages: finding, discovering, judging and failing over their machines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fake_fabric import Mode, Role, State, Vm
from vmm_pair import ID, Pair, quiet

from activities.machines import _kept_off
from activities.running import Running
from adapters.hyperv.facts import VirtualDisk, Volume
from adapters.hyperv.provider import HyperVReplicaProvider
from adapters.hyperv.states import RoleState, VmState
from adapters.vmm.discovery import discover
from simulation.vmm.estate import Estate
from vault.domain import LATEST, Finding, PowerState, Relationship, Severity
from vault.errors import AuthenticationRefused, Busy, InvalidState, LeewardError, NotFound, Unreachable

pytestmark = pytest.mark.unit

VMM = ["vmm_fabric", "vmm_machines"]


@pytest.fixture
def pair() -> Pair:
    return Pair()


# --- finding and discovering ----------------------------------------------------------------------------------


def test_a_machine_is_found_through_vmm_with_one_question_to_its_host(pair: Pair) -> None:
    assert pair.fabrics["east"].find("db").host == "hv1"
    assert pair.calls() == {"vmm east": VMM, "hv1": ["inventory"]}
    assert pair.fabrics["east"].find("db").host == "hv1"
    assert pair.calls() == {"hv1": ["inventory"]}


def test_a_machine_that_moved_is_found_at_once(pair: Pair) -> None:
    pair.fabrics["east"].find("db")
    pair.move("hv1", "hv2")
    pair.calls()
    assert pair.fabrics["east"].find("db").host == "hv2"
    assert pair.calls() == {"hv1": ["inventory"], "vmm east": ["vmm_machines"], "hv2": ["inventory"]}


def test_all_hosts_are_asked_while_vmm_is_away_or_behind(pair: Pair) -> None:
    fabric = pair.fabrics["east"]
    fabric.find("db")
    pair.vmm["east"].refreshes = False
    pair.move("hv1", "hv2")
    assert fabric.find("db").host == "hv2"
    pair.servers["east"].unreachable = True
    pair.move("hv2", "hv1")
    assert fabric.find("db").host == "hv1"
    assert pair.fabric("east").find_if_there("nobody") is None
    pair.sessions["hv2"].unreachable = True
    with pytest.raises(Unreachable):
        fabric.find_if_there("nobody")


def test_a_host_that_is_down_hides_no_machine_that_the_cluster_moved_away(pair: Pair) -> None:
    pair.fabrics["east"].find("db")
    pair.vmm["east"].refreshes = False
    pair.sessions["hv1"].unreachable = True
    pair.world.hosts["hv2"].vms = pair.world.hosts["hv1"].vms
    assert pair.fabric("east").find("db").host == "hv2"


def test_hosts_that_the_inventory_does_not_name_are_those_of_the_cloud(pair: Pair) -> None:
    fabric = pair.fabric_that_vmm_tells("east")
    assert fabric.hosts.names == ["hv1.example", "hv2.example"]
    assert fabric.find("db").host == "hv1.example"
    setup = pair.vmm["east"].estate
    outside = setup.hosts["hv2.example"].model_copy(update={"group": "Elsewhere"})
    clouds = {"Gold": setup.clouds["Gold"].model_copy(update={"groups": ["All Hosts"]})}
    pair.vmm["east"].estate = setup.model_copy(
        update={"hosts": setup.hosts | {"hv2.example": outside}, "clouds": clouds}
    )
    assert pair.fabric_that_vmm_tells("east").hosts.names == ["hv1.example"]


def test_a_host_named_by_its_address_is_recognized_by_what_it_says(pair: Pair) -> None:
    fabric = pair.fabrics["east"]
    fabric.hosts._sessions = {"192.0.2.1": pair.sessions["hv1"], "192.0.2.2": pair.sessions["hv2"]}  # type: ignore[assignment]
    assert fabric.find("db").host == "192.0.2.1"
    known = fabric.managed.known_to_vmm("192.0.2.2")
    assert known is not None
    assert known.name == "hv2.example"


def test_one_server_may_manage_both_sites_and_have_the_machine_twice(pair: Pair) -> None:
    vmm = pair.vmm["east"]
    for name, host in pair.vmm["west"].estate.hosts.items():
        vmm.estate.hosts[name] = host
    vmm._hosts = {**vmm._hosts, **pair.vmm["west"]._hosts}
    pair.world.hosts["hv3"].vms[ID] = Vm(ID, "db", VmState.OFF, Mode.REPLICA, State.REPLICATING)
    assert pair.fabrics["east"].find("db").host == "hv1"
    assert {finding.severity for finding in pair.provider.check_source(pair.forward)} == {Severity.PASS}


def test_two_questions_to_vmm_tell_of_every_machine_whether_it_can_be_protected(pair: Pair) -> None:
    physical = VirtualDisk(path="Disk 3", controller="SCSI 0:1", pass_through=True)
    hv1, hv2 = pair.world.hosts["hv1"], pair.world.hosts["hv2"]
    hv1.vms["2"] = Vm("2", "physical", disks=[physical])
    hv2.vms = {"3": Vm("3", "stray"), "4": Vm("4", "copy", VmState.OFF, Mode.REPLICA, State.REPLICATING)}
    pair.vmm["east"].belongs("physical", "Gold")
    pair.vmm["east"].belongs("copy", "Gold")
    pair.calls()
    found = discover(pair.fabrics["east"].managed)
    assert pair.calls() == {"vmm east": VMM}
    machines = {one.machine.name: one for host in found for one in host.machines}
    assert {name for name, one in machines.items() if one.can_be_protected} == {"db"}
    assert (machines["db"].host, machines["db"].cloud) == ("hv1", "Gold")
    assert _told(machines["physical"].findings) == ["disk SCSI 0:1 () is a physical disk of the host"]
    assert _told(machines["stray"].findings) == ["it is in no cloud"]
    assert _told(machines["copy"].findings) == ["it is a replica"]
    (disk,) = machines["db"].machine.disks
    assert (disk.path, disk.size, disk.kind) == ("D:\\vm\\os.vhdx", 2**30, "Dynamic")
    assert machines["copy"].machine.state is VmState.OFF


def test_hosts_that_vmm_does_not_have_or_reach_are_told_by_discovery(pair: Pair) -> None:
    _change(pair, "east", lambda estate: estate.hosts.pop("hv2.example"))
    pair.vmm["east"]._hosts = {"hv1.example": pair.vmm["east"]._hosts["hv1.example"]}
    hosts = discover(pair.fabrics["east"].managed)
    assert [(host.host, host.trouble) for host in hosts] == [
        ("hv1", ""),
        ("hv2", "VMM does not manage it — add it to VMM"),
    ]


def test_a_machine_is_described_with_the_network_of_its_vm_network(pair: Pair) -> None:
    assert pair.fabrics["east"].describe("db").network == "production"


@pytest.mark.parametrize("trouble", [Unreachable("no answer"), AuthenticationRefused("the password has expired")])
def test_an_old_copy_is_seen_and_kept_off_while_vmm_does_not_tell(
    pair: Pair, trouble: LeewardError, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hosts that come back after a disaster come back before a VMM server that runs on them."""

    def fails(*_: object, **__: object) -> None:
        raise trouble

    monkeypatch.setattr(pair.servers["east"], "run", fails)
    pair.world.hosts["hv1"].vms[ID].state = VmState.RUNNING
    stopped, said = _kept_off(pair.fabrics["east"], "db", Running())
    assert stopped, said
    assert pair.world.hosts["hv1"].vms[ID].state is VmState.OFF


def test_an_old_copy_that_its_cluster_is_about_to_start_is_not_off_with_vmm_either(pair: Pair) -> None:
    vm = pair.world.hosts["hv1"].vms[ID]
    vm.state, vm.role = VmState.OFF, Role("hv1")
    assert pair.fabrics["east"].describe("db").power is PowerState.RUNNING
    stopped, said = _kept_off(pair.fabrics["east"], "db", Running())
    assert stopped, said
    assert vm.role.state is RoleState.OFFLINE
    assert pair.fabrics["east"].describe("db").power is PowerState.OFF


# --- readiness ------------------------------------------------------------------------------------------------


def _told(findings: list[Finding]) -> list[str]:
    return [finding.what for finding in findings if finding.severity is not Severity.PASS]


def _change(pair: Pair, site: str, change: Callable[[Estate], Any]) -> None:
    change(pair.vmm[site].estate)


def test_a_complete_pair_is_ready_and_says_what_maps_to_what(pair: Pair) -> None:
    source, target = pair.provider.check_source(pair.forward), pair.provider.check_target(pair.forward)
    assert {finding.severity for finding in source + target} == {Severity.PASS}, source + target
    said = [finding.what for finding in source + target]
    assert "in cloud 'Gold', on hv1.example" in said
    assert "mappings complete: cloud 'Gold' of east → cloud 'Recovery', VM networks" in said
    for site, fabric in pair.fabrics.items():
        assert {finding.severity for finding in fabric.check()} == {Severity.PASS}, site


@pytest.mark.parametrize(
    ("change", "severity", "what"),
    [
        (lambda pair: pair.vmm["east"].belongs("db", None), Severity.FAIL, "it is in no cloud"),
        (
            lambda pair: pair.vmm["east"].belongs("db", "Bronze"),
            Severity.FAIL,
            "it is in cloud 'Bronze', but the inventory says 'Gold'",
        ),
        (
            lambda pair: pair.vmm["east"].estate.clouds["Gold"].capability_profiles.remove("Hyper-V"),
            Severity.FAIL,
            "it has no Hyper-V capability profile (none)",
        ),
        (lambda pair: pair.vmm["east"].estate.clouds.clear(), Severity.FAIL, "there is no cloud 'Gold'"),
        (
            lambda pair: setattr(pair.world.hosts["hv1"].vms[ID], "switch", "isolated"),
            Severity.WARN,
            "it is connected to VM network Test VMs, but its mapping is that of 'production'",
        ),
        (
            lambda pair: setattr(pair.vmm["east"], "refreshes", False),
            Severity.WARN,
            "VMM does not know virtual machine 'db'",
        ),
        (lambda pair: setattr(pair.servers["east"], "unreachable", True), Severity.WARN, "it does not answer"),
    ],
)
def test_what_vmm_knows_against_the_source_is_told(
    pair: Pair, change: Callable[[Pair], None], severity: Severity, what: str
) -> None:
    change(pair)
    findings = pair.provider.check_source(pair.forward)
    assert [(f.severity, f.what) for f in findings if f.severity is not Severity.PASS] == [(severity, what)]
    assert all(finding.remedy for finding in findings if finding.severity is not Severity.PASS)


@pytest.mark.parametrize(
    ("change", "severity", "what"),
    [
        (
            lambda estate: estate.clouds["Recovery"].capability_profiles.__setitem__(0, "ESX Server"),
            Severity.FAIL,
            "it has no Hyper-V capability profile (ESX Server)",
        ),
        (lambda estate: estate.clouds["Recovery"].groups.clear(), Severity.FAIL, "it is made of no host group"),
        (
            lambda estate: estate.vm_networks.pop("Production VMs"),
            Severity.FAIL,
            "there is no VM network 'Production VMs'",
        ),
        (
            lambda estate: estate.clouds["Recovery"].logical_networks.remove("Isolated"),
            Severity.FAIL,
            "logical network 'Isolated' of VM network 'Test VMs' is not in cloud 'Recovery'",
        ),
        (
            lambda estate: estate.hosts["hv4.example"].logical_networks.remove("Isolated"),
            Severity.WARN,
            "logical network 'Isolated' is not on it",
        ),
        (
            lambda estate: [host.logical_networks.remove("Frontend") for host in estate.hosts.values()],
            Severity.FAIL,
            "logical network 'Frontend' is not on it",
        ),
    ],
)
def test_what_vmm_knows_against_the_target_is_told(
    pair: Pair, change: Callable[[Estate], None], severity: Severity, what: str
) -> None:
    _change(pair, "west", change)
    findings = pair.provider.check_target(pair.forward)
    assert (severity, what) in [(finding.severity, finding.what) for finding in findings]
    complete = any(finding.what.startswith("mappings complete") for finding in findings)
    assert complete is (severity is Severity.WARN)


def test_rules_of_protection_do_not_stand_in_the_way_of_a_failover(pair: Pair) -> None:
    """A planned or unplanned failover refuses on findings of severity ``fail``."""
    protected(pair)
    pair.vmm["east"].belongs("db", None)
    for site, cloud in (("east", "Gold"), ("west", "Recovery")):
        pair.vmm[site].estate.clouds[cloud].capability_profiles.clear()
        pair.vmm[site].estate.clouds[cloud].logical_networks.clear()
    later = looking_anew(pair)
    findings = later.check_source(pair.forward) + later.check_target(pair.forward)
    assert {"it is in no cloud", "it has no Hyper-V capability profile (none)"} < set(_told(findings))
    assert Severity.FAIL not in {finding.severity for finding in findings}


def test_a_network_that_the_replicas_own_host_does_not_carry_does(pair: Pair) -> None:
    protected(pair)
    pair.vmm["west"].estate.hosts["hv3.example"].logical_networks.remove("Frontend")
    findings = looking_anew(pair).check_target(pair.forward)
    assert (Severity.FAIL, "logical network 'Frontend' is not on it") in [(f.severity, f.what) for f in findings]


def test_a_host_outside_the_cloud_is_told_by_the_sites_check(pair: Pair) -> None:
    pair.vmm["west"].estate.hosts["hv4.example"] = (
        pair.vmm["west"].estate.hosts["hv4.example"].model_copy(update={"group": "Elsewhere"})
    )
    assert _told(pair.fabrics["west"].check()) == ["its host group 'Elsewhere' is not in cloud 'Recovery'"]


# --- failing over ---------------------------------------------------------------------------------------------


def looking_anew(pair: Pair) -> HyperVReplicaProvider:
    """As when what VMM said has grown old."""
    return HyperVReplicaProvider({site: pair.fabric(site) for site in pair.fabrics}.__getitem__, pair.inventory)


def placed(pair: Pair, relationship: Relationship) -> Relationship:
    """As the job does after it asked the target."""
    server = pair.provider.place_replica(relationship)
    return relationship.model_copy(update={"replica_server": server})


def protected(pair: Pair) -> Pair:
    pair.provider.enable(placed(pair, pair.forward))
    pair.provider.copy_initial(pair.forward, quiet)
    return pair


def test_a_replica_is_placed_on_the_host_with_room_and_stays_there(pair: Pair) -> None:
    hv4 = pair.world.hosts["hv4"]
    hv4.facts = hv4.facts.model_copy(update={"volumes": [Volume(path="D:\\", free=2**42, size=2**43)]})
    protected(pair)
    assert pair.world.settings[-1].replica_server == "hv4.example"
    assert ID in hv4.vms
    hv4.facts = hv4.facts.model_copy(update={"volumes": [Volume(path="D:\\", free=2**36, size=2**43)]})
    assert pair.fabric("west").place_replica(pair.forward) == "hv4.example"


def test_protection_is_refused_when_no_host_can_take_the_replica(pair: Pair) -> None:
    for name, host in pair.vmm["west"].estate.hosts.items():
        pair.vmm["west"].estate.hosts[name] = host.model_copy(update={"maintenance": True})
    with pytest.raises(InvalidState, match=r"hv3\.example: it is in maintenance mode; hv4\.example: it is in"):
        pair.fabrics["west"].place_replica(pair.forward)
    assert any("maintenance mode" in finding for finding in _told(pair.provider.check_target(pair.forward)))


def test_a_failed_over_machine_is_on_the_mapped_vm_network_and_in_the_mapped_cloud(pair: Pair) -> None:
    protected(pair)
    pair.vmm["west"].refreshes = False
    east, west = pair.fabrics["east"], pair.fabrics["west"]
    assert east.shut_down("db", 60, quiet) is PowerState.OFF
    point = pair.provider.send_last_changes(pair.forward, quiet)
    pair.provider.fail_over(pair.forward, point.id, quiet)
    replica = pair.world.hosts["hv3"].vms[ID]
    assert replica.switch == "vProd"
    (machine,) = west.server.machines(["db"])
    assert (machine.cloud, machine.adapters[0].vm_network) == ("Recovery", "Production VMs")

    pair.provider.commit(pair.forward, point.id)
    west.start("db")
    pair.provider.prepare_reverse(pair.backward)
    pair.provider.enable(placed(pair, pair.backward))
    pair.provider.copy_initial(pair.backward, quiet)
    assert pair.world.settings[-1].replica_server == "hv1.example"
    west.shut_down("db", 60, quiet)
    back = pair.provider.send_last_changes(pair.backward, quiet)
    pair.provider.fail_over(pair.backward, back.id, quiet)
    (home,) = east.server.machines(["db"])
    assert (home.cloud, home.host) == ("Gold", "hv1.example")


def test_a_test_copy_is_on_the_test_vm_network_and_leaves_production_alone(pair: Pair) -> None:
    protected(pair)
    pair.provider.start_test(pair.forward, LATEST, "db-test", quiet)
    copy = pair.world.hosts["hv3"].named("db-test")
    assert copy.switch == "isolated"
    assert pair.world.hosts["hv1"].vms[ID].switch == "vProd"
    (machine,) = pair.fabrics["west"].server.machines(["db-test"])
    assert (machine.cloud, machine.adapters[0].vm_network) == ("Recovery", "Test VMs")


def test_a_machine_that_vmm_does_not_see_yet_is_tried_again(pair: Pair) -> None:
    with pytest.raises(Busy, match=r"VMM does not find the machine .* on hv3\.example yet"):
        pair.fabrics["west"].connect("hv3", "another", pair.forward, "production")


def test_a_host_that_vmm_does_not_manage_cannot_be_connected(pair: Pair) -> None:
    _change(pair, "west", lambda estate: estate.hosts.pop("hv3.example"))
    with pytest.raises(NotFound, match="VMM does not manage host 'hv3'"):
        pair.fabrics["west"].connect("hv3", ID, pair.forward, "production")


def test_a_broker_that_the_inventory_names_places_by_itself(pair: Pair) -> None:
    settings = pair.inventory.sites["west"].hyperv
    assert settings is not None
    replica = settings.replica.model_copy(update={"server": "broker.west.example"})
    pair.inventory.sites["west"] = pair.inventory.sites["west"].model_copy(
        update={"hyperv": settings.model_copy(update={"replica": replica})}
    )
    assert pair.fabrics["west"].place_replica(pair.forward) == "broker.west.example"
    assert pair.calls() == {}


def test_a_first_copy_begins_with_the_machine_that_vmm_has_not_seen_yet(pair: Pair) -> None:
    pair.fabrics["west"].server.machines()
    pair.vmm["west"].refreshes = False
    pair.world.hosts["hv4"].vms = {ID: Vm(ID, "db", VmState.OFF)}
    existing = pair.forward.model_copy(
        update={"existing_replica": True, "identity": pair.provider.identity(pair.forward)}
    )
    assert [str(each) for each in pair.provider.check_adoption(existing) if each.severity is not Severity.PASS] == []
    there = placed(pair, existing)
    assert there.replica_server == "hv4.example"
    pair.provider.adopt_replica(there)
    pair.provider.enable(there)
    pair.provider.copy_initial(there, quiet)
    assert pair.world.settings[-1].replica_server == "hv4.example"
    assert pair.world.hosts["hv4"].vms[ID].mode is Mode.REPLICA
    assert pair.world.hosts["hv3"].vms == {}


def test_a_replica_that_moved_where_vmm_has_not_looked_stays_where_it_is(pair: Pair) -> None:
    protected(pair)
    assert pair.fabrics["west"].place_replica(pair.forward) == "hv3.example"
    pair.vmm["west"].refreshes = False
    pair.move("hv3", "hv4")
    assert pair.fabrics["west"].place_replica(pair.forward) == "hv4.example"


def test_a_restored_machine_on_a_host_outside_of_the_cloud_is_refused_with_its_host(pair: Pair) -> None:
    outside = pair.vmm["west"].estate.hosts["hv4.example"].model_copy(update={"group": "Elsewhere"})
    recovery = pair.vmm["west"].estate.clouds["Recovery"].model_copy(update={"groups": ["All Hosts\\Recovery"]})
    inside = pair.vmm["west"].estate.hosts["hv3.example"].model_copy(update={"group": "All Hosts\\Recovery"})
    _change(pair, "west", lambda estate: estate.hosts.update({"hv3.example": inside, "hv4.example": outside}))
    _change(pair, "west", lambda estate: estate.clouds.update(Recovery=recovery))
    pair.world.hosts["hv4"].vms = {ID: Vm(ID, "db", VmState.OFF)}
    existing = pair.forward.model_copy(update={"existing_replica": True, "identity": ID})
    (found,) = looking_anew(pair).check_adoption(existing)
    assert "'db' on hv4 is not where replicas are received: on hv3" in found.what
