"""One session for each host: operations from any thread, on a bounded number of remote shells that are used again."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

from pydantic import ValidationError

from adapters.hyperv.call import Answer, decode_answer, encode_call, powershell, secrets_in
from adapters.hyperv.channel import Broken, Channel, Output
from adapters.hyperv.clixml import error_text
from adapters.hyperv.connection import HyperVHost
from adapters.hyperv.errors import from_record, without
from adapters.hyperv.jobs import run_job
from adapters.hyperv.operation import Input, Operation
from adapters.hyperv.operation import Output as Given
from vault.errors import AuthenticationRefused, Busy, Damaged, LeewardError, NotRecoverable

logger = logging.getLogger(__name__)


class HostSession:
    """Runs operations on one host. Thread-safe; all calls block.

    A shell that is idle may be gone (the host was restarted, its idle timeout passed). Then the operation begins anew
    on a new one, once, and only when the host cannot have begun it; any other failure is the caller's to repeat.
    """

    def __init__(self, host: HyperVHost) -> None:
        self.host = host
        self._idle: list[Channel] = []
        self._passwords: set[str] = set()
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(host.concurrency)

    def run(self, operation: Operation[Input, Given], given: Input, *, timeout_s: float) -> Given:
        """Run ``operation`` with ``given`` and return what its script gave.

        ``timeout_s`` counts from the call, waiting for a free shell included.

        Raises the errors of :mod:`vault.errors`: those of :mod:`adapters.hyperv.errors` for what the host reports,
        ``Unreachable`` when it does not answer or the operation has not ended in time, ``Busy`` when all shells were
        taken until then, ``Damaged`` when the answer is not what the script gives.
        """
        secrets = secrets_in(given.model_dump())
        answer = self._answer(encode_call(operation.script, given), timeout_s)
        return self.result(operation, answer, secrets)

    def run_job(
        self, operation: Operation[Input, Given], given: Input, beat: Callable[[str], None], *, timeout_s: float
    ) -> Given:
        """As :meth:`run`, for an operation that takes long: it runs as a job on the host, and no connection is open
        meanwhile. Asked again with the same input, the host finds the job it has; a lost connection loses nothing.

        ``beat`` is called between looks at the job; it may raise to end the waiting, which leaves the job running.

        Raises as :meth:`run`; ``Busy`` when the job still runs after ``timeout_s``, ``Unreachable`` when the host lost
        it (a restart). Either way the same call again takes up the job, or begins anew.
        """
        return run_job(self, operation, given, beat, timeout_s)

    def result(self, operation: Operation[Input, Given], answer: Answer, secrets: list[str]) -> Given:
        """What ``answer`` holds for ``operation``; raises the error it reports."""
        where = self.host.where
        secrets = [*secrets, *self._passwords]
        for warning in answer.warnings:
            logger.warning("%s: %s: %s", where, operation.script, without(warning, secrets))
        if answer.error is not None:
            raise from_record(answer.error, where, secrets)
        try:
            return operation.gives.model_validate(answer.result)
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))
            raise Damaged(
                f"'{operation.script}' gave something else than {operation.gives.__name__}: {without(wrong, secrets)}",
                where=where,
                remedy="report it with the versions that 'leeward hyperv check' shows",
            ) from None

    def close(self) -> None:
        """End the idle shells. The session may be used again."""
        for channel in self._take_all():
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self, call: bytes, timeout_s: float) -> Answer:
        deadline = time.monotonic() + timeout_s
        with self._slot(timeout_s):
            channel = self._take()
            was_used = channel.is_used
            try:
                output = self._execute(channel, call, deadline)
            except Broken as broken:
                if broken.ran or not was_used:
                    raise broken.error from None
                self._forget_idle(broken)
                channel = self._new()
                output = self._execute_anew(channel, call, deadline)
            self._give_back(channel)
        return self._answer_in(output)

    def _execute(self, channel: Channel, call: bytes, deadline: float) -> Output:
        try:
            return channel.execute(powershell(), call, max(deadline - time.monotonic(), 0))
        except (Broken, AuthenticationRefused):
            # After a refused login not even a good-bye: every try counts towards the lock-out of the account.
            channel.abandon()
            raise
        except LeewardError:
            channel.close()
            raise

    def _execute_anew(self, channel: Channel, call: bytes, deadline: float) -> Output:
        try:
            return self._execute(channel, call, deadline)
        except Broken as broken:
            raise broken.error from None

    def _answer_in(self, output: Output) -> Answer:
        where = self.host.where
        lines = [line for line in output.stdout.decode("utf-8", "replace").splitlines() if line.strip()]
        if output.exit_code == 0 and lines:
            return decode_answer(lines[-1], where)
        said = without(error_text(output.stderr), [*self._passwords]) or "it said nothing"
        raise NotRecoverable(
            f"PowerShell on the host ended with {output.exit_code} before it ran the operation: {said}",
            where=where,
            remedy="run 'powershell.exe -NoProfile -Command 1' on the host as this account, and see docs/hyperv.md",
        )

    @contextmanager
    def _slot(self, timeout_s: float) -> Iterator[None]:
        if not self._slots.acquire(timeout=timeout_s):
            raise Busy(
                f"all {self.host.concurrency} shells of the host were taken for {timeout_s:g} s",
                where=self.host.where,
                remedy="wait, or raise the host's 'concurrency'",
            )
        try:
            yield
        finally:
            self._slots.release()

    def _take(self) -> Channel:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return self._new()

    def _new(self) -> Channel:
        channel = Channel(self.host)
        self._passwords.update(channel.secrets)
        return channel

    def _give_back(self, channel: Channel) -> None:
        with self._lock:
            self._idle.append(channel)

    def _take_all(self) -> list[Channel]:
        with self._lock:
            idle, self._idle = self._idle, []
        return idle

    def _forget_idle(self, broken: Broken) -> None:
        """What ended one idle shell, mostly a restart, ended the others too."""
        logger.info("%s: the session is established anew: %s", self.host.where, broken.error)
        for gone in self._take_all():
            gone.abandon()


_sessions: dict[HyperVHost, HostSession] = {}
_sessions_lock = threading.Lock()


def session_of(host: HyperVHost) -> HostSession:
    """This process's session for ``host``: equal settings share one, and with it its bound on concurrency."""
    with _sessions_lock:
        return _sessions.setdefault(host, HostSession(host))
