"""A machine's whole life on simulated hosts: real bytes move, real guests boot, and say what they hold."""

from __future__ import annotations

import json
import os
import signal

import pytest
from small_fabric import FAR_HOST, HOST, SmallFabric, held, quiet

from adapters.hyperv.states import ReplicationMode as Mode
from adapters.hyperv.states import ReplicationState as State
from adapters.lab.layout import LabLayout
from simulation.hyperv import process
from vault.domain import LATEST, PowerState, Severity

pytestmark = pytest.mark.contract


def test_planned_failover_and_failback_lose_nothing_and_a_test_touches_nothing(small: SmallFabric) -> None:
    provider, forward, backward = small.provider, small.forward, small.backward
    findings = provider.check_source(forward) + provider.check_target(forward)
    assert {finding.severity for finding in findings} == {Severity.PASS}, findings
    small.protect()
    before = small.acknowledged()
    tested = provider.start_test(forward, LATEST, "db-test", quiet)
    small.west.start("db-test")
    copy = held(small.west.wait_until_answering("db-test", 20, quiet))
    assert (tested.network, copy.damaged) == ("isolated", 0)
    assert copy.held_at_boot > 0
    assert small.west.run_in_guest("db-test", ["/bin/sh", "-c", "echo $MACHINE"], {}, 20, quiet).output == "db-test\n"
    provider.end_test(forward, "db-test")
    assert [vm.name for vm in small.fabric.state.hosts[FAR_HOST].vms.values()] == ["db"]
    small.wait_for(lambda: small.acknowledged() > before)

    assert small.east.shut_down("db", 30, quiet) is PowerState.OFF
    point = provider.send_last_changes(forward, quiet)
    found = small.recover(forward, point.id)
    assert (found.lost, found.damaged) == (0, 0)
    assert found.held_at_boot == found.acknowledged_at_boot > 0
    provider.commit(forward, point.id)
    provider.prepare_reverse(backward)
    provider.enable(backward)
    provider.copy_initial(backward, quiet)
    assert (small.vm(FAR_HOST).mode, small.vm(HOST).mode) == (Mode.PRIMARY, Mode.REPLICA)
    assert small.vm(FAR_HOST).state is State.REPLICATING

    assert small.west.shut_down("db", 30, quiet) is PowerState.OFF
    point = provider.send_last_changes(backward, quiet)
    found = small.recover(backward, point.id)
    assert (found.lost, found.damaged) == (0, 0)
    assert small.east.describe("db").network == "production"


def test_an_unplanned_failover_holds_what_its_recovery_point_has_and_is_turned_round(small: SmallFabric) -> None:
    provider, forward, backward = small.provider, small.forward, small.backward
    small.protect()
    small.hosts.fabric.go_down(HOST)
    acknowledged = small.acknowledged()
    points = provider.recovery_points(forward)
    found = small.recover(forward, points[-1].id)
    assert 0 < found.held_at_boot <= acknowledged == found.acknowledged_at_boot
    assert found.damaged == 0
    provider.commit(forward, points[-1].id)
    provider.prepare_reverse(backward)
    provider.enable(backward)
    assert small.vm(FAR_HOST).state is State.READY_FOR_INITIAL_REPLICATION
    provider.copy_initial(backward, quiet)
    provider.finalize(backward)
    provider.disable_source(backward)
    provider.disable_target(backward)
    assert not small.fabric.state.hosts[HOST].vms


def test_the_fabric_remembers_everything_when_its_process_ends(small: SmallFabric) -> None:
    small.protect()
    remembered = small.fabric.state.model_dump(exclude={"hosts": {"__all__": {"vms": {"__all__": {"replication"}}}}})
    small.hosts.close()
    again = type(small.hosts)(small.root, small.inventory, time_scale=1)
    small.hosts, small.fabric = again, again.fabric
    small.work_anew()
    found = again.fabric.state.model_dump(exclude={"hosts": {"__all__": {"vms": {"__all__": {"replication"}}}}})
    assert found == remembered
    assert again.fabric.start_all() == ["east/db"]
    assert small.provider.recovery_points(small.forward)


def test_the_fabric_as_a_process_survives_being_killed(small: SmallFabric) -> None:
    small.protect()
    vm_id = small.vm(HOST).id
    small.hosts.close()
    try:
        assert process.start(small.root, small.vault, time_scale=1.0) == ["east/db"]
        os.kill(process_id(small), signal.SIGKILL)
        small.wait_for(lambda: not process.stop(small.root))
        assert process.start(small.root, small.vault, time_scale=1.0) == ["east/db"]
        small.work_anew()
        assert small.east.find("db").vm.id == vm_id
        assert small.provider.recovery_points(small.forward)
    finally:
        process.stop(small.root)
    assert not process.stop(small.root)


def process_id(small: SmallFabric) -> int:
    return int(json.loads((small.root / "hyperv" / "process.json").read_text())["body"]["pid"])


def test_a_changed_policy_is_the_replications_from_the_next_turn_on(small: SmallFabric) -> None:
    small.protect()
    changed = small.forward.model_copy(update={"frequency_s": 300.0})
    small.provider.replicate_once(changed, quiet, app_consistent=False)
    assert {small.vm(host).replication.frequency_s for host in (HOST, FAR_HOST)} == {300}


def test_a_change_log_that_is_sent_while_its_bytes_are_counted_counts_no_more(small: SmallFabric) -> None:
    small.fabric.ground.turn_off("east", "db")
    ground = small.fabric.ground
    folder = LabLayout(ground.lab_root).site("east").machine("db").path
    before = ground.log_bytes("east", "db")
    # Named in the folder, and not there any more when it is looked at.
    (folder / "os.gone.hrl").symlink_to(folder / "gone")
    assert ground.log_bytes("east", "db") == before
