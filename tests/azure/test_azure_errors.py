"""Every answer of Azure Storage becomes the error of the right class, and none of them tells a secret."""

from __future__ import annotations

import base64
import gc
import json
import logging
import re
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from azure.core.credentials import AccessToken
from azure.core.exceptions import AzureError, ClientAuthenticationError, ServiceRequestError
from azure.storage.blob import AccountSasPermissions, BlobServiceClient, ResourceTypes, generate_account_sas
from storage_account import Account, answer

from adapters.azure import connection
from adapters.azure.errors import BY_CODE, BY_STATUS, error_for
from adapters.azure.store import AzureReplicaStore
from simulation.azure.azurite import ACCOUNT
from simulation.free_ports import free_ports
from vault.domain import Disk
from vault.errors import (
    AuthenticationRefused,
    AuthorizationRefused,
    BadInput,
    Busy,
    InvalidState,
    LeewardError,
    NoSpace,
    NotFound,
    Unreachable,
)
from vault.inventory import AzureReplicas

pytestmark = pytest.mark.contract

DISKS = [Disk(name="os", size=4096)]


def raised(call: Callable[[], object], error: type[LeewardError]) -> LeewardError:
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    assert caught.value.what
    assert caught.value.remedy
    return caught.value


@pytest.fixture(autouse=True)
def nothing_secret_is_said(account: Account, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a test here does: neither the key nor a signature gets into a log, at any level."""
    caplog.set_level(logging.DEBUG)
    yield
    assert account.server.key not in caplog.text
    assert [found for found in re.findall(r"sig=[^&\s]+", caplog.text) if found != "sig=REDACTED"] == []


@pytest.fixture(autouse=True)
def retries_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("azure.core.pipeline.transport._base.time.sleep", lambda _: None)


def everything_said(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error) + repr(error.__cause__)


# --- what the server itself answers ------------------------------------------------------------------------------


def test_a_wrong_key(account: Account) -> None:
    wrong = base64.b64encode(b"another key").decode()
    account.credential.write_text(account.server.connection_string.replace(account.server.key, wrong))
    store = AzureReplicaStore.open(account.settings, "db")
    error = raised(store.exists, AuthenticationRefused)
    assert not error.recoverable
    assert "127.0.0.1" in error.where
    assert wrong not in everything_said(error)


def signature(account: Account, permissions: str, **options: Any) -> str:
    return generate_account_sas(
        ACCOUNT,
        account.server.key,
        ResourceTypes(container=True, object=True),
        AccountSasPermissions.from_string(permissions),
        expiry=options.get("expiry", datetime.now(UTC) + timedelta(hours=1)),
    )


@pytest.mark.parametrize("form", ["{sas}", "?{sas}", "{url}?{sas}", "BlobEndpoint={url};SharedAccessSignature={sas}"])
def test_a_shared_access_signature_in_each_form(account: Account, form: str) -> None:
    sas = signature(account, "rwdlc")
    account.credential.write_text(form.format(sas=sas, url=account.server.url))
    store = AzureReplicaStore.open(account.settings, "db")
    store.create(DISKS, "e")
    assert account.store().state().disks == DISKS
    store.remove()


def test_a_signature_without_permission_to_write(account: Account, caplog: pytest.LogCaptureFixture) -> None:
    sas = signature(account, "rl")
    account.credential.write_text(sas)
    store = AzureReplicaStore.open(account.settings, "db")
    assert not store.exists()
    error = raised(lambda: store.create(DISKS, "e"), AuthorizationRefused)
    assert "Storage Blob Data Contributor" in error.remedy
    assert sas.rpartition("sig=")[2] not in everything_said(error)
    assert "sig=REDACTED" in caplog.text, "this test must be able to see what the HTTP library logs"


def test_an_expired_signature(account: Account) -> None:
    """Azurite calls it an authorization failure, Azure an authentication failure: neither is tried again."""
    account.credential.write_text(signature(account, "rwdlc", expiry=datetime.now(UTC) - timedelta(hours=1)))
    with pytest.raises((AuthenticationRefused, AuthorizationRefused)):
        AzureReplicaStore.open(account.settings, "db").exists()


def test_a_missing_container_and_a_missing_cache(account: Account) -> None:
    account.service.delete_container(account.settings.cache_container)
    store = account.store()
    error = raised(lambda: store.create(DISKS, "e"), NotFound)
    assert account.settings.cache_container in error.where
    assert "create it" in error.remedy
    account.service.delete_container(account.settings.container)
    error = raised(store.exists, NotFound)
    assert account.settings.container in error.where
    raised(lambda: store.create(DISKS, "e"), NotFound)
    raised(store.remove, NotFound)


def test_a_server_that_is_not_there_and_one_that_is_not_trusted(account: Account) -> None:
    sas = signature(account, "rwdlc")
    account.credential.write_text(sas)
    url = f"https://127.0.0.1:{free_ports(1)[0]}/{ACCOUNT}"
    service = account.connect(account_url=url)
    store = AzureReplicaStore(service, machine="db", container="replicas", cache_container="cache")
    error = raised(store.exists, Unreachable)
    assert error.recoverable
    assert sas.rpartition("sig=")[2] not in everything_said(error)
    untrusting = AzureReplicaStore.open(account.settings.model_copy(update={"ca_file": None}), "db")
    error = raised(untrusting.exists, AuthenticationRefused)
    assert "ca_file" in error.remedy


class Identity:
    """A token as Entra ID gives it, as far as Azurite looks: issuer, audience and time."""

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        now = int(time.time())
        claims = {
            "iss": "https://sts.windows.net/00000000-0000-0000-0000-000000000000/",
            "aud": "https://storage.azure.com",
            "iat": now - 60,
            "nbf": now - 60,
            "exp": now + 3600,
        }
        parts = [{"alg": "none", "typ": "JWT"}, claims]
        encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
        return AccessToken(".".join([*encoded, "c2ln"]), now + 3600)


def test_without_a_credential_the_workers_own_identity_is_used(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("azure.identity.DefaultAzureCredential", Identity)
    store = AzureReplicaStore.open(account.settings.model_copy(update={"credential": None}), "db")
    store.create(DISKS, "e")
    assert store.state().disks == DISKS

    def refuse(*_: Any, **__: Any) -> AccessToken:
        raise ClientAuthenticationError("no managed identity here")

    monkeypatch.setattr(Identity, "get_token", refuse)
    elsewhere = {"credential": None, "container": "elsewhere"}
    error = raised(
        AzureReplicaStore.open(account.settings.model_copy(update=elsewhere), "db").exists, AuthenticationRefused
    )
    assert "no token" in error.what


def test_a_process_has_one_token_and_one_set_of_connections_however_often_stores_are_opened(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Azure answers a host's questions for tokens five times a second; and sockets of thrown-away clients stay open
    until the garbage is collected."""
    asked: list[str] = []

    class Counted(Identity):
        def get_token(self, *scopes: str, **options: Any) -> AccessToken:
            asked.extend(scopes)
            return super().get_token(*scopes, **options)

    monkeypatch.setattr("azure.identity.DefaultAzureCredential", Counted)
    settings = account.settings.model_copy(update={"credential": None})
    gc.disable()
    try:
        stores = [AzureReplicaStore.open(settings, f"machine-{number}") for number in range(5)]
        assert not any(store.exists() for store in stores)
        before = sockets()
        for number in range(20):
            assert not AzureReplicaStore.open(settings, f"machine-{number}").exists()
        assert sockets() <= before
    finally:
        gc.enable()
    assert len(asked) == 1


def sockets() -> int:
    return sum(fd.is_socket() for fd in Path("/dev/fd").iterdir())


def test_a_signature_that_is_renewed_while_a_store_is_open_is_used_for_its_next_request(
    account: Account, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A first copy may take longer than a signature is valid."""
    used: list[str] = []
    now = datetime.now(UTC)
    first, second = (signature(account, "rwdlc", expiry=now + timedelta(hours=hours)) for hours in (1, 2))
    account.credential.write_text(first)
    transport = account.transport(lambda request, number: used.append(request.url.rpartition("sig=")[2]))
    store = account.store(transport)
    assert not store.exists()
    account.credential.write_text(second)
    assert not store.exists()
    monkeypatch.setattr(connection, "SIGNATURE_KEPT_S", 0)
    assert not store.exists()
    account.credential.write_text("hunter2")  # as while the file is being written
    assert not store.exists()
    assert "the signature before it stays in use" in caplog.text
    assert "hunter2" not in caplog.text
    assert used == [sas.rpartition("sig=")[2] for sas in (first, first, second, second)]


def test_a_credential_that_was_renewed_is_used_by_the_next_store(account: Account) -> None:
    right = account.credential.read_text()
    wrong = base64.b64encode(b"another key").decode()
    account.credential.write_text(right.replace(account.server.key, wrong))
    raised(AzureReplicaStore.open(account.settings, "db").exists, AuthenticationRefused)
    account.credential.write_text(right)
    assert not AzureReplicaStore.open(account.settings, "db").exists()


@pytest.mark.parametrize("secret", ["hunter2", "AccountName=x;Password=hunter2", "https://example.invalid/?hunter2"])
def test_a_credential_of_an_unknown_kind_is_refused_and_not_quoted(account: Account, secret: str) -> None:
    account.credential.write_text(secret)
    error = raised(account.connect, BadInput)
    assert "hunter2" not in everything_said(error)
    account.credential.unlink()
    raised(account.connect, NotFound)


def test_a_file_of_authorities_that_is_not_there(account: Account) -> None:
    error = raised(lambda: account.connect(ca_file="/nowhere/ca.pem"), BadInput)
    assert error.where == "/nowhere/ca.pem"


@pytest.mark.parametrize(
    "wrong",
    [
        {"account_url": "http://account.example"},
        {"account_url": "https://x/?sig=1"},
        {"container": "Upper"},
        {"credential": "AccountKey=abc"},
    ],
)
def test_settings_that_cannot_be_right_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AzureReplicas.model_validate({"kind": "azure", "account_url": "https://account.example", **wrong})


# --- what only a real cloud answers: the same client, with the answer changed on its way -----------------------------


def with_answer(account: Account, status: int, code: str) -> AzureReplicaStore:
    def change(response: Any) -> Any:
        return answer(response, status, code)

    store: AzureReplicaStore = account.store(account.transport(lambda request, number: change))
    return store


ANSWERS = [
    (401, "InvalidAuthenticationInfo", AuthenticationRefused),
    (403, "AuthenticationFailed", AuthenticationRefused),
    (403, "AuthorizationFailure", AuthorizationRefused),
    (403, "AuthorizationPermissionMismatch", AuthorizationRefused),
    (403, "AccountIsDisabled", AuthorizationRefused),
    (403, "", AuthorizationRefused),
    (404, "ContainerNotFound", NotFound),
    (404, "", NotFound),
    (409, "", Busy),
    (412, "", Busy),
    (500, "", Unreachable),
    (503, "", Unreachable),
    (409, "ContainerBeingDeleted", Busy),
    (409, "LeaseAlreadyPresent", Busy),
    (409, "BlobAlreadyExists", InvalidState),
    (409, "BlobImmutableDueToPolicy", InvalidState),
    (409, "SnapshotCountExceeded", NoSpace),
    (412, "ConditionNotMet", Busy),
    (412, "LeaseIdMismatchWithBlobOperation", Busy),
    (412, "LeaseLost", Busy),
    (400, "InvalidHeaderValue", InvalidState),
    (408, "", Unreachable),
    (403, "KeyBasedAuthenticationNotPermitted", AuthenticationRefused),
    (413, "RequestBodyTooLarge", InvalidState),
    (413, "", InvalidState),
    (429, "", Unreachable),
    (500, "InternalError", Unreachable),
    (500, "OperationTimedOut", Unreachable),
    (502, "", Unreachable),
    (503, "ServerBusy", Unreachable),
    (507, "", NoSpace),
]


TRIED_AGAIN = {Busy, NoSpace, Unreachable}
"""The rest is never tried again: waiting cures no login, no missing container and no request that was wrong."""


@pytest.mark.parametrize(("status", "code", "error"), ANSWERS)
def test_an_answer_becomes_its_error(account: Account, status: int, code: str, error: type[LeewardError]) -> None:
    found = raised(with_answer(account, status, code).exists, error)
    assert found.recoverable == (error in TRIED_AGAIN)
    assert f"HTTP {status} {code}".rstrip() in found.what


def test_who_is_refused_is_told_what_it_may_be(account: Account) -> None:
    refused = raised(with_answer(account, 403, "AuthenticationFailed").exists, AuthenticationRefused)
    assert "clock" in refused.remedy
    refused = raised(with_answer(account, 403, "KeyBasedAuthenticationNotPermitted").exists, AuthenticationRefused)
    assert "without account keys" in refused.remedy
    refused = raised(with_answer(account, 413, "").exists, InvalidState)
    assert "4 MiB" in refused.remedy


def test_the_table_says_what_happened_and_what_to_do() -> None:
    for meaning in [*BY_CODE.values(), *BY_STATUS.values()]:
        assert meaning.what
        assert meaning.remedy
    recoverable = {code for code, meaning in BY_CODE.items() if meaning.error.recoverable}
    assert recoverable >= {"ServerBusy", "InternalError", "OperationTimedOut", "LeaseLost", "ConditionNotMet"}
    assert not recoverable & {"AuthenticationFailed", "AuthorizationFailure", "ContainerNotFound", "BlobNotFound"}


@pytest.mark.parametrize(
    "lost", [requests.ConnectionError, requests.ReadTimeout, requests.exceptions.ChunkedEncodingError]
)
def test_a_connection_that_breaks(account: Account, lost: type[Exception]) -> None:
    def fault(request: Any, number: int) -> None:
        error = lost("https://account/?sig=topsecret")
        raise ServiceRequestError(error, error=error)

    error = raised(account.store(account.transport(fault)).exists, Unreachable)
    assert "topsecret" not in everything_said(error)
    assert lost.__name__ in error.what


def test_the_usual_retries_bridge_a_short_failure(account: Account) -> None:
    attempts: list[str] = []

    def fault(request: Any, number: int) -> Any:
        attempts.append(request.method)

        def busy(response: Any) -> Any:
            return answer(response, 503, "ServerBusy")

        return busy if number <= 2 else None

    service: BlobServiceClient = connection.connect(account.settings, transport=account.transport(fault))
    store = AzureReplicaStore(
        service, machine="db", container=account.settings.container, cache_container=account.settings.cache_container
    )
    assert not store.exists()
    assert len(attempts) == 3


def test_an_unforeseen_error_of_the_library_still_has_a_class() -> None:
    assert type(error_for(AzureError("sig=topsecret"), "here")) is Unreachable
