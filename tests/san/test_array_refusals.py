"""What an array or a group does not allow is said before anything is changed, and with what to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import pywbem

from adapters.san.ports import GroupState
from adapters.smis.errors import RETURN_VALUES
from adapters.smis.values import CopyState, Operation, ProgressStatus, ReturnValue
from simulation.arrays import cim_objects
from simulation.arrays.array import Array as SimulatedArray
from simulation.arrays.cim_methods import Answered
from simulation.arrays.cim_server import CimFault
from tests.san.house import EAST, WEST, House, house, quiet
from tests.san.pairs import POOL, until_state
from vault.domain import LATEST, Finding, PowerState, Severity
from vault.errors import (
    AuthenticationRefused,
    AuthorizationRefused,
    BadInput,
    Busy,
    InvalidState,
    LeewardError,
    NotFound,
    ResynchronizationRequired,
    Unreachable,
)

pytestmark = pytest.mark.contract


@pytest.fixture
def san(tmp_path: Path) -> Iterator[House]:
    """Two machines, off, at the primary site; their volumes are not replicated yet."""
    with house(tmp_path) as made:
        made.define("db", "web")
        yield made


@pytest.fixture
def protected(san: House) -> House:
    san.protect("db", "web")
    return san


def failures(findings: list[Finding]) -> list[str]:
    return [str(finding) for finding in findings if finding.severity is Severity.FAIL]


def prepare(san: House, *machines: str) -> None:
    for machine in machines:
        point = san.provider.send_last_changes(san.relationship(machine), quiet)
        san.provider.fail_over(san.relationship(machine), point.id, quiet)


# -- groups ------------------------------------------------------------------------------------------------------


def test_a_check_says_which_machines_move_together(protected: House) -> None:
    findings = protected.provider.check_source(protected.relationship("db"))
    assert failures(findings) == []
    assert "group payments: synchronized; it moves as a whole: db, web" in [str(finding) for finding in findings]
    assert protected.provider.moves_with(protected.relationship("web")) == ["db", "web"]


def test_volumes_of_one_machine_over_two_groups_are_refused(san: House) -> None:
    volumes = {volume.name: volume.id for volume in san.pair.east.state.volumes.values()}
    san.pair.east.create_group("payments", [volumes["db-log"], volumes["web-system"]])
    san.pair.east.create_group("other", [volumes["db-data"]])
    told = failures(san.provider.check_source(san.relationship("db")))
    assert len(told) == 1
    assert "not in the one group 'payments': db-log in payments; db-data in other" in told[0]
    assert "put them into one on the array" in told[0]
    with pytest.raises(InvalidState, match="not in the one group"):
        san.provider.enable(san.relationship("db"))
    assert [group.state for group in san.array(EAST).groups()] == [GroupState.LOCAL] * 2


def test_a_group_that_lacks_a_volume_of_a_machine_is_refused(san: House) -> None:
    volumes = {volume.name: volume.id for volume in san.pair.east.state.volumes.values()}
    san.pair.east.create_group("payments", [volumes["db-log"], volumes["web-system"]])
    with pytest.raises(InvalidState, match="does not have the volumes db-data of 'db'"):
        san.provider.enable(san.relationship("db"))


def test_volumes_of_nobody_in_the_group_are_told(san: House) -> None:
    stranger = san.pair.east.create_volume("accounting-system", POOL, 2**20)
    everything = [volume.id for volume in san.pair.east.state.volumes.values()]
    assert stranger.id in everything
    san.pair.east.create_group("payments", everything)
    san.protect("db")
    told = failures(san.provider.check_source(san.relationship("db")))
    assert len(told) == 1
    assert "would move along: accounting-system" in told[0]


def test_replicas_that_the_array_named_in_its_own_way_are_told_before_a_failover_needs_them(protected: House) -> None:
    """An array may name them after the relationship (CreateGroupReplica, ``RelationshipName``)."""
    for number, volume in enumerate(protected.pair.west.state.volumes.values(), start=1):
        volume.name = f"payments_{number}"
    told = failures(protected.provider.check_target(protected.relationship("db")))
    assert told == [
        "group payments: no replicas at recovery have the names db-log, db-data; "
        "they are payments_1, payments_2, payments_3 — "
        "give each one on the array the name of its source: by that leeward finds it"
    ]


def test_two_machines_of_a_group_can_be_protected_at_once(san: House) -> None:
    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(san.protect, machine) for machine in ("db", "web")]:
            done.result(20)
    assert len(san.array(WEST).groups()) == 1


# -- states ------------------------------------------------------------------------------------------------------


def test_a_planned_failover_with_a_suspended_link_is_refused_with_what_to_do(protected: House) -> None:
    protected.pair.do(protected.pair.east, Operation.SUSPEND)
    told = failures(protected.provider.check_source(protected.relationship("db")))
    assert len(told) == 1
    assert "is suspended; its copy is of" in told[0]
    assert "resume it on the array, or: leeward resync db" in told[0]
    with pytest.raises(InvalidState, match=r"is suspended: not everything of 'db' is at recovery.*leeward resync db"):
        protected.provider.send_last_changes(protected.relationship("db"), quiet)
    with pytest.raises(ResynchronizationRequired):
        protected.provider.replicate_once(protected.relationship("db"), quiet, app_consistent=False)
    protected.provider.resynchronize(protected.relationship("db"), quiet)
    assert failures(protected.provider.check_source(protected.relationship("db"))) == []


def test_a_lost_link_is_recoverable_and_resumed_once_it_is_back(protected: House) -> None:
    protected.pair.link.is_cut = True
    until_state(next(iter(protected.pair.east.state.groups.values())), CopyState.BROKEN)
    relationship = protected.relationship("db")
    assert "repair the link" in failures(protected.provider.check_source(relationship))[0]
    with pytest.raises(Unreachable):
        protected.provider.replicate_once(relationship, quiet, app_consistent=False)
    protected.pair.link.is_cut = False
    protected.provider.replicate_once(relationship, quiet, app_consistent=False)
    assert protected.array(WEST).groups()[0].state is GroupState.SYNCHRONIZED


def test_a_copy_between_two_moments_is_no_recovery_point(protected: House) -> None:
    group = next(iter(protected.pair.east.state.groups.values()))
    protected.pair.east.mirror.enter_both(group, CopyState.UNSYNCHRONIZED)
    relationship = protected.relationship("db")
    assert protected.provider.recovery_points(relationship) == []
    assert "between two moments" in failures(protected.provider.check_target(relationship))[0]
    with pytest.raises(NotFound, match="between two moments"):
        protected.provider.fail_over(relationship, LATEST, quiet)
    assert not protected.pair.at_west.active


def test_other_recovery_points_than_the_present_are_not_there(protected: House) -> None:
    with pytest.raises(NotFound, match="an array keeps one"):
        protected.provider.resolve_point(protected.relationship("db"), "latest-app-consistent")


def test_a_group_that_is_being_failed_over_is_not_tested(protected: House) -> None:
    prepare(protected, "web")
    with pytest.raises(InvalidState, match="group 'payments' is being failed over with web"):
        protected.provider.start_test(protected.relationship("db"), LATEST, "db-test", quiet)
    prepare(protected, "db")
    with pytest.raises(InvalidState, match="is being failed over"):
        protected.provider.start_test(protected.relationship("db"), LATEST, "db-test", quiet)
    with pytest.raises(InvalidState):
        protected.provider.resynchronize(protected.relationship("db"), quiet)
    with pytest.raises(InvalidState, match="not the active side"):
        protected.provider.enable(protected.relationship("db"))


def test_both_sides_are_never_active(protected: House) -> None:
    """A failover without the source's answer needs the unplanned kind; the source then yields by itself."""
    protected.pair.link.is_cut = True
    until_state(protected.pair.at_west, CopyState.BROKEN)
    point = protected.provider.recovery_points(protected.relationship("db"))[0]
    planned = point.id.replace("mirrored", "planned")
    protected.provider.fail_over(protected.relationship("web"), planned, quiet)
    with pytest.raises(Unreachable, match="nobody knows whether the other array still takes writes"):
        protected.provider.fail_over(protected.relationship("db"), planned, quiet)
    assert not protected.pair.at_west.active
    protected.provider.fail_over(protected.relationship("db"), LATEST, quiet)
    assert protected.pair.at_west.active
    with pytest.raises(Unreachable, match="has not heard of the failover"):
        protected.provider.prepare_reverse(protected.back("db"))
    protected.pair.link.is_cut = False
    until_state(next(iter(protected.pair.east.state.groups.values())), CopyState.FAILED_OVER)
    protected.provider.prepare_reverse(protected.back("db"))
    with pytest.raises(NotFound):
        protected.site(EAST).describe("db")


