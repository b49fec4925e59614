"""One remote shell on one host, over one pywinrm Protocol: used by one thread at a time, and used again.

The command that runs is a bootstrap that does nothing before its whole standard input has arrived. So a channel that
breaks before its last ``Send`` was answered has changed nothing, and :class:`Broken` says so.
"""

from __future__ import annotations

import contextlib
import logging
import math
import ssl
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from adapters.hyperv.connection import Authentication, HyperVHost
from adapters.hyperv.errors import AGAIN, TRIED_AGAIN, from_fault, without
from vault.errors import (
    AuthenticationRefused,
    AuthorizationRefused,
    BadInput,
    LeewardError,
    NotRecoverable,
    Unreachable,
)
from vault.secrets import resolve

if TYPE_CHECKING:
    from winrm.protocol import Protocol

logger = logging.getLogger(__name__)

SEND_BYTES = 96 * 1024
"""Raw bytes of one ``Send``: with base64 and the envelope below 150 KiB, the smallest MaxEnvelopeSizekb in use."""
SHELL_IDLE = "PT5M"
"""After which time without a request the host ends a shell that was not closed (rsp:IdleTimeOut, [MS-WSMV])."""
CODE_PAGE_UTF_8 = 65001


LOGIN_REMEDIES = {
    Authentication.KERBEROS: "check the worker's Kerberos ticket (klist), the host's name and the clocks",
    Authentication.CERTIFICATE: "check that the host maps the certificate to an account",
}
KERBEROS_REFUSALS = ("KerberosExchangeError", "MutualAuthenticationError")
"""By name: the package that has them cannot be imported where Kerberos is not installed. They are RequestExceptions."""


