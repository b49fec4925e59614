"""A storage account of a test, and a client whose connection can fail where the test wants it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from azure.core.pipeline.transport import HttpRequest, HttpResponse, RequestsTransport
from azure.storage.blob import BlobLeaseClient, BlobServiceClient, LinearRetry

from adapters.azure.connection import connect
from adapters.azure.store import AzureReplicaStore
from simulation.azure.azurite import Azurite
from vault.inventory import AzureReplicas

_numbers = itertools.count()


class Account:
    def __init__(self, server: Azurite, folder: Path) -> None:
        self.server = server
        self.credential = folder / "storage-account"
        self.credential.write_text(server.connection_string + "\n")
        number = next(_numbers)
        self.settings = AzureReplicas(
            kind="azure",
            account_url=server.url,
            container=f"replicas-{number}",
            cache_container=f"cache-{number}",
            credential=f"file:{self.credential}",
            ca_file=str(server.ca_file),
        )
        self.service = self.connect()
        self.container = self.service.create_container(self.settings.container)
        self.cache = self.service.create_container(self.settings.cache_container)

    def connect(self, transport: RequestsTransport | None = None, **changes: Any) -> BlobServiceClient:
        settings = self.settings.model_copy(update=changes)
        options: dict[str, Any] = {"transport": transport} if transport else {}
        retries = 0 if transport else 3  # a busy server may close a connection that was idle; faults are the test's own
        return connect(settings, retry_policy=LinearRetry(backoff=0, retry_total=retries), **options)

    def store(self, transport: RequestsTransport | None = None, *, machine: str = "db", **options: Any) -> Any:
        service = self.connect(transport) if transport else self.service
        return AzureReplicaStore(
            service,
            machine=machine,
            container=self.settings.container,
            cache_container=self.settings.cache_container,
            **options,
        )

    def transport(self, fault: Callable[[HttpRequest, int], object]) -> FaultyTransport:
        return FaultyTransport(str(self.server.ca_file), fault)

    def end_leases(self) -> None:
        """As if a minute went by after a writer or reader died."""
        for blob in self.container.list_blobs():
            if blob.lease.state == "leased":
                BlobLeaseClient(self.container.get_blob_client(blob.name)).break_lease(0)

    def names(self) -> list[str]:
        """Blobs and snapshots of replicas, then cached segments."""
        return [blob.name for blob in self.container.list_blobs(include=["snapshots"])] + [
            blob.name for blob in self.cache.list_blobs()
        ]


class FaultyTransport(RequestsTransport):
    """Calls ``fault`` with each request and its number before it is sent; it may raise. When it returns a callable,
    that is called with the answer, which it may replace or lose."""

    def __init__(self, ca_file: str, fault: Callable[[HttpRequest, int], Any]) -> None:
        super().__init__(connection_verify=ca_file)
        self._fault = fault
        self._count = itertools.count(1)
        self.requests = 0

    def send(self, request: HttpRequest, **options: Any) -> HttpResponse:
        self.requests = number = next(self._count)
        answered = self._fault(request, number)
        response = super().send(request, **options)
        return answered(response) if answered else response

    def deliver(self, request: HttpRequest) -> HttpResponse:
        """Past the fault: what was held up arrives."""
        return super().send(request)


def answer(response: Any, status: int, code: str) -> Any:
    """The response as if the server had answered so; without a code, as a proxy or gateway does."""
    response.status_code = response.internal_response.status_code = status
    response.headers = {"x-ms-error-code": code, "content-type": "application/xml"} if code else {}
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>" if code else ""
    response.internal_response._content = body.encode()
    response.internal_response._content_consumed = True
    return response
