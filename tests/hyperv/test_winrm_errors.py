"""The table of errors: what Windows reports, the class it has, and that nothing outside the table is tried again."""

from __future__ import annotations

from typing import Any

import pytest
from winrm_host import ECHO, Echo, SimulatedHost

from adapters.hyperv.call import ErrorRecord
from adapters.hyperv.errors import (
    CATEGORIES,
    FAULTS,
    IDENTIFIERS,
    RESULTS,
    RETURN_VALUES,
    Meaning,
    MissingPath,
    from_fault,
    from_record,
)
from adapters.hyperv.hosts import HyperVHosts
from adapters.hyperv.operation import Input, Operation, Output
from adapters.hyperv.session import HostSession
from adapters.ports import Beat
from simulation.winrm import soap
from simulation.winrm.answering import failure
from simulation.winrm.server import Cut, Disturbance, HttpError
from vault.domain import Value
from vault.errors import (
    AuthenticationRefused,
    AuthorizationRefused,
    BadInput,
    Busy,
    Damaged,
    InvalidState,
    LeewardError,
    NoSpace,
    NotFound,
    NotRecoverable,
    Unreachable,
)

TABLES: dict[str, dict[Any, Meaning]] = {
    "faults": dict(FAULTS),
    "results": dict(RESULTS),
    "return values": dict(RETURN_VALUES),
    "identifiers": dict(IDENTIFIERS),
    "categories": dict(CATEGORIES),
}

HOST_ERRORS: list[tuple[dict[str, Any], type[LeewardError]]] = [
    ({"message": "Failed to write. There is not enough space on the disk. (0x80070070)."}, NoSpace),
    ({"message": "Zu wenig Speicher", "hresult": 0x80070070}, NoSpace),
    ({"message": "Access is denied.", "hresult": 0x80070005}, AuthorizationRefused),
    ({"message": "You do not have the required permission.", "identifier": "AccessDenied,X"}, AuthorizationRefused),
    ({"message": "no", "category": "PermissionDenied", "identifier": "X"}, AuthorizationRefused),
    ({"message": "The method returned 32775.", "error_code": 32775}, InvalidState),
    ({"message": "Invalid state", "identifier": "InvalidState,Microsoft.HyperV.PowerShell.Commands.X"}, InvalidState),
    ({"message": "The file is open", "error_code": 32, "exception": "System.ComponentModel.Win32Exception"}, Busy),
    ({"message": "System is in use", "error_code": 32774}, Busy),
    (
        {
            "message": 'Hyper-V was unable to find a virtual machine with name "vm\'1".',
            "identifier": "InvalidParameter,Microsoft.HyperV.PowerShell.Commands.GetVM",
            "category": "InvalidArgument",
            "hresult": 0x80070057,
        },
        NotFound,
    ),
    (
        {
            "message": "A parameter is invalid.",
            "identifier": "InvalidParameter,Microsoft.HyperV.PowerShell.Commands.SetVM",
            "category": "InvalidArgument",
        },
        BadInput,
    ),
    ({"message": "could not connect to replica (0x80072EFD)", "identifier": "OperationFailed,X"}, Unreachable),
    (
        {"message": "no connection with the Replica server (0x00002EFD).", "identifier": "OperationFailed,X"},
        Unreachable,
    ),
    ({"message": "certificate expired (0x800B0101)", "identifier": "OperationFailed,X"}, AuthenticationRefused),
    ({"message": "not recognized", "identifier": "CommandNotFoundException"}, InvalidState),
    ({"message": "Something new", "identifier": "OperationFailed,X", "category": "NotSpecified"}, NotRecoverable),
    ({"message": "Unknown code (0x80048001)", "hresult": 0x80131501}, NotRecoverable),
]


@pytest.mark.unit
@pytest.mark.parametrize("table", TABLES)
def test_every_row_has_a_remedy_and_a_source(table: str) -> None:
    for key, meaning in TABLES[table].items():
        assert meaning.remedy, key
        assert meaning.source, key
        assert meaning.error not in (LeewardError, NotRecoverable), key


@pytest.mark.unit
@pytest.mark.parametrize(("code", "meaning"), [*FAULTS.items()], ids=[hex(code) for code in FAULTS])
def test_a_fault_is_what_the_table_says(code: int, meaning: Meaning) -> None:
    for given in (code, code - (1 << 32)):
        error = from_fault(given, "It is so.", "host", ())
        assert type(error) is meaning.error
        assert f"0x{code:08X}" in str(error)
        assert error.remedy == meaning.remedy


@pytest.mark.unit
def test_an_unknown_fault_is_said_plainly_and_not_tried_again() -> None:
    for error in (from_fault(0x80338FFF, "New.", "host", ()), from_fault(None, "New.", "host", ())):
        assert type(error) is NotRecoverable
        assert "New" in str(error)
        assert error.remedy


@pytest.mark.unit
def test_a_script_error_says_what_where_and_what_to_do() -> None:
    record = ErrorRecord(message="No space. (0x80070070)", fullyQualifiedErrorId="A,B", script="make_replica", line=7)
    assert str(from_record(record, "host")) == (
        "host, make_replica.ps1:7: No space. (0x80070070) (A,B) — "
        "free space on the host's volume, or move the virtual machine's files"
    )


