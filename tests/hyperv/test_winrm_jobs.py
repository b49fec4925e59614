"""Long operations as jobs on the host: nothing that happens to connections, clients or hosts loses or doubles one."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from winrm_host import ECHO, Echo, SimulatedHost

from adapters.hyperv import jobs
from adapters.hyperv.session import HostSession
from simulation.winrm.answering import failure
from simulation.winrm.server import Cut, Disturb
from vault.errors import Busy, LeewardError, NoSpace, Unreachable

pytestmark = pytest.mark.contract

WORK = Echo(text="größe [1] 'x'")


@pytest.fixture(autouse=True)
def quick_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "FIRST_POLL_S", 0.02)
    monkeypatch.setattr(jobs, "LAST_POLL_S", 0.05)


class Interrupted(Exception):
    pass


def silent(_: str) -> None: ...


def interrupt(_: str) -> None:
    raise Interrupted


def test_a_job_gives_what_the_operation_gives_and_leaves_nothing(host: SimulatedHost, session: HostSession) -> None:
    assert session.run_job(ECHO, WORK, silent, timeout_s=60) == WORK
    assert len(host.requests) == 1
    assert len(host.server.jobs) == 0


def test_beats_tell_that_a_job_still_runs_and_no_connection_waits_for_it(
    host: SimulatedHost, session: HostSession
) -> None:
    host.gate.clear()
    beats: list[str] = []

    def beat(text: str) -> None:
        beats.append(text)
        if len(beats) == 3:
            assert host.server.shells.running == 0
            host.gate.set()

    assert session.run_job(ECHO, WORK, beat, timeout_s=60) == WORK
    assert "'check_host' runs for 0 s" in beats[0]


def test_a_beat_that_raises_leaves_the_job_running_and_it_is_found_again(
    host: SimulatedHost, session: HostSession
) -> None:
    host.gate.clear()
    with pytest.raises(Interrupted):
        session.run_job(ECHO, WORK, interrupt, timeout_s=60)
    host.gate.set()
    with HostSession(host.settings()) as another:
        assert another.run_job(ECHO, WORK, silent, timeout_s=60) == WORK
    assert host.server.jobs.started == len(host.requests) == 1


def test_another_input_is_another_job(host: SimulatedHost, session: HostSession) -> None:
    host.gate.clear()
    for number in range(2):
        with pytest.raises(Interrupted):
            session.run_job(ECHO, Echo(text="x", number=number), interrupt, timeout_s=60)
    host.gate.set()
    assert host.server.jobs.started == 2
    assert session.run_job(ECHO, Echo(text="x", number=1), silent, timeout_s=60).number == 1


def test_a_job_that_takes_longer_goes_on(host: SimulatedHost, session: HostSession) -> None:
    host.gate.clear()
    with pytest.raises(Busy, match=r"still runs after 0\.1 s .* it goes on"):
        session.run_job(ECHO, WORK, silent, timeout_s=0.1)
    host.gate.set()
    assert session.run_job(ECHO, WORK, silent, timeout_s=60) == WORK
    assert len(host.requests) == 1


def test_a_job_that_fails_tells_its_error_once_and_is_begun_anew_after_that(
    host: SimulatedHost, session: HostSession
) -> None:
    host.result = failure("There is not enough space on the disk. (0x80070070).", identifier="OperationFailed,X")
    for _ in range(2):
        with pytest.raises(NoSpace, match="not enough space"):
            session.run_job(ECHO, WORK, silent, timeout_s=60)
    assert host.server.jobs.started == 2


def test_a_restart_of_the_host_ends_a_job_and_the_next_try_begins_it_anew(
    host: SimulatedHost, session: HostSession
) -> None:
    host.gate.clear()
    restart = [host.server.reboot]

    def beat(_: str) -> None:
        if restart:
            restart.pop()()

    with pytest.raises(Unreachable, match="gone without a result"):
        session.run_job(ECHO, WORK, beat, timeout_s=60)
    host.gate.set()
    assert session.run_job(ECHO, WORK, silent, timeout_s=60) == WORK
    assert host.server.jobs.started == 2


def test_a_restart_while_nobody_looked_begins_the_job_anew(host: SimulatedHost, session: HostSession) -> None:
    host.gate.clear()
    with pytest.raises(Interrupted):
        session.run_job(ECHO, WORK, interrupt, timeout_s=60)
    host.server.reboot()
    host.gate.set()
    assert session.run_job(ECHO, WORK, silent, timeout_s=60) == WORK
    assert host.server.jobs.started == 2


def test_a_finished_job_outlives_a_restart(host: SimulatedHost, session: HostSession) -> None:
    host.gate.clear()
    with pytest.raises(Interrupted):
        session.run_job(ECHO, WORK, interrupt, timeout_s=60)
    host.gate.set()
    host.server.jobs.wait_until_idle(10)
    host.server.reboot()
    assert session.run_job(ECHO, WORK, silent, timeout_s=60) == WORK
    assert host.server.jobs.started == 1


def test_an_answer_that_nobody_fetched_for_long_is_not_taken_for_today_s(
    host: SimulatedHost, session: HostSession
) -> None:
    host.gate.clear()
    with pytest.raises(Interrupted):
        session.run_job(ECHO, WORK, interrupt, timeout_s=60)
    host.gate.set()
    host.server.jobs.wait_until_idle(10)
    host.server.jobs.age(jobs.KEEP_S + 1)
    assert session.run_job(ECHO, WORK, silent, timeout_s=60) == WORK
    assert host.server.jobs.started == 2


def test_two_that_ask_at_once_share_one_job(host: SimulatedHost, session: HostSession) -> None:
    host.gate.clear()
    with ThreadPoolExecutor(2) as threads:
        both = [threads.submit(session.run_job, ECHO, WORK, silent, timeout_s=60) for _ in range(2)]
        assert host.began.wait(10)
        threading.Timer(0.1, host.gate.set).start()
        outcomes = [future.exception() or future.result() for future in both]
    assert host.server.jobs.started == 1
    assert WORK in outcomes
    # Who comes second may find that the first one has fetched the answer and tidied up.
    assert all(outcome == WORK or isinstance(outcome, Busy) for outcome in outcomes)


def requests_of_one_job(host: SimulatedHost) -> list[str]:
    with HostSession(host.settings()) as session:
        session.run_job(ECHO, WORK, silent, timeout_s=60)
    verbs = list(host.server.verbs)
    host.server.verbs.clear()
    host.requests.clear()
    host.server.jobs.started = 0
    return verbs


@pytest.mark.parametrize("cut", list(Cut))
def test_a_job_survives_a_cut_at_every_request_in_turn(host: SimulatedHost, cut: Cut) -> None:
    """Each cut ends in a clear class, and the repeated call gets the result of the one job that ran."""
    for number in range(1, len(requests_of_one_job(host)) + 1):
        with HostSession(host.settings()) as session:
            refused = outcome = None
            host.server.disturb = disturbance_at(number, cut)
            try:
                outcome = session.run_job(ECHO, WORK, silent, timeout_s=60)
            except LeewardError as error:
                refused = error
            host.server.disturb = None
            if refused is not None:
                assert isinstance(refused, Unreachable), f"request {number}: {refused!r}"
                outcome = session.run_job(ECHO, WORK, silent, timeout_s=60)
            assert outcome == WORK
        assert host.server.jobs.started == len(host.requests) == 1, f"request {number}"
        assert len(host.server.jobs) == 0
        host.requests.clear()
        host.server.verbs.clear()
        host.server.jobs.started = 0


def disturbance_at(number: int, cut: Cut) -> Disturb:
    return lambda present, _: cut if present == number else None
