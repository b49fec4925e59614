"""The network is cut at every operation of a machine's whole life in turn, before it took effect and after.

What is recoverable is done again, as an activity is. Every life ends as the undisturbed one. The requests that an
operation over WinRM consists of are cut in ``test_faults_cuts.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fake_fabric import Role, State, Vm
from test_provider_failover import ID, Pair, inventory, quiet, quiet_beat

from adapters.hyperv.operations import OPERATIONS
from adapters.hyperv.states import RoleState, VmState
from vault.domain import LATEST, PowerState
from vault.errors import Recoverable, Unreachable

SEED = Path("E:\\seed")

pytestmark = pytest.mark.contract


class Cut(NamedTuple):
    at: int
    after: bool
    """The operation took effect, and its answer is lost."""


class Wire:
    """Between a site's workers and both hosts; it breaks once."""

    def __init__(self, pair: Pair, cut: Cut | None) -> None:
        self.asked: list[str] = []
        self._pair, self._cut = pair, cut
        for host in (pair.source, pair.target):
            host.run = self._through(host.run)  # type: ignore[method-assign]

    def _through(self, run: Callable[..., Any]) -> Callable[..., Any]:
        def asked(operation: Any, given: Any, *, timeout_s: float) -> Any:
            self.asked.append(operation.script)
            self._pair.now += 0.01
            is_cut = self._cut is not None and len(self.asked) == self._cut.at
            if is_cut and self._cut is not None and not self._cut.after:
                raise Unreachable("the network is cut")
            answer = run(operation, given, timeout_s=timeout_s)
            if is_cut:
                raise Unreachable("the network is cut")
            return answer

        return asked


