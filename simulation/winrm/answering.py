"""What stands behind a simulated host: the function that answers leeward's scripts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from adapters.hyperv.call import ErrorRecord


class Request(NamedTuple):
    """One script that a client had run."""

    host: str
    user: str
    script: str
    parameters: dict[str, Any]


class Failure(NamedTuple):
    """The script failed as a PowerShell script fails."""

    record: ErrorRecord


Result = dict[str, Any] | Failure
Answer = Callable[[Request], Result]
"""Called in a thread of its own for every script; may block as long as the script would run."""


def failure(
    message: str,
    *,
    identifier: str = "",
    category: str = "NotSpecified",
    hresult: int | None = None,
    error_code: int | None = None,
    exception: str = "Microsoft.HyperV.PowerShell.VirtualizationException",
    target: str = "",
) -> Failure:
    """A failure as the Hyper-V module reports it; ``hresult`` as it is written, 0x80070070."""
    signed = None if hresult is None else hresult - (1 << 32) if hresult >= 1 << 31 else hresult
    return Failure(
        ErrorRecord(
            message=message,
            fullyQualifiedErrorId=identifier,
            category=category,
            hresult=signed,
            errorCode=error_code,
            exceptionType=exception,
            target=target,
        )
    )
