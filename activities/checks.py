"""Checks of a plan: ask over TCP or HTTP, or run a command, until the answer is the expected one."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from typing import NamedTuple
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from activities.contracts import CheckDone, RunCheck
from activities.programs import Programs
from activities.running import Running
from plans.context import RunContext
from plans.rendering import http_target, render_step, tcp_target
from plans.steps import CheckStep, CommandCheck
from vault.errors import BadInput, NotRecoverable

ONE_TRY_S = 5.0
"""Longest time that one connection attempt of a check may take."""
BODY_READ = 64 * 1024
"""Bytes of an answer in which a check looks for its text."""
PATTERN_S = 5.0
"""Longest time that looking for a pattern may take."""
SHOWN = 200
"""Characters of a command's last line that an operator is shown."""


class CheckFailed(NotRecoverable):
    """Something is not as it should be, and has had its time."""


class Answer(NamedTuple):
    """What one try found. ``trouble`` None: all is well."""

    asked: str
    trouble: str | None
    output: str = ""


def run_check(given: RunCheck, programs: Programs, running: Running) -> CheckDone:
    """Try until the answer is the expected one, or the step's time is over; then say what the last one was.

    Raises:
        CheckFailed: in all its time the answer was another one.
        BadInput: it asks for something that cannot be asked.
    """
    step = render_step(given.step, given.context, where=given.step.name)
    assert isinstance(step, CheckStep)
    began = time.monotonic()
    while True:
        running.beat(f"check '{step.name}'")
        answer = _ask(step, given, programs, running, step.timeout - (time.monotonic() - began))
        waited = time.monotonic() - began
        if answer.trouble is None:
            return CheckDone(detail=f"{answer.asked} after {waited:.1f} s", duration_s=waited, output=answer.output)
        if waited + step.every > step.timeout:
            raise CheckFailed(
                f"{answer.asked} {answer.trouble} ({step.timeout:g} s)",
                where=step.name,
                remedy="look at the machine, then retry or skip the step",
            )
        running.wait(step.every)


def _ask(step: CheckStep, given: RunCheck, programs: Programs, running: Running, left_s: float) -> Answer:
    if step.command is not None:
        ended = programs.run(
            step.command, given.context, given.guest, left_s, running, doing=f"command of check '{step.name}'"
        )
        return _judged(step.command, ended.exit_code, ended.output, step.name)
    return _ask_http(step, given.context) if step.http else _ask_tcp(step, given.context)


def _judged(check: CommandCheck, exit_code: int | None, output: str, where: str) -> Answer:
    if exit_code is None:
        return Answer("the command", "did not end in time and was killed", output)
    last_line = (output.strip().splitlines() or ["no output"])[-1][:SHOWN]
    if exit_code != check.exit_code:
        return Answer(
            "the command", f"ends with exit code {exit_code}, expected {check.exit_code}: {last_line}", output
        )
    if check.matches is not None and not has_match(check.matches, output, where):
        return Answer("the command", f"says nothing that matches '{check.matches[:80]}': {last_line}", output)
    return Answer(f"the command answered '{last_line}'", None, output)


_SEARCH = """\
import re, sys
sys.exit(0 if re.search(sys.argv[1], sys.stdin.buffer.read().decode("utf-8", "replace"), re.MULTILINE) else 3)
"""


def has_match(pattern: str, text: str, where: str) -> bool:
    """Whether a regular expression has a match in ``text``.

    In a process of its own: the search of a badly written expression may never end, and inside this process nobody
    could stop it, nor would anything else go on.

    Raises:
        BadInput: the search took longer than :data:`PATTERN_S`.
    """
    try:
        found = subprocess.run(
            [sys.executable, "-I", "-c", _SEARCH, pattern],
            input=text.encode("utf-8", "replace"),
            timeout=PATTERN_S,
            check=False,
            capture_output=True,
        )
    except subprocess.TimeoutExpired:
        raise BadInput(
            f"looking for '{pattern[:80]}' takes longer than {PATTERN_S:g} s", where=where, remedy="make it simpler"
        ) from None
    if found.returncode not in (0, 3):
        raise BadInput(
            f"'{pattern[:80]}' cannot be looked for: {found.stderr.decode(errors='replace').strip()[-SHOWN:]}",
            where=where,
            remedy="correct 'matches'",
        )
    return found.returncode == 0


def _ask_http(step: CheckStep, context: RunContext) -> Answer:
    assert step.http is not None
    url = http_target(step, context)
    try:
        with urlopen(Request(url, headers={"User-Agent": "leeward"}), timeout=ONE_TRY_S) as answer:
            status, body = answer.status, answer.read(BODY_READ).decode(errors="replace")
    except HTTPError as error:
        status, body = error.code, error.read(BODY_READ).decode(errors="replace")
    except (URLError, OSError) as error:
        return Answer(url, f"does not answer: {getattr(error, 'reason', error)}")
    if status != step.http.status:
        return Answer(url, f"answers {status}, expected {step.http.status}")
    if step.http.contains is not None and step.http.contains not in body:
        return Answer(url, f"answers {status}, but without '{step.http.contains[:80]}'")
    return Answer(f"{url} answered {status}", None)


def _ask_tcp(step: CheckStep, context: RunContext) -> Answer:
    host, port = tcp_target(step, context)
    try:
        socket.create_connection((host, port), timeout=ONE_TRY_S).close()
    except OSError as error:
        return Answer(f"{host}:{port}", f"does not answer: {error}")
    return Answer(f"{host}:{port} answered", None)
