"""No password, key or shared access signature is in any history, log, process list, file or error of a run (design §4).

A short run through the real engine on simulated hosts, VMM servers and Azurite: a machine is protected at another
Hyper-V site, one in Azure; a test failover runs a script in the guest; a host and the storage account refuse a login.
Then everything that is left is searched, and the search is shown to find things.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from azure.storage.blob import AccountSasPermissions, BlobServiceClient, ResourceTypes, generate_account_sas
from engine_support import House
from google.protobuf.message import Message
from small_fabric import GUEST_PASSWORD, PASSWORD, USER
from temporalio.api.common.v1 import Payload
from temporalio.client import Client
from vmm_fabric import VMM_PASSWORD, FabricWithVmm

from simulation.azure import azurite
from simulation.azure.azurite import ACCOUNT, Azurite
from simulation.hyperv.fabric import FOLDER, disk_folder
from workers.payloads import CompressingCodec

pytestmark = pytest.mark.e2e

WRONG_PASSWORD = "wr0ng-and-yet-somebodys"
WRONG_SIGNATURE = "d3Jvbmctc2lnbmF0dXJlLW9mLXRoaXMtcnVu"
PASSWORDS = (PASSWORD, VMM_PASSWORD, GUEST_PASSWORD, WRONG_PASSWORD, WRONG_SIGNATURE)
SCRIPT = {"script": "Greet", "on": "db", "timeout": "30s", "run": "echo greetings from $MACHINE"}


def disguises(secret: str) -> list[bytes]:
    """As itself, and wherever it may stand in the base64 that PowerShell commands and our documents travel as."""
    texts = [secret.encode(), secret.encode("utf-16-le")]
    return texts + [_inside_base64(text, before) for text in texts for before in range(3)]


def _inside_base64(text: bytes, before: int) -> bytes:
    """The characters that depend on ``text`` alone when ``before`` other bytes precede it."""
    raw = bytes(before) + text
    return base64.b64encode(raw)[(before * 8 + 5) // 6 : len(raw) * 8 // 6]


def assert_not_in(data: bytes, where: str, secrets: tuple[str, ...] = PASSWORDS) -> None:
    for secret in secrets:
        assert not any(form in data for form in disguises(secret)), f"a password is in {where}"


class WithAzure(FabricWithVmm):
    """Machine ``files`` runs at east too, and is replicated to a site in Azure."""

    def __init__(self, root: Path, account: Azurite) -> None:
        self._account = account
        super().__init__(root)

    def document(self, root: Path, east_hosts: int, rate: int) -> dict[str, object]:
        document: dict[str, Any] = super().document(root, east_hosts, rate)
        folders = [{"path": FOLDER, "folder": str(disk_folder(root, "east"))}]
        document["sites"]["east"]["hyperv"]["disk_folders"] = folders
        subnet = {"subnet": "servers", "resource_group": "dr", "subscription": "00000000-1111-2222-3333-444444444444"}
        document["sites"]["cloud"] = {
            "fabric": "azure",
            "replica_store": {
                "kind": "azure",
                "account_url": self._account.url,
                "credential": f"file:{root / 'signature'}",
                "ca_file": str(self._account.ca_file),
            },
            "networks": {
                "production": {"azure": {"virtual_network": "recovery", **subnet}},
                "isolated": {"kind": "isolated", "azure": {"virtual_network": "bubble", **subnet}},
            },
        }
        mapping = {"source": "east/production", "source_test": "east/isolated"}
        document["network_mappings"].append(mapping | {"target": "cloud/production", "test": "cloud/isolated"})
        document["machines"]["files"] = document["machines"]["db"] | {"target": "cloud"}
        return document


def signature_of(account: Azurite) -> str:
    """A shared access signature for everything that leeward does."""
    permissions = AccountSasPermissions.from_string("rwdlc")
    types, expiry = ResourceTypes(container=True, object=True), datetime.now(UTC) + timedelta(hours=1)
    return generate_account_sas(ACCOUNT, account.key, types, permissions, expiry=expiry)


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Azurite]:
    with azurite.running(tmp_path / "azurite") as running:
        service = BlobServiceClient.from_connection_string(
            running.connection_string, connection_verify=str(running.ca_file)
        )
        for container in ("replicas", "replica-cache"):
            service.create_container(container)
        (tmp_path / "signature").write_text(signature_of(running))
        yield running


@pytest.fixture
def house(tmp_path: Path, account: Azurite) -> Iterator[House]:
    small = WithAzure(tmp_path, account)
    house = House(tmp_path, ["db", "files"])
    house.write_plan("greeting", ["db"])
    document = json.loads(house.plan_file("greeting").read_text())
    document["groups"][0]["after"] = [SCRIPT]
    house.plan_file("greeting").write_text(json.dumps(document))
    try:
        house.up()
        yield house
    finally:
        house.run("down")
        small.close()


@pytest.mark.parametrize("around", [b"", b"x", b"xy"])
def test_the_search_finds_a_password_in_base64(around: bytes) -> None:
    with pytest.raises(AssertionError, match="a password is in here"):
        assert_not_in(b"<" + base64.b64encode(around + PASSWORD.encode("utf-16-le") + b"!") + b">", "here")


async def test_no_secret_is_anywhere_after_a_run(house: House, account: Azurite, tmp_path: Path) -> None:
    signature = (tmp_path / "signature").read_text().rpartition("sig=")[2]
    secrets = (*PASSWORDS, account.key, signature, unquote(signature), quote(signature))
    await house.protect_all()
    await house.completed_run("test", plan="greeting")
    processes = command_lines()
    assert b"workers.main" in processes
    assert b"azurite" in processes
    assert_not_in(processes, "a process list", secrets)
    points = house.run("recovery-points", "files", "--json")
    assert len(points.json()) > 0

    (tmp_path / "password").write_text(WRONG_PASSWORD)
    refused = house.run("hyperv", "check", "--site", "east", "--json")
    assert refused.code != 0
    assert "refuses the credentials" in refused.out + refused.err
    assert_not_in((refused.out + refused.err).encode(), "the error of a refused login", secrets)
    wrong = f"{account.url}?sv=2024-11-04&ss=b&srt=co&sp=rwdlc&se=2030-01-01T00:00:00Z&sig={WRONG_SIGNATURE}"
    (tmp_path / "signature").write_text(wrong)
    refused = house.run("recovery-points", "files")
    assert refused.code != 0
    assert "the credential" in refused.err
    assert_not_in((refused.out + refused.err).encode(), "the error of a refused signature", secrets)

    histories = await histories_of((await house.connect()).client)
    assert b"greetings from db-test" in histories
    assert_not_in(histories, "a history", secrets)
    house.down()
    logs = b"".join(path.read_bytes() for path in house.settings.logs.iterdir())
    assert b"db" in logs
    assert_not_in(logs, "a log", secrets)
    given = {
        tmp_path / name for name in ("password", "vmm-password", "guest-password", "signature", "azurite/account.key")
    }
    given |= set(tmp_path.glob("hyperv/winrm/*/ntlm-accounts"))  # what the simulated hosts themselves know
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert any(USER.encode() in data or USER.replace("\\", "\\\\").encode() in data for data in kept.values())
    for path, data in kept.items():
        if path not in given:
            assert_not_in(data, str(path.relative_to(tmp_path)), secrets)


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
