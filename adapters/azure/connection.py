"""A client for one storage account: credentials by reference, verified TLS, bounded retries, nothing secret in logs."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from azure.core.credentials import AzureSasCredential, TokenCredential
from azure.storage.blob import BlobServiceClient, ExponentialRetry

from vault import secrets
from vault.errors import BadInput
from vault.inventory import AzureReplicas

CONNECT_WITHIN_S = 10
ANSWER_WITHIN_S = 60
Credential = AzureSasCredential | TokenCredential | dict[str, str]


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
        connection_timeout=CONNECT_WITHIN_S,
        read_timeout=ANSWER_WITHIN_S,
        connection_verify=settings.ca_file or True,
        **transport,
    )


def _credential(settings: AzureReplicas, resolve_secret: Callable[[str], str]) -> Credential:
    if settings.credential is None:
        return _identity()
    secret = resolve_secret(settings.credential).strip()
    parts = dict(part.split("=", 1) for part in secret.split(";") if "=" in part)
    if {"AccountName", "AccountKey"} <= parts.keys():
        return {"account_name": parts["AccountName"], "account_key": parts["AccountKey"]}
    signature = parts.get("SharedAccessSignature", secret).rpartition("?")[2]
    if re.search(r"(^|&)sig=", signature):
        return AzureSasCredential(signature)
    raise BadInput(
        "the credential is neither a connection string nor a shared access signature",
        where=settings.credential,
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
