"""A Hyper-V site as the hypervisor port: power, answering guests, scripts in them, networks."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from test_provider_failover import ID, Pair, inventory, quiet_beat

from adapters.hyperv.facts import VirtualMachine
from adapters.hyperv.hosts import Located
from adapters.hyperv.operations import Nothing, RunInGuest
from adapters.hyperv.states import VmState
from adapters.lab import labctl
from adapters.ports import Beat
from vault.domain import PowerState
from vault.errors import AuthorizationRefused, Busy, InvalidState, NotFound, NotRecoverable, Unreachable

pytestmark = pytest.mark.unit


@pytest.fixture
def pair() -> Pair:
    return Pair(inventory())


def test_a_machine_is_shut_down_and_seen_to_be_off(pair: Pair) -> None:
    assert pair.fabrics["east"].shut_down("db", 60, quiet_beat) is PowerState.OFF
    assert pair.fabrics["east"].shut_down("db", 60, quiet_beat) is PowerState.OFF
    assert pair.source.ran.count("stop_vm") == 1


def test_a_guest_that_refuses_is_asked_again_and_turned_off_in_the_end(pair: Pair) -> None:
    turned_off: list[bool] = []

    def stop(given: Any) -> Any:
        turned_off.append(given.turn_off)
        if not given.turn_off:
            raise NotRecoverable("the guest does not answer")
        pair.source.vm(ID).state = VmState.OFF
        return Nothing()

    pair.source._stop_vm = stop  # type: ignore[method-assign]
    assert pair.fabrics["east"].shut_down("db", 25, quiet_beat) is PowerState.OFF
    assert turned_off == [False, False, False, True]


def test_a_failover_that_is_abandoned_while_its_source_shuts_down_leaves_it_running(pair: Pair) -> None:
    """The host's job goes on without whoever waited for it, and would end when the machine was started again."""

    class Abandoned(BaseException):
        """As an activity is ended between two safe points."""

    host, looks = pair.source, 0
    ends_later: list[Any] = []

    def run_job(operation: Any, given: Any, beat: Beat, *, timeout_s: float) -> Any:
        for _ in range(3):
            try:
                beat("stop_vm runs")
            except Abandoned:
                ends_later.append(given)
                raise
        return host.run(operation, given, timeout_s=timeout_s)

    def beat(_: str) -> None:
        nonlocal looks
        looks += 1
        if looks > 2:
            raise Abandoned

    host.run_job = run_job  # type: ignore[method-assign]
    with pytest.raises(Abandoned):
        pair.fabrics["east"].shut_down("db", 60, beat)
    pair.fabrics["east"].start("db")
    for given in ends_later:
        host._stop_vm(given)
    assert host.vm(ID).state is VmState.RUNNING
    assert host.ran.count("start_vm") == 1


def test_a_machine_that_is_off_while_its_host_starts_what_ran_is_no_proof(pair: Pair) -> None:
    """It would run beside its replica."""
    db, host = pair.source.vm(ID), pair.source
    db.state, host.uptime_s = VmState.OFF, 100.0
    looked = [0]

    def host_starts_it(given: Any) -> Any:
        looked[0] += 1
        if looked[0] == 3:
            db.state = VmState.RUNNING
        return type(host)._inventory(host, given)

    host._inventory = host_starts_it  # type: ignore[method-assign]
    assert pair.fabrics["east"].shut_down("db", 60, quiet_beat) is PowerState.OFF
    assert host.ran.count("stop_vm") == 1
    with pytest.raises(Busy, match="is off, but its host was restarted just now"):
        pair.fabrics["east"].shut_down("db", 20, quiet_beat)


def test_a_machine_that_its_host_starts_with_a_delay_is_waited_for_longer() -> None:
    vm = VirtualMachine(id=ID, name="db", state=VmState.OFF, generation=2, version="12.0", automatic_start="Start")
    late = vm.model_copy(update={"automatic_start_delay_s": 600})
    assert [Located("hv1", each, 300.0).may_be_started for each in (vm, late)] == [False, True]
    assert not Located("hv1", late, 721.0).may_be_started


@pytest.mark.parametrize(("uptime_s", "automatic_start"), [(121.0, "Start"), (3.0, "Nothing")])
def test_a_machine_that_nobody_starts_is_off(pair: Pair, uptime_s: float, automatic_start: str) -> None:
    pair.source.vm(ID).state, pair.source.uptime_s = VmState.OFF, uptime_s
    pair.source.vm(ID).automatic_start = automatic_start
    assert pair.fabrics["east"].shut_down("db", 60, quiet_beat) is PowerState.OFF
    assert pair.pauses == 0


