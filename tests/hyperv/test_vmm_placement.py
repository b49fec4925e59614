"""Which host of a cloud takes a replica, and what is said when none can."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.vmm.facts import CapabilityProfile, Cloud, DiskDrive, ManagedHost, ManagedMachine, VmNetwork
from adapters.vmm.placement import OnTheirWay, place
from vault.errors import InvalidState

pytestmark = pytest.mark.unit

GIB = 2**30
NETWORK = VmNetwork(id="1", name="Production VMs", logical_network="Frontend")


def host(name: str, **changes: Any) -> ManagedHost:
    fields = {
        "id": name,
        "name": name,
        "computer_name": name,
        "host_group": "All Hosts\\Recovery",
        "platform": "HyperV",
        "state": "OK",
        "responding": True,
        "maintenance": False,
        "available_for_placement": True,
        "available_memory": 8 * GIB,
        "available_storage": 100 * GIB,
        "logical_networks": ["Frontend"],
    }
    return ManagedHost.model_validate(fields | changes)


def test_the_host_with_most_storage_left_takes_the_replica_and_a_healthy_one_before_all() -> None:
    ailing = host("hv0", state="NeedsAttention", available_storage=999 * GIB)
    hosts = [ailing, host("hv1"), host("hv3", available_storage=200 * GIB), host("hv2", available_storage=200 * GIB)]
    assert place(hosts, NETWORK, [], [], where="vmm").name == "hv2"
    assert place([ailing], NETWORK, [], [], where="vmm").name == "hv0"


def test_a_host_that_the_replica_does_not_fit_on_is_passed_over() -> None:
    hosts = [host("hv1", state="OK"), host("hv2", state="NeedsAttention", available_storage=500 * GIB)]
    assert place(hosts, NETWORK, [], [], where="vmm").name == "hv1"
    assert place(hosts, NETWORK, [], [], where="vmm", needed=200 * GIB).name == "hv2"
    with pytest.raises(InvalidState, match=r"hv1: only 100\.0 GiB are free on it, the replica takes 600\.0 GiB"):
        place(hosts, NETWORK, [], [], where="vmm", needed=600 * GIB)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"platform": "VMWareESX"}, "not a Hyper-V host but VMWareESX"),
        ({"responding": False, "state": "NotResponding"}, r"does not respond to VMM \(NotResponding\)"),
        ({"maintenance": True}, "in maintenance mode"),
        ({"available_for_placement": False}, "VMM may not place machines on it"),
        ({"logical_networks": ["Storage"]}, "logical network 'Frontend' of VM network 'Production VMs' is not on it"),
        ({"available_storage": 9 * GIB}, r"only 9\.0 GiB are free on it"),
    ],
)
def test_a_host_that_can_take_no_replica_is_passed_over(change: dict[str, Any], reason: str) -> None:
    unfit = host("hv1", **{"available_storage": 999 * GIB} | change)
    assert place([unfit, host("hv2")], NETWORK, [], [], where="vmm").name == "hv2"
    with pytest.raises(InvalidState, match=f"hv1: .*{reason}"):
        place([unfit], NETWORK, [], [], where="vmm")


def test_replicas_are_spread_before_their_disks_have_grown() -> None:
    disk = DiskDrive(path="D:\\r.vhdx", size=40 * GIB, file_size=GIB, controller="SCSI 0:0")
    replica = ManagedMachine(id="1", vm_id="1", name="a", host="hv1", status="PowerOff", generation=2, disks=[disk])
    hosts = [host("hv1"), host("hv2")]
    assert place(hosts, NETWORK, [replica], [], where="vmm").name == "hv2"
    assert place(hosts, NETWORK, [replica, replica.model_copy(update={"host": "hv2"})], [], where="vmm").name == "hv1"


def test_replicas_that_are_placed_at_once_share_what_is_left() -> None:
    hosts, placed = [host("hv1", available_storage=300 * GIB), host("hv2")], list[str]()
    for _ in range(8):
        placed.append(place(hosts, NETWORK, [], placed, where="vmm").name)
    assert (placed.count("hv1"), placed.count("hv2")) == (6, 2)


def test_a_replica_on_its_way_counts_until_vmm_sees_it_or_nobody_made_it() -> None:
    now = [0.0]
    placing, hosts = OnTheirWay(lambda: now[0]), [host("hv1"), host("hv2")]

    def place_on(machine: str, *seen: ManagedMachine, among: list[ManagedHost] = hosts) -> str:
        return placing.place(machine, among, NETWORK, seen, where="vmm").name

    assert [place_on("a"), place_on("b"), place_on("a")] == ["hv1", "hv2", "hv1"]
    assert place_on("a", among=[host("hv1", maintenance=True), host("hv2")]) == "hv2"
    seen = ManagedMachine(id="1", vm_id="1", name="A", host="hv2", status="PowerOff", generation=2)
    assert place_on("c", seen) == "hv1"
    now[0] = 601
    assert [place_on("d"), place_on("e")] == ["hv1", "hv2"]


def test_a_cloud_without_hosts_is_no_place() -> None:
    with pytest.raises(InvalidState, match="it has no hosts"):
        place([], NETWORK, [], [], where="vmm")


def test_a_cloud_has_the_hosts_of_its_groups_and_of_those_below() -> None:
    cloud = Cloud(id="1", name="Recovery", host_groups=["All Hosts\\Recovery"])
    assert cloud.has(host("hv1"))
    assert cloud.has(host("hv1", host_group="All Hosts\\Recovery\\Rack 1"))
    assert not cloud.has(host("hv1", host_group="All Hosts\\Recovery 2"))
    assert not cloud.has(host("hv1", host_group="All Hosts"))


@pytest.mark.parametrize(
    ("profiles", "fit"),
    [
        ([], False),
        ([CapabilityProfile(name="ESX Server", fabric="ESX")], False),
        ([CapabilityProfile(name="Hyper-V")], True),
        ([CapabilityProfile(name="Large machines", fabric="HyperV")], True),
    ],
)
def test_a_cloud_is_for_hyper_v_when_a_capability_profile_says_so(profiles: list[CapabilityProfile], fit: bool) -> None:
    assert Cloud(id="1", name="Gold", capability_profiles=profiles).is_for_hyperv is fit
