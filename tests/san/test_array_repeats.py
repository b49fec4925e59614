"""What comes after a lost answer or a crash: nothing is done without the source that did not have to be, nothing of
others is touched, nothing is left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pywbem

from adapters.ports import ReplicationProvider
from adapters.registry import Adapters
from adapters.san import watching
from adapters.san.ports import GroupState
from adapters.smis.values import CopyState, Operation, ProgressStatus, ReturnValue
from simulation.arrays import cim_objects
from simulation.arrays.cim_methods import Answered
from simulation.arrays.cim_server import CimFault
from simulation.arrays.operations import create_mirror
from simulation.arrays.state import Group
from simulation.arrays.wire import Frame
from simulation.listening import basic_login
from tests.san.house import EAST, WEST, House, house, quiet
from tests.san.pairs import MIB, POOL, until_state
from vault.domain import LATEST, Progress, Severity
from vault.errors import InvalidState, PeerUnreachable, ResynchronizationRequired, Unreachable

pytestmark = pytest.mark.contract


@pytest.fixture
def san(tmp_path: Path) -> Iterator[House]:
    """One machine, off; its volumes are not replicated yet."""
    with house(tmp_path, {"db": ("log", "data")}) as made:
        made.define("db")
        yield made


@pytest.fixture
def protected(san: House) -> House:
    san.protect("db")
    return san


class Asked:
    """The operations on groups that an array was asked for."""

    def __init__(self, san: House, site: str) -> None:
        self.operations: list[Operation] = []
        self.faults: dict[str, CimFault | Answered] = {}
        """By method: what comes instead of its next answer."""
        san.servers[site].disturb = self

    def __call__(self, method: str, given: dict[str, Any]) -> CimFault | Answered | None:
        if method == "ModifyReplicaSynchronization":
            self.operations.append(Operation(given["Operation"]))
        return self.faults.pop(method, None)


GONE = CimFault(pywbem.CIM_ERR_SERVER_IS_SHUTTING_DOWN, "the provider is being restarted")


# -- without the source -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("silent", ["ModifyReplicaSynchronization", "GetInstance"])
def test_an_array_that_does_not_answer_itself_is_no_reason_to_go_on_without_its_peer(
    protected: House, silent: str
) -> None:
    """Whether the source's array can be asked, only the target's array knows: it was not heard."""
    asked = Asked(protected, WEST)
    asked.faults[silent] = GONE
    with pytest.raises(Unreachable, match="is being restarted"):
        protected.provider.fail_over(protected.relationship("db"), LATEST, quiet)
    assert asked.operations == [Operation.FAILOVER]
    protected.provider.fail_over(protected.relationship("db"), LATEST, quiet)
    assert Operation.SPLIT not in asked.operations
    assert protected.pair.at_west.active


def test_a_forced_failover_goes_on_where_it_was_interrupted(protected: House) -> None:
    protected.pair.link.is_cut = True
    until_state(protected.pair.at_west, CopyState.BROKEN)
    asked, relationship = Asked(protected, WEST), protected.relationship("db")
    asked.faults["ExposePaths"] = GONE
    with pytest.raises(Unreachable):
        protected.provider.fail_over(relationship, LATEST, quiet)
    protected.provider.fail_over(relationship, LATEST, quiet)
    assert asked.operations == [Operation.SPLIT, Operation.FAILOVER]


def test_a_group_that_is_split_is_not_split_again(protected: House) -> None:
    """An array may refuse that: there is nothing to split."""
    protected.pair.do(protected.pair.east, Operation.SPLIT)
    asked = Asked(protected, WEST)
    protected.provider.fail_over(protected.relationship("db"), LATEST, quiet)
    assert asked.operations == [Operation.FAILOVER]


def test_a_planned_failover_moves_no_group_that_has_stopped_meanwhile(protected: House) -> None:
    """An array fails a suspended group over as well: to what the target had when it was suspended."""
    point = protected.provider.send_last_changes(protected.relationship("db"), quiet)
    protected.pair.do(protected.pair.east, Operation.SUSPEND)
    asked = Asked(protected, WEST)
    with pytest.raises(InvalidState, match=r"'payments' is suspended.*leeward resync db"):
        protected.provider.fail_over(protected.relationship("db"), point.id, quiet)
    assert asked.operations == []


def test_a_planned_failover_does_not_ask_an_array_that_is_cut_off(protected: House) -> None:
    """It may well do it: that is what a failover is for. The other side would go on taking writes."""
    point = protected.provider.send_last_changes(protected.relationship("db"), quiet)
    protected.pair.link.is_cut = True
    until_state(protected.pair.at_west, CopyState.BROKEN)
    asked = Asked(protected, WEST)
    with pytest.raises(PeerUnreachable, match="nobody knows whether the other array still takes writes"):
        protected.provider.fail_over(protected.relationship("db"), point.id, quiet)
    assert asked.operations == []


def test_the_point_of_a_failover_is_of_its_moment_whenever_it_is_asked_for(protected: House) -> None:
    relationship = protected.relationship("db")
    protected.provider.fail_over(relationship, LATEST, quiet)
    before = protected.provider.recovery_points(relationship)
    time.sleep(0.05)
    assert protected.provider.recovery_points(relationship) == before


def test_a_silent_peer_is_told_as_the_peer(protected: House) -> None:
    protected.pair.link.is_cut = True
    until_state(protected.pair.at_west, CopyState.BROKEN)
    west = protected.array(WEST)
    with pytest.raises(PeerUnreachable, match=r"the other array did not answer|nobody knows"):
        west.fail_over(west.groups()[0], lambda _, __: None)


# -- volumes of the same name -------------------------------------------------------------------------------------


def test_a_replica_is_taken_from_its_group_whatever_else_has_its_name(san: House) -> None:
    """Names of volumes are not unique on an array."""
    san.protect("db")
    namesake = san.pair.west.create_volume("db-log", POOL, MIB)
    point = san.provider.send_last_changes(san.relationship("db"), quiet)
    san.provider.fail_over(san.relationship("db"), point.id, quiet)
    assert san.pair.west.state.volumes[namesake.id].hosts == {}
    shown = {volume.id for volume in san.pair.west.state.volumes.values() if volume.hosts}
    assert shown == set(san.pair.at_west.volumes)
    san.provider.prepare_reverse(san.back("db"))
    san.provider.enable(san.back("db"))
    san.provider.copy_initial(san.back("db"), quiet)


def test_ending_a_protection_deletes_no_namesake(protected: House) -> None:
    namesake = protected.pair.west.create_volume("db-log", POOL, MIB)
    protected.provider.disable_source(protected.relationship("db"))
    with pytest.raises(InvalidState, match="there are several volumes db-log"):
        protected.provider.disable_target(protected.relationship("db"))
    assert len(protected.pair.west.state.volumes) == 3
    protected.pair.west.state.volumes[namesake.id].name = "accounting"
    assert protected.provider.disable_target(protected.relationship("db")) is None
    assert list(protected.pair.west.state.volumes) == [namesake.id]


def test_ending_a_protection_deletes_no_volumes_that_a_machine_is_registered_on(protected: House) -> None:
    """An array may forget a group that is failed over: then its target's volumes are those of the machine itself."""
    point = protected.provider.send_last_changes(protected.relationship("db"), quiet)
    protected.provider.fail_over(protected.relationship("db"), point.id, quiet)
    protected.pair.do(protected.pair.west, Operation.REVERSE_ROLES)
    protected.pair.do(protected.pair.west, Operation.DETACH)
    with pytest.raises(InvalidState, match="'db' is registered at recovery on the volumes"):
        protected.provider.disable_target(protected.relationship("db"))
    assert len(protected.pair.west.state.volumes) == 2


