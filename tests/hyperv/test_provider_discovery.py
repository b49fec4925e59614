"""What is found on a site's hosts, and finding one machine among them."""

from __future__ import annotations

from typing import Any

import pytest
from fake_fabric import Mode, State, Vm, World
from powershell_check import reference

from adapters.hyperv.discovery import SHUTDOWN, discover, obstacles
from adapters.hyperv.facts import IntegrationService, Replication, VirtualDisk, VirtualMachine
from adapters.hyperv.hosts import HyperVHosts
from adapters.hyperv.states import (
    HEALTH,
    ROLES,
    STATES,
    ReplicationHealth,
    ReplicationMode,
    ReplicationState,
    VmState,
    power,
)
from vault.domain import PowerState, Severity
from vault.errors import InvalidState, NotFound, Unreachable

pytestmark = pytest.mark.unit


def disk(**changes: Any) -> VirtualDisk:
    fields = {"path": "D:\\vm\\data.vhdx", "size": 10, "controller": "SCSI 0:1", "kind": "Dynamic", "format": "VHDX"}
    return VirtualDisk.model_validate(fields | changes)


def machine(**changes: Any) -> VirtualMachine:
    fields = {"id": "1", "name": "db", "state": "Running", "generation": 2, "version": "12.0", "disks": [disk()]}
    return VirtualMachine.model_validate(fields | changes)


def replication(**changes: str) -> Replication:
    return Replication.model_validate({"state": "Replicating", "health": "Normal", "mode": "Primary"} | changes)


def off(component: str) -> list[IntegrationService]:
    return [IntegrationService(name="Herunterfahren", component=component, enabled=False, ok=False)]


@pytest.mark.parametrize(
    ("vm", "severity", "what"),
    [
        (machine(disks=[]), Severity.FAIL, "no disk to replicate"),
        (machine(disks=[disk(pass_through=True)]), Severity.FAIL, "physical disk of the host"),
        (machine(disks=[disk(shared=True)]), Severity.FAIL, "shared with other machines"),
        (machine(disks=[disk(format="VHDSet")]), Severity.FAIL, "shared with other machines"),
        (machine(disks=[disk(problem="in use")]), Severity.FAIL, "cannot be read: in use"),
        (machine(integration_services=off(SHUTDOWN)), Severity.WARN, "it cannot be shut down cleanly"),
        (machine(state="PausedCritical"), Severity.FAIL, "its storage is gone"),
        (machine(replication=replication(mode="ExtendedReplica")), Severity.FAIL, "another system"),
        (machine(replication=replication(mode="Replica")), Severity.FAIL, "it is a replica, of"),
        (machine(replication=replication(mode="TestReplica")), Severity.FAIL, "the copy of a test failover"),
        (machine(replication=replication(state="FailbackInProgress")), Severity.FAIL, "another system"),
        (machine(replication=replication(health="Critical", state="Error")), Severity.FAIL, "stopped by an error"),
        (machine(replication=replication()), Severity.PASS, "replicating, health Normal"),
    ],
)
def test_what_stands_in_the_way_of_protection_is_told(vm: VirtualMachine, severity: Severity, what: str) -> None:
    (finding,) = obstacles(vm)
    assert finding.severity is severity
    assert what in finding.what
    assert finding.remedy or severity is Severity.PASS


def test_an_excluded_disk_is_in_nobodys_way() -> None:
    vm = machine(disks=[disk(), disk(path="\\\\.\\PhysicalDrive3", pass_through=True)])
    assert list(obstacles(vm, ["\\\\.\\physicaldrive3"])) == []


def test_discovery_asks_each_host_twice_and_one_that_is_down_hides_no_other() -> None:
    world = World("hv1", "hv2", "hv3")
    for number, host in enumerate(world.hosts.values()):
        host.vms = {str(index): Vm(str(index), f"vm-{number}-{index}") for index in range(3)}
    world.hosts["hv2"].unreachable = True
    found = discover(HyperVHosts("east", dict(world.hosts)))
    assert [(host.host, len(host.machines), bool(host.trouble)) for host in found] == [
        ("hv1", 3, False),
        ("hv2", 0, True),
        ("hv3", 3, False),
    ]
    assert [len(host.ran) for host in world.hosts.values()] == [2, 1, 2]
    assert all(machine.can_be_protected for host in found for machine in host.machines)


@pytest.fixture
def world() -> World:
    world = World("hv1", "hv2")
    world.hosts["hv1"].vms = {"1": Vm("1", "Zahlungen [1] 'ä'")}
    return world


def test_a_machine_is_found_wherever_it_is_and_where_it_moves_to(world: World) -> None:
    hosts = HyperVHosts("east", dict(world.hosts))
    assert hosts.find("zahlungen [1] 'Ä'").host == "hv1"
    asked = len(world.hosts["hv2"].ran)
    assert hosts.find("zahlungen [1] 'Ä'").host == "hv1"
    assert len(world.hosts["hv2"].ran) == asked
    world.hosts["hv2"].vms = world.hosts["hv1"].vms
    world.hosts["hv1"].vms = {}
    assert hosts.find("zahlungen [1] 'Ä'").host == "hv2"


def test_a_machine_is_only_missing_when_every_host_says_so(world: World) -> None:
    hosts = HyperVHosts("east", dict(world.hosts))
    assert hosts.find_if_there("renamed") is None
    with pytest.raises(NotFound, match="no host has a virtual machine 'renamed'"):
        hosts.find("renamed")
    world.hosts["hv2"].unreachable = True
    with pytest.raises(Unreachable):
        hosts.find_if_there("renamed")
    assert hosts.find("Zahlungen [1] 'ä'").host == "hv1"


def test_two_machines_of_one_name_are_not_chosen_from(world: World) -> None:
    world.hosts["hv2"].vms = {"2": Vm("2", "Zahlungen [1] 'ä'")}
    with pytest.raises(InvalidState, match="2 virtual machines are called"):
        HyperVHosts("east", dict(world.hosts)).find("Zahlungen [1] 'ä'")


def test_one_measurement_of_a_host_serves_all_its_machines() -> None:
    world = World("hv1")
    host = world.hosts["hv1"]
    host.vms = {str(n): Vm(str(n), f"vm{n}", mode=Mode.PRIMARY, replication=State.REPLICATING) for n in range(25)}
    hosts = HyperVHosts("east", dict(world.hosts), clock=lambda: 0.0)
    for n in range(25):
        hosts.measure(hosts.find(f"vm{n}"), not_older_than_s=10)
    assert host.ran.count("measure_replication") == 1


def test_every_word_of_hyper_v_has_a_meaning() -> None:
    assert set(STATES) == set(ReplicationState)
    assert set(HEALTH) == set(ReplicationHealth)
    assert set(ROLES) == set(ReplicationMode)


def test_the_numbers_of_states_are_those_of_the_reference() -> None:
    """Two names of the cmdlets share a number; three values of WMI are told by no name of their own."""
    values = reference("wmi")["classes"]["Msvm_ReplicationRelationship"]["properties"]["ReplicationState"]["values"]
    known = {meaning.number for meaning in STATES.values() if meaning.number is not None}
    assert {int(number) for number in values} - known == {17}


def test_only_off_proves_that_a_machine_is_off() -> None:
    assert {state for state in VmState if power(state) is PowerState.OFF} == {VmState.OFF, VmState.OFF_CRITICAL}
    assert VmState("Hypnotized") is VmState.UNKNOWN