# -- the array's errors ------------------------------------------------------------------------------------------

STEPS: dict[str, tuple[str, Operation | None, Callable[[House], object]]] = {
    "creating the group": ("CreateGroup", None, lambda san: san.provider.enable(san.relationship("db"))),
    "mirroring": ("CreateGroupReplica", None, lambda san: san.provider.enable(san.relationship("db"))),
    "exposing": ("ExposePaths", None, lambda san: prepare(san, "db")),
    "failing over": ("ModifyReplicaSynchronization", Operation.FAILOVER, lambda san: prepare(san, "web", "db")),
    "cloning": (
        "CreateListReplica",
        None,
        lambda san: san.provider.start_test(san.relationship("db"), LATEST, "db-test", quiet),
    ),
    "resuming": (
        "ModifyReplicaSynchronization",
        Operation.RESUME,
        lambda san: san.provider.resynchronize(san.relationship("db"), quiet),
    ),
}
NEEDS_A_MIRROR = ("exposing", "failing over", "cloning", "resuming")


@pytest.mark.parametrize("step", STEPS)
def test_an_arrays_refusal_of_any_step_is_told_and_leaves_the_source_active(san: House, step: str) -> None:
    method, operation, act = STEPS[step]
    if step in NEEDS_A_MIRROR:
        san.protect("db", "web")
    if step == "resuming":
        san.pair.do(san.pair.east, Operation.SUSPEND)
    code: int = ReturnValue.FAILED

    def refuse(called: str, given: dict[str, Any]) -> Answered | None:
        same = called == method and (operation is None or given["Operation"] == operation)
        return Answered(code) if same else None

    for server in san.servers.values():
        server.disturb = refuse
    for code in (ReturnValue.NOT_SUPPORTED, ReturnValue.TIMEOUT, ReturnValue.FAILED, ReturnValue.IN_USE, 40000):
        expected = RETURN_VALUES[code].error if code in RETURN_VALUES else InvalidState
        with pytest.raises(expected) as refused:
            act(san)
        assert refused.value.where.startswith("array ")
        assert refused.value.remedy
    for server in san.servers.values():
        server.disturb = None
    groups = [group for group in san.pair.east.state.groups.values() if group.peer]
    assert all(group.active for group in groups)
    assert san.site(EAST).describe("db").power is PowerState.OFF


