"""Errors across the wire: they arrive with the class, the place and the remedy they were raised with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from replication.transport.messages import Done, Failed, Message, expect
from vault import errors
from vault.errors import LeewardError, NotRecoverable, Recoverable

_CLASSES: dict[str, type[LeewardError]] = {
    name: found
    for name, found in vars(errors).items()
    if isinstance(found, type) and issubclass(found, LeewardError) and found is not errors.InputErrors
}


def to_wire(error: LeewardError) -> Failed:
    name = type(error).__name__ if type(error).__name__ in _CLASSES else errors.BadInput.__name__
    return Failed(error=name, what=error.what, where=error.where, remedy=error.remedy, recoverable=error.recoverable)


def unforeseen(error: Exception) -> Failed:
    """For a bug at the master target: its log has the traceback."""
    return to_wire(
        NotRecoverable(
            f"the master target failed in a way nobody foresaw ({type(error).__name__}: {error})",
            remedy="read the master target's log",
        )
    )


def from_wire(failed: Failed) -> LeewardError:
    """An error class that only the other side's release knows keeps at least its recoverability."""
    found = _CLASSES.get(failed.error, Recoverable if failed.recoverable else NotRecoverable)
    return found(failed.what, where=failed.where, remedy=failed.remedy)


@contextmanager
def at(where: str) -> Iterator[None]:
    """Errors inside that do not know their place get this one."""
    try:
        yield
    except LeewardError as error:
        error.where = error.where or where
        raise


def done(answer: Message) -> Done:
    """The answer; raises the error when it is one."""
    if isinstance(answer, Failed):
        raise from_wire(answer)
    return expect(Done, answer)
