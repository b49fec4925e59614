"""Through VMM servers with real bytes and guests: protected, moved, tested, failed over, failed back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from small_fabric import held, quiet
from vmm_fabric import FabricWithVmm

from adapters.lab.faults import Fault
from simulation.vmm.estate import estate_of
from vault.domain import LATEST, PowerState, Severity
from vault.errors import BadInput, Unreachable

pytestmark = pytest.mark.contract


@pytest.fixture
def fabric(tmp_path: Path) -> Iterator[FabricWithVmm]:
    fabric = FabricWithVmm(tmp_path)
    yield fabric
    fabric.close()


def test_a_machine_lives_through_two_vmm_servers_and_loses_nothing(fabric: FabricWithVmm) -> None:
    provider, forward, backward = fabric.provider, fabric.forward, fabric.backward
    findings = provider.check_source(forward) + provider.check_target(forward)
    findings += fabric.east.check() + fabric.west.check()
    assert [
        finding for finding in findings if finding.severity is not Severity.PASS and "GiB" not in finding.what
    ] == []
    fabric.protect()

    provider.start_test(forward, LATEST, "db-test", quiet)
    (copy,) = fabric.managed("west").server.machines(["db-test"])
    assert (copy.cloud, copy.adapters[0].vm_network) == ("Recovery", "isolated VMs")
    fabric.west.start("db-test")
    assert held(fabric.west.wait_until_answering("db-test", 20, quiet)).damaged == 0
    provider.end_test(forward, "db-test")

    fabric.fabric.move("db", "east-hv1", "east-hv2")
    assert fabric.east.find("db").host == fabric.east.hosts.names[1]
    assert fabric.east.shut_down("db", 30, quiet) is PowerState.OFF
    point = provider.send_last_changes(forward, quiet)
    found = fabric.recover(forward, point.id)
    assert (found.lost, found.damaged) == (0, 0)
    assert found.held_at_boot == found.acknowledged_at_boot > 0
    assert fabric.west.describe("db").network == "production"

    provider.commit(forward, point.id)
    provider.prepare_reverse(backward)
    provider.enable(fabric.placed(backward))
    provider.copy_initial(backward, quiet)
    assert fabric.west.shut_down("db", 30, quiet) is PowerState.OFF
    found = fabric.recover(backward, provider.send_last_changes(backward, quiet).id)
    assert (found.lost, found.damaged) == (0, 0)
    (home,) = fabric.managed("east").server.machines(["db"])
    assert (home.cloud, home.host) == ("Gold", "east-hv2.hyperv.example")


def test_a_site_that_is_lost_with_its_vmm_server_keeps_no_failover_waiting(fabric: FabricWithVmm) -> None:
    fabric.protect()
    fabric.wait_for(lambda: fabric.acknowledged() > 0)
    fabric.set_fault("east", Fault.HOST_DEAD)
    with pytest.raises(Unreachable):
        fabric.managed("east").server.machines()
    point = fabric.provider.resolve_point(fabric.forward, LATEST)
    found = fabric.recover(fabric.forward, point.id)
    assert found.damaged == 0
    assert found.held_at_boot > 0


def test_a_first_copy_begins_with_a_machine_that_was_restored_on_any_host_of_the_cloud(tmp_path: Path) -> None:
    fabric = FabricWithVmm(tmp_path, first_copy="existing")
    try:
        fabric.wait_for(lambda: fabric.acknowledged() > 0)
        assert fabric.east.shut_down("db", 30, quiet) is PowerState.OFF
        fabric.fabric.restore("db", "east-hv1", "west-hv2")
        fabric.east.start("db")
        existing = fabric.placed(fabric.forward)
        fabric.provider.adopt_replica(existing)
        fabric.protect()
        assert fabric.west.find("db").host == fabric.west.hosts.names[1]
        assert fabric.east.shut_down("db", 30, quiet) is PowerState.OFF
        found = fabric.recover(fabric.forward, fabric.provider.send_last_changes(fabric.forward, quiet).id)
        assert (found.lost, found.damaged) == (0, 0)
    finally:
        fabric.close()


def test_an_estate_is_made_of_an_inventory_whose_site_has_a_server(fabric: FabricWithVmm) -> None:
    west = estate_of(fabric.inventory, "west", ["a", "b"])
    assert (list(west.clouds), west.members, list(west.hosts)) == (["Recovery"], {}, ["a", "b"])
    assert estate_of(fabric.inventory, "east", ["a"]).members == {"db": "Gold"}
    without = fabric.inventory.model_copy(
        update={"sites": {"east": fabric.inventory.sites["east"].model_copy(update={"vmm": None})}}
    )
    with pytest.raises(BadInput, match="site 'east' has no VMM server"):
        estate_of(without, "east", ["a"])
