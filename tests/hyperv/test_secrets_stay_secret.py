"""No password is in any history, log, process list, file or error of a run (design §4).

A short run through the real engine on simulated hosts: a machine is protected, a test failover runs a script in the
guest, a host refuses a login. Then everything that is left is searched, and the search is shown to find things.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_support import House
from google.protobuf.message import Message
from small_fabric import GUEST_PASSWORD, PASSWORD, USER, SmallFabric
from temporalio.api.common.v1 import Payload
from temporalio.client import Client

from workers.payloads import CompressingCodec

pytestmark = pytest.mark.e2e

WRONG_PASSWORD = "wr0ng-and-yet-somebodys"
SECRETS = (PASSWORD, GUEST_PASSWORD, WRONG_PASSWORD)
SCRIPT = {"script": "Greet", "on": "db", "timeout": "30s", "run": "echo greetings from $MACHINE"}


def disguises(secret: str) -> list[bytes]:
    """As itself, and wherever it may stand in the base64 that PowerShell commands and our documents travel as."""
    texts = [secret.encode(), secret.encode("utf-16-le")]
    return texts + [_inside_base64(text, before) for text in texts for before in range(3)]


def _inside_base64(text: bytes, before: int) -> bytes:
    """The characters that depend on ``text`` alone when ``before`` other bytes precede it."""
    raw = bytes(before) + text
    return base64.b64encode(raw)[(before * 8 + 5) // 6 : len(raw) * 8 // 6]


def assert_not_in(data: bytes, where: str) -> None:
    for secret in SECRETS:
        assert not any(form in data for form in disguises(secret)), f"a password is in {where}"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[tuple[House, SmallFabric]]:
    small = SmallFabric(tmp_path)
    house = House(tmp_path, ["db"])
    house.write_plan("greeting", ["db"])
    document = json.loads(house.plan_file("greeting").read_text())
    document["groups"][0]["after"] = [SCRIPT]
    house.plan_file("greeting").write_text(json.dumps(document))
    try:
        house.up()
        yield house, small
    finally:
        house.run("down")
        small.close()


@pytest.mark.parametrize("around", [b"", b"x", b"xy"])
def test_the_search_finds_a_password_in_base64(around: bytes) -> None:
    with pytest.raises(AssertionError, match="a password is in here"):
        assert_not_in(b"<" + base64.b64encode(around + PASSWORD.encode("utf-16-le") + b"!") + b">", "here")


async def test_no_password_is_anywhere_after_a_run(house: tuple[House, SmallFabric], tmp_path: Path) -> None:
    leeward, _ = house
    await leeward.protect_all()
    await leeward.completed_run("test", plan="greeting")
    processes = command_lines()
    assert b"workers.main" in processes
    assert_not_in(processes, "a process list")
    (tmp_path / "password").write_text(WRONG_PASSWORD)
    refused = leeward.run("hyperv", "check", "--site", "east", "--json")
    assert refused.code != 0
    assert "refuses the credentials" in refused.out + refused.err
    assert_not_in((refused.out + refused.err).encode(), "the error of a refused login")

    histories = await histories_of((await leeward.connect()).client)
    assert b"greetings from db-test" in histories
    assert_not_in(histories, "a history")
    leeward.down()
    logs = b"".join(path.read_bytes() for path in leeward.settings.logs.iterdir())
    assert b"db" in logs
    assert_not_in(logs, "a log")
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert any(USER.encode() in data or USER.replace("\\", "\\\\").encode() in data for data in kept.values())
    for path, data in kept.items():
        if path not in (tmp_path / "password", tmp_path / "guest-password"):
            assert_not_in(data, str(path.relative_to(tmp_path)))


def command_lines() -> bytes:
    own = str(os.getpid())
    lines = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name != own:
            try:
                lines.append((entry / "cmdline").read_bytes())
            except (FileNotFoundError, ProcessLookupError):
                continue
    return b"\n".join(lines)


async def histories_of(client: Client) -> bytes:
    """All events of all workflows, and what is in their payloads."""
    found = []
    async for workflow in client.list_workflows():
        history = await client.get_workflow_handle(workflow.id, run_id=workflow.run_id).fetch_history()
        for event in history.events:
            found.append(event.SerializeToString())
            found += [payload.data for payload in await CompressingCodec().decode(list(payloads_in(event)))]
    assert found
    return b"\n".join(found)


def payloads_in(message: Message) -> Iterator[Payload]:
    if isinstance(message, Payload):
        yield message
        return
    for field, value in message.ListFields():
        if field.type != field.TYPE_MESSAGE:
            continue
        if field.message_type.GetOptions().map_entry:
            inner = [item for item in value.values() if isinstance(item, Message)]
        else:
            inner = [value] if isinstance(value, Message) else list(value)
        for item in inner:
            yield from payloads_in(item)
