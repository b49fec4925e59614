"""No Windows here: every packaged script is held against Microsoft's published reference instead."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from powershell_check import answered_keys, problems, reference

import adapters
from adapters.hyperv import facts, operations
from adapters.hyperv.hosts import STARTS
from adapters.hyperv.states import ReplicationHealth, ReplicationMode, ReplicationState
from adapters.vmm import facts as vmm_facts
from adapters.vmm import operations as vmm_operations
from vault.domain import Value

OPERATIONS = operations.OPERATIONS | vmm_operations.OPERATIONS
OWN = sorted(Path(adapters.__file__).parent.glob("*/scripts/[!_]*.ps1"))

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.stem)
def test_a_host_understands_the_script(path: Path) -> None:
    assert problems(path.read_text()) == []


def test_every_operation_has_its_script_and_every_script_its_operation() -> None:
    assert {path.stem for path in OWN} == set(OPERATIONS)


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.stem)
def test_the_script_reads_the_parameters_that_its_operation_has(path: Path) -> None:
    read = set(re.findall(r"\$Parameters\.(\w+)", path.read_text()))
    assert read == set(OPERATIONS[path.stem].takes.model_fields)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("Stop-VirtualMachine -VM $vm", "line 1: Stop-VirtualMachine: not in the reference"),
        ("Stop-VM -VM $vm -Gently", "line 1: Stop-VM: has no parameter -Gently"),
        ("Stop-VM $vm", "line 1: Stop-VM: an argument is not named"),
        ("Stop-VM -VM", "line 1: Stop-VM: -VM needs a value"),
        ("Start-VM", "no parameter set has -nothing and all it needs"),
        ("Start-VMFailover -VM $vm -Prepare -AsTest", "no parameter set has -astest, -prepare, -vm and all it needs"),
        ("Start-VMFailover -VM $vm -VMRecoverySnapshot $point", "no parameter set has"),
        ("Get-VMSnapshot -VM $vm -SnapshotType Backup", "-SnapshotType cannot be 'Backup'"),
        ("Measure-VMReplication -VM $vm -ReplicationRelationshipType 'Chained'", "cannot be 'Chained'"),
        ("Enable-VMReplication @settings", "@settings is not a literal table of this script"),
        ("$s = @{ VM = $vm; ReplicaServer = 'b' }\nEnable-VMReplication @s", "has no parameter -ReplicaServer"),
        (
            "$s = @{ VM = $vm; AuthenticationType = 'NTLM' }\nSet-VMReplication @s",
            "-AuthenticationType cannot be 'NTLM'",
        ),
        ("$s = @{ Reverse = $true }\nif ($x) { $s.VM = $vm }\nSet-VMReplication @s", "no parameter set has"),
        ("if (\"$($vm.ReplicationMode)\" -eq 'Secondary') { }", "ReplicationMode is never 'Secondary'"),
        ("Get-SCVMHost -Name 'hv1'", "line 1: Get-SCVMHost: has no parameter -Name"),
        ("Get-SCLogicalNetwork -Cloud $cloud -VMHost $vmHost", "no parameter set has -cloud, -vmhost"),
        ("if ($vm { }", "not PowerShell"),
        (
            "$s = Get-WmiObject -Class Msvm_ReplicaService",
            "WMI class Msvm_ReplicaService is not in the reference",
        ),
        (
            "$s = Get-WmiObject -Class Msvm_ImageManagementService\n$a = $s.GetMethodParameters('GetChanges')",
            "WMI method GetChanges is not in the reference",
        ),
        (
            "$a = $s.GetMethodParameters('GetVirtualDiskChanges')\n$a.Offset = 1",
            "$a has no Offset in WMI's reference",
        ),
    ],
)
def test_the_check_sees_what_a_host_would_refuse(text: str, complaint: str) -> None:
    assert complaint in "\n".join(problems(text))


@pytest.mark.parametrize(
    ("enum", "parameter"),
    [
        (ReplicationState, "ReplicationState"),
        (ReplicationHealth, "ReplicationHealth"),
        (ReplicationMode, "ReplicationMode"),
    ],
)
def test_the_words_of_the_reference_are_known(
    enum: type[ReplicationState] | type[ReplicationHealth] | type[ReplicationMode], parameter: str
) -> None:
    values = reference("hyperv")["cmdlets"]["Get-VMReplication"]["parameters"][parameter]["values"]
    assert {member.value for member in enum} == {*values, "unknown"}


def test_what_a_host_starts_by_itself_is_told_by_the_words_of_the_reference() -> None:
    values = reference("hyperv")["cmdlets"]["Set-VM"]["parameters"]["AutomaticStartAction"]["values"]
    assert set(values) - set(STARTS) == {"Nothing"}


def test_hosts_authenticate_in_the_ways_of_the_reference() -> None:
    for cmdlet in ("Enable-VMReplication", "Set-VMReplication"):
        parameter = reference("hyperv")["cmdlets"][cmdlet]["parameters"]["AuthenticationType"]
        assert list(get_args(facts.Authentication)) == parameter["values"]


def test_machines_of_hyper_v_are_told_by_the_words_of_the_reference() -> None:
    cmdlets = reference("vmm")["cmdlets"]
    kinds = cmdlets["New-SCCapabilityProfile"]["parameters"]["FabricCapabilityType"]["values"]
    assert vmm_facts.HYPER_V in kinds


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.stem)
def test_the_script_answers_with_the_fields_that_its_operation_gives(path: Path) -> None:
    """Keys of a table that is built key by key from the host's data (``$published[$name]``) are no fields."""
    written = answered_keys(path.read_text())
    fields = set(fields_of(OPERATIONS[path.stem].gives))
    assert written >= fields, f"missing: {fields - written}"
    assert written - fields <= {"command", "environment"}, f"unknown: {written - fields}"


def fields_of(model: type[Any]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield name
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, Value):
                yield from fields_of(part)
