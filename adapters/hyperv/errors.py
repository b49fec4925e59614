"""What a host's errors mean: one table from what Windows reports to :mod:`vault.errors`, with sources and remedies.

What the table does not have is reported as it came and is not recoverable: only a failure of the transport is worth
another try without knowing more (requirements §C.4).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from adapters.hyperv.call import ErrorRecord
from vault.errors import (
    AuthenticationRefused,
    AuthorizationRefused,
    BadInput,
    Busy,
    InvalidState,
    LeewardError,
    NoSpace,
    NotFound,
    NotRecoverable,
    Unreachable,
)

WSMERROR = "wsmerror.h, Windows SDK"
WINERROR = "winerror.h, [MS-ERREF] 2.1 and 2.2"
WMI = "root\\virtualization\\v2, return values of Msvm_ReplicationService's and Msvm_ImageManagementService's methods"
POWERSHELL = "System.Management.Automation.ErrorCategory; about_Language_Modes"
HYPERV = "the Hyper-V module's error records"
CLUSTER = "the FailoverClusters module's error records"
VMM = "error ids of the VirtualMachineManager module, which begin FullyQualifiedErrorId"

RIGHTS = (
    "let the account manage the host: a member of Hyper-V Administrators and Remote Management Users, or of "
    "Administrators; on a cluster's nodes also Grant-ClusterAccess (docs/hyperv.md)"
)
QUOTA = "wait, or end other remote shells of this account, or raise the host's WinRM quota (winrm get winrm/config)"
TRIED_AGAIN = "leeward tries it again by itself"
"""What a worker does; :mod:`adapters.hyperv.host_check` asks once."""
AGAIN = f"check that the host is up and its WinRM service runs; {TRIED_AGAIN}"
CHECK_PATH = "check the path, and that its drive is there"
SPACE = "free space on the host's volume, or move the virtual machine's files"


class MissingPath(NotFound):
    """The host has no such file or folder. Of a machine that was moved away another :class:`NotFound` tells."""


class Meaning(NamedTuple):
    error: type[LeewardError]
    remedy: str
    source: str


def _all(codes: Iterable[int], meaning: Meaning) -> dict[int, Meaning]:
    return dict.fromkeys(codes, meaning)


FAULTS: dict[int, Meaning] = {
    0x00000005: Meaning(AuthorizationRefused, RIGHTS, WINERROR),
    0x0000052E: Meaning(AuthenticationRefused, "check user and password", WINERROR),
    0x000003E3: Meaning(Unreachable, AGAIN, WINERROR),
    0x000004C7: Meaning(Unreachable, AGAIN, WINERROR),
    0x80338029: Meaning(Unreachable, AGAIN, WSMERROR),
    0x8033805B: Meaning(Unreachable, f"the host ended the remote shell; {TRIED_AGAIN}", WSMERROR),
    0x803381C4: Meaning(Unreachable, AGAIN, WSMERROR),
    0x803381DE: Meaning(Unreachable, AGAIN, WSMERROR),
    0x803381AC: Meaning(
        AuthorizationRefused,
        'allow remote shells: winrm set winrm/config/winrs @{AllowRemoteShellAccess="true"}',
        WSMERROR,
    ),
    0x803381E3: Meaning(AuthorizationRefused, "allow remote access in the host's WinRM policy", WSMERROR),
    0x80338026: Meaning(BadInput, "raise MaxEnvelopeSizekb on the host to 500 or more", WSMERROR),
    0x80338047: Meaning(BadInput, "raise MaxEnvelopeSizekb on the host to 500 or more", WSMERROR),
    0x80338048: Meaning(BadInput, "raise MaxEnvelopeSizekb on the host to 500 or more", WSMERROR),
    **_all(
        [0x8033803F, *range(0x803381A5, 0x803381A9), 0x803381AB, *range(0x803381E4, 0x803381EA)],
        Meaning(Busy, QUOTA, WSMERROR),
    ),
}
"""WSManFault codes, of a request that WinRM itself refused."""

RESULTS: dict[int, Meaning] = {
    0x80070005: Meaning(AuthorizationRefused, RIGHTS, WINERROR),
    0x80041003: Meaning(AuthorizationRefused, RIGHTS, "wbemcli.h: WBEM_E_ACCESS_DENIED"),
    0x8007052E: Meaning(AuthenticationRefused, "check user and password", WINERROR),
    0x80070070: Meaning(NoSpace, SPACE, WINERROR),
    0x80070027: Meaning(NoSpace, SPACE, WINERROR),
    0x8007000E: Meaning(NoSpace, "free memory on the host", WINERROR),
    0x800705AA: Meaning(NoSpace, "free memory or other resources on the host", WINERROR),
    0x800705AF: Meaning(NoSpace, "free memory on the host, or let its page file grow", WINERROR),
    0x80070020: Meaning(Busy, f"another program has the file open; {TRIED_AGAIN}", WINERROR),
    0x80070021: Meaning(Busy, f"another program has locked the file; {TRIED_AGAIN}", WINERROR),
    0x800700AA: Meaning(Busy, f"the resource is in use; {TRIED_AGAIN}", WINERROR),
    0x80070035: Meaning(Unreachable, "check the network path between the hosts", WINERROR),
    0x8007003B: Meaning(Unreachable, "check the network between the hosts", WINERROR),
    0x80070040: Meaning(Unreachable, "check the network between the hosts", WINERROR),
    0x800706BA: Meaning(Unreachable, "check that the service runs and that the firewall lets it through", WINERROR),
    0x800706BE: Meaning(Unreachable, AGAIN, WINERROR),
    0x800705B4: Meaning(Unreachable, AGAIN, WINERROR),
    0x80072EE2: Meaning(Unreachable, "check the network between the hosts and the replica server's port", WINERROR),
    0x80072EE7: Meaning(Unreachable, "check the replica server's name in DNS", WINERROR),
    0x80072EFD: Meaning(Unreachable, "check that the replica server listens and its firewall lets it in", WINERROR),
    0x80072EFE: Meaning(Unreachable, "check the network between the hosts", WINERROR),
    0x80072EFF: Meaning(Unreachable, "check the network between the hosts", WINERROR),
    0x80090322: Meaning(AuthenticationRefused, "check the host's service principal name and the clocks", WINERROR),
    0x8009030C: Meaning(AuthenticationRefused, "check user and password", WINERROR),
    0x8009030E: Meaning(
        AuthenticationRefused, "the account has no credentials there; see CredSSP, docs/hyperv.md", WINERROR
    ),
    0x800B0101: Meaning(AuthenticationRefused, "renew the certificate, or correct the clock", WINERROR),
    0x800B0109: Meaning(AuthenticationRefused, "trust the certificate's authority on both hosts", WINERROR),
    0x800B010F: Meaning(AuthenticationRefused, "the certificate needs the name the host is addressed by", WINERROR),
    0x80092012: Meaning(AuthenticationRefused, "make the certificate's revocation list reachable", WINERROR),
    0x80092013: Meaning(Unreachable, "make the certificate's revocation list reachable", WINERROR),
    0x80070002: Meaning(MissingPath, CHECK_PATH, WINERROR),
    0x80070003: Meaning(MissingPath, CHECK_PATH, WINERROR),
    0x80070057: Meaning(BadInput, "check the request against docs/hyperv.md", WINERROR),
    0x80070032: Meaning(InvalidState, "the host's version or the virtual machine's disks do not support it", WINERROR),
}
"""HRESULTs, from the exception or from the text of its message, where Hyper-V puts them in parentheses."""

RETURN_VALUES: dict[int, Meaning] = {
    32769: Meaning(AuthorizationRefused, RIGHTS, WMI),
    32770: Meaning(InvalidState, "the host's version or the virtual machine does not support it", WMI),
    32772: Meaning(Unreachable, AGAIN, WMI),
    32773: Meaning(BadInput, "check the request against docs/hyperv.md", WMI),
    32774: Meaning(Busy, f"another operation runs on the virtual machine; {TRIED_AGAIN}", WMI),
    32775: Meaning(InvalidState, "see the machine's replication state: leeward hyperv check, Get-VMReplication", WMI),
    32777: Meaning(Unreachable, AGAIN, WMI),
    32778: Meaning(NoSpace, "free memory on the host", WMI),
    32779: Meaning(MissingPath, CHECK_PATH, WMI),
}

IDENTIFIERS: dict[str, Meaning] = {
    "AccessDenied": Meaning(AuthorizationRefused, RIGHTS, HYPERV),
    "ObjectNotFound": Meaning(NotFound, "check the name, and that the virtual machine is on this host", HYPERV),
    "InvalidState": Meaning(InvalidState, "see the machine's state: Get-VM, Get-VMReplication", HYPERV),
    "ObjectInUse": Meaning(Busy, f"another operation runs on it; {TRIED_AGAIN}", HYPERV),
    "OutOfMemory": Meaning(NoSpace, "free memory on the host", HYPERV),
    "CommandNotFoundException": Meaning(
        InvalidState,
        "install the module: Install-WindowsFeature Hyper-V-PowerShell; on a VMM server, the VMM console",
        POWERSHELL,
    ),
    "MethodInvocationNotSupportedInConstrainedLanguage": Meaning(
        InvalidState, "the host's PowerShell is in constrained language mode; leeward needs full language", POWERSHELL
    ),
    "ClusterEndpointNotRegistered": Meaning(
        Unreachable, f"start the cluster service of the node: Start-ClusterNode; {TRIED_AGAIN}", CLUSTER
    ),
    "1602": Meaning(Unreachable, "check that the service Virtual Machine Manager runs on the VMM server", VMM),
    "640": Meaning(InvalidState, "VMM wants the machine to be off, or stored, for this: shut it down", VMM),
}
"""By the part of FullyQualifiedErrorId before its first comma."""

CATEGORIES: dict[str, Meaning] = {
    "PermissionDenied": Meaning(AuthorizationRefused, RIGHTS, POWERSHELL),
    "SecurityError": Meaning(AuthorizationRefused, RIGHTS, POWERSHELL),
    "AuthenticationError": Meaning(AuthenticationRefused, "check user and password", POWERSHELL),
    "ObjectNotFound": Meaning(NotFound, "check the name", POWERSHELL),
    "ResourceBusy": Meaning(Busy, TRIED_AGAIN, POWERSHELL),
    "ConnectionError": Meaning(Unreachable, AGAIN, POWERSHELL),
    "OperationTimeout": Meaning(Unreachable, AGAIN, POWERSHELL),
    "QuotaExceeded": Meaning(Busy, QUOTA, POWERSHELL),
    "InvalidArgument": Meaning(BadInput, "check the request against docs/hyperv.md", POWERSHELL),
}

MISSING = re.compile(r"was unable to find a virtual machine\b", re.IGNORECASE)
"""Hyper-V reports a machine that is not there as an invalid parameter; only its text says which."""

IN_TEXT = re.compile(r"\b0x(?:8[0-9A-Fa-f]{3}|0000)[0-9A-Fa-f]{4}\b")
"""An HRESULT, or the code of Win32 that it is made of: Hyper-V Replica writes WinHTTP's as ``0x00002EFD``."""