def test_a_protection_of_a_group_that_is_failed_over_is_ended_only_once_it_is_reversed(protected: House) -> None:
    point = protected.provider.send_last_changes(protected.relationship("db"), quiet)
    protected.provider.fail_over(protected.relationship("db"), point.id, quiet)
    with pytest.raises(InvalidState, match=r"is failed over.*reverse"):
        protected.provider.disable_source(protected.relationship("db"))


def test_a_machine_whose_volumes_are_gone_can_still_be_given_up(protected: House) -> None:
    """Ending a protection needs the group alone."""
    described = protected.inventory.machines["db"]
    assert described.san is not None
    renamed = described.san.model_copy(update={"volumes": {"log": "gone", "data": "db-data"}})
    protected.inventory.machines["db"] = described.model_copy(update={"san": renamed})
    protected.provider.disable_source(protected.relationship("db"))
    assert protected.pair.east.state.groups == {}


def test_what_stays_when_a_protection_ends_is_told(workers: tuple[House, ReplicationProvider]) -> None:
    san, _ = workers
    san.protect("db", "web")
    goes_on = "the mirror of group 'payments' at array {} goes on: it protects web"
    assert san.provider.disable_source(san.relationship("db")) == goes_on.format("east")
    assert san.provider.disable_target(san.relationship("db")) == goes_on.format("west")