LATER_STEPS: dict[str, tuple[str, Operation | None, Callable[[House], object], Callable[[House], object]]] = {
    "splitting": (
        "ModifyReplicaSynchronization",
        Operation.SPLIT,
        lambda san: san.pair.do(san.pair.east, Operation.SUSPEND),
        lambda san: san.provider.fail_over(san.relationship("db"), LATEST, quiet),
    ),
    "failing back": (
        "ModifyReplicaSynchronization",
        Operation.FAILBACK,
        lambda san: prepare(san, "db"),
        lambda san: san.provider.cancel_failover(san.relationship("db")),
    ),
    "hiding from the hosts of the target": (
        "HidePaths",
        None,
        lambda san: prepare(san, "db"),
        lambda san: san.provider.cancel_failover(san.relationship("db")),
    ),
    "hiding from the hosts of the old source": (
        "HidePaths",
        None,
        lambda san: prepare(san, "db"),
        lambda san: san.provider.prepare_reverse(san.back("db")),
    ),
    "reversing": (
        "ModifyReplicaSynchronization",
        Operation.REVERSE_ROLES,
        lambda san: prepare(san, "db"),
        lambda san: san.provider.enable(san.back("db")),
    ),
    "deleting a test copy": (
        "ReturnToStoragePool",
        None,
        lambda san: san.provider.start_test(san.relationship("db"), LATEST, "db-test", quiet),
        lambda san: san.provider.end_test(san.relationship("db"), "db-test"),
    ),
    "detaching": (
        "ModifyReplicaSynchronization",
        Operation.DETACH,
        lambda san: None,
        lambda san: san.provider.disable_source(san.relationship("db")),
    ),
    "deleting the group": (
        "DeleteGroup",
        None,
        lambda san: None,
        lambda san: san.provider.disable_source(san.relationship("db")),
    ),
    "taking volumes out of the replica's group": (
        "RemoveMembers",
        None,
        lambda san: san.provider.disable_source(san.relationship("db")),
        lambda san: san.provider.disable_target(san.relationship("db")),
    ),
    "deleting the replica": (
        "ReturnToStoragePool",
        None,
        lambda san: san.provider.disable_source(san.relationship("db")),
        lambda san: san.provider.disable_target(san.relationship("db")),
    ),
}


