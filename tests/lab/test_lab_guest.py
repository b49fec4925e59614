"""Real guests: they boot, answer, hold, stop, survive their starter, and say why they gave up."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from lab_support import AWAY, HOME, Lab, lab_machine, make_inventory, no_beat, running_lab

from adapters.lab import guest_client
from adapters.lab.guest_state import start_ticks
from adapters.lab.ledger import ACKNOWLEDGED, BOOTED, read_ledger
from adapters.lab.network import overlaps
from adapters.lab.vdisk import VirtualDisks
from vault.domain import ConsistencyKind, PowerState
from vault.errors import InvalidState, LeewardError

pytestmark = pytest.mark.contract


def transactions(lab: Lab, site: str = HOME) -> dict[str, int]:
    guest = guest_client.running_guest(lab.folder(site=site))
    assert guest is not None
    return guest_client.call(guest, "GET", "/transactions")


def test_it_boots_writes_and_loses_nothing_by_shutdown_or_power_cut(lab: Lab) -> None:
    hypervisor = lab.site()
    assert lab.up() == ["primary/db"]
    hypervisor.start("db")
    lab.wait_for_transactions(5)
    described = hypervisor.describe("db")
    assert described.power is PowerState.RUNNING and described.network == "production"
    assert hypervisor.shut_down("db", 10, no_beat) is PowerState.OFF
    acknowledged = [entry.number for entry in read_ledger(lab.layout.ledger("db")) if entry.kind == ACKNOWLEDGED]
    assert acknowledged == list(range(1, len(acknowledged) + 1))
    hypervisor.start("db")
    held = hypervisor.wait_until_answering("db", 10, no_beat).transactions
    assert held is not None and (held.held_at_boot, held.acknowledged_at_boot) == (acknowledged[-1], acknowledged[-1])
    lab.wait_for_transactions(held.held_at_boot + 5)
    hypervisor.power_off("db")
    hypervisor.power_off("db")
    assert hypervisor.describe("db").power is PowerState.OFF
    hypervisor.start("db")
    after = hypervisor.wait_until_answering("db", 10, no_beat).transactions
    assert after is not None and (after.damaged, after.lost, after.first) == (0, 0, 1)
    boots = [entry.number for entry in read_ledger(lab.layout.ledger("db")) if entry.kind == BOOTED]
    assert boots == [0, held.held_at_boot, after.held_at_boot]


def test_health_and_tokens(lab: Lab) -> None:
    lab.up()
    guest = guest_client.running_guest(lab.folder())
    assert guest is not None
    assert lab.folder().guest.stat().st_mode & 0o077 == 0

    def ask(method: str, path: str, token: str = "") -> tuple[int, dict[str, object]]:
        connection = http.client.HTTPConnection(guest.address, timeout=5)
        connection.request(method, path, headers={"X-Guest-Token": token})
        response = connection.getresponse()
        answer = response.status, json.loads(response.read())
        connection.close()
        return answer

    assert ask("GET", "/health")[0] == ask("GET", "/")[0] == 200
    assert ask("GET", "/nothing")[0] == 404
    for path in ("/quiesce", "/resume", "/shutdown", "/exec"):
        assert ask("POST", path)[0] == ask("POST", path, "wrong")[0] == 403
    assert ask("POST", "/nothing", guest.token)[0] == 404
    assert ask("POST", "/exec", guest.token)[0] == 400
    assert lab.site().describe("db").power is PowerState.RUNNING


STARTER = """
import os, sys, time
from pathlib import Path
from adapters.lab.hypervisor import LabHypervisor
from vault.inventory import Inventory
inventory = Inventory.model_validate_json(Path(sys.argv[1]).read_text())
LabHypervisor(Path(sys.argv[2]), "primary", inventory).start("db")
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("started, and has no child", flush=True)
time.sleep(60)
"""


def test_it_outlives_the_process_that_started_it_and_leaves_no_zombie(lab: Lab, tmp_path: Path) -> None:
    lab.site().define("db")
    inventory = tmp_path / "inventory.json"
    inventory.write_text(lab.inventory.model_dump_json(exclude_defaults=True))
    process = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(inventory), str(lab.root)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(guest_client.__file__).parents[2])},
        start_new_session=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "started, and has no child\n"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert lab.site().wait_until_answering("db", 10, no_beat).transactions is not None
    lab.wait_for_transactions(3)


def test_quiesce_holds_writes_and_gives_up_by_itself(lab: Lab) -> None:
    lab.up()
    guest = guest_client.running_guest(lab.folder())
    assert guest is not None
    lab.wait_for_transactions(2)
    until = guest_client.call(guest, "POST", "/quiesce")["held_until_monotonic_ns"]
    assert 0 < until - time.monotonic_ns() <= 2e9
    held = transactions(lab)["last"]
    time.sleep(0.3)
    assert transactions(lab)["last"] == held
    assert guest_client.call(guest, "POST", "/resume") == {"was_held": True}
    lab.wait_for_transactions(held + 2)
    guest_client.call(guest, "POST", "/quiesce")
    held = transactions(lab)["last"]
    lab.wait_for_transactions(held + 2)
    assert guest_client.call(guest, "POST", "/resume") == {"was_held": False}


def test_application_consistent_cuts_say_what_was_reached(lab: Lab) -> None:
    lab.up()
    source = lab.site().change_source("db")
    source.start_tracking()
    assert source.cut(ConsistencyKind.APPLICATION).kind is ConsistencyKind.APPLICATION
    assert source.cut().kind is ConsistencyKind.CRASH
    guest = guest_client.running_guest(lab.folder())
    assert guest is not None
    replace(guest, token="wrong").save(lab.folder())
    assert source.cut(ConsistencyKind.APPLICATION).kind is ConsistencyKind.CRASH
    lab.site().power_off("db")
    assert source.cut(ConsistencyKind.APPLICATION).kind is ConsistencyKind.CRASH
    lab.up()
    lab.site().shut_down("db", 10, no_beat)
    assert source.cut(ConsistencyKind.APPLICATION).kind is ConsistencyKind.APPLICATION


def test_commands_run_in_the_guest(lab: Lab) -> None:
    lab.up()
    hypervisor = lab.site()
    said = hypervisor.run_in_guest(
        "db", ["sh", "-c", "echo $GREETING $MACHINE; exit 3"], {"GREETING": "hi"}, 5, no_beat
    )
    assert (said.exit_code, said.output) == (3, "hi db\n")
    long = hypervisor.run_in_guest("db", ["sh", "-c", "yes | head -c 200000; echo end"], {}, 5, no_beat)
    assert len(long.output) == 64 * 1024 and long.output.endswith("end\n")
    slow = hypervisor.run_in_guest("db", ["sh", "-c", "echo begun; sleep 60"], {}, 0.3, no_beat)
    assert slow.exit_code == 124 and "begun" in slow.output and "ended after 0.3 s" in slow.output
    assert hypervisor.run_in_guest("db", ["/no/such/command"], {}, 5, no_beat).exit_code == 127


def test_a_command_ends_when_its_caller_gives_up(lab: Lab) -> None:
    class Enough(Exception):
        pass

    beats: list[str] = []

    def enough(what: str) -> None:
        beats.append(what)
        if len(beats) == 2:
            raise Enough

    lab.up()
    hypervisor = lab.site()
    with pytest.raises(Enough):
        hypervisor.run_in_guest("db", ["sh", "-c", "echo $$ > pid; exec sleep 60"], {}, 60, enough)
    pid = int((lab.folder().path / "files" / "pid").read_text())
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, "the command outlived its caller"
        time.sleep(0.02)


def test_pulling_the_plug_ends_its_commands_too(lab: Lab) -> None:
    lab.up()
    hypervisor = lab.site()
    pid_file = lab.folder().path / "files" / "pid"
    failed: list[LeewardError] = []

    def run() -> None:
        try:
            hypervisor.run_in_guest("db", ["sh", "-c", "echo $$ > pid; exec sleep 60"], {}, 60, no_beat)
        except LeewardError as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while not (pid_file.exists() and pid_file.read_text().strip()):
        time.sleep(0.02)
    hypervisor.power_off("db")
    thread.join(10)
    assert [error.recoverable for error in failed] == [True]
    assert start_ticks(int(pid_file.read_text())) is None


@pytest.mark.parametrize("damage", ["superblock", "missing", "truncated", "in use"])
def test_a_guest_that_gives_up_says_why(lab: Lab, damage: str) -> None:
    hypervisor = lab.site()
    hypervisor.define("db")
    image = lab.folder().image("data")
    holder = None
    if damage == "superblock":
        with image.open("r+b") as stream:
            stream.write(b"garbage")
        said = "superblock does not match its checksum"
    elif damage == "missing":
        image.unlink()
        said = "image of disk 'data' is missing"
    elif damage == "truncated":
        with image.open("r+b") as stream:
            stream.truncate(5000)
        said = "has 5000 bytes"
    else:
        holder = VirtualDisks(lab.folder())
        said = "another process has the disks open"
    hypervisor.start("db")
    with pytest.raises(InvalidState, match=said):
        hypervisor.wait_until_answering("db", 10, no_beat)
    assert hypervisor.describe("db").power is PowerState.OFF
    if holder:
        holder.close()


def test_an_overlap_on_production_networks_is_measured(tmp_path: Path) -> None:
    with running_lab(tmp_path / "lab", overlaps_expected=True) as lab:
        lab.up()
        assert overlaps(lab.root) == []
        lab.site(AWAY).define("db")
        lab.site(AWAY).start("db")
        lab.site(AWAY).wait_until_answering("db", 10, no_beat)
        (overlap,) = overlaps(lab.root)
        assert (overlap["event"], overlap["identity"], overlap["site"]) == ("began", "db", AWAY)
        assert json.loads(overlap["other"])["site"] == HOME
        lab.site().power_off("db")
        deadline = time.monotonic() + 60
        while len(overlaps(lab.root)) < 2:
            assert time.monotonic() < deadline, "the end of the overlap was not recorded"
            time.sleep(0.05)
        assert overlaps(lab.root)[1]["event"] == "ended"


def test_a_stale_process_id_is_never_taken_for_the_guest(lab: Lab) -> None:
    lab.up()
    guest = guest_client.running_guest(lab.folder())
    assert guest is not None
    lab.site().power_off("db")
    replace(guest, pid=os.getpid()).save(lab.folder())
    assert lab.site().describe("db").power is PowerState.OFF
    lab.site().power_off("db")
    with pytest.raises(InvalidState, match="is off"):
        lab.site().wait_until_answering("db", 1, no_beat)


def test_pulling_a_long_gone_guests_plug_spares_whoever_has_its_number_now(lab: Lab) -> None:
    lab.up()
    lab.site().power_off("db")
    guest = guest_client.last_state(lab.folder())
    assert guest is not None
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        replace(guest, pid=stranger.pid, start_ticks=1).save(lab.folder())
        lab.site().power_off("db")
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_it_keeps_up_with_500_transactions_a_second_while_tracked_and_snapshotted(tmp_path: Path) -> None:
    disks = {"system": "8MiB", "data": "128MiB"}
    inventory = make_inventory({"db": lab_machine(rate=1000, disks=disks)})
    with running_lab(tmp_path / "lab", inventory) as lab:
        lab.up()
        source = lab.site().change_source("db")
        source.start_tracking()
        source.take_snapshot()
        before, started = transactions(lab)["last"], time.monotonic()
        time.sleep(1)
        done = transactions(lab)["last"] - before
        assert done / (time.monotonic() - started) > 500
        assert source.tracking().log_bytes > done * 4096
