"""What Azure Storage says, as leeward's errors: one table decides what is worth another try.

Sources: Azure Storage's published "Common REST API error codes" and "Blob Storage error codes". The code decides; a
status alone is looked at only when a proxy or gateway answered without a code. Messages are our own: those of the
client library may hold a whole URL, and with it a signature.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    IncompleteReadError,
    ServiceRequestError,
    ServiceResponseError,
)

from vault.errors import (
    AuthenticationRefused,
    AuthorizationRefused,
    Busy,
    InvalidState,
    LeewardError,
    NoSpace,
    NotFound,
    Unreachable,
)


class Meaning(NamedTuple):
    error: type[LeewardError]
    what: str
    remedy: str


_LOGIN = Meaning(
    AuthenticationRefused,
    "Azure Storage does not accept the credential",
    "renew the account key, the shared access signature or the identity that the site's 'credential' refers to; check "
    "this host's clock",
)
_NO_KEYS = Meaning(
    AuthenticationRefused,
    "the storage account does not accept account keys",
    "leave the site's 'credential' out, to use the worker's own identity in Azure without account keys, or allow them",
)
_PERMISSION = Meaning(
    AuthorizationRefused,
    "the credential may not do this",
    "give it the role 'Storage Blob Data Contributor', or a signature with the permissions in docs/azure.md; "
    "check the storage account's firewall",
)
_DISABLED = Meaning(AuthorizationRefused, "the storage account or container is disabled", "enable it in Azure")
_NO_CONTAINER = Meaning(
    NotFound, "the container does not exist", "create it, or correct the site's 'replica_store' in the inventory"
)
_NO_BLOB = Meaning(NotFound, "the blob does not exist", "the replica is not there, or the recovery point was dropped")
_LEASED = Meaning(Busy, "another writer holds the lease", "wait until it has finished")
_LEASE_LOST = Meaning(
    Busy, "the lease on the replica was lost; another writer may have it", "nothing is damaged; try again later"
)
_CHANGED = Meaning(
    Busy, "somebody else changed the blob at the same moment; nothing was overwritten", "try again later"
)
_BEING_DELETED = Meaning(Busy, "the container is being deleted", "wait, or name another container")
_EXISTS = Meaning(
    InvalidState, "a blob of this name exists", "remove what does not belong into the replica's container"
)
_WRONG_KIND = Meaning(
    InvalidState,
    "the blob is of another kind than leeward's",
    "remove what does not belong into the replica's container",
)
_IMMUTABLE = Meaning(
    InvalidState,
    "an immutability policy or a legal hold forbids changing the blob",
    "use containers without immutability policies",
)
_TOO_MANY_SNAPSHOTS = Meaning(
    NoSpace, "Azure Storage takes no more snapshots of this blob now", "keep fewer recovery points"
)
_FULL = Meaning(NoSpace, "the storage account takes no more data", "free space in the account or raise its quota")
_TOO_LARGE = Meaning(
    InvalidState,
    "the request is larger than Azure Storage, or a proxy on the way, takes",
    "let proxies on the way pass requests of 4 MiB and their headers",
)
_OVERLOADED = Meaning(Unreachable, "Azure Storage is too busy", "leeward tries again; check the account's limits")
_FAILED = Meaning(Unreachable, "Azure Storage failed for a moment", "leeward tries again; check Azure's status page")
_NO_ANSWER = Meaning(
    Unreachable, "Azure Storage does not answer", "check the network, the proxy and the account's name"
)
_NOT_TRUSTED = Meaning(
    AuthenticationRefused,
    "the certificate of the server is not trusted",
    "check that nothing stands between; name the right authority as the site's 'ca_file'",
)

BY_CODE: dict[str, Meaning] = {
    **dict.fromkeys(("AuthenticationFailed", "InvalidAuthenticationInfo", "NoAuthenticationInformation"), _LOGIN),
    **dict.fromkeys(
        (
            "AuthorizationFailure",
            "AuthorizationPermissionMismatch",
            "AuthorizationProtocolMismatch",
            "AuthorizationResourceTypeMismatch",
            "AuthorizationServiceMismatch",
            "AuthorizationSourceIPMismatch",
            "InsufficientAccountPermissions",
            "PublicAccessNotPermitted",
        ),
        _PERMISSION,
    ),
    "KeyBasedAuthenticationNotPermitted": _NO_KEYS,
    **dict.fromkeys(("AccountIsDisabled", "ContainerDisabled"), _DISABLED),
    "ContainerNotFound": _NO_CONTAINER,
    **dict.fromkeys(("BlobNotFound", "ResourceNotFound"), _NO_BLOB),
    **dict.fromkeys(("LeaseAlreadyPresent", "LeaseIdMissing", "LeaseIsBreakingAndCannotBeAcquired"), _LEASED),
    **dict.fromkeys(
        (
            "LeaseIdMismatchWithBlobOperation",
            "LeaseIdMismatchWithLeaseOperation",
            "LeaseIsBrokenAndCannotBeRenewed",
            "LeaseLost",
            "LeaseNotPresentWithBlobOperation",
            "LeaseNotPresentWithLeaseOperation",
        ),
        _LEASE_LOST,
    ),
    **dict.fromkeys(("ConditionNotMet", "BlobOverwritten"), _CHANGED),
    "ContainerBeingDeleted": _BEING_DELETED,
    **dict.fromkeys(("BlobAlreadyExists", "ResourceAlreadyExists"), _EXISTS),
    **dict.fromkeys(("InvalidBlobType", "InvalidPageRange", "ResourceTypeMismatch"), _WRONG_KIND),
    **dict.fromkeys(("BlobImmutableDueToPolicy", "BlobImmutableDueToLegalHold"), _IMMUTABLE),
    "SnapshotCountExceeded": _TOO_MANY_SNAPSHOTS,
    **dict.fromkeys(("AccountQuotaExceeded", "InsufficientStorage"), _FULL),
    "RequestBodyTooLarge": _TOO_LARGE,
    **dict.fromkeys(("ServerBusy", "SnapshotOperationRateExceeded", "TooManyRequests"), _OVERLOADED),
    **dict.fromkeys(("InternalError", "OperationTimedOut"), _FAILED),
}
BY_STATUS: dict[int, Meaning] = {
    401: _LOGIN,
    403: _PERMISSION,
    404: _NO_BLOB,
    408: _FAILED,
    409: _CHANGED,
    412: _CHANGED,
    413: _TOO_LARGE,
    429: _OVERLOADED,
    507: _FULL,
}


def error_for(error: AzureError, where: str) -> LeewardError:
    """The leeward error for what the client library raised. Holds nothing of the library's own message."""
    if isinstance(error, ClientAuthenticationError) and error.status_code is None:
        return _as_error(_LOGIN, where, "no token could be had")
    if isinstance(error, ServiceRequestError | ServiceResponseError | IncompleteReadError):
        if _is_about_a_certificate(error):
            return _as_error(_NOT_TRUSTED, where)
        return _as_error(_NO_ANSWER, where, _innermost(error))
    if isinstance(error, HttpResponseError) and error.status_code is not None:
        return _for_response(error, error.status_code, where)
    return _as_error(_NO_ANSWER, where, _innermost(error))


