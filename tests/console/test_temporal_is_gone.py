"""What an operator reads when Temporal does not answer: one sentence, and the exit code for it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
import typer
from lab_support import make_inventory
from temporalio.api.common.v1 import GrpcStatus
from temporalio.api.errordetails.v1 import NamespaceNotFoundFailure
from temporalio.client import Client, WorkflowHandle, WorkflowUpdateRPCTimeoutOrCancelledError
from temporalio.service import RetryConfig, RPCError, RPCStatusCode
from typer.testing import CliRunner

from console.asking import Connection
from console.client import Leeward
from console.exits import Exit, guarded
from console.main import app
from vault.errors import BadInput, Unreachable
from workers.logs import log_to_stderr
from workers.temporal_errors import unreachable
from workflows.model import Timings

pytestmark = pytest.mark.unit

CHECK = "check TEMPORAL_ADDRESS or the profile, and that Temporal runs there"


@pytest.fixture(autouse=True)
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("LEEWARD_VAULT", "LEEWARD_DATA", "TEMPORAL_PROFILE", "TEMPORAL_CONFIG_FILE", "TEMPORAL_ADDRESS"):
        monkeypatch.delenv(variable, raising=False)
    assert CliRunner().invoke(app, ["init", "--lab"]).exit_code == Exit.OK


def told(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(words))
    return result.exit_code, result.stderr


def nobody() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("words", [["status"], ["jobs"], ["schedule", "list"], ["audit"], ["resync", "payment-db"]])
def test_where_nobody_listens(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    address = nobody()
    monkeypatch.setenv("TEMPORAL_ADDRESS", address)
    says = f"error: {address}: Temporal does not answer: nobody listens there — {CHECK}\n"
    assert told(*words) == (Exit.UNREACHABLE, says)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("TEMPORAL_PROFILE", "nowhere", "error: TEMPORAL_PROFILE: Profile 'nowhere' not found — correct it\n"),
        (
            "TEMPORAL_CONFIG_FILE",
            "nowhere.toml",
            "error: TEMPORAL_CONFIG_FILE=nowhere.toml: there is no such file — correct it, or unset it\n",
        ),
        ("TEMPORAL_ADDRESS", "not a host:7233", "error: not a host:7233: invalid target URL"),
    ],
)
def test_what_names_no_temporal(variable: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    code, error = told("status")
    assert (code, error.count("\n")) == (Exit.BAD_INPUT, 1)
    assert error.startswith(says)


@contextmanager
def temporal(
    monkeypatch: pytest.MonkeyPatch, at_refusal: Callable[[], None] = lambda: None, **refused: grpc.StatusCode
) -> Iterator[str]:
    """The address of a Temporal that knows nobody and refuses some calls; after UNAVAILABLE it is gone."""
    server = grpc.server(ThreadPoolExecutor(8))

    def answer(_: bytes, context: grpc.ServicerContext) -> bytes:
        return b""

    def refuse(code: grpc.StatusCode, _: bytes, context: grpc.ServicerContext) -> bytes:
        at_refusal()
        if code is grpc.StatusCode.UNAVAILABLE:
            threading.Thread(target=server.stop, args=(0,)).start()
            context.abort(code, "transport error")
        context.abort(code, "not for you")

    calls = {
        name: grpc.unary_unary_rpc_method_handler(partial(refuse, refused[name]) if name in refused else answer)
        for name in ("GetSystemInfo", "DescribeNamespace", "AddSearchAttributes", "ListSearchAttributes", *refused)
    }
    for service in ("workflowservice", "operatorservice"):
        full_name = f"temporal.api.{service}.v1.{service.removesuffix('service').title()}Service"
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(full_name, calls),))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    hasty = partial(Client.connect, retry_config=RetryConfig(max_elapsed_time_millis=300))
    monkeypatch.setattr(Client, "connect", hasty)
    monkeypatch.setenv("TEMPORAL_ADDRESS", address)
    yield address
    server.stop(0).wait()


def test_a_connection_that_breaks_between_two_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    with temporal(monkeypatch, ListWorkflowExecutions=grpc.StatusCode.UNAVAILABLE) as address:
        code, error = told("jobs")
    assert code == Exit.UNREACHABLE
    assert error.startswith(f"error: {address}: Temporal does not answer: the connection broke")
    assert error.endswith(f" — {CHECK}\n")
    assert error.count("\n") == 1


CONTROL = ("worker", "--role", "control")
SITE = ("worker", "--role", "site", "--site", "primary")
SDK_ASKS_FOR_S = 17
"""A worker of the SDK asks a silent Temporal for its namespace that long."""
REFUSED = "Temporal refuses this worker: not for you — correct TEMPORAL_NAMESPACE, the profile or the key"


def test_a_worker_that_loses_temporal_while_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    with temporal(monkeypatch, ListSearchAttributes=grpc.StatusCode.UNAVAILABLE) as address:
        code, error = told(*CONTROL)
    assert code == Exit.UNREACHABLE
    assert f"{address}: Temporal does not answer: " in error
    assert error.endswith(f" — {CHECK}\n")


def test_a_worker_told_to_stop_while_temporal_does_not_answer_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with temporal(monkeypatch, stop, DescribeNamespace=grpc.StatusCode.UNAVAILABLE):
        asked_at = time.monotonic()
        assert told(*SITE)[0] == Exit.OK
    assert time.monotonic() - asked_at < SDK_ASKS_FOR_S / 2


@pytest.mark.parametrize(("words", "at"), [(CONTROL, "ListSearchAttributes"), (SITE, "DescribeNamespace")])
def test_a_worker_that_temporal_refuses(words: tuple[str, ...], at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with temporal(monkeypatch, **{at: grpc.StatusCode.PERMISSION_DENIED}) as address:
        code, error = told(*words)
    assert code == Exit.BAD_INPUT
    assert error.endswith(f"error: {address}: {REFUSED}\n")
    assert "Traceback" not in error


STATUS = 'Status { code: %s, message: "not for you", source: None }'
DESCRIBED = "Worker validation failed: Namespace default was not found or otherwise could not be described: " + STATUS
POLLED = "Poll failure: Unhandled grpc error when polling: " + STATUS


@pytest.mark.parametrize(
    ("text", "code", "exit_code", "says"),
    [
        (DESCRIBED, "Unavailable", Exit.UNREACHABLE, "Temporal does not answer: not for you"),
        (POLLED, "DeadlineExceeded", Exit.UNREACHABLE, "Temporal does not answer: not for you"),
        (POLLED, "PermissionDenied", Exit.BAD_INPUT, REFUSED),
        (DESCRIBED, "NotFound", Exit.BAD_INPUT, REFUSED),
    ],
)
def test_how_a_worker_ends_that_had_begun(
    text: str, code: str, exit_code: Exit, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ends(*_: object) -> None:
        raise RuntimeError("Activity worker failed") from RuntimeError(text % code)

    monkeypatch.setattr("workers.main.run_worker", ends)
    with temporal(monkeypatch):
        ended, error = told(*SITE)
    assert ended == exit_code
    assert says in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("error", "has_traceback"), [(RuntimeError(POLLED % "NotFound"), False), (KeyError("x"), True)]
)
def test_only_a_defect_brings_a_traceback_into_the_log(
    error: Exception, has_traceback: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("temporalio.worker._worker")
    monkeypatch.setattr(logger, "filters", [])
    log_to_stderr()
    written: list[logging.LogRecord] = []
    monkeypatch.setattr(logger, "handle", lambda record: logger.filter(record) and written.append(record))
    logger.error("Worker failed, shutting down", exc_info=error)
    assert [record.exc_info is not None for record in written] == [has_traceback]


def test_a_defect_of_a_worker_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ends(*_: object) -> None:
        raise RuntimeError("Workflow worker failed") from KeyError("x")

    monkeypatch.setattr("workers.main.run_worker", ends)
    with temporal(monkeypatch), pytest.raises(RuntimeError, match="Workflow worker failed"):
        CliRunner().invoke(app, list(SITE), catch_exceptions=False)


@pytest.mark.parametrize(
    "make",
    [
        lambda: RPCError("Timeout expired", RPCStatusCode.CANCELLED, b""),
        lambda: RPCError("Timeout expired", RPCStatusCode.DEADLINE_EXCEEDED, b""),
        WorkflowUpdateRPCTimeoutOrCancelledError,
    ],
)
def test_a_worker_that_does_not_answer(make: Callable[[], Exception], capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        raise make()

    with pytest.raises(typer.Exit) as ended:
        guarded(work)
    assert ended.value.exit_code == Exit.UNREACHABLE
    assert capsys.readouterr().err == (
        "error: the embedded engine: no answer in time, from Temporal or from a control worker — see that both run: "
        "leeward up, or leeward worker --role control where you run the workers yourself\n"
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('Os { code: 111, kind: ConnectionRefused, message: "Connection refused" }', "nobody listens there"),
        ('ConnectError("dns error", Custom { kind: Uncategorized })', "no host of that name is known"),
        ("tonic::transport::Error(Transport, TimeoutExpired(()))", "it was silent for too long"),
        ("invalid peer certificate: UnknownIssuer", "its certificate is not accepted (UnknownIssuer)"),
        ('Status { code: Unauthenticated, message: "token expired" }', "token expired"),
    ],
)
def test_what_the_client_says_is_put_in_words(text: str, says: str) -> None:
    told = unreachable(RuntimeError(f"Failed client connect: {text}"), "temporal:7233")
    assert str(told).startswith(f"temporal:7233: Temporal does not answer: {says} — ")


async def test_an_update_that_is_interrupted_is_no_silence_of_temporal() -> None:
    async def update() -> None:
        try:
            raise asyncio.CancelledError
        except asyncio.CancelledError as interrupted:
            raise WorkflowUpdateRPCTimeoutOrCancelledError from interrupted

    async def silent() -> None:
        raise WorkflowUpdateRPCTimeoutOrCancelledError

    leeward = Connection(await Client.connect("127.0.0.1:1", lazy=True), make_inventory(), Timings())
    with pytest.raises(asyncio.CancelledError):
        await leeward.asked(update())
    with pytest.raises(Unreachable):
        await leeward.asked(silent())


async def test_a_namespace_that_is_not_there_is_no_machine_without_protection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", "temporal:7233")
    leeward = Leeward(await Client.connect("127.0.0.1:1", lazy=True), make_inventory(), Timings())
    status, detail = GrpcStatus(), NamespaceNotFoundFailure(namespace="nope")

    def not_found() -> WorkflowHandle[Any, Any]:
        async def describe() -> None:
            raise RPCError("Namespace nope is not found.", RPCStatusCode.NOT_FOUND, status.SerializeToString())

        return SimpleNamespace(describe=describe)  # type: ignore[return-value]

    monkeypatch.setattr(leeward, "_machine", lambda _: not_found())
    assert await leeward.find_machine("db") is None
    status.details.add().Pack(detail)
    with pytest.raises(BadInput) as told:
        await leeward.find_machine("db")
    assert str(told.value) == (
        "temporal:7233: Namespace nope is not found — correct TEMPORAL_NAMESPACE or the profile, or make it there"
    )
