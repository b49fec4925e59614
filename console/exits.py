"""Exit codes (docs/operate.md) and the one place where errors become messages."""

from __future__ import annotations

import asyncio
import errno
import sys
from collections.abc import Callable, Coroutine
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import typer

from console.entry import EXIT_INTERRUPTED, WHEN_INTERRUPTED

if TYPE_CHECKING:
    from vault.errors import LeewardError

Result = TypeVar("Result")
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class Exit(IntEnum):
    OK = 0
    FAILED = 1
    BAD_INPUT = 2
    REFUSED = 3
    UNREACHABLE = 4
    INTERRUPTED = EXIT_INTERRUPTED


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
    except OSError as error:
        if error.errno not in FULL and error.filename is None:
            raise
        of_a_file = error_of_a_file(error)
        fail(str(of_a_file), code_of(of_a_file))
    except Exception as error:
        of_temporal = error_of_temporal(error)
        if of_temporal is None:
            raise
        fail(str(of_temporal), code_of(of_temporal))
    except KeyboardInterrupt:
        fail(WHEN_INTERRUPTED, Exit.INTERRUPTED)


def code_of(error: Exception) -> Exit:
    from vault.errors import BadInput, Busy, InvalidState, NotFound, Unreachable

    if isinstance(error, BadInput):
        return Exit.BAD_INPUT
    if isinstance(error, InvalidState | NotFound | Busy):
        return Exit.REFUSED
    if isinstance(error, Unreachable):
        return Exit.UNREACHABLE
    return Exit.FAILED


def error_of_a_file(error: OSError) -> LeewardError:
    """The same in leeward's words: a path that an operator named does not exist, may not be used, or is full."""
    from vault.errors import AuthorizationRefused, BadInput, NoSpace, NotFound

    where, what = str(error.filename or ""), error.strerror or str(error)
    if error.errno in FULL:
        return NoSpace(what, where=where, remedy="free some space, then give the command again")
    if isinstance(error, FileNotFoundError):
        return NotFound("there is no such file or folder", where=where, remedy="check the path")
    if isinstance(error, PermissionError):
        return AuthorizationRefused(what, where=where, remedy="give this user the right to it, or name another path")
    return BadInput(what, where=where, remedy="check the path")


def error_of_temporal(error: Exception) -> LeewardError | None:
    """The same in leeward's words, for calls that are about nothing more special; None: it is none of Temporal's."""
    if "temporalio.service" not in sys.modules:  # loading it takes time, and nobody called it
        return None
    from temporalio.service import RPCError

    from console.asking import translated
    from workers.temporal_errors import is_no_answer, unreachable

    if is_no_answer(error):
        return unreachable(error)
    return translated(error, "") if isinstance(error, RPCError) else None


def tell(message: str) -> None:
    for line in message.splitlines() or [""]:
        print(f"error: {line}", file=sys.stderr)


def warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


def fail(message: str, code: Exit) -> NoReturn:
    tell(message)
    raise typer.Exit(int(code))
