"""What cannot be done is refused with one clear message, the right exit code, and nothing changed."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NamedTuple

import pytest
from engine_support import AWAY, HOME, PLAN, Command, House

from adapters.lab import labctl
from adapters.lab.faults import Fault
from console.asking import JobFailed
from console.exits import Exit
from replication.local import LocalReplicaStore
from vault.errors import InvalidState
from vault.lifecycle import JobKind, Phase
from workers.versions import own_version
from workflows.model import MachineState, Resume

pytestmark = pytest.mark.e2e


class Facts(NamedTuple):
    """What a refused command must leave as it is. Replication goes on, so points may have come, but none may go."""

    machines: list[Any]
    states: dict[str, Any]
    replicas: dict[str, Any]
    points: set[str]
    engine: Any


async def facts(house: House) -> Facts:
    leeward = await house.connect()
    states, replicas, points = {}, {}, set()
    kept = {"phase", "reversed", "halted", "test", "failed_over_to", "recovered", "jobs", "forward", "policy"}
    for machine in house.machines:
        state = await leeward.find_machine(machine)
        states[machine] = state.model_dump(include=kept) if state else None
    for folder in sorted(house.lab.root.glob("sites/*/replicas/*")):
        found = LocalReplicaStore(folder, machine=folder.name).state()
        replicas[f"{folder.parts[-3]}/{folder.name}"] = (found.seeded, found.epoch, found.disks)
        points |= {f"{folder.name}/{point.id}" for point in found.points}
    machines = [
        (row.site, row.machine, row.power, row.network, row.address) for row in labctl.status(house.settings.lab_root)
    ]
    return Facts(machines, states, replicas, points, house.running_engine)


async def refused(house: House, code: Exit, says: str, *arguments: str, **variables: str) -> Command:
    """Run a command that must be refused: it says so once, ends with ``code``, and changes nothing."""
    before = await facts(house)
    done = await asyncio.to_thread(house.run, *arguments, **variables)
    after = await facts(house)
    output = done.out + done.err
    assert done.code == code, f"exit code {done.code}: {output}"
    assert output.count(says) == 1, f"not once '{says}':\n{output}"
    assert "Traceback" not in output
    assert after._replace(points=before.points) == before
    assert before.points <= after.points
    return done


@pytest.fixture
async def protected(house: House) -> House:
    if await (await house.connect()).find_machine(house.machines[0]) is None:
        await house.protect_all()
    return house


# -- nothing is protected yet ------------------------------------------------------------------------------------


async def test_a_plan_run_on_machines_that_are_not_protected(house: House) -> None:
    done = await refused(house, Exit.REFUSED, "machine 'db' is not protected", "plan", "failover", PLAN, "--planned")
    assert "leeward protect db" in done.out + done.err


async def test_commands_about_a_machine_that_is_not_protected(house: House) -> None:
    for command in (["resync"], ["disable", "--yes"], ["recovery-points"], ["resume"]):
        await refused(house, Exit.REFUSED, "machine 'db' is not protected", *command, "db")


async def test_protecting_a_machine_that_the_inventory_does_not_know(house: House) -> None:
    await refused(house, Exit.REFUSED, "machine 'ghost' is not in the inventory", "protect", "ghost")
    await refused(house, Exit.REFUSED, "machine 'ghost' is not in the inventory", "protect", "db", "ghost")


async def test_protecting_to_a_site_that_refuses_the_login(house: House) -> None:
    house.faults(AWAY).set(Fault.LOGIN_REFUSED)
    done = await asyncio.to_thread(house.run, "protect", "db")
    house.faults(AWAY).clear()
    assert done.code == Exit.FAILED
    assert done.err.count("the fabric refused the login") == 1
    assert "nothing was changed" in done.err
    assert not list(house.lab.root.glob("sites/*/replicas/*"))
    assert await (await house.connect()).find_machine("db") is None


async def test_why_protecting_failed_is_told_after_the_machine_is_gone(house: House) -> None:
    """The machine's workflow ends with its only job: whoever looks later still hears the reason, and of a second try
    its own."""
    leeward = await house.connect()
    house.faults(AWAY).set(Fault.LOGIN_REFUSED)
    job = await leeward.protect("db")

    while await leeward.find_machine("db") is not None:  # noqa: ASYNC110 - a workflow has no event to wait for
        await asyncio.sleep(0.1)
    with pytest.raises(JobFailed, match="the fabric refused the login"):
        await leeward.wait_until_protected("db", job)
    house.faults(AWAY).clear()
    again = await leeward.protect("db")
    assert again == job, "the names of jobs begin anew with the machine"
    protected = await leeward.wait_until_protected("db", again)
    assert protected.phase is Phase.PROTECTED
    await leeward.job_result(await leeward.request("db", JobKind.DISABLE))


async def test_a_plan_that_names_an_unknown_machine(house: House) -> None:
    house.write_plan("strange", ["db", "ghost"])
    done = await refused(house, Exit.BAD_INPUT, "ghost", "plan", "failover", "strange", "--planned")
    assert done.err.startswith(f"error: {house.plan_file('strange')}:")


async def test_a_plan_that_does_not_exist(house: House) -> None:
    await refused(house, Exit.REFUSED, "no plan 'nowhere'", "plan", "failover", "nowhere", "--planned")


async def test_a_typing_mistake_in_a_plan(house: House) -> None:
    file = house.plan_file("typo")
    file.write_text("plan: typo\ngroups:\n  - name: all\n    machines: [db]\n    machnes: [app]\n")
    done = await refused(house, Exit.BAD_INPUT, f"{file}:5:", "plan", "failover", "typo", "--planned")
    assert "machnes" in done.err
    assert "machines" in done.err


async def test_a_typing_mistake_in_the_inventory(house: House) -> None:
    file = house.root / "typo.yaml"
    file.write_text(json.dumps(json.loads(house.vault.read_text()), indent=2).replace('"retention"', '"retnetion"'))
    line = next(number for number, text in enumerate(file.read_text().splitlines(), 1) if "retnetion" in text)
    done = await refused(house, Exit.BAD_INPUT, f"{file}:{line}:", "protect", "db", "--vault", str(file))
    assert "retnetion" in done.err


@pytest.mark.parametrize("how", [[], ["--planned", "--unplanned"]])
async def test_a_failover_is_either_planned_or_unplanned(house: House, how: list[str]) -> None:
    await refused(house, Exit.BAD_INPUT, "say either --planned", "plan", "failover", PLAN, *how)


async def test_the_engine_is_started_once(house: House) -> None:
    before = await facts(house)
    again = await asyncio.to_thread(house.run, "up")
    assert (again.code, before.engine.address in again.out) == (0, True)
    assert (await facts(house)).engine == before.engine
    await refused(house, Exit.REFUSED, "another engine runs on this data directory", "up", "--foreground")


@pytest.mark.parametrize("scale", ["0", "2", "-1", "nan", "soon"])
async def test_a_time_scale_that_makes_no_sense(house: House, scale: str) -> None:
    await refused(house, Exit.BAD_INPUT, "time scale", "status", LEEWARD_TIME_SCALE=scale)


async def test_a_worker_for_nobody(house: House) -> None:
    address = house.running_engine.address
    for says, options in {
        "unknown role 'janitor'": ["--role", "janitor"],
        "unknown site 'moon'": ["--role", "site", "--site", "moon"],
        "role site needs a site": ["--role", "site"],
    }.items():
        await refused(house, Exit.BAD_INPUT, says, "worker", *options, TEMPORAL_ADDRESS=address)


async def test_a_fault_that_nobody_knows(house: House) -> None:
    await refused(house, Exit.BAD_INPUT, "there is no fault 'earthquake'", "lab", "faults", "set", HOME, "earthquake")
    await refused(house, Exit.REFUSED, "unknown site 'moon'", "lab", "faults", "set", "moon", "link-down")


# -- everything is protected -------------------------------------------------------------------------------------


async def test_runs_for_which_the_machines_are_not_ready(protected: House) -> None:
    await refused(protected, Exit.REFUSED, "nothing to fail back", "plan", "failback", PLAN)
    for command, job in {"commit": "Commit", "reverse": "ReverseReplication"}.items():
        says = f"machine 'db' is protected; {job} is not possible now"
        await refused(protected, Exit.REFUSED, says, "plan", command, PLAN)


async def test_a_recovery_point_that_is_not_there(protected: House) -> None:
    """A mistyped point must not have shut anything down."""
    says = "recovery point of 'db': no recovery point is 'yesterday'"
    for run in (["failover", PLAN, "--unplanned"], ["test", PLAN]):
        await refused(protected, Exit.REFUSED, says, "plan", *run, "--recovery-point", "yesterday")


@pytest.mark.parametrize(
    ("fault", "says"), [(Fault.DISK_FULL, "0 B are free"), (Fault.LOGIN_REFUSED, "the fabric refused the login")]
)
async def test_a_target_that_cannot_take_the_machines(protected: House, fault: Fault, says: str) -> None:
    protected.faults(AWAY).set(fault)
    try:
        await asyncio.sleep(2.5)  # until steady-state replication has noticed it, and changes nothing any more
        await refused(protected, Exit.REFUSED, says, "plan", "failover", PLAN, "--planned")
    finally:
        protected.faults(AWAY).clear()
    leeward = await protected.connect()
    for machine in protected.machines:
        assert (await protected.state(machine)).halted is (fault is Fault.LOGIN_REFUSED)
        await leeward.resume_replication(machine)
    for machine in protected.machines:
        known = (await leeward.recovery_points(machine)).points
        await protected.wait_for_points(machine, len(known) + 1)


async def test_a_second_run_of_a_plan_that_is_running(protected: House) -> None:
    protected.write_plan("asks", protected.machines, before=[{"manual": "Go?"}])
    await protected.start_run("test", "asks")
    await protected.wait_for_run("waiting", "asks")
    await refused(protected, Exit.REFUSED, "plan 'asks' is running already", "plan", "test", "asks")
    assert (await protected.wait_for_run("waiting", "asks")).run_type == "test"
    await (await protected.connect()).cancel_run("asks", "it was an exercise")
    assert (await protected.end_of_run("asks")).state == "cancelled"


async def test_nothing_that_was_refused_has_left_a_trace(protected: House) -> None:
    for machine in protected.machines:
        state = await protected.state(machine)
        assert (state.phase, state.reversed, state.tests) == (Phase.PROTECTED, False, [])
        assert [copy.path.parts[-3] for copy in protected.copies(machine)] == [HOME]


async def test_a_word_that_the_workers_do_not_know_yet(protected: House) -> None:
    """As a newer command would say it."""

    class NewerResume(Resume):
        gently: bool = True

    leeward = await protected.connect()
    for update, word in ("resume_replication", NewerResume(by="ada")), ("resume_gently", Resume(by="ada")):
        with pytest.raises(InvalidState) as told:
            await leeward._machine_update("db", update, MachineState, word)
        assert f"they run an earlier state of leeward {own_version()}, this is leeward" in str(told.value)
        assert "nothing was changed" in str(told.value)


async def test_an_engine_that_does_not_run(protected: House) -> None:
    protected.down()
    try:
        for command in (["status"], ["plan", "failover", PLAN, "--planned"], ["protect", "db"]):
            done = protected.run(*command)
            assert done.code == Exit.UNREACHABLE
            assert done.err.count("leeward up") == 1
            assert done.err.count("\n") == 1
    finally:
        protected.up()
