"""The reason for what an operator decides."""

from __future__ import annotations

import sys

from console.prompting import ask


def reason(note: str) -> str:
    """The note; a person at a terminal is asked for a missing one."""
    if note or not sys.stdin.isatty():
        return note
    return ask("Why (kept with the run)", "--note")
