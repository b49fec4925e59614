"""Hosts are shown volumes as SMI-S has it: in each initiator's view, and by the names that hosts know volumes by."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import pywbem

from adapters.smis.values import NAMESPACE, DeviceAccess, ReturnValue
from simulation.arrays.cim_objects import _CLASSES, CimView, unit_name
from tests.san.house import EAST, WEST, House, house
from tests.san.pairs import MIB, POOL
from vault.errors import NotFound

pytestmark = pytest.mark.contract
PORTS = ["port-1", "port-2"]


@pytest.fixture
def san(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path) as made:
        for name in ("log", "data"):
            made.pair.west.create_volume(name, POOL, MIB)
        yield made


def seen(san: House) -> dict[str, list[str]]:
    """By volume, the initiators that see it."""
    return {volume.name: sorted(volume.hosts) for volume in san.pair.west.state.volumes.values()}


def calls(san: House) -> list[str]:
    return [method for method in san.servers[WEST].methods if method in ("ExposePaths", "HidePaths")]


def test_volumes_come_into_the_view_that_an_initiator_has_and_go_again(san: House) -> None:
    array = san.array(WEST)
    log, data = array.volumes(["log", "data"])
    array.expose([log], PORTS)
    array.expose([log, data], PORTS)
    array.expose([log, data], PORTS)
    assert seen(san) == {"log": PORTS, "data": PORTS}
    assert calls(san) == ["ExposePaths"] * 3
    array.hide([data], PORTS[:1])
    array.hide([data], PORTS[:1])
    assert seen(san) == {"log": PORTS, "data": PORTS[1:]}
    array.hide([log, data], PORTS)
    array.hide([log, data], PORTS)
    assert seen(san) == {"log": [], "data": []}
    assert calls(san) == ["ExposePaths"] * 3 + ["HidePaths"] * 3


def test_two_failovers_at_once_make_the_view_of_a_host_once(san: House) -> None:
    array = san.array(WEST)
    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(array.expose, [volume], PORTS) for volume in array.volumes(["log", "data"])]:
            done.result(20)
    assert seen(san) == {"log": PORTS, "data": PORTS}


def test_a_volume_that_has_gone_is_told(san: House) -> None:
    array = san.array(WEST)
    log = array.volumes(["log"])
    array.delete_volumes(["log"])
    with pytest.raises(NotFound, match="there is no volume log"):
        array.expose(log, PORTS)


def test_the_array_takes_no_other_forms_than_the_published_ones(san: House, tmp_path: Path) -> None:
    server = san.servers[WEST]
    connection = pywbem.WBEMConnection(
        server.url, ("leeward", "secret"), NAMESPACE, ca_certs=str(server.certificate.certificate), timeout=5
    )
    connection.session.trust_env = False
    service = connection.EnumerateInstanceNames("CIM_ControllerConfigurationService")[0]
    volume = next(iter(san.pair.west.state.volumes.values()))
    access = [pywbem.Uint16(DeviceAccess.READ_WRITE)]

    def call(method: str, name: str, **given: Any) -> int:
        more = {"DeviceAccesses": access} if method == "ExposePaths" else {}
        code, _ = connection.InvokeMethod(method, service, LUNames=[name], **more, **given)
        return int(code)

    assert call("ExposePaths", volume.id, InitiatorPortIDs=["port-1"]) == 4097
    assert call("ExposePaths", unit_name(volume.id), InitiatorPortIDs=["port-1"]) == ReturnValue.COMPLETED
    assert call("ExposePaths", unit_name(volume.id), InitiatorPortIDs=["port-1"]) == 4101
    assert call("HidePaths", unit_name(volume.id), InitiatorPortIDs=["port-1"]) == ReturnValue.INVALID_PARAMETER
    assert seen(san)["log"] == ["port-1"]


def test_volumes_and_groups_of_another_array_of_the_provider_are_not_taken_for_its_own(
    san: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mirror's two groups have one name, and its volumes the same two by two."""
    san.define("db", "web")
    san.protect("db", "web")
    other = CimView(san.pair.west)
    for name in ("CIM_ComputerSystem", "CIM_StorageVolume", "CIM_ReplicationGroup", "CIM_OrderedMemberOfCollection"):
        monkeypatch.setitem(_CLASSES, name, lambda view, own=_CLASSES[name]: chain(own(view), own(other)))
    array = san.array(EAST)
    (group,) = array.groups()
    assert group.is_source
    ids = {volume.id for volume in [*group.volumes, *array.volumes(["db-log", "db-data", "web-system"])]}
    assert ids <= san.pair.east.state.volumes.keys()
