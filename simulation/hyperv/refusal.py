"""How hosts refuse: the Hyper-V module's error records.

Texts and identifiers as the module writes them; codes from winerror.h. A code of WinHTTP stands in a message without
its facility, 0x00002EFD, an HRESULT with it, 0x80070070.
"""

from __future__ import annotations

from simulation.winrm.answering import Failure, failure
from vault.errors import Busy, LeewardError, NoSpace, Unreachable

COMMANDS = "Microsoft.HyperV.PowerShell.Commands"
DISK_FULL, NOT_CONNECTED, CUT_OFF, UNKNOWN_NAME = 0x80070070, 0x2EFD, 0x2EFE, 0x2EE7
ABORTED, NO_PATH = 0x800703E3, 0x80070003


class Refusal(Exception):
    """A cmdlet failed."""

    def __init__(self, failed: Failure) -> None:
        super().__init__(failed.record.message)
        self.failed = failed


def missing(vm_id: str) -> Refusal:
    return Refusal(
        failure(
            f'Hyper-V was unable to find a virtual machine with id "{vm_id}".',
            identifier=f"InvalidParameter,{COMMANDS}.GetVM",
            category="InvalidArgument",
            target=vm_id,
        )
    )


def wrong_state(cmdlet: str, name: str, why: str) -> Refusal:
    return Refusal(
        failure(
            f"'{name}': the operation cannot be performed while the object is in its current state: {why}",
            identifier=f"InvalidState,{COMMANDS}.{cmdlet}",
            category="InvalidOperation",
            target=name,
        )
    )


def no_cluster(cmdlet: str) -> Refusal:
    """The cluster service of the host does not run, or there is none."""
    return Refusal(
        failure(
            "The cluster service is not running.  Make sure that the service is running on all nodes in the cluster.",
            identifier=f"ClusterEndpointNotRegistered,Microsoft.FailoverClusters.PowerShell.{cmdlet}Command",
            category="ConnectionError",
            exception="Microsoft.FailoverClusters.PowerShell.ClusterCmdletException",
        )
    )


def denied(host: str) -> Failure:
    return failure(
        "You do not have the required permission to complete this task. Contact the administrator of the "
        f"authorization policy for the computer '{host}'.",
        identifier=f"AccessDenied,{COMMANDS}.GetVM",
        category="PermissionDenied",
    )


def unconnected(cmdlet: str, server: str, code: int = NOT_CONNECTED) -> Refusal:
    """The primary server does not get through to the replica server."""
    return operation_failed(
        cmdlet, f"Hyper-V failed to establish a connection with the Replica server '{server}' (0x{code:08X})."
    )


def unauthorized(cmdlet: str, server: str) -> Refusal:
    return Refusal(
        failure(
            f"The Replica server '{server}' does not authorize this primary server to replicate to it (0x80070005).",
            identifier=f"AccessDenied,{COMMANDS}.{cmdlet}",
            category="PermissionDenied",
        )
    )


def operation_failed(cmdlet: str, message: str) -> Refusal:
    return Refusal(failure(message, identifier=f"OperationFailed,{COMMANDS}.{cmdlet}"))


def no_such_path(cmdlet: str, path: str) -> Refusal:
    return operation_failed(cmdlet, f"The system cannot find the path '{path}' (0x{NO_PATH:08X}).")


def aborted(cmdlet: str) -> Refusal:
    """The host went down in the middle."""
    return operation_failed(cmdlet, f"The operation has been aborted (0x{ABORTED:08X}).")


def of_the_lab(cmdlet: str, error: LeewardError) -> Refusal:
    """What the lab underneath could not do, in the words of Hyper-V."""
    if isinstance(error, NoSpace):
        return operation_failed(cmdlet, f"There is not enough space on the disk (0x{DISK_FULL:08X}).")
    if isinstance(error, Unreachable):
        return unconnected(cmdlet, error.where or "?", CUT_OFF)
    if isinstance(error, Busy):
        return Refusal(failure(error.what, identifier=f"ObjectInUse,{COMMANDS}.{cmdlet}", category="ResourceBusy"))
    return operation_failed(cmdlet, error.what)
