"""Arrays that mirror each volume for itself (``CreateElementReplica``), and what an array says that it can."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.lab.faults import Fault, SiteFaults
from adapters.san.ports import GroupState, Step
from adapters.smis.values import CopyState, Operation, ReplicationType
from simulation.arrays import cim_methods, cim_objects
from tests.san.house import EAST, WEST, House, house, quiet
from tests.san.pairs import until_state
from vault.domain import LATEST, Answering, Finding, Severity
from vault.errors import InvalidState, ResynchronizationRequired

pytestmark = pytest.mark.contract
LOAD_S = 0.3


@pytest.fixture
def san(tmp_path: Path) -> Iterator[House]:
    """A machine that runs and writes to its one volume."""
    with house(tmp_path, {"db": ("system",)}, has_groups=False) as made:
        made.define("db")
        made.start(EAST, "db")
        made.protect("db")
        time.sleep(LOAD_S)
        yield made


def lost(answering: Answering) -> int:
    assert answering.transactions is not None
    assert answering.transactions.held_at_boot > 0
    assert answering.transactions.damaged == 0
    return answering.transactions.lost


def failures(findings: list[Finding]) -> list[str]:
    return [str(finding) for finding in findings if finding.severity is Severity.FAIL]


def test_a_volume_is_mirrored_failed_over_as_planned_and_back_without_loss(san: House) -> None:
    for of, back in ((san.relationship, san.back), (san.back, san.relationship)):
        assert failures(san.provider.check_source(of("db")) + san.provider.check_target(of("db"))) == []
        san.shut_down(of("db").source_site, "db")
        point = san.provider.send_last_changes(of("db"), quiet)
        san.provider.fail_over(of("db"), point.id, quiet)
        assert lost(san.start(of("db").target_site, "db")) == 0
        san.provider.prepare_reverse(back("db"))
        san.provider.enable(back("db"))
        san.provider.copy_initial(back("db"), quiet)
        san.provider.finalize(back("db"))
        time.sleep(LOAD_S)
    asked = {*san.servers[EAST].methods, *san.servers[WEST].methods}  # type: ignore[union-attr]
    assert "CreateElementReplica" in asked
    assert asked.isdisjoint({"CreateGroup", "CreateGroupReplica", "GetSupportedGroupOperations"})


def test_an_unplanned_failover_of_a_volume_loses_nothing(san: House) -> None:
    SiteFaults(san.lab_root, EAST).set(Fault.HOST_DEAD)
    san.pair.link.is_cut = True
    until_state(san.pair.at_west, CopyState.BROKEN)
    made = san.provider.fail_over(san.relationship("db"), LATEST, quiet)
    assert san.provider.fail_over(san.relationship("db"), LATEST, quiet) == made
    assert lost(san.start(WEST, "db")) == 0


def test_a_volume_is_suspended_resumed_tested_and_its_mirror_ended(san: House) -> None:
    relationship = san.relationship("db")
    san.pair.do(san.pair.east, Operation.SUSPEND)
    assert "group payments: is suspended" in failures(san.provider.check_source(relationship))[0]
    with pytest.raises(ResynchronizationRequired):
        san.provider.replicate_once(relationship, quiet, app_consistent=False)
    san.provider.resynchronize(relationship, quiet)
    san.provider.start_test(relationship, LATEST, "db-test", quiet)
    assert san.provider.replica_space(relationship) is None
    san.provider.end_test(relationship, "db-test")
    for _ in range(2):
        assert san.provider.disable_source(relationship) is None
        left = san.provider.disable_target(relationship)
        assert left == "the replica's volume stays at array west: delete it"
    assert san.array(EAST).groups() == san.array(WEST).groups() == []
    assert [volume.name for volume in san.pair.west.state.volumes.values()] == ["db-system"]
    san.protect("db")  # beside the replica of before, which has the same name
    assert san.array(WEST).groups()[0].state is GroupState.SYNCHRONIZED
    assert len(san.provider.recovery_points(relationship)) == 1


def test_several_volumes_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    with house(tmp_path, {"db": ("log",), "web": ("system",)}, has_groups=False) as san:
        san.define("db", "web")
        expected = (
            "it cannot mirror several volumes as a group, and 'payments' has db-log, web-system: they would be of "
            "different moments — put the group's disks on one volume, or use an array that mirrors groups"
        )
        for findings in (
            san.provider.check_source(san.relationship("db")),
            san.provider.check_target(san.relationship("db")),
        ):
            (told,) = failures(findings)
            assert told.endswith(expected)
        with pytest.raises(InvalidState, match="mirrors each volume for itself, and group 'payments' has 2"):
            san.provider.enable(san.relationship("db"))
        assert san.pair.west.state.volumes == {}


def test_volumes_that_are_mirrored_each_for_itself_are_no_group(tmp_path: Path) -> None:
    """Somebody has mirrored them so on the array: their copies are of different moments."""
    with house(tmp_path, {"db": ("log", "data")}, has_groups=False) as san:
        san.define("db")
        array = san.array(EAST)
        for volume in array.volumes(["db-log", "db-data"]):
            alone = array.create_group(volume.name, [volume])
            array.mirror(
                alone,
                "west",
                "west:gold",
                asynchronous=False,
                hold_writes=False,
                watch=lambda _, __: None,
            )
        told = failures(san.provider.check_source(san.relationship("db")))
        assert "not in the one group 'payments': db-log in db-log; db-data in db-data" in told[0]


# -- capabilities -------------------------------------------------------------------------------------------------


def test_an_array_that_mirrors_asynchronously_only_is_asked_for_those_operations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only = [ReplicationType.ASYNCHRONOUS_MIRROR_REMOTE]
    for module in (cim_objects, cim_methods):
        monkeypatch.setattr(module, "mirror_types", lambda _: only)
    with house(tmp_path / "later", {"db": ("log",)}, mode="asynchronous") as san:
        san.define("db")
        assert san.array(EAST).supports(asynchronous=True) >= {Step.FAIL_OVER, Step.MIRROR_ASYNCHRONOUSLY}
        assert Step.MIRROR_ASYNCHRONOUSLY not in san.array(EAST).supports()
        relationship = san.relationship("db")
        assert failures(san.provider.check_source(relationship) + san.provider.check_target(relationship)) == []
        san.protect("db")
        assert san.array(WEST).groups()[0].asynchronous
    with house(tmp_path / "at-once", {"db": ("log",)}) as san:
        san.define("db")
        (told,) = failures(san.provider.check_source(san.relationship("db")))
        assert "leeward cannot mirror synchronously to another array" in told


def test_what_an_array_cannot_do_with_asynchronous_groups_is_told_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = cim_methods.CimMethods._operations

    def fewer(methods: cim_methods.CimMethods, given: dict[str, Any], told_as: str) -> cim_methods.Answered:
        answered = real(methods, given, told_as)
        if given["ReplicationType"] == ReplicationType.ASYNCHRONOUS_MIRROR_REMOTE:
            kept = [one for one in answered.out[told_as] if one != Operation.REVERSE_ROLES]
            return answered._replace(out={told_as: kept})
        return answered

    monkeypatch.setattr(cim_methods.CimMethods, "_operations", fewer)
    for mode, expected in (("asynchronous", ["array east: it cannot reverse roles"]), ("synchronous", [])):
        with house(tmp_path / mode, {"db": ("log",)}, mode=mode) as san:
            san.define("db")
            told = failures(san.provider.check_source(san.relationship("db")))
            assert [one.partition(" — ")[0] for one in told] == expected