def unsigned(result: int) -> int:
    """An HRESULT as it is written: .NET has it as a signed 32-bit number."""
    return result & 0xFFFFFFFF


def _result(code: int) -> int:
    """``HRESULT_FROM_WIN32``."""
    return code if code >= 0x80000000 else 0x80070000 | code


def meaning_of(record: ErrorRecord) -> Meaning | None:
    """The most specific row of the tables: HRESULT, then WMI return value, identifier, category."""
    codes = [_result(int(code, 16)) for code in IN_TEXT.findall(record.message)]
    if record.hresult is not None:
        codes.append(unsigned(record.hresult))
    if record.exception_type.endswith("Win32Exception") and record.error_code is not None:
        # Its HRESULT is always E_FAIL.
        codes.append(_result(record.error_code & 0xFFFF))
    for code in codes:
        if code in RESULTS and not (RESULTS[code].error is BadInput and MISSING.search(record.message)):
            return RESULTS[code]
    if record.error_code in RETURN_VALUES:
        return RETURN_VALUES[record.error_code]
    if MISSING.search(record.message):
        return IDENTIFIERS["ObjectNotFound"]
    identifier = record.fully_qualified_error_id.partition(",")[0]
    return IDENTIFIERS.get(identifier) or CATEGORIES.get(record.category)


