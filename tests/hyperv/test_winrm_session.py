"""Operations over the real pywinrm against the simulated service: what travels, and sessions that are used again."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from winrm_host import ECHO, PASSWORD, USER, Echo, SimulatedHost

from adapters.hyperv.session import HostSession, session_of
from simulation.winrm.accounts import Account
from simulation.winrm.answering import Request, Result
from simulation.winrm.server import Cut, Disturbance, WinRMServer
from vault.errors import Busy, NotRecoverable, Unreachable

pytestmark = pytest.mark.contract

TEXTS = [
    "Dömäne – 仮想マシン 🖥",
    'it\'s "quoted" and `ticked` and ’curly‘',
    "[brackets] {braces} $(Remove-Item *) %PATH% & | < > ;",
    "line\r\nbreak\ttab\\backslash",
    "",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("authentication", ["ntlm", "basic"])
def test_parameters_and_results_travel_unchanged(host: SimulatedHost, text: str, authentication: str) -> None:
    host.server.accounts.basic_allowed = True
    with HostSession(host.settings(authentication=authentication)) as session:
        assert session.run(ECHO, Echo(text=text, number=-7), timeout_s=60) == Echo(text=text, number=-7)
    (request,) = host.requests
    assert request.user == USER
    assert request.parameters == {"text": text, "number": -7}


def test_a_mebibyte_of_parameters_travels_in_pieces(host: SimulatedHost, session: HostSession) -> None:
    text = "Größe" * (1024 * 1024 // 6)
    assert session.run(ECHO, Echo(text=text), timeout_s=20).text == text
    assert host.server.verbs.count("Send") > 10
    assert host.server.verbs.count("Receive") > 10


def test_a_shell_is_opened_once_and_used_again(host: SimulatedHost, session: HostSession) -> None:
    for number in range(3):
        assert session.run(ECHO, Echo(text="x", number=number), timeout_s=60).number == number
    assert host.server.verbs == ["Create", *["Command", "Send", "Receive", "Signal"] * 3]
    assert host.server.logins == 1
    session.close()
    assert host.server.verbs[-1] == "Delete"
    assert len(host.server.shells) == 0


def test_slow_output_is_polled_for(host: SimulatedHost) -> None:
    with HostSession(host.settings(operation_timeout_s=1)) as session:
        host.gate.clear()
        opener = threading.Timer(1.3, host.gate.set)
        opener.start()
        assert session.run(ECHO, Echo(text="late"), timeout_s=60).text == "late"
        opener.join()
    assert host.server.verbs.count("Receive") == 2


def test_an_operation_that_does_not_end_is_told_to_stop(host: SimulatedHost) -> None:
    with HostSession(host.settings(operation_timeout_s=1)) as session:
        host.gate.clear()
        with pytest.raises(Unreachable, match=r"has not ended after 0\.\d+ s"):
            session.run(ECHO, Echo(text="never"), timeout_s=0.5)
        host.gate.set()
        assert "Signal" in host.server.verbs
        assert session.run(ECHO, Echo(text="next"), timeout_s=60).text == "next"


def test_no_more_operations_run_at_once_than_the_host_allows(host: SimulatedHost) -> None:
    with HostSession(host.settings(concurrency=3)) as session, ThreadPoolExecutor(12) as threads:
        host.gate.clear()
        running = [threads.submit(session.run, ECHO, Echo(text=str(n)), timeout_s=20) for n in range(12)]
        threading.Timer(0.5, host.gate.set).start()
        assert {future.result().text for future in running} == {str(n) for n in range(12)}
    assert host.server.shells.most_running == 3
    assert host.server.verbs.count("Create") == 3


def test_waiting_for_a_shell_ends(host: SimulatedHost) -> None:
    with HostSession(host.settings(concurrency=1)) as session, ThreadPoolExecutor(1) as threads:
        host.gate.clear()
        first = threads.submit(session.run, ECHO, Echo(text="first"), timeout_s=20)
        assert host.began.wait(10)
        with pytest.raises(Busy, match="all 1 shells"):
            session.run(ECHO, Echo(text="second"), timeout_s=0.2)
        host.gate.set()
        assert first.result().text == "first"


def test_equal_settings_share_a_session(host: SimulatedHost) -> None:
    assert session_of(host.settings()) is session_of(host.settings())
    assert session_of(host.settings()) is not session_of(host.settings(concurrency=2))


def test_a_session_is_established_anew_after_a_restart_of_the_host(host: SimulatedHost, session: HostSession) -> None:
    assert session.run(ECHO, Echo(text="before"), timeout_s=60).text == "before"
    host.server.reboot()
    assert session.run(ECHO, Echo(text="after"), timeout_s=60).text == "after"
    assert host.server.verbs.count("Create") == 2
    assert [request.parameters["text"] for request in host.requests] == ["before", "after"]


def test_a_restart_in_the_middle_of_an_operation_is_unreachable_and_not_repeated_by_itself(
    host: SimulatedHost, session: HostSession
) -> None:
    session.run(ECHO, Echo(text="warm"), timeout_s=60)
    host.gate.clear()
    host.began.clear()
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(session.run, ECHO, Echo(text="once"), timeout_s=20)
        assert host.began.wait(10)
        host.server.reboot()
        with pytest.raises(Unreachable):
            running.result()
    host.gate.set()
    assert [request.parameters["text"] for request in host.requests] == ["warm", "once"]
    assert session.run(ECHO, Echo(text="next"), timeout_s=60).text == "next"


def test_a_shell_that_the_host_ended_is_replaced(host: SimulatedHost, session: HostSession) -> None:
    session.run(ECHO, Echo(text="before"), timeout_s=60)
    host.server.shells.reboot()
    assert session.run(ECHO, Echo(text="after"), timeout_s=60).text == "after"


@pytest.mark.parametrize("cut", list(Cut))
@pytest.mark.parametrize("verb", ["Create", "Command", "Send", "Receive", "Signal"])
def test_a_connection_cut_at_any_request_is_unreachable_and_the_next_call_works(
    host: SimulatedHost, session: HostSession, verb: str, cut: Cut
) -> None:
    pending = [verb]

    def disturb(number: int, present: str) -> Disturbance | None:
        if pending == [present]:
            pending.clear()
            return cut
        return None

    host.server.disturb = disturb
    if verb == "Signal":
        # The answer is here already; only the host's tidying up failed.
        assert session.run(ECHO, Echo(text="first"), timeout_s=60).text == "first"
    else:
        with pytest.raises(Unreachable, match="connection failed"):
            session.run(ECHO, Echo(text="first"), timeout_s=60)
    assert not pending
    assert session.run(ECHO, Echo(text="second"), timeout_s=60).text == "second"


@pytest.mark.parametrize("verb", ["Command", "Send", "Receive"])
def test_a_used_session_goes_on_only_when_nothing_has_begun(
    host: SimulatedHost, session: HostSession, verb: str
) -> None:
    session.run(ECHO, Echo(text="warm"), timeout_s=60)
    pending = [verb]
    host.server.disturb = lambda number, present: Cut.AFTER if pending == [present] and not pending.clear() else None
    host.requests.clear()
    host.began.clear()
    if verb == "Command":
        assert session.run(ECHO, Echo(text="once"), timeout_s=60).text == "once"
        assert len(host.requests) == 1
    else:
        with pytest.raises(Unreachable):
            session.run(ECHO, Echo(text="once"), timeout_s=60)
        assert host.began.wait(10)
        assert len(host.requests) == 1


@pytest.mark.parametrize("as_job", [False, True])
def test_a_simulated_host_that_fails_itself_says_so_at_once(host: SimulatedHost, as_job: bool) -> None:
    """Its caller waited two minutes for an answer, and heard nothing of why there was none."""

    def fails(request: Request) -> Result:
        raise KeyError("nobody thought of that")

    host.server.close()
    host.server = WinRMServer(fails, [Account(USER, PASSWORD)], folder=host.folder)
    with HostSession(host.settings()) as session, pytest.raises(NotRecoverable, match="nobody thought of that"):
        if as_job:
            session.run_job(ECHO, Echo(text="x"), lambda _: None, timeout_s=60)
        else:
            session.run(ECHO, Echo(text="x"), timeout_s=60)
