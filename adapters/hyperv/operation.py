"""The typed name of a script that runs on a Hyper-V host."""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

from vault.domain import Value

Input = TypeVar("Input", bound=Value)
Output = TypeVar("Output", bound=Value)


class Operation(NamedTuple, Generic[Input, Output]):
    """One script of ``adapters/hyperv/scripts``: its file's name without ``.ps1``, what goes in, what comes out.

    ``takes`` travels to the host as JSON and is ``$Parameters`` there; what the script writes to its pipeline comes
    back as JSON and is read as ``gives``.
    """

    script: str
    takes: type[Input]
    gives: type[Output]
