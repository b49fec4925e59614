"""Arrays that the inventory manages by Swordfish: the provider moves their groups, and says what it cannot do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.lab.labctl import kill_all
from adapters.registry import Adapters
from adapters.san.ports import GroupState
from simulation.arrays.operations import create_mirror
from simulation.arrays.swordfish import SwordfishServer
from tests.san.house import DEFAULT, EAST, WEST, House, inventory, quiet
from tests.san.pairs import MIB, POOL, SECOND_POOL, arrays, done
from vault.domain import LATEST, Answering, Finding, Severity
from vault.errors import InvalidState
from vault.lifecycle import JobKind, refusal_of_target
from vault.words import size

pytestmark = pytest.mark.contract
LOAD_S = 0.3


@pytest.fixture
def unmirrored(tmp_path: Path) -> Iterator[House]:
    """Two machines at the primary site; their volumes are not replicated yet."""
    password = tmp_path / "password"
    password.write_text("secret\n")
    with (
        arrays(tmp_path / "arrays") as pair,
        SwordfishServer(pair.east, tmp_path / "east", user="leeward", password="secret") as east,
        SwordfishServer(pair.west, tmp_path / "west", user="leeward", password="secret") as west,
    ):
        servers = {EAST: east, WEST: west}
        for name, disks in DEFAULT.items():
            for disk in disks:
                volume = pair.east.create_volume(f"{name}-{disk}", POOL, MIB)
                pair.east.expose([volume.id], f"{EAST}-host")
        described = inventory(
            {
                site: {
                    "kind": "swordfish",
                    "url": server.url,
                    "user": "leeward",
                    "password": f"file:{password}",
                    "ca": str(server.certificate.certificate),
                    "array": server.array.name,
                    "initiators": [f"{site}-host"],
                    "portal": f"127.0.0.1:{server.array.data.port}",
                }
                for site, server in servers.items()
            },
            DEFAULT,
            "payments",
        )
        made = House(pair, servers, described, Adapters(described, tmp_path), tmp_path / "lab")
        made.define("db", "web")
        try:
            yield made
        finally:
            kill_all(tmp_path / "lab")


@pytest.fixture
def san(unmirrored: House) -> House:
    """Mirrored, and shown to both sites' hosts, by the arrays' own tools; then protected, and at work."""
    pair = unmirrored.pair
    group = pair.east.create_group("payments", list(pair.east.state.volumes))
    done(create_mirror(pair.east, group, "west", POOL, blocks_on_failure=False))
    pair.west.expose(pair.at_west.volumes, f"{WEST}-host")
    for machine in ("db", "web"):
        unmirrored.start(EAST, machine)
    unmirrored.protect("db", "web")
    time.sleep(LOAD_S)
    return unmirrored


def failures(findings: list[Finding]) -> list[str]:
    return [str(finding) for finding in findings if finding.severity is Severity.FAIL]


def lost(answering: Answering) -> int:
    assert answering.transactions is not None
    assert answering.transactions.held_at_boot > 0
    assert answering.transactions.damaged == 0
    return answering.transactions.lost


def move(san: House, *, back: bool = False) -> None:
    """As a plan does it: all off, each made at the target, all started; then reversed."""
    of, other_way = (san.back, san.relationship) if back else (san.relationship, san.back)
    for machine in ("web", "db"):
        assert failures(san.provider.check_source(of(machine))) == []
        assert failures(san.provider.check_target(of(machine))) == []
        san.shut_down(of(machine).source_site, machine)
        point = san.provider.send_last_changes(of(machine), quiet)
        san.provider.fail_over(of(machine), point.id, quiet)
    for machine in ("db", "web"):
        assert lost(san.start(of(machine).target_site, machine)) == 0
    for machine in ("db", "web"):
        san.provider.prepare_reverse(other_way(machine))
        san.provider.enable(other_way(machine))
        san.provider.copy_initial(other_way(machine), quiet)
        san.provider.finalize(other_way(machine))
        san.provider.retire_replica(of(machine))
    time.sleep(LOAD_S)


def test_planned_failover_reverse_and_the_way_back_lose_nothing(san: House) -> None:
    move(san)
    west = san.adapters.array(WEST).groups()[0]
    assert (west.is_source, west.is_active, west.state) == (True, True, GroupState.SYNCHRONIZED)
    move(san, back=True)
    assert san.adapters.array(EAST).groups()[0].is_active
    assert san.provider.replicate_once(san.relationship("db"), quiet, app_consistent=False).time


def test_an_abandoned_planned_failover_goes_back(san: House) -> None:
    for machine in ("web", "db"):
        san.shut_down(EAST, machine)
        point = san.provider.send_last_changes(san.relationship(machine), quiet)
        san.provider.fail_over(san.relationship(machine), point.id, quiet)
    assert san.pair.at_west.active
    for machine in ("web", "db"):
        san.provider.cancel_failover(san.relationship(machine))
        san.provider.cancel_failover(san.relationship(machine))
        assert lost(san.start(EAST, machine)) == 0
    assert (san.pair.at_west.active, san.pair.at_west.is_source) == (False, False)


def test_a_group_that_is_not_mirrored_yet_is_refused_before_anything_is_made(unmirrored: House) -> None:
    relationship = unmirrored.relationship("db")
    for findings in (
        unmirrored.provider.check_source(relationship),
        unmirrored.provider.check_target(relationship),
    ):
        assert failures(findings)[0].endswith(
            "group 'payments' is not mirrored there, and leeward cannot mirror synchronously to another array — "
            "mirror it with the array's own tools, then try again"
        )
    with pytest.raises(InvalidState, match="in the array's language"):
        unmirrored.provider.enable(relationship)
    assert unmirrored.pair.east.state.groups == {}


def test_a_mapping_says_into_which_pool_to_mirror(unmirrored: House) -> None:
    mapped = unmirrored.mapping((POOL, SECOND_POOL))
    findings = [str(finding) for finding in mapped.provider.check_source(mapped.relationship("db"))]
    assert (
        f"group payments: its replicas, {size(3 * MIB)}, go to pool {SECOND_POOL} at recovery, mapped from {POOL}"
        in findings
    )


def test_a_mapping_tells_the_pools_of_a_mirrored_group(san: House) -> None:
    mapped = san.mapping((POOL, POOL))
    findings = [str(finding) for finding in mapped.provider.check_target(mapped.relationship("db"))]
    assert f"db: its volumes at recovery are in pool {POOL} (mapped to {POOL})" in findings


def test_what_needs_more_than_moving_is_refused_in_one_sentence(san: House) -> None:
    relationship = san.relationship("db")
    for job in (JobKind.TEST_FAILOVER, JobKind.UNPLANNED_FAILOVER):
        for way in (relationship, san.back("db")):
            refused = refusal_of_target(way, job)
            assert refused is not None
            assert f"{job} is not possible" in refused.what
            assert "Swordfish" in refused.what
    for job in (JobKind.PLANNED_FAILOVER, JobKind.REVERSE, JobKind.RESYNCHRONIZE):
        assert refusal_of_target(relationship, job) is None
    before = san.pair.west.state.model_dump()
    with pytest.raises(InvalidState, match="clone volumes"):
        san.provider.start_test(relationship, LATEST, "db-test", quiet)
    assert san.pair.west.state.model_dump() == before


def test_ending_the_protection_leaves_the_mirror_as_it_was_found(san: House) -> None:
    for machine in ("db", "web"):
        left = san.provider.disable_source(san.relationship(machine))
        assert "the mirror of group 'payments' at array east goes on" in str(left)
        assert "goes on" in str(san.provider.disable_target(san.relationship(machine)))
    assert san.adapters.array(EAST).groups()[0].state is GroupState.SYNCHRONIZED