def test_a_mirror_whose_other_array_is_lost_is_ended_by_hand_and_then_by_leeward(protected: House) -> None:
    protected.pair.link.is_cut = True
    until_state(next(iter(protected.pair.east.state.groups.values())), CopyState.BROKEN)
    with pytest.raises(PeerUnreachable, match="or detach group 'payments' on the array, then: leeward disable db"):
        protected.provider.disable_source(protected.relationship("db"))
    protected.pair.do(protected.pair.east, Operation.DETACH, force=True)
    assert protected.provider.disable_source(protected.relationship("db")) is None
    assert protected.pair.east.state.groups == {}


def test_a_group_that_is_still_mirrored_is_told_when_its_source_could_not_be_asked(protected: House) -> None:
    """As with ``--source-unreachable`` after a site was lost: the machine runs on the replica's volumes."""
    protected.pair.link.is_cut = True
    until_state(protected.pair.at_west, CopyState.BROKEN)
    relationship = protected.relationship("db")
    told = protected.provider.disable_target(relationship)
    assert told is not None
    assert "and its volumes stay at array west, cut off from the other array; end the mirror" in told
    protected.provider.fail_over(relationship, LATEST, quiet)
    told = protected.provider.disable_target(relationship)
    assert told is not None
    assert "failed over: 'db' is registered on its volumes" in told
    assert len(protected.pair.west.state.volumes) == 2


# -- test copies --------------------------------------------------------------------------------------------------


def test_an_array_deletes_no_volume_that_a_host_sees_so_clean_up_hides_it_first(protected: House) -> None:
    relationship = protected.relationship("db")
    protected.provider.start_test(relationship, LATEST, "db-test", quiet)
    asked = Asked(protected, WEST)
    asked.faults["ReturnToStoragePool"] = Answered(ReturnValue.FAILED)
    with pytest.raises(InvalidState):
        protected.provider.end_test(relationship, "db-test")
    assert all(not volume.hosts for volume in protected.pair.west.state.volumes.values())
    protected.provider.end_test(relationship, "db-test")
    assert len(protected.pair.west.state.volumes) == 2


def test_clean_up_detaches_clones_before_it_deletes_them(protected: House) -> None:
    """An array may delete no volume that it still has as another one's copy."""
    relationship, asked = protected.relationship("db"), Asked(protected, WEST)
    protected.provider.start_test(relationship, LATEST, "db-test", quiet)
    asked.faults["ReturnToStoragePool"] = GONE
    with pytest.raises(Unreachable):
        protected.provider.end_test(relationship, "db-test")
    protected.provider.end_test(relationship, "db-test")
    assert asked.operations == [Operation.DETACH] * 2
    assert len(protected.pair.west.state.volumes) == 2
    assert protected.array(WEST).groups()[0].state is GroupState.SYNCHRONIZED


@pytest.mark.parametrize("step", ["CreateListReplica", "ExposePaths", "EnumerateInstances"])
def test_a_test_copy_that_failed_half_way_is_made_anew_and_leaves_nothing(protected: House, step: str) -> None:
    relationship, asked = protected.relationship("db"), Asked(protected, WEST)
    asked.faults[step] = GONE
    with pytest.raises(Unreachable):
        protected.provider.start_test(relationship, LATEST, "db-test", quiet)
    protected.provider.start_test(relationship, LATEST, "db-test", quiet)
    protected.provider.end_test(relationship, "db-test")
    assert len(protected.pair.west.state.volumes) == 2