def test_a_refused_login_is_no_refusing_guest(pair: Pair) -> None:
    pair.source.fails = {"stop_vm": AuthorizationRefused("not you")}
    with pytest.raises(AuthorizationRefused):
        pair.fabrics["east"].shut_down("db", 60, quiet_beat)
    assert pair.source.vm(ID).state is VmState.RUNNING


def test_a_host_that_does_not_answer_is_no_proof(pair: Pair) -> None:
    pair.source.unreachable = True
    with pytest.raises(Unreachable):
        pair.fabrics["east"].shut_down("db", 60, quiet_beat)


def test_a_guest_answers_by_its_heartbeat(pair: Pair) -> None:
    answer = pair.fabrics["east"].wait_until_answering("db", 60, quiet_beat)
    assert (answer.address, answer.transactions) == ("192.0.2.7", None)


def test_a_guest_that_publishes_where_it_answers_is_asked_there_and_measured(pair: Pair) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        held = '{"first": 1, "last": 9, "damaged": 0, "held_at_boot": 7, "acknowledged_at_boot": 9}'
        pair.world.published = {"leeward.address": address, "leeward.transactions": held}
        answer = pair.fabrics["east"].wait_until_answering("db", 60, quiet_beat)
    assert answer.address == address
    assert answer.transactions is not None
    assert answer.transactions.lost == 2


def test_a_guest_that_does_not_answer_says_what_is_missing(pair: Pair) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    pair.world.published = {"leeward.address": f"127.0.0.1:{closed}"}
    with pytest.raises(Unreachable, match="does not accept connections"):
        pair.fabrics["east"].wait_until_answering("db", 0, quiet_beat)
    pair.source.vm(ID).state = VmState.OFF
    with pytest.raises(InvalidState, match="is off"):
        pair.fabrics["east"].wait_until_answering("db", 60, quiet_beat)


def test_a_script_in_the_guest_gets_its_login_as_a_secret() -> None:
    login = {"guest_user": ".\\dr", "guest_password": "env:GUEST"}
    pair = Pair(inventory(hyperv=login))
    seen: list[RunInGuest] = []

    def run(given: RunInGuest) -> Any:
        from adapters.hyperv.facts import GuestResult

        seen.append(given)
        return GuestResult(exit_code=3, output="x" * 70_000 + "end")

    pair.source._run_in_guest = run  # type: ignore[attr-defined]
    result = pair.fabrics["east"].run_in_guest("db", ["whoami", "ä 'b'"], {"A": "1"}, 60, quiet_beat)
    assert (result.exit_code, len(result.output), result.output[-3:]) == (3, 64 * 1024, "end")
    assert seen[0].password.get_secret_value() == "secret"
    assert "secret" not in repr(seen[0])


def test_without_a_login_no_script_runs_in_the_guest(pair: Pair) -> None:
    with pytest.raises(InvalidState, match="no login for the guest"):
        pair.fabrics["east"].run_in_guest("db", ["x"], {}, 60, quiet_beat)


def test_machines_are_described_in_the_vaults_words(pair: Pair) -> None:
    (described,) = pair.fabrics["east"].discover()
    assert (described.name, described.power, described.network) == ("db", PowerState.RUNNING, "production")
    assert [(disk.name, disk.size) for disk in described.disks] == [("os.vhdx", 2**30)]
    assert pair.fabrics["west"].free_space() == 2**38
    with pytest.raises(NotFound, match="unknown network 'dmz'"):
        pair.fabrics["east"].network_kind("dmz")


def test_only_a_machine_without_a_relationship_is_removed(pair: Pair) -> None:
    pair.protect()
    with pytest.raises(InvalidState, match="in a replication relationship"):
        pair.fabrics["east"].remove("db")
    pair.provider.disable_source(pair.forward)
    for _ in range(2):
        pair.fabrics["east"].remove("db")
    assert pair.source.vms == {}


def test_the_check_tells_of_every_host(pair: Pair) -> None:
    pair.source.facts = pair.source.facts.model_copy(update={"administrator": False})
    assert "may not manage Hyper-V" in str(pair.fabrics["east"].check()[0])
    pair.target.unreachable = True
    assert "does not answer" in str(pair.fabrics["west"].check()[0])


def test_the_lab_leaves_machines_of_hyper_v_alone(tmp_path: Path) -> None:
    assert labctl.up(inventory(), tmp_path) == []