class AboutAMachine(Value):
    vm_id: str


class Answers:
    """A host's session that fails with what it was told."""

    def __init__(self, record: ErrorRecord) -> None:
        self._record = record

    def run(self, operation: Operation[Input, Output], given: Input, *, timeout_s: float) -> Output:
        raise from_record(self._record, "host")

    def run_job(
        self,
        operation: Operation[Input, Output],
        given: Input,
        beat: Beat,
        *,
        timeout_s: float,
    ) -> Output:
        return self.run(operation, given, timeout_s=timeout_s)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (ErrorRecord(message="No such file.", hresult=0x80070002), MissingPath),
        (ErrorRecord(message="No such folder (0x80070003)."), MissingPath),
        (ErrorRecord(message="The file was not found.", errorCode=32779), MissingPath),
        (ErrorRecord(message="Hyper-V was unable to find a virtual machine with id 1."), Busy),
        (ErrorRecord(message="No.", fullyQualifiedErrorId="ObjectNotFound,X"), Busy),
    ],
)
def test_a_path_that_is_missing_is_no_machine_that_moved(record: ErrorRecord, expected: type[LeewardError]) -> None:
    hosts = HyperVHosts("east", {"host": Answers(record)})
    with pytest.raises(LeewardError) as failed:
        hosts.run("host", Operation("x", AboutAMachine, AboutAMachine), AboutAMachine(vm_id="1"))
    assert type(failed.value) is expected


@pytest.mark.contract
@pytest.mark.parametrize(("reported", "expected"), HOST_ERRORS, ids=lambda value: str(value)[:60])
def test_what_the_host_reports_arrives_as_its_class(
    host: SimulatedHost, session: HostSession, reported: dict[str, Any], expected: type[LeewardError]
) -> None:
    host.result = failure(**reported)
    with pytest.raises(LeewardError) as refused:
        session.run(ECHO, Echo(text="x"), timeout_s=60)
    assert type(refused.value) is expected
    assert refused.value.remedy
    assert refused.value.where.endswith("check_host.ps1:1")
    assert reported["message"].rstrip(".") in refused.value.what


@pytest.mark.contract
@pytest.mark.parametrize(
    ("disturbance", "expected"),
    [
        (soap.ACCESS_DENIED, AuthorizationRefused),
        (soap.SHELL_QUOTA, Busy),
        (soap.OPERATION_TIMED_OUT, Unreachable),
        (soap.SHELL_NOT_FOUND, Unreachable),
        (soap.ENVELOPE_TOO_LARGE, BadInput),
        (soap.Fault(0x80338FFF, "Never heard of."), NotRecoverable),
        (HttpError(503), Unreachable),
        (HttpError(403), AuthorizationRefused),
        (HttpError(404), BadInput),
        (HttpError(418), NotRecoverable),
        (Cut.BEFORE, Unreachable),
    ],
    ids=str,
)
@pytest.mark.parametrize("number", [1, 3, 4])
def test_a_refusal_at_any_request_is_an_error_of_its_class_and_the_session_goes_on(
    host: SimulatedHost, session: HostSession, number: int, disturbance: Disturbance, expected: type[LeewardError]
) -> None:
    is_slow_output = disturbance is soap.OPERATION_TIMED_OUT and number == 4
    host.server.disturb = lambda present, _: disturbance if present == number else None
    if is_slow_output:
        assert session.run(ECHO, Echo(text="slow"), timeout_s=60).text == "slow"
    else:
        with pytest.raises(LeewardError) as refused:
            session.run(ECHO, Echo(text="x"), timeout_s=60)
        assert type(refused.value) is expected
        assert refused.value.where == session.host.where
        assert refused.value.remedy
    assert session.run(ECHO, Echo(text="next"), timeout_s=60).text == "next"


@pytest.mark.contract
def test_a_user_s_shells_are_limited(host: SimulatedHost) -> None:
    host.server.shells.max_per_user = 1
    with HostSession(host.settings()) as first, HostSession(host.settings()) as second:
        first.run(ECHO, Echo(text="x"), timeout_s=60)
        with pytest.raises(Busy, match=r"maximum number of concurrent shells \(0x803381A5\) — wait, or end other"):
            second.run(ECHO, Echo(text="x"), timeout_s=60)
        first.close()
        assert second.run(ECHO, Echo(text="x"), timeout_s=60).text == "x"


@pytest.mark.contract
def test_a_result_of_another_shape_is_not_taken(host: SimulatedHost, session: HostSession) -> None:
    host.result = {"text": 5, "more": 1}
    with pytest.raises(Damaged, match="'check_host' gave something else than Echo"):
        session.run(ECHO, Echo(text="x"), timeout_s=60)


@pytest.mark.contract
def test_a_host_that_does_not_run_the_bootstrap_says_why(
    host: SimulatedHost, session: HostSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.hyperv.session.powershell", lambda: "powershell.exe -Command 1")
    with pytest.raises(NotRecoverable, match=r"ended with 1 before it ran the operation: .* is not the bootstrap"):
        session.run(ECHO, Echo(text="x"), timeout_s=60)
