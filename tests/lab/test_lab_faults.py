"""Faults: what each one does to the site's hypervisor, its guests, and the link."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from lab_support import AWAY, HOME, Lab, no_beat, no_report

from adapters.lab.faults import _PACE, Fault, SiteFaults, link_guard
from adapters.lab.layout import LabLayout
from vault.domain import PowerState, Severity
from vault.errors import AuthenticationRefused, BadInput, LeewardError, NoSpace, Unreachable

pytestmark = pytest.mark.contract


def test_faults_are_switched_on_and_off_for_every_process(tmp_path: Path) -> None:
    here, there = SiteFaults(tmp_path, HOME), SiteFaults(tmp_path, HOME)
    assert there.active() == {}
    here.set(Fault.LINK_SLOW, 5000)
    here.set(Fault.DISK_FULL)
    here.set(Fault.DISK_FULL)
    assert there.active() == {Fault.LINK_SLOW: 5000, Fault.DISK_FULL: None}
    assert SiteFaults(tmp_path, AWAY).active() == {}
    there.clear(Fault.DISK_FULL)
    assert here.active() == {Fault.LINK_SLOW: 5000}
    here.clear()
    here.clear()
    assert there.active() == {}


def test_wrong_faults_are_refused(tmp_path: Path) -> None:
    faults = SiteFaults(tmp_path, HOME)
    assert Fault.parse("host-dead") is Fault.HOST_DEAD
    with pytest.raises(BadInput, match="no fault 'fire'") as error:
        Fault.parse("fire")
    assert "link-slow" in error.value.remedy  # as one types it
    for fault, rate in ((Fault.LINK_SLOW, None), (Fault.LINK_SLOW, 0), (Fault.LINK_DOWN, 5)):
        with pytest.raises(BadInput):
            faults.set(fault, rate)
    assert faults.active() == {}


def every_call(lab: Lab) -> dict[str, Callable[[], object]]:
    site = lab.site()
    return {
        "discover": site.discover,
        "describe": lambda: site.describe("db"),
        "free_space": site.free_space,
        "network_kind": lambda: site.network_kind("production"),
        "start": lambda: site.start("db"),
        "shut_down": lambda: site.shut_down("db", 5, no_beat),
        "power_off": lambda: site.power_off("db"),
        "wait_until_answering": lambda: site.wait_until_answering("db", 5, no_beat),
        "define": lambda: site.define("db"),
        "remove": lambda: site.remove("db"),
        "run_in_guest": lambda: site.run_in_guest("db", ["true"], {}, 5, no_beat),
        "change_source": lambda: site.change_source("db"),
        "replica_store": lambda: site.replica_store("db").exists(),
        "create_from_replica": lambda: site.create_from_replica("x", "db", None, None, "isolated", no_report),  # type: ignore[arg-type]
        "retire_into_replica": lambda: site.retire_into_replica("db", None, ""),  # type: ignore[arg-type]
    }


def test_a_dead_host_kills_its_guests_and_answers_nothing(lab: Lab) -> None:
    lab.up()
    source = lab.site().change_source("db")
    store = lab.site().replica_store("db")
    source.start_tracking()
    faults = SiteFaults(lab.root, HOME)
    faults.set(Fault.HOST_DEAD)
    calls: dict[str, Callable[[], object]] = {
        **every_call(lab),
        "tracking": source.tracking,
        "cut": source.cut,
        "pending": source.pending,
        "store": store.exists,
    }
    for name, call in calls.items():
        with pytest.raises(Unreachable, match="host does not answer"):
            call()
            pytest.fail(f"{name} answered")
    (finding,) = lab.site().check()
    assert finding.severity is Severity.FAIL and finding.remedy
    faults.clear(Fault.HOST_DEAD)
    assert lab.site().describe("db").power is PowerState.OFF
    assert source.tracking().active
    lab.up()


def test_a_refused_login_changes_nothing(lab: Lab) -> None:
    lab.up()
    faults = SiteFaults(lab.root, HOME)
    faults.set(Fault.LOGIN_REFUSED)
    for name, call in every_call(lab).items():
        if name != "replica_store":
            with pytest.raises(AuthenticationRefused, match="refused the login"):
                call()
                pytest.fail(f"{name} was let in")
    with pytest.raises(AuthenticationRefused):
        lab.site().replica_store("db")
    assert lab.site().check()[0].severity is Severity.FAIL
    faults.clear()
    assert lab.site().describe("db").power is PowerState.RUNNING


def test_a_full_disk_refuses_reservations_but_guests_go_on(lab: Lab) -> None:
    lab.up()
    faults = SiteFaults(lab.root, HOME)
    faults.set(Fault.DISK_FULL)
    assert lab.site().free_space() == 0
    assert [finding.severity for finding in lab.site().check()] == [Severity.PASS, Severity.WARN]
    before = lab.site().wait_until_answering("db", 5, no_beat).transactions
    time.sleep(0.3)
    after = lab.site().wait_until_answering("db", 5, no_beat).transactions
    assert before and after and after.last > before.last
    SiteFaults(lab.root, AWAY).set(Fault.DISK_FULL)
    with pytest.raises(NoSpace, match="disk is full"):
        lab.site(AWAY).define("db")
    assert lab.site(AWAY).discover() == []


@pytest.mark.parametrize("fault", [Fault.LINK_DOWN, Fault.HOST_DEAD])
@pytest.mark.parametrize("site", [HOME, AWAY])
def test_nothing_crosses_a_link_that_is_down_at_either_end(tmp_path: Path, fault: Fault, site: str) -> None:
    guard = link_guard(tmp_path, HOME, AWAY)
    guard(0)
    guard(10**9)
    SiteFaults(tmp_path, site).set(fault)
    for count in (0, 100):
        with pytest.raises(Unreachable):
            guard(count)
    SiteFaults(tmp_path, site).clear()
    guard(100)


def test_a_slow_link_is_shared_by_all_that_use_it(tmp_path: Path) -> None:
    SiteFaults(tmp_path, AWAY).set(Fault.LINK_SLOW, 1_000_000)
    guards = [link_guard(tmp_path, HOME, AWAY), link_guard(tmp_path, AWAY, HOME)]
    started = time.monotonic()
    threads = [threading.Thread(target=lambda g=guard: [g(30_000) for _ in range(5)]) for guard in guards]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0.28 <= time.monotonic() - started < 20


def send_and_tell(guard: Callable[[int], None], ended: list[str]) -> None:
    try:
        guard(1000)
    except LeewardError as error:
        ended.append(error.what)
    else:
        ended.append("carried")


def test_waiting_for_a_slow_link_ends_when_it_breaks_or_recovers(tmp_path: Path) -> None:
    faults = SiteFaults(tmp_path, HOME)
    for change, broken in ((lambda: faults.set(Fault.LINK_DOWN), True), (faults.clear, False)):
        faults.clear()
        faults.set(Fault.LINK_SLOW, 10)
        guard = link_guard(tmp_path, HOME, AWAY)
        ended: list[str] = []
        thread = threading.Thread(target=send_and_tell, args=(guard, ended))
        thread.start()
        time.sleep(0.15)
        assert not ended
        change()
        thread.join(2)
        assert ended == (["the link is down"] if broken else ["carried"])


def test_what_a_slow_link_carried_before_the_machine_was_started_again_holds_nothing_up(tmp_path: Path) -> None:
    """Its clock began anew: what was written then seems to be of the future."""
    SiteFaults(tmp_path, HOME).set(Fault.LINK_SLOW, 1_000_000)
    pace = LabLayout(tmp_path).link(HOME, AWAY)
    pace.parent.mkdir(parents=True)
    now = time.monotonic()
    pace.write_bytes(_PACE.pack(now + 1000, now + 1001))
    link_guard(tmp_path, HOME, AWAY)(100)
    assert time.monotonic() - now < 20
