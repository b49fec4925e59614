"""What Temporal's client says when it does not get through, in an operator's words."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from temporalio.api.errordetails.v1 import NamespaceNotFoundFailure
from temporalio.client import WorkflowUpdateRPCTimeoutOrCancelledError
from temporalio.envconfig import ClientConfig
from temporalio.service import RPCError, RPCStatusCode

from vault.errors import BadInput, LeewardError, Unreachable

STANDARD_VARIABLES = ("TEMPORAL_ADDRESS", "TEMPORAL_PROFILE", "TEMPORAL_CONFIG_FILE")
DEFAULT_ADDRESS = "localhost:7233"
NO_ANSWER = frozenset({RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED})

_MEANINGS = (
    ("ConnectionRefused", "nobody listens there"),
    ("dns error", "no host of that name is known"),
    ("TimeoutExpired", "it was silent for too long"),
    ("tcp connect error", "the connection broke, and there is no new one"),
    ("transport error", "the connection broke"),
)
"""What the client's texts hold, the plainest first."""
_CERTIFICATE = re.compile(r"invalid peer certificate: (\w+)")
_MESSAGE = re.compile(r'message: "([^"]+)"')
_STATUS = re.compile(r"\bStatus { code: (\w+)")
"""How the SDK tells of an answer of Temporal inside an error that is not an ``RPCError``."""


def is_named() -> bool:
    """Whether this process was told which Temporal to use; else it is the embedded engine."""
    return any(os.environ.get(name) for name in STANDARD_VARIABLES)


def named() -> dict[str, Any]:
    """What the standard environment and profile say of the connection.

    Raises:
        BadInput: when they cannot be read.
    """
    file = os.environ.get("TEMPORAL_CONFIG_FILE")
    if file and not Path(file).is_file():  # the client takes it for an empty one
        raise BadInput("there is no such file", where=f"TEMPORAL_CONFIG_FILE={file}", remedy="correct it, or unset it")
    try:
        return dict(ClientConfig.load_client_connect_config())
    except RuntimeError as error:  # the client's ConfigError has no name outside of its binary
        where = next(
            name for name in ("TEMPORAL_PROFILE", "TEMPORAL_CONFIG_FILE", "TEMPORAL_ADDRESS") if os.environ.get(name)
        )
        raise BadInput(str(error), where=where, remedy="correct it") from error


def address() -> str:
    """Where Temporal is, as far as this process was told."""
    return str(named().get("target_host") or DEFAULT_ADDRESS) if is_named() else "the embedded engine"


def remedy() -> str:
    if is_named():
        return "check TEMPORAL_ADDRESS or the profile, and that Temporal runs there"
    return "start it: leeward up; when it runs, read temporal.log in the data directory's logs"


def unreachable(error: Exception, where: str = "") -> Unreachable:
    """For an error of connecting, or a call's that :func:`is_no_answer`.

    Args:
        where: the address, when somebody knows it better.
    """
    place = where or address()
    if _is_slow(error):
        return Unreachable(
            "no answer in time, from Temporal or from a control worker",
            where=place,
            remedy="see that both run: leeward up, or leeward worker --role control where you run the workers yourself",
        )
    return Unreachable(f"Temporal does not answer: {in_words(str(error))}", where=place, remedy=remedy())


def of_a_worker(error: RPCError | RuntimeError) -> LeewardError | None:
    """Why a worker cannot begin or go on; None when that is no answer of Temporal's, but a defect."""
    if isinstance(error, RPCError):
        return unreachable(error) if is_no_answer(error) else _refused(error.message)
    told = str(error.__cause__ or error)
    code = _STATUS.search(told)
    if code is None:
        return None
    silent = code[1].upper() in {status.name.replace("_", "") for status in NO_ANSWER}
    return unreachable(RuntimeError(told)) if silent else _refused(in_words(told))


def _refused(why: str) -> BadInput:
    return BadInput(
        f"Temporal refuses this worker: {why.rstrip('.')}",
        where=address(),
        remedy="correct TEMPORAL_NAMESPACE, the profile or the key",
    )


def is_no_answer(error: Exception) -> bool:
    """Whether a call failed because nobody answered it."""
    return isinstance(error, WorkflowUpdateRPCTimeoutOrCancelledError) or (
        isinstance(error, RPCError) and error.status in NO_ANSWER
    )


def namespace_is_missing(error: RPCError) -> bool:
    """Temporal says *not found* of a workflow, too: then the namespace is there, and nothing goes on."""
    return any(detail.Is(NamespaceNotFoundFailure.DESCRIPTOR) for detail in error.grpc_status.details)


def _is_slow(error: Exception) -> bool:
    return is_no_answer(error) and getattr(error, "status", None) is not RPCStatusCode.UNAVAILABLE


def in_words(text: str) -> str:
    certificate = _CERTIFICATE.search(text)
    if certificate is not None:
        return f"its certificate is not accepted ({certificate[1]})"
    for sign, meaning in _MEANINGS:
        if sign in text:
            return meaning
    told = _MESSAGE.findall(text)
    return str(told[-1]) if told else text.removeprefix("Failed client connect: ")
