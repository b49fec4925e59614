"""Logging in, and whom we talk to: credentials, certificates, and that no secret is ever said."""

from __future__ import annotations

import logging
import socket
import tempfile
import threading
import traceback
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError
from requests import RequestException
from winrm_host import ECHO, PASSWORD, USER, Echo, SimulatedHost

from adapters.hyperv.connection import HyperVHost
from adapters.hyperv.operation import Operation
from adapters.hyperv.session import HostSession
from simulation.winrm import soap
from simulation.winrm.answering import failure
from simulation.winrm.certificate import make_certificate
from simulation.winrm.server import Cut, HttpError
from vault.domain import Value
from vault.errors import (
    AuthenticationRefused,
    AuthorizationRefused,
    BadInput,
    LeewardError,
    NotFound,
    Unreachable,
)

pytestmark = pytest.mark.contract


def run(host: HyperVHost) -> str:
    with HostSession(host) as session:
        return session.run(ECHO, Echo(text="hello"), timeout_s=60).text


@pytest.mark.parametrize("authentication", ["ntlm", "credssp", "basic"])
@pytest.mark.parametrize(("user", "password"), [(USER, "wrong"), ("LAB\\nobody", PASSWORD)])
def test_wrong_credentials_are_refused_after_one_try(
    host: SimulatedHost, monkeypatch: pytest.MonkeyPatch, authentication: str, user: str, password: str
) -> None:
    host.server.accounts.basic_allowed = True
    monkeypatch.setenv("HOST_PASSWORD", password)
    with pytest.raises(AuthenticationRefused, match=r"(refuses the|login failed).* — check user and password"):
        run(host.settings(user=user, authentication=authentication))
    assert host.server.attempts == 1
    assert host.server.verbs == []


