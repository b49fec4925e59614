"""The arrays' CIM servers, asked by an unmodified pywbem."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import pywbem

from adapters.smis.values import NAMESPACE, CopyState, JobState, Mode, Operation, ReturnValue, SyncType
from simulation.arrays.cim_server import CimFault, CimServer
from tests.san.pairs import POOL, ArrayPair, arrays, until

pytestmark = pytest.mark.contract


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[ArrayPair]:
    with arrays(tmp_path) as made:
        yield made


@pytest.fixture
def server(pair: ArrayPair, tmp_path: Path) -> Iterator[CimServer]:
    with CimServer(pair.east, tmp_path / "certificates", user="leeward", password="secret") as made:
        yield made


def connect(server: CimServer, password: str = "secret") -> pywbem.WBEMConnection:
    connection = pywbem.WBEMConnection(
        server.url, ("leeward", password), NAMESPACE, ca_certs=str(server.certificate.certificate), timeout=5
    )
    connection.session.trust_env = False
    return connection


def test_a_wrong_password_and_an_untrusted_certificate_are_refused(server: CimServer) -> None:
    with pytest.raises(pywbem.AuthError):
        connect(server, "wrong").EnumerateInstances("CIM_StoragePool")
    stranger = pywbem.WBEMConnection(server.url, ("leeward", "secret"), NAMESPACE)
    stranger.session.trust_env = False
    with pytest.raises(pywbem.ConnectionError, match="certificate verify failed"):
        stranger.EnumerateInstances("CIM_StoragePool")


def test_pools_volumes_and_their_masking_are_instances(pair: ArrayPair, server: CimServer) -> None:
    volume = pair.east.create_volume("log", POOL, 2**20)
    pair.east.expose([volume.id], "host-1")
    connection = connect(server)
    pool = connection.EnumerateInstances("CIM_StoragePool")[0]
    assert (pool["ElementName"], pool["RemainingManagedSpace"]) == (POOL, 63 * 2**20)
    found = connection.EnumerateInstances("CIM_StorageVolume")[0]
    assert found["BlockSize"] * found["NumberOfBlocks"] == 2**20
    assert connection.GetInstance(found.path)["ElementName"] == "log"
    seen_by = connection.Associators(found.path, AssocClass="CIM_ProtocolControllerForUnit")
    assert [controller["ElementName"] for controller in seen_by] == ["host-1"]
    with pytest.raises(pywbem.CIMError) as missing:
        connection.EnumerateInstances("CIM_Nothing")
    assert missing.value.status_code == pywbem.CIM_ERR_INVALID_CLASS


def test_a_group_is_mirrored_by_the_replication_service(pair: ArrayPair, server: CimServer) -> None:
    volumes = [pair.east.create_volume(name, POOL, 2**20) for name in ("log", "data")]
    connection = connect(server)
    service = connection.EnumerateInstanceNames("CIM_ReplicationService")[0]
    members = connection.EnumerateInstanceNames("CIM_StorageVolume")
    code, out = connection.InvokeMethod("CreateGroup", service, GroupName="payments", Members=members)
    assert code == ReturnValue.COMPLETED
    code, made = connection.InvokeMethod(
        "CreateGroupReplica",
        service,
        SyncType=pywbem.Uint16(SyncType.MIRROR),
        Mode=pywbem.Uint16(Mode.SYNCHRONOUS),
        SourceGroup=out["ReplicationGroup"],
        TargetAccessPoint=connection.EnumerateInstanceNames("CIM_RemoteServiceAccessPoint")[0],
        TargetPool=pywbem.CIMInstanceName("CIM_StoragePool", {"InstanceID": f"west:{POOL}"}, namespace=NAMESPACE),
    )
    assert code == ReturnValue.JOB_STARTED
    until(lambda: connection.GetInstance(made["Job"])["JobState"] == JobState.COMPLETED)
    synchronization = connection.References(out["ReplicationGroup"], ResultClass="CIM_GroupSynchronized")[0]
    assert synchronization["CopyState"] == CopyState.SYNCHRONIZED
    assert synchronization["PercentSynced"] == 100
    pairs = connection.EnumerateInstances("CIM_StorageSynchronized")
    assert len(pairs) == len(volumes)
    code, _ = connection.InvokeMethod(
        "ModifyReplicaSynchronization",
        service,
        Operation=pywbem.Uint16(Operation.SUSPEND),
        Synchronization=synchronization.path,
    )
    assert code == ReturnValue.COMPLETED
    assert pair.at_west.state is CopyState.SUSPENDED


def test_an_operation_that_the_array_does_not_have_is_not_supported(pair: ArrayPair, server: CimServer) -> None:
    pair.mirrored("log")
    connection = connect(server)
    service = connection.EnumerateInstanceNames("CIM_ReplicationService")[0]
    synchronization = connection.EnumerateInstanceNames("CIM_GroupSynchronized")[0]
    code, _ = connection.InvokeMethod(
        "ModifyReplicaSynchronization",
        service,
        Operation=pywbem.Uint16(Operation.RESET_TO_ASYNC),
        Synchronization=synchronization,
    )
    assert code == ReturnValue.NOT_SUPPORTED


def test_faults_can_be_made(server: CimServer) -> None:
    server.disturb = lambda method, _: CimFault(pywbem.CIM_ERR_FAILED, f"{method} failed")
    with pytest.raises(pywbem.CIMError, match="EnumerateInstances failed"):
        connect(server).EnumerateInstances("CIM_StoragePool")