def test_volumes_of_a_machine_are_never_taken_for_those_of_a_test_copy(san: House) -> None:
    """``leeward test`` of ``db`` makes ``db-test``; who has a machine of that name keeps its volumes."""
    other = san.inventory.machines["db"].model_copy(update={"site": WEST, "target": EAST})
    assert other.san is not None
    volumes = {disk: f"db-test-{disk}" for disk in ("log", "data")}
    san.inventory.machines["db-test"] = other.model_copy(
        update={"san": other.san.model_copy(update={"group": "tests", "volumes": volumes})}
    )
    kept = san.pair.west.create_volume("db-test-log", POOL, MIB)
    san.protect("db")
    with pytest.raises(InvalidState, match=r"db-test-log .*of machine 'db-test'"):
        san.provider.start_test(san.relationship("db"), LATEST, "db-test", quiet)
    with pytest.raises(InvalidState, match=r"db-test-log .*of machine 'db-test'"):
        san.provider.end_test(san.relationship("db"), "db-test")
    assert kept.id in san.pair.west.state.volumes


# -- the first copy -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stopped", [CopyState.BROKEN, CopyState.SUSPENDED, CopyState.ABORTED])
def test_a_first_copy_that_stopped_goes_on_when_it_is_tried_again(san: House, stopped: CopyState) -> None:
    san.provider.enable(san.relationship("db"))
    (group,) = san.pair.east.state.groups.values()
    until_state(group, CopyState.SYNCHRONIZED)
    san.pair.east.mirror.enter_both(group, stopped)
    san.provider.copy_initial(san.relationship("db"), quiet)
    assert san.array(WEST).groups()[0].state is GroupState.SYNCHRONIZED


def test_a_copy_that_is_under_way_is_not_begun_again(san: House) -> None:
    """The answer to its beginning may have been lost; an array refuses a second one."""
    san.pair.east.jobs.hold.set()
    volumes = [volume.id for volume in san.pair.east.state.volumes.values()]
    create_mirror(san.pair.east, san.pair.east.create_group("payments", volumes), "west", POOL, blocks_on_failure=False)
    array, asked = san.array(EAST), Asked(san, EAST)
    array.resume(array.groups()[0], lambda _, __: None)
    assert asked.operations == []


# -- what the array is about to do --------------------------------------------------------------------------------


