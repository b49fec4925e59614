"""The simulated WinRM service of one host: WS-Management over HTTPS, for any client that speaks it."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Sequence
from enum import Enum, auto
from pathlib import Path
from typing import NamedTuple, Self, cast

from simulation.listening import HttpConnection, TlsListener, drop
from simulation.winrm import soap
from simulation.winrm.accounts import Account, Accounts, Denied, TokenLogin
from simulation.winrm.answering import Answer
from simulation.winrm.certificate import ServerCertificate, make_certificate
from simulation.winrm.jobs import JobFolder
from simulation.winrm.powershell import PowerShell
from simulation.winrm.shells import Shells

MAX_ENVELOPE_BYTES = 500 * 1024
"""MaxEnvelopeSizekb's default since WinRM 3.0."""


CERTIFICATE_SCHEME = "http://schemas.dmtf.org/wbem/wsman/1/wsman/secprofile/https/mutual"
"""The Authorization header of a login by client certificate ([MS-WSMV] 2.2.9)."""


class Cut(Enum):
    """A connection that is lost in the middle of a request."""

    BEFORE = auto()
    """The host never saw it."""
    AFTER = auto()
    """The host did what was asked; its answer is lost."""


class HttpError(NamedTuple):
    status: int


Disturbance = Cut | soap.Fault | HttpError
Disturb = Callable[[int, str], Disturbance | None]
"""Asked at every authenticated request, with its number from 1 and its verb (``Create``, ``Command``, ``Send`` …)."""


class WinRMServer:
    """Listens on 127.0.0.1 until :meth:`close`; a context manager.

    Args:
        answer: called for each operation that a client runs.
        accounts: who may log in.
        host: the name that ``answer`` gets.
        basic: whether basic authentication is allowed beside the others.
        folder: keeps its accounts, and the certificate that is made when none is given. It is its own; a server that
            was killed leaves it for the next one.
        certificate: what it shows.
        max_shells: MaxShellsPerUser.
        latency_s: how long every request takes at least.
        port: 0: a free one.
    """

    def __init__(
        self,
        answer: Answer,
        accounts: Sequence[Account],
        *,
        folder: Path,
        host: str = "host",
        basic: bool = False,
        certificate: ServerCertificate | None = None,
        max_shells: int = 30,
        latency_s: float = 0.0,
        port: int = 0,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.certificate = certificate or make_certificate(folder)
        self.accounts = Accounts(accounts, folder, self.certificate.channel_binding(), basic=basic)
        self.jobs = JobFolder()
        self.shells = Shells(PowerShell(host, answer, self.jobs), max_shells)
        self.latency_s = latency_s
        self.disturb: Disturb | None = None
        self.verbs: list[str] = []
        """The verbs of all authenticated requests."""
        self.logins = 0
        """Logins by NTLM or CredSSP that were accepted."""
        self.attempts = 0
        """Logins that were begun."""
        self._lock = threading.Lock()
        self._listener = _Listener(self, port)

    @property
    def port(self) -> int:
        return self._listener.port

    def close(self) -> None:
        self._listener.close()
        self.accounts.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def cut_connections(self) -> None:
        """Drop every connection; shells and commands stay."""
        self._listener.cut_connections()

    def reboot(self) -> None:
        """As a restart of the host: shells, commands and running jobs end, finished jobs keep their answers."""
        self.jobs.reboot()
        self.shells.reboot()
        self.cut_connections()

    def handle(self, account: Account, document: bytes) -> tuple[int, bytes, Cut | None]:
        """The HTTP status and answer to one authenticated request, and whether the connection is lost."""
        time.sleep(self.latency_s)
        message_id = ""
        try:
            if len(document) > MAX_ENVELOPE_BYTES:
                raise soap.ENVELOPE_TOO_LARGE
            message = soap.parse(document)
            message_id = message.id
            disturbance = self._disturbance(message.verb)
            if isinstance(disturbance, soap.Fault):
                raise disturbance
            if isinstance(disturbance, HttpError):
                return disturbance.status, b"", None
            if disturbance is Cut.BEFORE:
                return 0, b"", Cut.BEFORE
            if not account.may_manage:
                raise soap.ACCESS_DENIED
            return 200, self.shells.handle(account.user, message), disturbance
        except soap.Fault as refused:
            return 500, soap.fault(message_id, refused), None

    def _disturbance(self, verb: str) -> Disturbance | None:
        with self._lock:
            self.verbs.append(verb)
            number = len(self.verbs)
        return self.disturb(number, verb) if self.disturb else None


class _Listener(TlsListener):
    def __init__(self, server: WinRMServer, port: int) -> None:
        self.winrm = server
        context = server.certificate.context(server.accounts.client_certificates)
        super().__init__(context, port, _Connection, "simulated WinRM")


class _Connection(HttpConnection):
    """One connection. NTLM and CredSSP authenticate a connection, not a request ([MS-NTHT])."""

    content_type = "application/soap+xml;charset=UTF-8"
    server: _Listener

    def setup(self) -> None:
        super().setup()
        self._account: Account | None = None
        self._login: TokenLogin | None = None

    def do_POST(self) -> None:
        body = self.read_body()
        if self.path.partition("?")[0] != "/wsman":
            self.respond(404, b"")
            return
        try:
            account = self._authenticated()
        except Denied:
            self._account = self._login = None
            account = None
        if account is None:
            return
        status, answer, cut = self.server.winrm.handle(account, body)
        if cut is not None:
            self.close_connection = True
            drop(self.connection)
            return
        self.respond(status, answer)

    def _authenticated(self) -> Account | None:
        """None when a challenge was sent instead. Raises ``Denied`` after saying so."""
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        accounts = self.server.winrm.accounts
        if scheme and self._login is None:
            self.server.winrm.attempts += 1
        try:
            if scheme == "Basic":
                return accounts.by_basic(token)
            if scheme == CERTIFICATE_SCHEME:
                return accounts.by_certificate(cast(ssl.SSLSocket, self.connection).getpeercert(binary_form=True))
            if scheme in ("NTLM", "Negotiate", "CredSSP"):
                return self._by_token(scheme, token)
            if self._account is not None:
                return self._account
        except Denied:
            self._challenge(*accounts.offered)
            raise
        self._challenge(*accounts.offered)
        return None

    def _by_token(self, scheme: str, token: str) -> Account | None:
        if self._login is None:
            self._login = TokenLogin(self.server.winrm.accounts, scheme)
        reply, account = self._login.step(token)
        if reply is not None:
            self._challenge(f"{scheme} {reply}")
            return None
        self._login = None
        self._account = account
        self.server.winrm.logins += 1
        return account

    def _challenge(self, *offers: str) -> None:
        self.respond(401, b"", *(("WWW-Authenticate", offer) for offer in offers))