def from_record(record: ErrorRecord, where: str, secrets: Sequence[str] = ()) -> LeewardError:
    """The error that a script's failure is."""
    what = f"{without(record.message, secrets).strip().rstrip('.')} ({_signature(record, secrets)})"
    place = f"{where}, {record.script}.ps1:{record.line}" if record.script else where
    meaning = meaning_of(record)
    if meaning is None:
        return NotRecoverable(
            what,
            where=place,
            remedy="leeward does not know this error: look at the host's Hyper-V-VMMS event log",
        )
    return meaning.error(what, where=place, remedy=meaning.remedy)


def from_fault(code: int | None, reason: str, where: str, secrets: Sequence[str] = ()) -> LeewardError:
    """The error that a request refused by WinRM is."""
    text = without(reason, secrets).strip().rstrip(".")
    if code is None:
        return NotRecoverable(
            f"WinRM refused the request: {text}", where=where, remedy="look at the host's WinRM event log"
        )
    what = f"WinRM refused the request: {text} (0x{unsigned(code):08X})"
    meaning = FAULTS.get(unsigned(code)) or RESULTS.get(unsigned(code))
    if meaning is None:
        return NotRecoverable(what, where=where, remedy="look at the host's WinRM event log for this code")
    return meaning.error(what, where=where, remedy=meaning.remedy)


def without(text: str, secrets: Sequence[str]) -> str:
    """``text`` with every secret masked, in case a host quotes what it was given."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _signature(record: ErrorRecord, secrets: Sequence[str]) -> str:
    # 'throw "text"' makes the text the identifier too.
    identifier = record.fully_qualified_error_id
    parts = [identifier if identifier != record.message else "", record.category]
    if record.hresult is not None:
        parts.append(f"0x{unsigned(record.hresult):08X}")
    if record.error_code is not None:
        parts.append(f"code {record.error_code}")
    return without(", ".join(part for part in parts if part), secrets) or "no further details"
