"""Ctrl-C at a question ends the command: nothing that is typed or done afterwards begins a failover."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
import typer

from console import prompting
from vault.errors import InvalidState

pytestmark = pytest.mark.unit


def typed(*answers: str | None) -> Callable[[str], str]:
    """What a person types; None: Ctrl-C."""
    left = list(answers)

    def prompt(_: str = "") -> str:
        answer = left.pop(0)
        if answer is None:
            os.kill(os.getpid(), signal.SIGINT)
            return "y"
        return answer

    return prompt


async def question() -> str:
    prompting.confirm("Go on?")
    await asyncio.sleep(0)
    return "began"


def test_a_yes_goes_on_and_a_no_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{typer.confirm.__module__}.visible_prompt_func", typed("y", "n"))
    before = signal.getsignal(signal.SIGINT)
    assert asyncio.run(question()) == "began"
    with pytest.raises(typer.Abort):
        asyncio.run(question())
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("asking", "remedy"),
    [
        (lambda: prompting.confirm("Go on?"), "say yes beforehand with --yes"),
        (lambda: prompting.ask("Why", "--note"), "say it with --note"),
    ],
)
def test_a_question_that_nobody_can_answer_is_a_refusal(
    asking: Callable[[], object], remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(_: str = "") -> str:
        raise EOFError

    monkeypatch.setattr(f"{typer.confirm.__module__}.visible_prompt_func", closed)
    with pytest.raises(InvalidState, match=f"nobody answered the question; nothing was changed — {remedy}"):
        asking()


def test_ctrl_c_at_a_question_ends_the_command_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{typer.confirm.__module__}.visible_prompt_func", typed(None, "y"))
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(question())


def test_ctrl_c_before_the_question_is_no_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{typer.confirm.__module__}.visible_prompt_func", typed("y"))

    async def interrupted() -> str:
        os.kill(os.getpid(), signal.SIGINT)
        return await question()

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(interrupted())


def test_ctrl_c_while_the_command_is_loading_is_no_traceback() -> None:
    script = (
        "import sys, types\n"
        "def interrupted(): raise KeyboardInterrupt\n"
        "sys.modules['console.main'] = types.SimpleNamespace(main=interrupted)\n"
        "from console.entry import main; main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "error: interrupted; what runs in Temporal goes on\n")