class Broken(Exception):
    """The channel is of no use any more. ``error`` is what to tell, ``ran`` whether the command may have begun."""

    def __init__(self, error: LeewardError, *, ran: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.ran = ran


class Output(NamedTuple):
    stdout: bytes
    stderr: bytes
    exit_code: int


class Channel:
    """Raises the errors of :mod:`vault.errors`, or :class:`Broken` around one of them."""

    def __init__(self, host: HyperVHost) -> None:
        self.host = host
        self.secrets: list[str] = []
        if host.password is not None:
            self.secrets.append(resolve(host.password))
        self._protocol = _protocol(host, self.secrets[0] if self.secrets else None)
        self._shell: str | None = None

    @property
    def is_used(self) -> bool:
        """Whether it worked before: then a break may only mean that the host ended what was idle."""
        return self._shell is not None

    def execute(self, command: str, stdin: bytes, timeout_s: float) -> Output:
        """Run ``command`` with ``stdin`` and wait for its end.

        Raises ``Unreachable`` when it has not ended after ``timeout_s``; it is then told to stop."""
        deadline = time.monotonic() + timeout_s
        self._protocol.operation_timeout_sec = self.host.operation_timeout_s
        with self._breaking(ran=False):
            shell = self._open_shell()
            running = self._protocol.run_command(shell, command, console_mode_stdin=False)
        try:
            for chunk, is_last in _chunks(stdin):
                with self._breaking(ran=is_last):
                    self._protocol.send_command_input(shell, running, chunk, end=is_last)
            with self._breaking(ran=True):
                output = self._receive(shell, running, deadline, timeout_s)
        except Broken:
            raise
        except LeewardError:
            self._clean_up(shell, running)
            raise
        self._clean_up(shell, running)
        return output

    def close(self) -> None:
        """End the shell, if the host can be told; otherwise the host ends it by itself (:data:`SHELL_IDLE`)."""
        shell, self._shell = self._shell, None
        if shell is None:
            self._protocol.transport.close_session()
            return
        try:
            with self._breaking(ran=False):
                self._protocol.close_shell(shell, close_session=True)
        except (Broken, LeewardError) as error:
            logger.info("%s: the remote shell was not closed, the host will end it: %s", self.host.where, error)

    def abandon(self) -> None:
        """Drop the connection without another word to the host."""
        self._shell = None
        self._protocol.transport.close_session()

    def _open_shell(self) -> str:
        if self._shell is None:
            self._shell = self._protocol.open_shell(codepage=CODE_PAGE_UTF_8, noprofile=True, idle_timeout=SHELL_IDLE)
        return self._shell

    def _receive(self, shell: str, running: str, deadline: float, timeout_s: float) -> Output:
        from winrm.exceptions import WinRMOperationTimeoutError

        stdout, stderr = bytearray(), bytearray()
        while True:
            left = math.ceil(deadline - time.monotonic())
            self._protocol.operation_timeout_sec = max(1, min(self.host.operation_timeout_s, left))
            try:
                out, err, code, done = self._protocol.get_command_output_raw(shell, running)
            except WinRMOperationTimeoutError:
                out, err, code, done = b"", b"", -1, False
            stdout += out
            stderr += err
            if done:
                return Output(bytes(stdout), bytes(stderr), code)
            if time.monotonic() > deadline:
                raise Unreachable(
                    f"the operation has not ended after {timeout_s:.3g} s and was told to stop",
                    where=self.host.where,
                    remedy=f"see what the host is busy with; {TRIED_AGAIN}",
                )

    def _clean_up(self, shell: str, running: str) -> None:
        """Let the host forget the command. A channel on which that fails is not used again."""
        try:
            with self._breaking(ran=True):
                self._protocol.cleanup_command(shell, running)
        except (Broken, LeewardError) as error:
            logger.info("%s: the shell is given up: %s", self.host.where, error)
            self.abandon()

    @contextlib.contextmanager
    def _breaking(self, *, ran: bool) -> Iterator[None]:
        """Translate what pywinrm and requests raise."""
        from requests import RequestException
        from requests_credssp import exceptions as credssp  # type: ignore[import-untyped]
        from spnego.exceptions import SpnegoError
        from winrm.exceptions import (
            InvalidCredentialsError,
            WinRMError,
            WinRMOperationTimeoutError,
            WinRMTransportError,
            WSManFaultError,
        )

        where = self.host.where
        try:
            yield
        except InvalidCredentialsError as error:
            raise self._refused(f"the host refuses the credentials ({self.host.authentication}): {error}") from None
        except WSManFaultError as error:
            translated = from_fault(error.wsman_fault_code or error.wmierror_code, error.reason, where, self.secrets)
            if isinstance(translated, Unreachable):
                raise Broken(translated, ran=ran) from None
            raise translated from None
        except WinRMOperationTimeoutError:
            slow = Unreachable("the host did not answer in the operation timeout", where=where, remedy=AGAIN)
            raise Broken(slow, ran=ran) from None
        except WinRMTransportError as error:
            raise self._http_error(error.code, ran) from None
        except RequestException as error:
            raise self._request_error(error, ran) from None
        except (SpnegoError, credssp.AuthenticationException, credssp.NTStatusException, PermissionError) as error:
            # PermissionError: requests_ntlm's, for a server that offers NTLM and does not answer with a challenge.
            raise self._refused(f"the {self.host.authentication} login failed: {error}") from None
        except OSError as error:
            raise NotRecoverable(
                without(_reason(error), self.secrets),
                where=where,
                remedy="check the files that the host's settings name",
            ) from None
        except WinRMError as error:
            raise NotRecoverable(
                without(str(error), self.secrets), where=where, remedy="check the connection's settings"
            ) from None
        except (KeyError, StopIteration, AssertionError, SyntaxError, ValueError) as error:
            # pywinrm takes answers apart without checking them; ElementTree's ParseError is a SyntaxError.
            text = f"the host's answer is not WS-Management ({type(error).__name__})"
            raise Broken(
                Unreachable(text, where=where, remedy="check that nothing in between changes the connection"), ran=ran
            ) from None

    def _refused(self, what: str) -> AuthenticationRefused:
        return AuthenticationRefused(
            without(what, self.secrets),
            where=self.host.where,
            remedy=f"{LOGIN_REMEDIES.get(self.host.authentication, 'check user and password')}, and that the host "
            f"allows '{self.host.authentication}' (winrm get winrm/config/service/auth)",
        )

    def _http_error(self, code: int, ran: bool) -> Exception:
        where = self.host.where
        if code == 403:
            return AuthorizationRefused("the host forbids the request (HTTP 403)", where=where, remedy=AGAIN)
        if code in (404, 405, 400):
            return BadInput(
                f"there is no WinRM service here (HTTP {code})", where=where, remedy="check address and port"
            )
        if code >= 500:
            return Broken(Unreachable(f"the host fails (HTTP {code})", where=where, remedy=AGAIN), ran=ran)
        return NotRecoverable(f"the host answers with HTTP {code}", where=where, remedy="check address and port")

    def _request_error(self, error: Exception, ran: bool) -> Exception:
        from requests import ConnectTimeout, ReadTimeout

        where = self.host.where
        if type(error).__name__ in KERBEROS_REFUSALS:
            return self._refused(f"the kerberos login failed: {error}")
        refused = next((e for e in _chain(error) if isinstance(e, ssl.SSLCertVerificationError)), None)
        if refused is not None:
            return _certificate_refused(refused, where)
        if any(isinstance(e, ssl.SSLError) for e in _chain(error)):
            return Broken(
                Unreachable("the TLS connection failed", where=where, remedy="check that the port speaks HTTPS"),
                ran=ran,
            )
        if isinstance(error, ConnectTimeout | ReadTimeout):
            text = "the host does not answer in time"
        else:
            cause = next((e for e in reversed(list(_chain(error))) if isinstance(e, OSError)), error)
            text = f"the connection failed ({without(_reason(cause), self.secrets)})"
        return Broken(Unreachable(text, where=where, remedy=AGAIN), ran=ran)


def _protocol(host: HyperVHost, password: str | None) -> Protocol:
    try:
        from winrm.exceptions import InvalidCredentialsError, WinRMError
        from winrm.protocol import Protocol
    except ImportError:
        raise BadInput(
            "pywinrm is not installed", where=host.where, remedy="pip install 'leeward[hyperv]' for the site's worker"
        ) from None
    # At DEBUG it writes the NTLM exchange, from which a weak password can be computed.
    logging.getLogger("spnego").setLevel(logging.INFO)
    if host.ca is not None:
        _check_authorities(host.ca)
    if not host.verify:
        logger.warning("%s: the host's certificate is not checked ('verify: false')", host.where)
    try:
        protocol = Protocol(
            host.endpoint,
            transport=host.authentication.value,
            username=host.user,
            password=password,
            cert_pem=str(host.certificate) if host.certificate else None,
            cert_key_pem=str(host.certificate_key) if host.certificate_key else None,
            # None, not the default "legacy_requests": nothing in the environment changes whom we trust.
            ca_trust_path=str(host.ca) if host.ca else None,  # type: ignore[arg-type]
            server_cert_validation="validate" if host.verify else "ignore",
            operation_timeout_sec=host.operation_timeout_s,
            read_timeout_sec=host.operation_timeout_s + 10,
            proxy=None,
        )
        # pywinrm knows one limit for both; requests takes the two apart.
        protocol.transport.read_timeout_sec = (  # type: ignore[assignment]
            host.connect_timeout_s,
            host.operation_timeout_s + 10,
        )
        protocol.transport.build_session()
    except InvalidCredentialsError as error:
        raise BadInput(str(error), where=host.where, remedy="correct the host's connection settings") from None
    except WinRMError as error:
        extra = "hyperv-kerberos" if host.authentication is Authentication.KERBEROS else "hyperv"
        raise BadInput(str(error), where=host.where, remedy=f"pip install 'leeward[{extra}]'") from None
    return protocol


def _check_authorities(file: Path) -> None:
    try:
        ssl.create_default_context(cafile=file)
    except OSError as error:
        raise BadInput(
            f"the host's 'ca' is not a file of certificates in PEM ({_reason(error)})",
            where=str(file),
            remedy="export the authority's certificate as Base-64 X.509",
        ) from None


def _certificate_refused(error: ssl.SSLCertVerificationError, where: str) -> AuthenticationRefused:
    """X509_V_ERR codes: OpenSSL's x509_vfy.h."""
    remedies = {
        10: "renew the certificate of the host's HTTPS listener (docs/hyperv.md)",
        9: "correct the clock of the host or of this machine",
        18: "name the host's certificate, or its authority, as 'ca'",
        19: "name the authority of the host's certificate as 'ca'",
        20: "name the authority of the host's certificate as 'ca'",
        62: "address the host by a name its certificate carries",
        64: "address the host by a name its certificate carries",
    }
    return AuthenticationRefused(
        f"the host's certificate is not accepted: {error.verify_message}",
        where=where,
        remedy=remedies.get(error.verify_code, "check the certificate of the host's HTTPS listener"),
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what is inside: requests and urllib3 keep the cause in ``reason``, ``args`` or ``__context__``."""
    waiting: list[Any] = [error]
    seen: set[int] = set()
    while waiting:
        item = waiting.pop(0)
        if not isinstance(item, BaseException) or id(item) in seen:
            continue
        seen.add(id(item))
        yield item
        waiting += [getattr(item, "reason", None), *item.args, item.__cause__, item.__context__]


def _reason(error: BaseException) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).strip()


def _chunks(stdin: bytes) -> Iterator[tuple[bytes, bool]]:
    starts: Sequence[int] = range(0, max(len(stdin), 1), SEND_BYTES)
    for start in starts:
        yield stdin[start : start + SEND_BYTES], start == starts[-1]
