"""Exit codes (docs/operate.md) and the one place where errors become messages."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from enum import IntEnum
from typing import Any, NoReturn, TypeVar

import typer

Result = TypeVar("Result")


class Exit(IntEnum):
    OK = 0
    FAILED = 1
    BAD_INPUT = 2
    REFUSED = 3
    UNREACHABLE = 4
    INTERRUPTED = 130


def run(work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    """Run a command's coroutine; an error becomes one message on stderr and an exit code."""
    return guarded(lambda: asyncio.run(work()))


def guarded(work: Callable[[], Result]) -> Result:
    """As :func:`run`, for a command that is not a coroutine."""
    from vault.errors import LeewardError

    try:
        return work()
    except LeewardError as error:
        fail(str(error), code_of(error))
    except KeyboardInterrupt:
        fail("interrupted; what runs in Temporal goes on", Exit.INTERRUPTED)


def code_of(error: Exception) -> Exit:
    from vault.errors import BadInput, Busy, InvalidState, NotFound, Unreachable

    if isinstance(error, BadInput):
        return Exit.BAD_INPUT
    if isinstance(error, InvalidState | NotFound | Busy):
        return Exit.REFUSED
    if isinstance(error, Unreachable):
        return Exit.UNREACHABLE
    return Exit.FAILED


def fail(message: str, code: Exit) -> NoReturn:
    for line in message.splitlines() or [""]:
        print(f"error: {line}", file=sys.stderr)
    raise typer.Exit(int(code))