class Slow:
    """A failover at the target that takes until it is let go on."""

    def __init__(self, san: House, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go_on, real = threading.Event(), san.pair.west.mirror.call

        def call(group: Group, op: str, data: bytes = b"", **head: Any) -> Frame:
            assert op != "step down" or self.go_on.wait(30)
            return real(group, op, data, **head)

        monkeypatch.setattr(san.pair.west.mirror, "call", call)


def test_a_failover_that_is_still_going_on_is_taken_back_once_it_is_done(
    protected: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer was lost. Who believes the state of before starts the source, and loses it a moment later."""
    slow, array, relationship = Slow(protected, monkeypatch), protected.array(WEST), protected.relationship("db")
    asked = Asked(protected, WEST)
    asked.faults["GetInstance"] = GONE
    with pytest.raises(Unreachable):
        array.fail_over(array.groups()[0], lambda _, __: None)
    with ThreadPoolExecutor(1) as threads:
        done = threads.submit(protected.provider.cancel_failover, relationship)
        time.sleep(0.5)
        assert not done.done()
        slow.go_on.set()
        done.result(30)
    assert asked.operations == [Operation.FAILOVER, Operation.FAILBACK]
    assert (protected.pair.at_west.active, protected.array(EAST).groups()[0].is_active) == (False, True)


def test_a_failover_that_is_going_on_is_awaited_not_asked_for_again(
    protected: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, relationship, asked = Slow(protected, monkeypatch), protected.relationship("db"), Asked(protected, WEST)
    asked.faults["GetInstance"] = GONE
    with pytest.raises(Unreachable):
        protected.provider.fail_over(relationship, LATEST, quiet)
    told: list[Progress] = []

    def report(progress: Progress) -> None:
        told.append(progress)
        slow.go_on.set()

    protected.provider.fail_over(relationship, LATEST, report)
    assert asked.operations == [Operation.FAILOVER]
    assert told[0].doing == "group payments: failing over"


def test_a_failover_that_never_ends_is_told(protected: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "STANDS_STILL_S", 0.3)
    protected.pair.west.jobs.hold.set()
    array = protected.array(WEST, job_patience_s=0.3)
    with pytest.raises(InvalidState):
        array.fail_over(array.groups()[0], lambda _, __: None)
    with pytest.raises(InvalidState, match=r"'payments' is failing over for 0.3 s.*job on the array"):
        protected.provider.cancel_failover(protected.relationship("db"))


# -- what the array does not tell ---------------------------------------------------------------------------------


def test_a_synchronized_copy_is_one_of_now_whatever_moment_the_array_tells(
    protected: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``WhenSynced`` may be null."""
    monkeypatch.setattr(cim_objects.CimView, "_synchronization", _without_moment(cim_objects.CimView._synchronization))
    relationship = protected.relationship("db")
    assert len(protected.provider.recovery_points(relationship)) == 1
    assert not [one for one in protected.provider.check_target(relationship) if one.severity is Severity.FAIL]
    protected.provider.fail_over(relationship, LATEST, quiet)
    assert protected.pair.at_west.active


def test_an_asynchronous_copy_of_an_unknown_moment_is_no_recovery_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cim_objects.CimView, "_synchronization", _without_moment(cim_objects.CimView._synchronization))
    with house(tmp_path, {"db": ("log",)}, mode="asynchronous") as san:
        san.define("db")
        with pytest.raises(InvalidState, match=r"does not tell of which moment .*WhenSynced"):
            san.protect("db")


def _without_moment(real: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    return lambda view, group: {**real(view, group), "WhenSynced": None}


def test_clones_of_several_volumes_are_asked_for_as_of_one_moment(protected: House) -> None:
    """Without ``ConsistentPointInTime`` each one may be of its own."""
    asked: list[Any] = []

    def listen(method: str, given: dict[str, Any]) -> None:
        if method == "CreateListReplica":
            asked.append(given.get("ReplicationSettingData"))

    protected.servers[WEST].disturb = listen
    protected.provider.start_test(protected.relationship("db"), LATEST, "db-test", quiet)
    assert [bool(one["ConsistentPointInTime"]) for one in asked] == [True]


# -- jobs ---------------------------------------------------------------------------------------------------------


def test_a_job_that_the_array_has_forgotten_is_no_failure(protected: House) -> None:
    """What it did is seen in the group, when the step is repeated."""
    asked, relationship = Asked(protected, WEST), protected.relationship("db")
    asked.faults["GetInstance"] = CimFault(pywbem.CIM_ERR_NOT_FOUND, "no such job")
    with pytest.raises(Unreachable, match=r"has forgotten job 'job-\d+' before its end was seen"):
        protected.provider.fail_over(relationship, LATEST, quiet)
    protected.provider.fail_over(relationship, LATEST, quiet)
    assert protected.pair.at_west.active


def test_a_state_of_a_vendors_own_is_no_end_of_a_job(protected: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """``JobState`` from 32768 on is a vendor's."""
    protected.pair.west.jobs.hold.set()
    array = protected.array(WEST, job_patience_s=0.3)
    real = cim_objects.CimView.instances

    def instances(view: cim_objects.CimView, class_name: str) -> list[pywbem.CIMInstance]:
        found = real(view, class_name)
        for job in found if class_name == "CIM_ConcreteJob" else ():
            job["JobState"] = pywbem.Uint16(32769)
        return found

    monkeypatch.setattr(cim_objects.CimView, "instances", instances)
    with pytest.raises(InvalidState, match=r"stands at 0 % \(state 32769\)"):
        array.fail_over(array.groups()[0], lambda _, __: None)


# -- several workers of a site ------------------------------------------------------------------------------------


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[tuple[House, ReplicationProvider]]:
    """A house of two machines in one group, and the provider of a second worker of its sites."""
    with house(tmp_path) as made:
        made.define("db", "web")
        yield made, Adapters(made.inventory, tmp_path).provider(made.relationship("web"))


@pytest.mark.parametrize("before", ["CreateGroup", "CreateGroupReplica"])
def test_a_group_that_another_worker_mirrors_just_now_is_mirrored_once(
    workers: tuple[House, ReplicationProvider], before: str
) -> None:
    san, other = workers
    pending = [before]

    def interfere(method: str, _: dict[str, Any]) -> None:
        if method in pending:
            pending.clear()
            other.enable(san.relationship("web"))

    san.servers[EAST].disturb = interfere
    san.provider.enable(san.relationship("db"))
    for provider, machine in ((san.provider, "db"), (other, "web")):
        provider.copy_initial(san.relationship(machine), quiet)
        provider.finalize(san.relationship(machine))
    for site in (EAST, WEST):
        assert [group.name for group in san.array(site).groups()] == ["payments"]


def test_a_group_that_another_worker_has_just_made_is_used(
    workers: tuple[House, ReplicationProvider],
) -> None:
    """An array may let no two groups have one name."""
    san, _ = workers
    volumes = list(san.pair.east.state.volumes)

    def interfere(method: str, _: dict[str, Any]) -> Answered | None:
        if method != "CreateGroup":
            return None
        san.pair.east.create_group("payments", volumes)
        return Answered(ReturnValue.INVALID_PARAMETER)

    san.servers[EAST].disturb = interfere
    san.protect("db", "web")
    assert [group.name for group in san.array(EAST).groups()] == ["payments"]


# -- passwords ----------------------------------------------------------------------------------------------------


def test_a_password_that_was_renewed_is_used_without_a_restart(protected: House, tmp_path: Path) -> None:
    array = protected.array(WEST)
    array.groups()
    protected.servers[WEST].login = basic_login("leeward", "renewed")
    (tmp_path / "password").write_text("renewed\n")
    assert len(array.groups()) == 1


# -- orders that an array waits for -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asks_for", "operation"),
    [
        (ProgressStatus.REQUIRES_RESYNC, Operation.RESYNC_REPLICA),
        (ProgressStatus.REQUIRES_ACTIVATE, Operation.ACTIVATE),
    ],
)
def test_a_copy_that_waits_for_an_order_gets_it(
    protected: House, monkeypatch: pytest.MonkeyPatch, asks_for: ProgressStatus, operation: Operation
) -> None:
    """After reversing roles, say: "the relationship needs to be resynced before further copy operations"."""
    (group,) = protected.pair.east.state.groups.values()
    protected.pair.east.mirror.enter_both(group, CopyState.UNSYNCHRONIZED)
    monkeypatch.setitem(cim_objects.PROGRESS, CopyState.UNSYNCHRONIZED, asks_for)
    relationship, asked = protected.relationship("db"), list[int]()

    def listen(method: str, given: dict[str, Any]) -> None:
        if method == "ModifyReplicaSynchronization":
            asked.append(given["Operation"])
            cim_objects.PROGRESS[CopyState.UNSYNCHRONIZED] = ProgressStatus.SYNCHRONIZING

    protected.servers[EAST].disturb = listen
    with pytest.raises(ResynchronizationRequired, match="is suspended"):
        protected.provider.replicate_once(relationship, quiet, app_consistent=False)
    protected.provider.copy_initial(relationship, quiet)
    assert asked == [operation]


def test_clones_that_their_array_detaches_by_itself_have_the_moment_of_their_replica(
    protected: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then no association tells ``WhenSynced`` (feature "Synchronized clone target detaches automatically")."""
    monkeypatch.setattr(cim_objects.CimView, "_volume_synchronizations", lambda _: iter(()))
    before = datetime.now(UTC)
    made = protected.provider.start_test(protected.relationship("db"), LATEST, "db-test", quiet)
    assert before - timedelta(seconds=1) <= made.point.time <= datetime.now(UTC)
