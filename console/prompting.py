"""Questions to a person at a terminal. Ctrl-C at one ends the command, whatever is typed next."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer


def confirm(question: str) -> None:
    """Raises ``KeyboardInterrupt`` for Ctrl-C, ``typer.Abort`` when the answer is no, and ``InvalidState`` when the
    input has ended: nobody is there to answer."""
    with _needing_an_answer("say yes beforehand with --yes"), _interruptible():
        agreed = typer.confirm(question, err=True)
    if not agreed:
        raise typer.Abort


def ask(question: str, option: str) -> str:
    """Raises ``KeyboardInterrupt`` and ``InvalidState`` as :func:`confirm`. ``option``: what says it beforehand."""
    with _needing_an_answer(f"say it with {option}"), _interruptible():
        return str(typer.prompt(question, err=True))


@contextmanager
def _needing_an_answer(remedy: str) -> Iterator[None]:
    from vault.errors import InvalidState

    try:
        yield
    except typer.Abort:
        print(file=sys.stderr)  # the question stands in the line
        raise InvalidState("nobody answered the question; nothing was changed", remedy=remedy) from None


@contextmanager
def _interruptible() -> Iterator[None]:
    """asyncio makes Ctrl-C a cancellation, which waits for the loop while the question waits for an answer: a *y* after
    it was taken for consent."""
    interrupted = False

    def interrupt(_: int, __: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    if _is_being_cancelled():
        raise KeyboardInterrupt
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except typer.Abort:
        if interrupted:
            print(file=sys.stderr)  # the question stands in the line
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.signal(signal.SIGINT, before)


def _is_being_cancelled() -> bool:
    """Ctrl-C was pressed before the question was shown."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no loop runs
        return False
    return task is not None and task.cancelling() > 0
