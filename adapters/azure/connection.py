"""A client for one storage account: credentials by reference, verified TLS, bounded retries, nothing secret in logs."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from azure.core.credentials import AzureSasCredential, TokenCredential
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import BlobServiceClient, ExponentialRetry

from vault import secrets
from vault.errors import BadInput, LeewardError
from vault.inventory import AzureReplicas

CONNECT_WITHIN_S = 10
ANSWER_WITHIN_S = 60
SIGNATURE_KEPT_S = 60
IDLE_CONNECTIONS = 128
"""Kept open by all stores of one account; each writes, stages and reads with several at a time."""
Credential = AzureSasCredential | TokenCredential | dict[str, str]

logger = logging.getLogger(__name__)


class _Shared(NamedTuple):
    secret: str
    service: BlobServiceClient


_shared: dict[AzureReplicas, _Shared] = {}
_guard = threading.Lock()


def shared(settings: AzureReplicas) -> BlobServiceClient:
    """The process's client for an account: its connections and its token serve all stores. A credential that was
    renewed since makes a new one. Raises what :func:`connect` does."""
    secret = secrets.resolve(settings.credential) if settings.credential else ""
    with _guard:
        known = _shared.get(settings)
        if known is None or known.secret != secret:
            known = _shared[settings] = _Shared(secret, connect(settings))
        return known.service


def connect(
    settings: AzureReplicas,
    *,
    resolve_secret: Callable[[str], str] = secrets.resolve,
    retry_policy: Any = None,
    **transport: Any,
) -> BlobServiceClient:
    """No request is made yet. The library's own retries bridge some seconds; minutes are the caller's
    (:mod:`vault.retry`).

    Args:
        retry_policy: instead of the usual one; tests pass one without waiting.
        transport: options of the HTTP pipeline, like ``transport=``.

    Raises:
        BadInput: the credential is none of those that docs/azure.md names, or ``ca_file`` is not there.
        NotFound, AuthorizationRefused: the credential's reference leads nowhere (:func:`vault.secrets.resolve`).
    """
    _redact_signatures()
    if settings.ca_file and not Path(settings.ca_file).is_file():
        raise BadInput("the file of trusted authorities is not there", where=settings.ca_file, remedy="check 'ca_file'")
    return BlobServiceClient(
        settings.account_url,
        credential=_credential(settings, resolve_secret),
        retry_policy=retry_policy or ExponentialRetry(initial_backoff=1, increment_base=2, random_jitter_range=1),
        **{"transport": _transport(settings), **transport},
    )


def _transport(settings: AzureReplicas) -> RequestsTransport:
    transport = RequestsTransport(
        connection_timeout=CONNECT_WITHIN_S,
        read_timeout=ANSWER_WITHIN_S,
        connection_verify=settings.ca_file or True,
    )
    transport.open()
    for adapter in transport.session.adapters.values():
        adapter.init_poolmanager(1, IDLE_CONNECTIONS)
    return transport


def _credential(settings: AzureReplicas, resolve_secret: Callable[[str], str]) -> Credential:
    if settings.credential is None:
        return _identity()
    parts = _parts(resolve_secret(settings.credential))
    if {"AccountName", "AccountKey"} <= parts.keys():
        return {"account_name": parts["AccountName"], "account_key": parts["AccountKey"]}
    return _Signature(settings.credential, resolve_secret)


def _parts(secret: str) -> dict[str, str]:
    """Those of a connection string."""
    return dict(part.split("=", 1) for part in secret.strip().split(";") if "=" in part)


class _Signature(AzureSasCredential):
    """Read again now and then: a first copy may take longer than a signature is valid."""

    def __init__(self, reference: str, resolve_secret: Callable[[str], str]) -> None:
        self._reference = reference
        self._resolve = resolve_secret
        self._read_at = time.monotonic()
        super().__init__(self._read())

    @property
    def signature(self) -> str:
        if time.monotonic() - self._read_at >= SIGNATURE_KEPT_S:
            self._read_at = time.monotonic()
            try:
                self.update(self._read())
            except LeewardError as error:
                logger.warning("the credential is not readable now, the signature before it stays in use: %s", error)
        return super().signature

    def _read(self) -> str:
        secret = self._resolve(self._reference).strip()
        signature = _parts(secret).get("SharedAccessSignature", secret).rpartition("?")[2]
        if re.search(r"(^|&)sig=", signature):
            return signature
        raise BadInput(
            "the credential is neither a connection string nor a shared access signature",
            where=self._reference,
            remedy="store one of them there, or leave 'credential' out to use the worker's own identity in Azure",
        )


def _identity() -> TokenCredential:
    try:
        from azure.identity import DefaultAzureCredential
    except ImportError as error:
        raise BadInput(
            "the package azure-identity is not installed", remedy="install leeward[azure], or name a 'credential'"
        ) from error
    return DefaultAzureCredential()


class _Redacted(logging.Filter):
    """The HTTP library logs whole URLs when debugging; the signature in them is as good as a password."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if "sig=" in message:
            record.msg, record.args = re.sub(r"\bsig=[^&\s\"']*", "sig=REDACTED", message), ()
        return True


_redacted = _Redacted()


def _redact_signatures() -> None:
    """Adding the same filter again changes nothing."""
    for name in ("urllib3.connectionpool", "azure.core.pipeline.policies.http_logging_policy", "azure.storage.blob"):
        logging.getLogger(name).addFilter(_redacted)
