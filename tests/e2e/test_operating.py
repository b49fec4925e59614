"""An operator's day: protect, look, exercise, interrupt, stop protecting, protect again."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from engine_support import AWAY, HOME, PLAN, House
from ruamel.yaml import YAML

from adapters.lab import labctl
from vault.domain import PowerState
from vault.lifecycle import Phase

pytestmark = pytest.mark.e2e

FREQUENCY_S = 1.0
SLACK_S = 2.5
"""On a busy computer a cycle starts late."""
ESCAPE = "\x1b"


async def test_protecting_from_the_command_line(house: House) -> None:
    done = await asyncio.to_thread(house.must, "protect", "--all")
    for machine in house.machines:
        assert f"{machine}: protected" in done.out
        assert (await house.state(machine)).phase is Phase.PROTECTED
    again = await asyncio.to_thread(house.must, "protect", "db")
    assert "db: protected; settings of the inventory taken over" in again.out


def test_status_names_what_was_taken_out_of_the_inventory(house: House, tmp_path: Path) -> None:
    described = YAML(typ="safe").load(house.vault)
    gone = house.machines[0]
    del described["machines"][gone]
    without = tmp_path / "leeward.yaml"
    without.write_text(json.dumps(described))
    assert house.must("status", "--json", LEEWARD_VAULT=str(without)).json()[gone]["phase"] == "protected"


def test_the_engine_writes_ahead(house: House) -> None:
    """One sync for each of Temporal's transactions, not three or four: bytes 18 and 19 of SQLite's file format."""
    with (house.settings.data / "temporal.db").open("rb") as database:
        assert database.read(20)[18:] == b"\x02\x02"


def test_json_holds_what_the_tables_show_and_neither_has_escape_codes(house: House) -> None:
    house.must("plan", "test", PLAN)
    house.must("plan", "cleanup", PLAN)
    for command in ("status", "jobs", "plan status", "lab status"):
        arguments = [*command.split(), PLAN] if command == "plan status" else command.split()
        table, document = house.must(*arguments), house.must(*arguments, "--json")
        assert ESCAPE not in table.out + document.out
        assert document.err == ""
        same_facts(command, table.out, document.json())
    table, document = house.must("recovery-points", "db"), house.must("recovery-points", "db", "--json")
    shown = [line.split()[0] for line in table.out.splitlines()[1:]]
    assert shown == [point["id"] for point in document.json()][: len(shown)][::-1]
    assert len(shown) > 1


def same_facts(command: str, table: str, document: Any) -> None:
    rows = [line.split() for line in table.splitlines()]
    if command == "status":
        assert {row[0]: (row[1], row[2]) for row in rows[1:]} == {
            name: (facts["phase"], facts["health"]) for name, facts in document.items()
        }
        assert all(0 <= facts["rpo_s"] < 60 for facts in document.values())
    elif command == "jobs":
        shown = [(row[0], row[1], row[2]) for row in rows[1:]]
        assert shown == [(job["id"], job["machine"], job["status"]) for job in document]
        kinds = {job["kind"] for job in document}
        assert {"EnableProtection", "InitialReplication", "FinalizeProtection", "TestFailover"} <= kinds
    elif command == "plan status":
        assert rows[0][:3] == [document["plan"], document["run_type"], document["state"]]
        for stage in document["stages"]:
            assert stage["title"] in table
            assert all(step["name"] in table for step in stage["steps"])
    else:
        assert [row[:3] for row in rows[1:]] == [
            [machine["site"], machine["machine"], machine["power"]] for machine in document["machines"]
        ]
        assert document["overlaps"] == []


async def test_a_test_failover_leaves_production_and_replication_alone(house: House) -> None:
    leeward = await house.connect()
    before = {row.machine: (row.power, row.address) for row in labctl.status(house.settings.lab_root)}
    written = {machine: house.last_acknowledged(machine) for machine in house.machines}
    await house.start_run("test")
    ends, worst = time.monotonic() + 5, 0.0
    while time.monotonic() < ends:
        for machine in house.machines:
            status = await leeward.machine_status(machine)
            assert status is not None
            assert status.rpo_s is not None
            worst = max(worst, status.rpo_s)
        await asyncio.sleep(0.1)
    ended = await house.end_of_run()
    assert ended.state == "completed"
    run_id = ended.run_id
    measured = {one.machine: one.worst_age_s for one in ended.replication}
    assert measured.keys() == set(house.machines)
    assert all(age is not None and age <= worst + SLACK_S for age in measured.values()), measured
    assert worst < 3 * FREQUENCY_S + SLACK_S, f"the newest recovery point was {worst:.1f} s old"
    print(f"worst age of the newest recovery point during a test failover: {worst:.1f} s")

    rows = {(row.site, row.machine): row for row in labctl.status(house.settings.lab_root)}
    for machine in house.machines:
        copy = rows[AWAY, f"{machine}-test-{run_id[-4:]}"]
        assert (copy.power, copy.network) == (PowerState.RUNNING, f"isolated-{run_id}")
        assert copy.transactions is not None
        assert copy.transactions.damaged == 0
        assert copy.transactions.held_at_boot > 0
        assert (rows[HOME, machine].power, rows[HOME, machine].address) == before[machine]
        assert house.last_acknowledged(machine) > written[machine]

    await house.completed_run("cleanup")
    assert {(row.site, row.machine) for row in labctl.status(house.settings.lab_root)} == {
        (HOME, machine) for machine in house.machines
    }
    assert not list(house.lab.site(AWAY).machines.glob("**/*.raw"))
    for machine in house.machines:
        state = await house.state(machine)
        assert (state.phase, state.tests, state.health.level) == (Phase.PROTECTED, [], "ok")


async def test_ctrl_c_ends_the_watching_and_not_the_run(house: House) -> None:
    house.write_plan("asks", house.machines, before=[{"manual": "Go?"}])
    watching = house.popen("plan", "failover", "asks", "--planned")
    await house.wait_for_run("waiting", "asks")
    watching.send_signal(signal.SIGINT)
    out, err = await asyncio.to_thread(watching.communicate, timeout=120)
    assert watching.returncode == 130, out + err
    assert err == (
        "warning: the run goes on; watch it again with: leeward plan watch asks, end it with: leeward plan cancel "
        "asks\n"
        "error: interrupted; what runs in Temporal goes on\n"
    )
    assert (await house.wait_for_run("waiting", "asks")).run_type == "planned"

    again = house.popen("plan", "watch", "asks")
    await asyncio.to_thread(house.must, "plan", "approve", "asks", "--note", "go")
    out, err = await asyncio.to_thread(again.communicate, timeout=120)
    assert again.returncode == 0, out + err
    assert "recover all / db: done" in out
    assert "planned run completed" in out
    house.assert_nothing_lost()
    await house.completed_run("commit")
    await house.completed_run("reverse")


async def test_an_unplanned_failover_of_machines_that_answer_shuts_them_down_and_loses_nothing(house: House) -> None:
    await house.wait_for_transactions(10)
    for machine, result in (await house.completed_run("unplanned")).items():
        assert result.source_proven_off, result.sentences
        assert result.answering is not None
        assert result.answering.site == HOME
        found = result.answering.transactions
        assert found is not None
        assert found.held_at_boot == found.acknowledged_at_boot, f"{machine}: {found}"
        assert (found.lost, found.damaged) == (0, 0), f"{machine}: {found}"
    house.assert_nothing_lost()


async def test_protection_can_be_ended_and_begun_again(house: House, tmp_path: Path) -> None:
    """Ended also where the inventory does not name the machine any more."""
    for run_type in ("commit", "reverse"):
        await house.completed_run(run_type)
    described = YAML(typ="safe").load(house.vault)
    without = tmp_path / "leeward.yaml"
    without.write_text(json.dumps({**described, "machines": {"db": described["machines"]["db"]}}))
    await asyncio.to_thread(house.must, "disable", "app", "--yes", LEEWARD_VAULT=str(without))
    assert await (await house.connect()).find_machine("app") is None
    assert not (house.lab.site(AWAY).replicas / "app" / "manifest.json").exists()
    assert not list(house.lab.site(HOME).machine("app").path.glob("*.hrl"))
    assert (await house.state("db")).phase is Phase.PROTECTED
    await asyncio.to_thread(house.must, "protect", "app")
    state = await house.state("app")
    assert (state.phase, state.active_site, state.health.level) == (Phase.PROTECTED, HOME, "ok")
    await house.wait_for_points("app", 2)


def test_help_answers_at_once(house: House) -> None:
    before = house.run("--help").cpu_s
    assert house.run("--help").cpu_s - before < 0.5
