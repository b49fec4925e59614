"""What an array's refusals mean: tables from published codes to :mod:`vault.errors`, with sources and remedies."""

from __future__ import annotations

from typing import NamedTuple

import pywbem

from adapters.smis.values import ReturnValue
from vault.errors import (
    AuthenticationRefused,
    AuthorizationRefused,
    BadInput,
    Busy,
    Damaged,
    InvalidState,
    LeewardError,
    NotFound,
    PeerUnreachable,
    Unreachable,
)

DSP0200 = "DMTF DSP0200, CIM operations over HTTP, status codes"
REPLICATION = "CIM_ReplicationService's methods (MicrosoftDocs/win32, desktop-src/iSCSITarg)"
MASKING = "CIM_ControllerConfigurationService.ExposePaths and HidePaths (MicrosoftDocs/win32, desktop-src/iSCSITarg)"
ANSWER = "check that the array's SMI-S provider runs and can be reached; the operation is repeated"
LOOK = "look at the group on the array"


class Meaning(NamedTuple):
    error: type[LeewardError]
    what: str
    remedy: str
    source: str


STATUS: dict[int, Meaning] = {
    pywbem.CIM_ERR_FAILED: Meaning(InvalidState, "failed", "look into the array's log", DSP0200),
    pywbem.CIM_ERR_ACCESS_DENIED: Meaning(
        AuthorizationRefused, "access denied", "let the array's account manage replication and masking", DSP0200
    ),
    pywbem.CIM_ERR_INVALID_NAMESPACE: Meaning(
        BadInput, "there is no such namespace", "correct the storage's 'namespace' in the inventory", DSP0200
    ),
    pywbem.CIM_ERR_INVALID_PARAMETER: Meaning(InvalidState, "invalid parameter", LOOK, DSP0200),
    pywbem.CIM_ERR_INVALID_CLASS: Meaning(
        BadInput, "the array has no such class", "it needs SMI-S's Replication Services profile", DSP0200
    ),
    pywbem.CIM_ERR_NOT_FOUND: Meaning(NotFound, "not found", LOOK, DSP0200),
    pywbem.CIM_ERR_NOT_SUPPORTED: Meaning(BadInput, "not supported", "see what the array supports", DSP0200),
    pywbem.CIM_ERR_METHOD_NOT_AVAILABLE: Meaning(BadInput, "not supported", "see what the array supports", DSP0200),
    pywbem.CIM_ERR_METHOD_NOT_FOUND: Meaning(BadInput, "not supported", "see what the array supports", DSP0200),
    pywbem.CIM_ERR_SERVER_LIMITS_EXCEEDED: Meaning(Busy, "too busy", "the operation is repeated", DSP0200),
    pywbem.CIM_ERR_SERVER_IS_SHUTTING_DOWN: Meaning(Unreachable, "shutting down", ANSWER, DSP0200),
}
"""CIM status codes."""

RETURN_VALUES: dict[int, Meaning] = {
    ReturnValue.NOT_SUPPORTED: Meaning(BadInput, "not supported", "see what the array supports", REPLICATION),
    ReturnValue.UNKNOWN: Meaning(InvalidState, "unspecified error", LOOK, REPLICATION),
    ReturnValue.TIMEOUT: Meaning(
        PeerUnreachable, "timed out: the other array did not answer", "check the link between the arrays", REPLICATION
    ),
    ReturnValue.FAILED: Meaning(InvalidState, "failed", LOOK, REPLICATION),
    ReturnValue.INVALID_PARAMETER: Meaning(InvalidState, "invalid parameter", LOOK, REPLICATION),
    ReturnValue.IN_USE: Meaning(
        InvalidState, "in use", "end what uses the volumes or the group on the array", REPLICATION
    ),
    4097: Meaning(NotFound, "invalid logical unit", "check the volume on the array", MASKING),
    4098: Meaning(BadInput, "invalid initiator", "correct 'initiators' in the inventory", MASKING),
    4099: Meaning(InvalidState, "invalid target port", "look at the array's ports", MASKING),
    4100: Meaning(InvalidState, "invalid permission, or not exposed", "look at the array's masking", MASKING),
    4101: Meaning(InvalidState, "already exposed in another view", "look at the array's masking", MASKING),
    4102: Meaning(InvalidState, "logical unit number in use", "look at the array's masking", MASKING),
    4103: Meaning(InvalidState, "too many mappings", "remove mappings that are not needed on the array", MASKING),
}
"""Return values of extrinsic methods, and error codes of their jobs."""


def of_return_value(code: int, doing: str, array: str, said: str = "") -> LeewardError:
    """A method's return value other than success. ``said``: the array's own words."""
    meaning = RETURN_VALUES.get(
        code, Meaning(InvalidState, f"return value {code}", "look into the array's log and documentation", "")
    )
    return meaning.error(f"{doing}: {said or meaning.what}", where=f"array {array}", remedy=meaning.remedy)


def of_exception(error: pywbem.Error, doing: str, array: str) -> LeewardError:
    """What pywbem raised."""
    where = f"array {array}"
    if isinstance(error, pywbem.CIMError):
        meaning = STATUS.get(
            error.status_code, Meaning(InvalidState, error.status_code_name, "look into the array's log", DSP0200)
        )
        said = error.status_description or meaning.what
        return meaning.error(f"{doing}: {said}", where=where, remedy=meaning.remedy)
    if isinstance(error, pywbem.AuthError):
        return AuthenticationRefused(
            f"{doing}: the array refused the login",
            where=where,
            remedy="correct 'user' and 'password' of the site's storage",
        )
    if isinstance(error, pywbem.ConnectionError) and "certificate verify failed" in str(error):
        return BadInput(
            f"{doing}: the array's certificate is not trusted ({error})",
            where=where,
            remedy="name its authority as 'ca' of the site's storage",
        )
    if isinstance(error, (pywbem.ConnectionError, pywbem.TimeoutError, pywbem.HTTPError)):
        return Unreachable(f"{doing}: {error}", where=where, remedy=ANSWER)
    return Damaged(
        f"{doing}: the answer is no sound CIM-XML ({error})", where=where, remedy="check the address of the storage"
    )