def code_of(error: AzureError) -> str:
    """Azure's own error code, ``""`` when there is none."""
    code = getattr(error, "error_code", None) or ""
    return str(getattr(code, "value", code))


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Turns what the client library raises inside into the leeward error of its class.

    The original is left out of the traceback on purpose: it may quote a signed URL."""
    try:
        yield
    except AzureError as error:
        raise error_for(error, where) from None


def _for_response(error: HttpResponseError, status: int, where: str) -> LeewardError:
    code = code_of(error)
    meaning = BY_CODE.get(code) or BY_STATUS.get(status)
    if meaning is None and status >= 500:
        meaning = _FAILED
    if meaning is None:
        meaning = Meaning(
            InvalidState,
            "Azure Storage refused a request of leeward",
            "report this as a defect of leeward, with the answer's code",
        )
    return _as_error(meaning, where, f"HTTP {status} {code}".rstrip())


def _as_error(meaning: Meaning, where: str, detail: str = "") -> LeewardError:
    what = f"{meaning.what} ({detail})" if detail else meaning.what
    return meaning.error(what, where=where, remedy=meaning.remedy)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what lies under it, as the layers of the HTTP client nest them."""
    current: BaseException | None = error
    seen: set[int] = set()
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        reason = getattr(current, "inner_exception", None) or getattr(current, "reason", None)
        first = current.args[0] if current.args else None
        current = next(
            (one for one in (reason, first, current.__cause__, current.__context__) if isinstance(one, BaseException)),
            None,
        )


def _is_about_a_certificate(error: AzureError) -> bool:
    return any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error))


def _innermost(error: AzureError) -> str:
    """The kind of the lowest error: enough to tell a refused connection from a timeout, and never a URL."""
    return type(list(_causes(error))[-1]).__name__