@pytest.mark.parametrize("step", LATER_STEPS)
def test_a_step_that_the_array_refused_can_be_repeated_and_both_sides_are_never_active(
    tmp_path: Path, step: str
) -> None:
    method, operation, begin, act = LATER_STEPS[step]
    with house(tmp_path, {"db": ("log",)}) as san:
        san.define("db")
        san.protect("db")
        begin(san)
        code: int = ReturnValue.FAILED

        def refuse(called: str, given: dict[str, Any]) -> Answered | None:
            same = called == method and (operation is None or given["Operation"] == operation)
            return Answered(code) if same else None

        for server in san.servers.values():
            server.disturb = refuse
        for code in (ReturnValue.TIMEOUT, ReturnValue.IN_USE, 40000):
            expected = RETURN_VALUES[code].error if code in RETURN_VALUES else InvalidState
            with pytest.raises(expected) as refused:
                act(san)
            assert refused.value.where.startswith("array ")
            assert refused.value.remedy
            assert sum(_is_active(array) for array in (san.pair.east, san.pair.west)) <= 1
        for server in san.servers.values():
            server.disturb = None
        act(san)
        assert sum(_is_active(array) for array in (san.pair.east, san.pair.west)) <= 1


def test_nothing_is_left_at_the_target_when_a_part_of_its_deletion_was_refused(tmp_path: Path) -> None:
    """Even when it was the last part: what is there still tells that the volumes are a replica's."""
    with house(tmp_path, {"db": ("log", "data")}) as san:
        san.define("db")
        san.protect("db")
        san.provider.disable_source(san.relationship("db"))
        assert san.pair.east.state.groups == {}
        refused = ["ReturnToStoragePool", "ReturnToStoragePool", "DeleteGroup"]
        for method in refused:
            san.servers[WEST].disturb = lambda called, _, no=method: Answered(4) if called == no else None
            with pytest.raises(InvalidState):
                san.provider.disable_target(san.relationship("db"))
        san.servers[WEST].disturb = None
        for _ in range(2):
            san.provider.disable_target(san.relationship("db"))
        assert (san.pair.west.state.groups, san.pair.west.state.volumes) == ({}, {})


def _is_active(array: SimulatedArray) -> bool:
    return any(group.active for group in array.state.groups.values() if group.peer)


BEGUN_AGAIN_BY = {
    CopyState.SUSPENDED: Operation.RESUME,
    CopyState.INACTIVE: Operation.ACTIVATE,
    CopyState.BROKEN: Operation.RESYNC_REPLICA,
    CopyState.FRACTURED: Operation.RESYNC_REPLICA,
    CopyState.SPLIT: Operation.RESYNC_REPLICA,
    CopyState.ABORTED: Operation.RESYNC_REPLICA,
}