def test_a_changed_password_is_read_at_the_next_login(host: SimulatedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    with HostSession(host.settings()) as session:
        monkeypatch.setenv("HOST_PASSWORD", "wrong")
        with pytest.raises(AuthenticationRefused):
            session.run(ECHO, Echo(text="x"), timeout_s=60)
        monkeypatch.setenv("HOST_PASSWORD", PASSWORD)
        assert session.run(ECHO, Echo(text="x"), timeout_s=60).text == "x"


def test_basic_is_refused_where_it_is_off(host: SimulatedHost) -> None:
    with pytest.raises(AuthenticationRefused, match="that the host allows 'basic'"):
        run(host.settings(authentication="basic"))


def test_a_login_that_may_not_manage_is_denied(host: SimulatedHost) -> None:
    with pytest.raises(AuthorizationRefused, match=r"Access is denied \(0x00000005\) — let the account manage"):
        run(host.settings(user="LAB\\guest"))


def test_credssp_logs_in(host: SimulatedHost) -> None:
    assert run(host.settings(authentication="credssp")) == "hello"
    assert host.server.logins == 1
    assert host.requests[0].user == USER


def test_a_client_certificate_logs_in_as_the_account_that_it_is_mapped_to(tmp_path: Path) -> None:
    mapped, other = (make_certificate(tmp_path / name, names=(name,)) for name in ("mapped", "other"))
    simulated = SimulatedHost(tmp_path / "host", client_certificate=mapped.certificate)
    try:
        login = {"authentication": "certificate", "user": None, "password": None}
        assert run(simulated.settings(**login, certificate=mapped.certificate, certificate_key=mapped.key)) == "hello"
        assert simulated.requests[0].user == USER
        with pytest.raises(LeewardError):
            run(simulated.settings(**login, certificate=other.certificate, certificate_key=other.key))
        assert len(simulated.requests) == 1
    finally:
        simulated.close()


def test_a_host_whose_kerberos_is_not_installed_is_told_what_to_install(
    host: SimulatedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("winrm.transport.HAVE_KERBEROS", False)
    with pytest.raises(BadInput, match=r"pip install 'leeward\[hyperv-kerberos\]'"):
        run(host.settings(authentication="kerberos", password=None))


def test_a_refused_kerberos_login_is_not_tried_again(host: SimulatedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    class KerberosExchangeError(RequestException):
        """Named as pywinrm's own."""

    def no_ticket(*_: object) -> None:
        raise KerberosExchangeError("No Kerberos credentials available")

    monkeypatch.setattr("winrm.transport.Transport.send_message", no_ticket)
    with pytest.raises(AuthenticationRefused, match="the kerberos login failed: No Kerberos credentials available"):
        # NTLM stands in: it is what makes the transport here, and the error is the one to be told apart.
        run(host.settings())


def test_ntlm_is_bound_to_the_certificate(host: SimulatedHost, tmp_path: Path) -> None:
    """A login that was made for another certificate, as one in between would have, is refused."""
    other = make_certificate(tmp_path)
    host.server.accounts.bind_to(other.channel_binding())
    with pytest.raises(AuthenticationRefused):
        run(host.settings())


def test_an_unknown_certificate_is_refused_unless_told_not_to_look(
    host: SimulatedHost, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(AuthenticationRefused, match=r"self-signed certificate — name the host's certificate"):
        run(host.settings(ca=None))
    assert host.server.verbs == []
    assert run(host.settings(ca=None, verify=False)) == "hello"
    assert "certificate is not checked" in caplog.text


def test_the_environment_does_not_change_whom_we_trust(host: SimulatedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(host.server.certificate.certificate))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with pytest.raises(AuthenticationRefused):
        run(host.settings(ca=None))
    assert run(host.settings()) == "hello"


@pytest.mark.parametrize(
    ("names", "age", "message"),
    [
        (("127.0.0.1",), timedelta(hours=1), "certificate has expired — renew the certificate"),
        (("other.example",), timedelta(hours=-1), "not valid for '127.0.0.1'.* — address the host by a name"),
        (("127.0.0.1",), timedelta(days=-30), "not yet valid — correct the clock"),
    ],
)
def test_a_certificate_that_does_not_hold_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, names: tuple[str, ...], age: timedelta, message: str
) -> None:
    monkeypatch.setenv("HOST_PASSWORD", PASSWORD)
    certificate = make_certificate(tmp_path, names=names, valid_until=datetime.now(UTC) - age)
    simulated = SimulatedHost(tmp_path / "host", certificate=certificate)
    try:
        with pytest.raises(AuthenticationRefused, match=message):
            run(simulated.settings())
        assert simulated.server.verbs == []
    finally:
        simulated.close()


def test_a_host_that_does_not_listen_is_unreachable(host: SimulatedHost) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(Unreachable, match="Connection refused"):
        run(host.settings(port=port))


def test_a_port_that_does_not_speak_tls_is_unreachable(host: SimulatedHost) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(Unreachable, match="TLS connection failed"):
            run(host.settings(port=listener.getsockname()[1]))
        thread.join()


def test_a_host_that_accepts_and_then_says_nothing_is_unreachable(host: SimulatedHost) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pytest.raises(Unreachable, match="does not answer in time"),
    ):
        run(host.settings(port=listener.getsockname()[1], connect_timeout_s=1))


@pytest.mark.parametrize(
    "wrong",
    [
        {"user": None},
        {"password": None},
        {"authentication": "certificate"},
        {"authentication": "digest"},
        {"address": ""},
        {"port": 0},
        {"concurrency": 26},
    ],
    ids=str,
)
def test_settings_that_cannot_work_are_refused(host: SimulatedHost, wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        host.settings(**wrong)


def test_what_is_missing_for_a_login_is_said(host: SimulatedHost, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="env:NOT_SET"):
        run(host.settings(password="env:NOT_SET"))
    (tmp_path / "no.pem").write_text("nothing")
    for authority in (tmp_path / "missing.pem", tmp_path / "no.pem", tmp_path):
        with pytest.raises(BadInput, match="'ca' is not a file of certificates"):
            run(host.settings(ca=authority))
    (tmp_path / "no.pem").unlink()
    missing = {"certificate": tmp_path / "no.pem", "certificate_key": tmp_path / "no.key"}
    with pytest.raises(BadInput, match="cert_pem file not found"):
        run(host.settings(authentication="certificate", **missing))


class GuestLogin(Value):
    password: SecretStr


GUEST_PASSWORD = "gu3st-in-a-virtual-machine"


def test_no_error_and_no_log_record_holds_a_password(
    host: SimulatedHost, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    operation = Operation("run_in_guest", GuestLogin, Echo)
    given = GuestLogin(password=SecretStr(GUEST_PASSWORD))
    said: list[str] = []

    def attempt(**changes: object) -> None:
        session = HostSession(host.settings(**changes))
        try:
            with session:
                session.run(operation, given, timeout_s=60)
        except LeewardError as error:
            said.append("".join(traceback.format_exception(error)))
            said.append(f"{error!r} {error.args} {error.what} {error.remedy} {session.host!r}")

    host.server.accounts.basic_allowed = True
    host.result = failure(
        f"The credential {GUEST_PASSWORD} of {PASSWORD} is wrong", identifier=f"{GUEST_PASSWORD},X", target=PASSWORD
    )
    attempt()
    attempt(authentication="basic")
    host.result = {"text": GUEST_PASSWORD, GUEST_PASSWORD: 1}
    attempt()
    troubles = [
        soap.Fault(0x80338FFF, f"The user {PASSWORD} is unknown."),
        soap.ACCESS_DENIED,
        HttpError(500),
        Cut.BEFORE,
        Cut.AFTER,
    ]
    for trouble in troubles:
        for number in range(1, 6):
            host.server.verbs.clear()
            host.server.disturb = lambda present, _, n=number, t=trouble: t if present == n else None  # type: ignore[misc]
            attempt()
    host.server.disturb = None
    attempt(ca=None)
    monkeypatch.setenv("HOST_PASSWORD", "wr0ng-" + PASSWORD)
    attempt()
    attempt(authentication="basic")

    assert len(said) > 40
    for text in [*said, *(record.getMessage() for record in caplog.records), caplog.text]:
        assert PASSWORD not in text
        assert GUEST_PASSWORD not in text
        assert "TlRMTVNT" not in text, "an NTLM message"
    assert any(request.parameters == {"password": GUEST_PASSWORD} for request in host.requests)


def test_a_host_that_is_killed_leaves_nothing_outside_of_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its passwords stood in the machine's temporary folder for good."""
    monkeypatch.setenv("HOST_PASSWORD", PASSWORD)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    killed = SimulatedHost(tmp_path / "host")
    again = SimulatedHost(tmp_path / "host")
    assert run(again.settings()) == "hello"
    assert list(elsewhere.iterdir()) == []
    again.close()
    killed.close()
    assert not list((tmp_path / "host").glob("*accounts*"))
