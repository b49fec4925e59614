"""Each test run gets private switches of its own on Hyper-V hosts; they go with its last copy."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_fabric import FakeHost, Vm, World
from small_fabric import FAR_HOST, SmallFabric, quiet

from adapters.hyperv.hosts import HyperVHosts
from adapters.hyperv.hypervisor import HyperVHypervisor
from adapters.hyperv.networks import SiteNetworks
from adapters.lab.definition import MachineDefinition
from adapters.lab.layout import LabLayout
from adapters.ports import MakesTestNetworks
from vault.domain import LATEST, NetworkKind, Relationship
from vault.errors import InvalidState, NotFound, Unreachable
from vault.inventory import Inventory, Network

RUN, OTHER = "20260314T020000-ab12", "20260314T020005-cd34"
ISOLATED = Network(kind=NetworkKind.ISOLATED)


@pytest.mark.unit
def test_a_runs_network_is_known_by_its_name_alone() -> None:
    networks = SiteNetworks("west", {"production": Network(), "isolated": ISOLATED, "isolated-2": ISOLATED})
    own = networks.of_run("isolated", RUN)
    assert (own, networks.kind(own), networks.switch(own)) == (f"isolated-{RUN}", "isolated", f"leeward isolated-{RUN}")
    assert networks.of_switch(networks.switch(own)) == own
    assert networks.switches_of_run(RUN) == [f"leeward isolated-{RUN}", f"leeward isolated-2-{RUN}"]
    assert (networks.switch("isolated-2"), networks.of_switch("another")) == ("isolated-2", "another")
    with pytest.raises(InvalidState, match="'production' is not isolated"):
        networks.of_run("production", RUN)
    with pytest.raises(NotFound, match="the site has: production, isolated"):
        networks.kind(f"production-{RUN}")


@pytest.mark.unit
def test_a_network_with_a_fixed_switch_keeps_it() -> None:
    fixed = Network(kind=NetworkKind.ISOLATED, switch="vTest")
    networks = SiteNetworks("west", {"isolated": fixed})
    assert (networks.of_run("isolated", RUN), networks.switches_of_run(RUN)) == ("isolated", [])
    assert (networks.switch("isolated"), networks.is_made("isolated")) == ("vTest", False)
    with pytest.raises(NotFound):
        networks.kind(f"isolated-{RUN}")


@pytest.fixture
def host() -> FakeHost:
    host = World("hv1").hosts["hv1"]
    host.vms = {name: Vm(name, name) for name in ("db-test", "app-test", "web-test")}
    return host


@pytest.fixture
def west(host: FakeHost) -> HyperVHypervisor:
    return hypervisor({"hv1": host})


def hypervisor(hosts: dict[str, FakeHost]) -> HyperVHypervisor:
    site = {"fabric": "hyperv", "networks": {"production": {}, "isolated": {"kind": "isolated"}}}
    described = {
        "version": 1,
        "sites": {"west": site | {"hyperv": {"hosts": list(hosts)}}},
        "policies": {"p": {"frequency": "30s"}},
    }
    return HyperVHypervisor(HyperVHosts("west", hosts), Inventory.model_validate(described))


def connected(west: HyperVHypervisor, copy: str, run_id: str) -> str:
    assert isinstance(west, MakesTestNetworks)
    network = west.make_test_network("isolated", run_id, copy)
    relationship = Relationship(
        machine=copy,
        source_site="east",
        target_site="west",
        target_network="production",
        test_network=network,
        frequency_s=30,
    )
    for _ in range(2):
        west.connect("hv1", copy, relationship, network)
    assert west.describe(copy).network == network
    return west.networks.switch(network)


@pytest.mark.unit
def test_copies_of_one_run_meet_and_those_of_two_do_not(host: FakeHost, west: HyperVHypervisor) -> None:
    first, second = connected(west, "db-test", RUN), connected(west, "app-test", RUN)
    other = connected(west, "web-test", OTHER)
    assert first == second != other
    west.leave_test_networks(RUN, "db-test")
    assert host.made_switches == {first, other}, "copies are on it still"
    del host.vms["db-test"], host.vms["app-test"]
    for _ in range(2):
        west.leave_test_networks(RUN, "db-test")
    assert host.made_switches == {other}


@pytest.mark.unit
def test_a_host_that_does_not_answer_is_not_taken_for_clean(host: FakeHost, west: HyperVHypervisor) -> None:
    connected(west, "db-test", RUN)
    host.unreachable = True
    with pytest.raises(Unreachable):
        west.leave_test_networks(RUN, "db-test")


@pytest.mark.unit
def test_a_dead_host_that_did_not_have_the_copy_keeps_no_clean_up_waiting() -> None:
    """Reverse replication, and the end of protection, wait for the clean-up. A host with another copy of the run is
    asked again when that one goes."""
    world = World("hv1", "hv2")
    world.hosts["hv1"].vms = {"db-test": Vm("db-test", "db-test")}
    west = hypervisor(world.hosts)
    connected(west, "db-test", RUN)
    del world.hosts["hv1"].vms["db-test"]
    world.hosts["hv2"].unreachable = True
    west.leave_test_networks(RUN, "db-test")
    assert world.hosts["hv1"].made_switches == set()


class OwnNetworks(SmallFabric):
    """The isolated networks name no switch."""

    def document(self, root: Path, east_hosts: int, rate: int) -> dict[str, object]:
        document = super().document(root, east_hosts, rate)
        sites = document["sites"]
        assert isinstance(sites, dict)
        for site in sites.values():
            del site["networks"]["isolated"]["switch"]
        return document


@pytest.mark.contract
def test_a_copy_boots_on_the_private_switch_of_its_run(tmp_path: Path) -> None:
    small = OwnNetworks(tmp_path)
    try:
        small.protect()
        findings = small.provider.check_target(small.forward)
        assert "network isolated: isolated, each test run gets a private switch" in [str(one) for one in findings]
        network = small.west.make_test_network("isolated", RUN, "db-test")
        on_its_own = small.forward.model_copy(update={"test_network": network})
        assert small.provider.start_test(on_its_own, LATEST, "db-test", quiet).network == network
        switch = f"leeward isolated-{RUN}"
        assert small.vm(FAR_HOST, "db-test").switch == switch
        small.west.start("db-test")
        assert small.west.wait_until_answering("db-test", 20, quiet).transactions is not None
        definition = MachineDefinition.load(LabLayout(tmp_path / "lab").site("west").machine("db-test"))
        assert (definition.network, definition.network_kind) == (f"{switch} on {FAR_HOST}", "isolated")
        small.west.leave_test_networks(RUN, "db-test")
        assert small.fabric.state.hosts[FAR_HOST].private_switches == [switch]
        small.provider.end_test(on_its_own, "db-test")
        small.west.leave_test_networks(RUN, "db-test")
        assert small.fabric.state.hosts[FAR_HOST].private_switches == []
    finally:
        small.close()