def test_what_stopped_is_begun_again_by_the_operation_for_its_state(protected: House) -> None:
    """Each state has its own in the published method; an array refuses the others."""
    group = next(iter(protected.pair.east.state.groups.values()))
    asked: list[Operation] = []

    def listen(called: str, given: dict[str, Any]) -> None:
        if called == "ModifyReplicaSynchronization":
            asked.append(Operation(given["Operation"]))

    protected.servers[EAST].disturb = listen
    for state in BEGUN_AGAIN_BY:
        protected.pair.east.mirror.enter_both(group, state)
        protected.provider.resynchronize(protected.relationship("db"), quiet)
        assert protected.array(WEST).groups()[0].state is GroupState.SYNCHRONIZED
    assert dict(zip(BEGUN_AGAIN_BY, asked, strict=True)) == BEGUN_AGAIN_BY


def test_the_check_says_what_the_array_is_doing(protected: House, monkeypatch: pytest.MonkeyPatch) -> None:
    group = next(iter(protected.pair.east.state.groups.values()))
    for state, progress, told in (
        (CopyState.BROKEN, ProgressStatus.REQUIRES_RESYNC, r"cut off from the other array \(requires resync\)"),
        (CopyState.UNSYNCHRONIZED, ProgressStatus.PENDING, r"being copied \(\d+ %, pending\)"),
        (CopyState.SPLIT, ProgressStatus.COMPLETED, "is split; "),
        (CopyState.SUSPENDED, ProgressStatus.DORMANT, "is suspended; "),
        (CopyState.PARTITIONED, ProgressStatus.UNKNOWN, "in a state that leeward does not know; "),
    ):
        monkeypatch.setitem(cim_objects.PROGRESS, state, progress)
        protected.pair.east.mirror.enter_both(group, state)
        said = failures(protected.provider.check_source(protected.relationship("db")))
        assert re.search(told, said[0])


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (pywbem.CIM_ERR_ACCESS_DENIED, AuthorizationRefused),
        (pywbem.CIM_ERR_INVALID_NAMESPACE, BadInput),
        (pywbem.CIM_ERR_SERVER_LIMITS_EXCEEDED, Busy),
        (pywbem.CIM_ERR_SERVER_IS_SHUTTING_DOWN, Unreachable),
        (pywbem.CIM_ERR_FAILED, InvalidState),
        (pywbem.CIM_ERR_QUERY_LANGUAGE_NOT_SUPPORTED, InvalidState),
    ],
)
def test_cim_errors_are_what_they_mean(san: House, status: int, expected: type[LeewardError]) -> None:
    san.servers[EAST].disturb = lambda _, __: CimFault(status, "so it is")
    with pytest.raises(expected, match="so it is"):
        san.array(EAST).groups()
    told = failures(san.provider.check_source(san.relationship("db")))
    assert len(told) == 1


def test_a_dead_array_a_wrong_password_and_an_untrusted_certificate(san: House, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("wrong")
    with pytest.raises(AuthenticationRefused, match="refused the login"):
        san.array(EAST).groups()
    (tmp_path / "password").write_text("secret")
    storage = san.inventory.sites[EAST].storage
    assert storage is not None
    other = san.servers[WEST].certificate.certificate
    san.inventory.sites[EAST] = san.inventory.sites[EAST].model_copy(
        update={"storage": storage.model_copy(update={"ca": str(other)})}
    )
    with pytest.raises(BadInput, match="certificate is not trusted"):
        san.array(EAST).groups()
    san.servers[WEST].close()
    with pytest.raises(Unreachable):
        san.array(WEST).groups()


def test_a_job_that_stands_still_is_given_up(protected: House) -> None:
    protected.pair.west.jobs.hold.set()
    array = protected.array(WEST, job_patience_s=0.3)
    with pytest.raises(InvalidState, match=r"failover of group 'payments': job 'job-\d+' stands at 0 %"):
        array.fail_over(array.groups()[0], lambda _, __: None)
    assert not protected.pair.at_west.active


def test_an_array_that_lacks_an_operation_is_not_used(san: House, monkeypatch: pytest.MonkeyPatch) -> None:
    from simulation.arrays import cim_methods

    fewer = {one: work for one, work in cim_methods.SUPPORTED.items() if one is not Operation.FAILBACK}
    monkeypatch.setattr(cim_methods, "SUPPORTED", fewer)
    told = failures(san.provider.check_source(san.relationship("db")))
    assert told[0].startswith("array east: it cannot fail back")
