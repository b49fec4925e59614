"""What an operator reads when the workers are of another leeward than the command."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import pytest
from lab_support import make_inventory
from temporalio.client import Client, WorkflowQueryFailedError, WorkflowUpdateFailedError
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import ApplicationError

from console.asking import Connection, JobFailed
from vault.errors import InvalidState
from workers.versions import own_version, worker_identity
from workflows.model import MachineState, Timings

pytestmark = pytest.mark.unit

REMEDY = (
    "restart them with this version: leeward down, then leeward up; those that you run yourself as docs/operate.md "
    "says under 'Upgrading leeward'"
)


def update_failed(said: str) -> Exception:
    return WorkflowUpdateFailedError(ApplicationError(said, type="RuntimeError"))


async def asked(monkeypatch: pytest.MonkeyPatch, error: Exception, versions: list[str]) -> str:
    async def fails() -> None:
        raise error

    return await awaited(monkeypatch, fails(), versions)


async def awaited(monkeypatch: pytest.MonkeyPatch, call: Awaitable[Any], versions: list[str]) -> str:
    async def control_versions(client: Client) -> list[str]:
        return versions

    monkeypatch.setattr("console.asking.control_versions", control_versions)
    leeward = Connection(await Client.connect("127.0.0.1:1", lazy=True), make_inventory(), Timings())
    with pytest.raises((InvalidState, JobFailed)) as told:
        await leeward.asked(call)
    return f"{type(told.value).__name__}: {told.value}"


@pytest.mark.parametrize(
    "error",
    [
        update_failed("Failed decoding arguments"),
        update_failed("Update handler for 'new' expected but not found, and there is no dynamic handler."),
        WorkflowQueryFailedError("Query handler for 'new' expected but not found, known queries: [describe]"),
    ],
)
async def test_workers_that_do_not_understand_are_told_with_their_version(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    assert await asked(monkeypatch, error, ["0.0.8", "0.0.9"]) == (
        "InvalidState: the workers are older than this command and do not understand what it asks: they run leeward "
        f"0.0.8, 0.0.9, this is leeward {own_version()}; nothing was changed — {REMEDY}"
    )


async def test_workers_of_before_do_not_tell_their_version(monkeypatch: pytest.MonkeyPatch) -> None:
    told = await asked(monkeypatch, update_failed("Failed decoding arguments"), [])
    assert "they run a version that they do not tell, this is leeward" in told


async def test_what_they_understood_and_could_not_do_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await asked(monkeypatch, update_failed("no such point"), []) == "JobFailed: no such point"


async def test_an_answer_of_another_version_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    converter = pydantic_data_converter
    answer = converter.decode(await converter.encode([{"phase": "orbiting"}]), [MachineState])
    assert await awaited(monkeypatch, answer, [own_version()]) == (
        "InvalidState: the workers are of another version than this command, which does not understand what they "
        f"answer: they run another state of leeward {own_version()}, this is leeward {own_version()}; what was asked "
        "may be done — look with the command of their version: leeward status, leeward audit"
    )


def test_the_host_of_a_worker_stands_last() -> None:
    """The containers' health check finds its workers by it."""
    assert worker_identity().startswith(f"leeward-{own_version()} ")
    assert worker_identity().rpartition("@")[2]