def again(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Recoverable:
        return call()


def live(pair: Pair) -> list[object]:
    """Protected, tested, a failover taken back, planned there and back, unplanned, not protected any more, removed."""
    provider, forward, backward = pair.provider, pair.forward, pair.backward
    east, west = pair.fabrics["east"], pair.fabrics["west"]
    seen: list[object] = []

    def look() -> None:
        for host in (pair.source, pair.target):
            vm = host.vms.get(ID)
            seen.append(vm and (host.name, vm.mode, vm.replication, vm.state, vm.switch, vm.failed_over_to))

    def protect() -> None:
        again(lambda: provider.enable(forward))
        again(lambda: provider.copy_initial(forward, quiet))
        again(lambda: provider.finalize(forward))
        again(lambda: provider.replicate_once(forward, quiet, app_consistent=False))
        look()

    def fail_over(way: Any, source: Any, target: Any) -> None:
        assert again(lambda: source.shut_down("db", 60, quiet_beat)) is PowerState.OFF
        point = again(lambda: provider.send_last_changes(way, quiet))
        again(lambda: provider.fail_over(way, point.id, quiet))
        again(lambda: target.start("db"))
        again(lambda: target.wait_until_answering("db", 60, quiet_beat))
        again(lambda: provider.commit(way, point.id))
        look()

    def reverse(way: Any, old: Any) -> None:
        assert again(lambda: old.shut_down("db", 60, quiet_beat)) is PowerState.OFF
        again(lambda: provider.prepare_reverse(way))
        again(lambda: provider.enable(way))
        again(lambda: provider.copy_initial(way, quiet))
        again(lambda: provider.finalize(way))
        look()

    protect()
    again(lambda: provider.start_test(forward, LATEST, "db-test", quiet))
    again(lambda: west.start("db-test"))
    again(lambda: provider.end_test(forward, "db-test"))
    assert again(lambda: east.shut_down("db", 60, quiet_beat)) is PowerState.OFF
    point = again(lambda: provider.send_last_changes(forward, quiet))
    again(lambda: provider.fail_over(forward, point.id, quiet))
    again(lambda: provider.cancel_failover(forward))
    again(lambda: east.start("db"))
    look()
    fail_over(forward, east, west)
    reverse(backward, east)
    fail_over(backward, west, east)
    reverse(forward, west)
    again(lambda: provider.fail_over(forward, LATEST, quiet))
    again(lambda: west.start("db"))
    again(lambda: provider.commit(forward, LATEST))
    reverse(backward, east)
    again(lambda: provider.disable_source(backward))
    again(lambda: provider.disable_target(backward))
    look()
    again(lambda: west.remove("db"))
    look()
    return seen


def kept(pair: Pair) -> list[object]:
    """Each host is a node of a cluster, which keeps the machine: failed over and back, taken back, powered off."""
    provider, forward, backward = pair.provider, pair.forward, pair.backward
    east, west = pair.fabrics["east"], pair.fabrics["west"]
    pair.source.cluster_service = pair.target.cluster_service = "Running"
    pair.source.vm(ID).role = Role(pair.source.name)
    roles: list[object] = []

    def look() -> None:
        for host in (pair.source, pair.target):
            vm = host.vm(ID)
            assert vm.role is not None
            roles.append((vm.state, vm.role.state))
        assert roles[-2:].count((VmState.RUNNING, RoleState.ONLINE)) <= 1, "two clusters keep it running"

    def stop(fabric: Any) -> None:
        assert again(lambda: fabric.shut_down("db", 60, quiet_beat)) is PowerState.OFF
        look()

    again(lambda: provider.enable(forward))
    again(lambda: provider.copy_initial(forward, quiet))
    stop(east)
    point = again(lambda: provider.send_last_changes(forward, quiet))
    again(lambda: provider.fail_over(forward, point.id, quiet))
    again(lambda: west.start("db"))
    look()
    again(lambda: provider.cancel_failover(forward))
    again(lambda: east.start("db"))
    look()
    again(lambda: east.power_off("db"))
    assert again(lambda: east.describe("db")).power is PowerState.OFF
    point = again(lambda: provider.send_last_changes(forward, quiet))
    again(lambda: provider.fail_over(forward, point.id, quiet))
    again(lambda: west.start("db"))
    again(lambda: provider.commit(forward, point.id))
    stop(east)
    again(lambda: provider.prepare_reverse(backward))
    again(lambda: provider.enable(backward))
    again(lambda: provider.copy_initial(backward, quiet))
    look()
    return roles


def seed(pair: Pair) -> list[object]:
    """Exported, exported anew, imported, replicated."""
    provider, forward = pair.provider, pair.forward
    again(lambda: provider.enable(forward))
    again(lambda: provider.export_seed(forward, SEED, quiet))
    again(lambda: provider.export_seed(forward, SEED, quiet, restart=True))
    again(lambda: provider.import_seed(forward, SEED, quiet))
    assert again(lambda: provider.seed_missing(forward)) is None
    again(lambda: provider.copy_initial(forward, quiet))
    again(lambda: provider.finalize(forward))
    return [(host.vm(ID).mode, host.vm(ID).replication) for host in (pair.source, pair.target)]


def existing(pair: Pair) -> list[object]:
    """The first copy from a machine that was restored at the target, which stays when the protection ends."""
    provider, forward = pair.provider, pair.forward.model_copy(update={"existing_replica": True})
    pair.target.vms[ID] = Vm(ID, "db", VmState.OFF)
    again(lambda: provider.adopt_replica(forward))
    again(lambda: provider.enable(forward))
    again(lambda: provider.copy_initial(forward, quiet))
    again(lambda: provider.finalize(forward))
    seen: list[object] = [(host.vm(ID).mode, host.vm(ID).replication) for host in (pair.source, pair.target)]
    again(lambda: provider.disable_source(forward))
    again(lambda: provider.disable_target(forward))
    return [*seen, *((host.vm(ID).mode, host.vm(ID).replication) for host in (pair.source, pair.target))]


def troubled(pair: Pair) -> list[object]:
    """The policy changes, a resynchronization is needed, and an error stops what goes on."""
    provider, forward = pair.provider, pair.forward
    again(lambda: provider.enable(forward))
    again(lambda: provider.copy_initial(forward, quiet))
    changed = forward.model_copy(update={"frequency_s": 300.0})
    again(lambda: provider.replicate_once(changed, quiet, app_consistent=False))
    for state in (State.WAITING_FOR_START_RESYNCHRONIZE, State.RESYNCHRONIZE_SUSPENDED):
        pair.source.vm(ID).replication = state
        again(lambda: provider.resynchronize(changed, quiet))
    pair.source.vm(ID).replication = State.ERROR
    again(lambda: provider.copy_initial(changed, quiet))
    again(lambda: provider.finalize(changed))
    return [(pair.source.vm(ID).replication, pair.source.vm(ID).policy)]


def test_every_life_ends_as_the_undisturbed_one() -> None:
    asked = [script for life in (live, kept, seed, existing, troubled) for script in cut_everywhere(life)]
    needed = {name for name in OPERATIONS if "tracking" not in name and "point" not in name.split("_")}
    assert needed - set(asked) == {
        "changed_ranges",
        "create_checkpoint",
        "remove_checkpoint",
        "remove_switches",
        "run_in_guest",
    }


def cut_everywhere(life: Callable[[Pair], list[object]]) -> list[str]:
    pair = Pair(inventory())
    wire = Wire(pair, None)
    undisturbed = life(pair)
    for at, script in enumerate(wire.asked, 1):
        for after in (False, True):
            pair = Pair(inventory())
            Wire(pair, Cut(at, after))
            assert life(pair) == undisturbed, f"{script}, operation {at}, {'after' if after else 'before'} it"
    return wire.asked
