"""The simulated ``powershell.exe``: it runs leeward's bootstraps and packaged scripts, and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple
from xml.sax.saxutils import escape

from adapters.hyperv.call import Answer as Document
from adapters.hyperv.call import Call, decode_call, encode_answer, powershell
from adapters.hyperv.loader import script
from simulation.winrm.answering import Answer, Failure, Request, Result, failure
from simulation.winrm.jobs import JobFolder
from vault.errors import Damaged, NotFound

logger = logging.getLogger(__name__)


class Ended(NamedTuple):
    stdout: bytes
    stderr: bytes
    exit_code: int


class PowerShell:
    """One host's. ``answer`` gets every operation; the scripts of jobs are the host's own affair."""

    def __init__(self, host: str, answer: Answer, jobs: JobFolder) -> None:
        self._host = host
        self._answer = answer
        self._jobs = jobs

    def run(self, user: str, command_line: str, stdin: bytes) -> Ended:
        if command_line != powershell():
            return _failed(f"'{command_line.partition(' ')[0]}' is not the bootstrap that leeward packages.", 1)
        try:
            call = self._packaged(decode_call(stdin))
        except Damaged as error:
            return _failed(str(error), 1)
        return Ended((self._line(user, call) + "\r\n").encode("ascii"), b"", 0)

    def _line(self, user: str, call: Call) -> str:
        own: dict[str, Callable[[], Result]] = {
            "_job_start": lambda: self._jobs.start(call.parameters, lambda document: self._job(user, document)),
            "_job_poll": lambda: self._jobs.poll(call.parameters),
            "_job_remove": lambda: self._jobs.remove(call.parameters),
        }
        work = own.get(call.script) or (lambda: self._answered(Request(self._host, user, call.script, call.parameters)))
        return encode_answer(_document(work(), call))

    def _job(self, user: str, document: bytes) -> str:
        call = self._packaged(decode_call(document))
        return encode_answer(_document(self._answered(Request(self._host, user, call.script, call.parameters)), call))

    def _answered(self, request: Request) -> Result:
        """A mistake of the simulation is told to its caller, who would otherwise wait for an answer."""
        try:
            return self._answer(request)
        except Exception as mistake:
            logger.exception("the simulated host %s failed to answer '%s'", self._host, request.script)
            return failure(f"the simulated host failed: {mistake!r}", exception=type(mistake).__name__)

    @staticmethod
    def _packaged(call: Call) -> Call:
        try:
            known = script(call.script)
        except NotFound as error:
            raise Damaged(error.what) from None
        if call.text != known:
            raise Damaged(f"the text of '{call.script}' is not the packaged one")
        return call


def _document(result: Result, call: Call) -> Document:
    if isinstance(result, Failure):
        return Document(error=result.record.model_copy(update={"script": call.script, "line": result.record.line or 1}))
    return Document(result=result)


def _failed(message: str, exit_code: int) -> Ended:
    """As ``powershell.exe`` writes an error when its output is redirected ([MS-PSRP] 2.2.5)."""
    text = escape(message).replace("\n", "_x000D__x000A_")
    clixml = (
        "#< CLIXML\r\n"
        '<Objs Version="1.1.0.1" xmlns="http://schemas.microsoft.com/powershell/2004/04">'
        f'<S S="Error">{text}_x000D__x000A_</S></Objs>'
    )
    return Ended(b"", clixml.encode(), exit_code)
