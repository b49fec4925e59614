"""Replicas are made in the pool that their sources' pool is mapped to, and nothing is changed where that cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.san.house import EAST, WEST, House, house
from tests.san.pairs import MIB, POOL, SECOND_POOL
from vault.domain import Finding, Relationship, Severity
from vault.errors import InvalidState, NotFound
from vault.words import size

pytestmark = pytest.mark.contract
GOLD, SILVER = f"east:{POOL}", f"east:{SECOND_POOL}"
THEIR_GOLD, THEIR_SILVER = f"west:{POOL}", f"west:{SECOND_POOL}"


@pytest.fixture
def san(tmp_path: Path) -> Iterator[House]:
    """Two machines, off, at the primary site, whose volumes are in its first pool; not replicated yet."""
    with house(tmp_path) as made:
        made.define("db", "web")
        yield made


def told(findings: list[Finding], severity: Severity) -> list[str]:
    return [str(finding) for finding in findings if finding.severity is severity]


def check_target(san: House, relationship: Relationship) -> list[Finding]:
    """As the job that protects a machine asks: with what the source needs."""
    space = san.provider.replica_space(relationship)
    return san.provider.check_target(relationship.model_copy(update={"replica_space": space}))


def pools_of_replicas(san: House) -> set[str]:
    return {san.pair.west.state.volumes[volume].pool for volume in san.pair.at_west.volumes}


def nothing_was_made(san: House) -> bool:
    return san.pair.east.state.groups == {} and san.pair.west.state.volumes == {}


def test_without_a_mapping_replicas_are_made_in_the_pool_of_the_target(san: House) -> None:
    relationship = san.relationship("db")
    assert f"group payments: its replicas, {size(3 * MIB)}, go to pool {THEIR_GOLD} at recovery" in told(
        san.provider.check_source(relationship), Severity.PASS
    )
    san.protect("db", "web")
    assert pools_of_replicas(san) == {POOL}


def test_replicas_are_made_in_the_mapped_pool_and_the_checks_tell_the_pools(san: House) -> None:
    san = san.mapping((GOLD, THEIR_SILVER))
    relationship = san.relationship("db")
    assert (
        f"group payments: its replicas, {size(3 * MIB)}, go to pool {THEIR_SILVER} at recovery, mapped from {GOLD}"
        in told(san.provider.check_source(relationship), Severity.PASS)
    )
    assert f"pool {THEIR_SILVER}: {size(64 * MIB)} are free at recovery" in told(
        check_target(san, relationship), Severity.PASS
    )
    san.protect("db", "web")
    assert pools_of_replicas(san) == {SECOND_POOL}
    assert san.provider.replica_space(relationship) is None
    assert f"db: its volumes at primary are in pool {GOLD} (mapped to {THEIR_SILVER})" in told(
        san.provider.check_source(relationship), Severity.PASS
    )
    assert f"db: its volumes at recovery are in pool {THEIR_SILVER} (mapped to {GOLD})" in told(
        san.provider.check_target(relationship), Severity.PASS
    )


def test_volumes_that_are_made_anew_at_the_old_source_come_to_the_pool_that_is_mapped_there(san: House) -> None:
    """The mirror's arrays have forgotten it: the way back begins with new replicas."""
    san = san.mapping((SILVER, THEIR_GOLD))
    for name in ("db-log", "db-data", "web-system"):
        volume = san.pair.west.create_volume(name, POOL, MIB)
        san.pair.west.expose([volume.id], f"{WEST}-host")
    san.provider.enable(san.back("db"))
    group = next(group for group in san.pair.west.state.groups.values() if group.peer)
    assert {san.pair.east.state.volumes[volume].pool for volume in group.peer_volumes} == {SECOND_POOL}


def test_a_full_pool_is_told_before_anything_is_made(san: House) -> None:
    san = san.mapping((GOLD, THEIR_SILVER))
    filling = san.pair.west.create_volume("other", SECOND_POOL, 62 * MIB)
    (failure,) = told(check_target(san, san.relationship("db")), Severity.FAIL)
    assert failure.startswith(
        f"pool {THEIR_SILVER}: only {size(2 * MIB)} are free, but the replicas of group 'payments' take {size(3 * MIB)}"
    )
    assert "map the pool of their sources to another one" in failure
    san.pair.west.delete_volume(filling.id)
    assert told(check_target(san, san.relationship("db")), Severity.FAIL) == []


def test_a_mapped_pool_that_the_array_does_not_have_is_told(san: House) -> None:
    wrong = san.mapping((GOLD, "west:sliver"))
    for findings in (
        check_target(wrong, wrong.relationship("db")),
        wrong.provider.check_target(wrong.relationship("db")),
    ):
        (failure,) = told(findings, Severity.FAIL)
        assert failure.startswith("pool west:sliver: there is no pool 'west:sliver'")
        assert f"did you mean '{THEIR_SILVER}'?" in failure
    assert nothing_was_made(wrong)
    with pytest.raises(NotFound, match="there is no pool"):
        wrong.array(WEST).free_space("west:sliver")


def test_a_mapping_that_went_wrong_later_does_not_stop_a_failover(san: House) -> None:
    san.protect("db", "web")
    wrong = san.mapping((GOLD, "west:sliver"))
    findings = wrong.provider.check_target(wrong.relationship("db"))
    assert told(findings, Severity.FAIL) == []
    assert "there is no pool 'west:sliver'" in told(findings, Severity.WARN)[0]


def test_a_group_over_pools_that_are_mapped_apart_is_refused_before_anything_is_made(san: House) -> None:
    log = next(volume for volume in san.pair.east.state.volumes.values() if volume.name == "db-log")
    log.pool = SECOND_POOL
    apart = san.mapping((GOLD, THEIR_GOLD), (SILVER, THEIR_SILVER))
    relationship = apart.relationship("web")
    (failure,) = told(apart.provider.check_source(relationship), Severity.FAIL)
    assert "an array makes those of a group in one: " in failure
    assert f"db-log from {SILVER} to {THEIR_SILVER}" in failure
    assert f"web-system from {GOLD} to {THEIR_GOLD}" in failure
    assert "map these pools to one in 'storage_mappings', or move the volumes into one pool" in failure
    with pytest.raises(InvalidState, match="an array makes those of a group in one"):
        apart.provider.enable(relationship)
    assert nothing_was_made(apart)
    together = san.mapping((GOLD, THEIR_SILVER), (SILVER, THEIR_SILVER))
    together.protect("db", "web")
    assert pools_of_replicas(together) == {SECOND_POOL}


def test_a_mapping_of_another_pool_leaves_a_group_in_the_pool_of_the_target(san: House) -> None:
    san = san.mapping((SILVER, THEIR_SILVER))
    san.protect("db", "web")
    assert pools_of_replicas(san) == {POOL}


def test_an_array_that_does_not_tell_the_pool_of_a_volume_is_refused(
    san: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    from simulation.arrays.cim_objects import _CLASSES, CimView

    monkeypatch.setitem(_CLASSES, "CIM_AllocatedFromStoragePool", lambda _: iter(()))
    san = san.mapping((GOLD, THEIR_SILVER))
    assert CimView(san.pair.east).instances("CIM_AllocatedFromStoragePool") == []
    with pytest.raises(InvalidState, match="does not tell in which pool the volumes db-log, db-data, web-system are"):
        san.provider.enable(san.relationship("db"))
    assert nothing_was_made(san)
    assert san.array(EAST).groups() == []
